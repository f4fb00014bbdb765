/** The script for zsh. The shell's own _arguments reads the line; the script says what there is. */
import type { CommandSpec, OptionSpec } from '../flags.ts'
import { brief, type CommandLine, type Completed, completedValue, namesOf, positionalsOf } from './words.ts'

/** A word of the shell with this text. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}

/** A text within a specification of _arguments, whose own characters are escaped. */
function escaped(text: string): string {
  return text.replaceAll(/[[\]:\\]/g, '\\$&')
}

/** The action of _arguments. */
function action(completed: Completed): string {
  switch (completed.kind) {
    case 'files':
      return '_files'
    case 'folders':
      return '_files -/'
    case 'ids':
      return '_runts_ids'
    case 'words':
      return `(${completed.words.join(' ')})`
    case 'none':
      return ' '
  }
}

function optionSpecs(options: Readonly<Record<string, OptionSpec>>): string[] {
  return Object.entries(options).flatMap(([name, option]) => {
    const names = namesOf(name, option)
    const value = completedValue(option)
    const tail = value === undefined ? '' : `:${escaped(option.value ?? 'VALUE')}:${action(value)}`
    const before = option.multiple === true ? '*' : names.length > 1 ? `(${names.join(' ')})` : ''
    return names.map((word) => {
      const form = value === undefined ? word : word.startsWith('--') ? `${word}=` : `${word}+`
      return quoted(`${before}${form}[${escaped(brief(option.doc))}]${tail}`)
    })
  })
}

function commandSpecs(spec: CommandSpec): string[] {
  const completed = positionalsOf(spec)
  const words = completed.map((how, i) => {
    // behind the last word that is the command's own, no option is
    const last = spec.rest === true && i === completed.length - 1
    const name = spec.positionals[i]?.replaceAll(/[[\]]/g, '') ?? ''
    return quoted(`${last ? '(-)' : ''}${i + 1}:${name}:${action(how)}`)
  })
  return [...optionSpecs(spec.options), ...words, ...(spec.rest === true ? [quoted('(-)*:argument: ')] : [])]
}

function call(specs: readonly string[]): string {
  return ['_arguments -s -S', ...specs].join(' \\\n        ')
}

/** The script. */
export function zshScript({ globals, commands }: CommandLine): string {
  const described = commands.map(({ name, summary }) => `    ${quoted(`${name}:${escaped(brief(summary))}`)}`)
  const cases = commands.map(
    (spec) => `      ${spec.name})\n        ${call(commandSpecs(spec))} && result=0\n        ;;`,
  )
  return `#compdef runts
# zsh completion for runts, made by "runts completion zsh": install it as _runts in a folder of $fpath, or source it after compinit

_runts_commands() {
  local -a commands
  commands=(
${described.join('\n')}
    'help:Explains a command'
  )
  _describe -t commands command commands
}

_runts_ids() {
  local -a ids
  ids=(\${(f)"$(_call_program ids \${(q)runts_list} list -q 2>/dev/null)"})
  compadd -a ids
}

_runts() {
  local curcontext=$curcontext context state state_descr line result=1
  local -a runts_list
  local -A opt_args
  runts_list=($words[1])
  _arguments -C -s -S \\
    ${optionSpecs(globals).join(' \\\n    ')} \\
    '(-): :_runts_commands' \\
    '(-)*:: :->arguments' && result=0
  [[ -n $opt_args[--root] ]] && runts_list+=(--root $opt_args[--root])
  if [[ $state == arguments ]]; then
    case $words[1] in
      help) _arguments '1: :_runts_commands' && result=0 ;;
${cases.join('\n')}
    esac
  fi
  return result
}

if [[ $funcstack[1] == _runts ]]; then
  _runts "$@"
else
  compdef _runts runts
fi
`
}
