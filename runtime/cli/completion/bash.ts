/** The script for bash. It reads the line word by word, as the parser does. */
import type { Options } from '../flags.ts'
import { type CommandLine, type Completed, completedValue, namesOf, positionalsOf } from './words.ts'

/** The word for __runts_reply. */
function reply(completed: Completed): string {
  return completed.kind === 'words' ? completed.words.join(' ') : `@${completed.kind}`
}

/** Lines of a `case`: the options that take a value, and how it is completed. Names are compared without dashes. */
function valueCases(command: string, options: Options): string[] {
  return Object.entries(options).flatMap(([name, option]) => {
    const value = completedValue(option)
    if (value === undefined) return []
    const names = [name, ...(option.short === undefined ? [] : [option.short])]
    return `    ${names.map((word) => `"${command} ${word}"`).join(' | ')}) echo '${reply(value)}' ;;`
  })
}

function optionWords(options: Options): string {
  return Object.entries(options)
    .flatMap(([name, option]) => namesOf(name, option))
    .join(' ')
}

/** The part of the script that reads the line, up to the word to complete. */
const READER = `__runts_reply() {
  local current=$2
  case "$1" in
    @none | '') COMPREPLY=() ;;
    @files) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    @folders) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
    @ids) mapfile -t COMPREPLY < <(compgen -W "$("\${root[@]}" list -q 2>/dev/null)" -- "$current") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current") ;;
  esac
}

_runts() {
  local current=\${COMP_WORDS[COMP_CWORD]} command='' words=0 i word option kind root=("\${COMP_WORDS[0]}")
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ $word == -?* && $word != -- ]]; then
      option=\${word#-}
      option=\${option#-}
      kind=$(__runts_value "$command $option")
      [[ -n $kind ]] || continue
      # bash takes "=" for a word of its own
      i=$((i + 1))
      if [[ \${COMP_WORDS[i]} == '=' ]]; then
        if ((i == COMP_CWORD)); then current=''; else i=$((i + 1)); fi
      fi
      if ((i >= COMP_CWORD)); then
        __runts_reply "$kind" "$current"
        return
      fi
      [[ $option == root && -z $command ]] && root+=(--root "\${COMP_WORDS[i]}")
    elif [[ -z $command ]]; then
      command=$word
    elif [[ $word != -- ]]; then
      words=$((words + 1))
      ((words < $(__runts_words "$command"))) || return
    fi
  done
`

/** The script. */
export function bashScript({ globals, commands }: CommandLine): string {
  const names = [...commands.map(({ name }) => name), 'help'].join(' ')
  const positionals = commands.flatMap((spec) =>
    positionalsOf(spec).map((completed, i) => `    "${spec.name} ${i}") echo '${reply(completed)}' ;;`),
  )
  const rest = commands.filter((spec) => spec.rest === true)
  return `# bash completion for runts, made by "runts completion bash": source it, or install it as /usr/share/bash-completion/completions/runts

# how the value of "COMMAND option" is completed; nothing for an option that takes none
__runts_value() {
  case "$1" in
${[...valueCases('', globals), ...commands.flatMap(({ name, options }) => valueCases(name, options))].join('\n')}
  esac
}

__runts_options() {
  case "$1" in
    '') echo '${optionWords(globals)}' ;;
${commands.map(({ name, options }) => `    ${name}) echo '${optionWords(options)}' ;;`).join('\n')}
  esac
}

# how the word with this number after "COMMAND" is completed
__runts_positional() {
  case "$1" in
    'help 0') echo '${names}' ;;
${positionals.join('\n')}
  esac
}

# the number of words after which all belongs to the program in the container
__runts_words() {
  case "$1" in
${rest.map((spec) => `    ${spec.name}) echo ${spec.positionals.length - 1} ;;`).join('\n')}
    *) echo 99 ;;
  esac
}

${READER}  if [[ $current == -* ]]; then
    __runts_reply "$(__runts_options "$command")" "$current"
  elif [[ -z $command ]]; then
    __runts_reply '${names}' "$current"
  else
    __runts_reply "$(__runts_positional "$command $words")" "$current"
  fi
}

complete -F _runts runts
`
}
