/**
 * `completion`: a script for bash that completes commands, options, their values and container ids, made from the
 * command tables.
 */
import { RuntimeError } from '../../index.ts'
import { type Command, print } from '../command.ts'
import { allOptions, type CommandSpec, type Options } from '../flags.ts'
import { GLOBAL_OPTIONS } from '../globals.ts'

/** How the value of an option is completed: files, folders, fixed words, or not at all. */
function valueWords(value: string | undefined): string {
  if (value === 'FILE') return '@file'
  if (value === 'DIR') return '@dir'
  return value?.includes('|') ? value.replaceAll('|', ' ') : '@none'
}

/** Lines of a `case` statement: the options that take a value, and how it is completed. */
function valueCases(scope: string, options: Options): string[] {
  return Object.entries(options)
    .filter(([, { type }]) => type !== 'boolean')
    .map(([name, { short, value }]) => {
      const names = [`--${name}`, ...(short === undefined ? [] : [`-${short}`])]
      return `    ${names.map((option) => `"${scope} ${option}"`).join(' | ')}) echo '${valueWords(value)}' ;;`
    })
}

function optionWords(options: Options): string {
  return Object.entries(options)
    .flatMap(([name, { short }]) => [`--${name}`, ...(short === undefined ? [] : [`-${short}`])])
    .join(' ')
}

/** How the first positional is completed. */
function firstWords(spec: CommandSpec): string {
  if (spec.name === 'completion') return 'bash'
  if (spec.positionals[0] === 'ID') return ['create', 'run'].includes(spec.name) ? '@none' : '@id'
  return spec.positionals[0] === '[BUNDLE]' ? '@dir' : '@none'
}

/** The script. */
function bashCompletion(commands: readonly CommandSpec[]): string {
  const names = [...commands.map(({ name }) => name), 'help']
  return `# bash completion for runts, made by "runts completion bash": source it, or install it as /usr/share/bash-completion/completions/runts

# how the value of the option "COMMAND --option" is completed; nothing for an option that takes none
__runts_value() {
  case "$1" in
${[...valueCases('', GLOBAL_OPTIONS), ...commands.flatMap(({ name, options }) => valueCases(name, options))].join('\n')}
  esac
}

__runts_options() {
  case "$1" in
    '') echo '${optionWords(GLOBAL_OPTIONS)}' ;;
${commands.map(({ name, options }) => `    ${name}) echo '${optionWords(allOptions(options))}' ;;`).join('\n')}
  esac
}

__runts_first() {
  case "$1" in
    help) echo '${names.join(' ')}' ;;
${commands.map((spec) => `    ${spec.name}) echo '${firstWords(spec)}' ;;`).join('\n')}
  esac
}

__runts_reply() {
  local current=$2
  case "$1" in
    @none) COMPREPLY=() ;;
    @file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    @dir) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    @id) mapfile -t COMPREPLY < <(compgen -W "$("\${root[@]}" list -q 2>/dev/null)" -- "$current") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current") ;;
  esac
}

_runts() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]}
  local command='' words=0 i word kind root=("\${COMP_WORDS[0]}")
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ $word == -* ]]; then
      kind=$(__runts_value "$command $word")
      if [[ -n $kind ]]; then
        [[ $word == --root ]] && root+=(--root "\${COMP_WORDS[i + 1]}")
        i=$((i + 1))
      fi
    elif [[ -z $command ]]; then
      command=$word
    else
      words=$((words + 1))
    fi
  done
  # the loop has gone past the word to complete: that is the value of the option before it
  if ((i > COMP_CWORD)); then
    __runts_reply "$(__runts_value "$command $previous")" "$current"
  elif [[ $current == -* ]]; then
    __runts_reply "$(__runts_options "$command")" "$current"
  elif [[ -z $command ]]; then
    __runts_reply '${names.join(' ')}' "$current"
  elif ((words == 0)); then
    __runts_reply "$(__runts_first "$command")" "$current"
  else
    COMPREPLY=()
  fi
}

complete -F _runts runts
`
}

/** The command `runts completion`; `commands` are those that it completes, itself included. */
export function completionCommand(commands: () => readonly CommandSpec[]): Command {
  return {
    spec: {
      name: 'completion',
      summary: 'Prints a script for the shell that completes the command line; bash is the only one.',
      examples: [
        'source <(runts completion bash)',
        'runts completion bash > /usr/share/bash-completion/completions/runts',
      ],
      positionals: ['SHELL'],
      options: {},
    },
    async run(_, args) {
      const [shell] = args.positionals
      if (shell !== 'bash')
        throw new RuntimeError('Unimplemented', `completion: no script for "${shell}": only for bash`)
      print(bashCompletion(commands()))
      return 0
    },
  }
}
