/** The script for fish: one `complete` for each word, and a function that says where on the line the user is. */
import type { OptionSpec } from '../flags.ts'
import { brief, type CommandLine, type Completed, completedValue, positionalsOf } from './words.ts'

/** A word of the shell with this text. */
function quoted(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}

/** The arguments of `complete` for what follows: -x takes a word which does not name a file. */
function value(completed: Completed): string {
  switch (completed.kind) {
    case 'files':
      return '-r -F'
    case 'folders':
      return "-x -a '(__fish_complete_directories)'"
    case 'ids':
      return "-x -a '(__runts_ids)'"
    case 'words':
      return `-x -a ${quoted(completed.words.join(' '))}`
    case 'none':
      return '-x'
  }
}

function optionLines(condition: string, options: Readonly<Record<string, OptionSpec>>): string[] {
  return Object.entries(options).map(([name, option]) => {
    const taken = completedValue(option)
    const short = option.short === undefined ? '' : ` -s ${option.short}`
    const takes = taken === undefined ? '' : ` ${value(taken)}`
    return `complete -c runts -n ${quoted(condition)} -l ${name}${short}${takes} -d ${quoted(brief(option.doc))}`
  })
}

/** A line of a \`switch\`: the options of a command that take a value. */
function valueNames(command: string, options: Readonly<Record<string, OptionSpec>>): string[] {
  const names = Object.entries(options).flatMap(([name, option]) =>
    completedValue(option) === undefined ? [] : [name, ...(option.short === undefined ? [] : [option.short])],
  )
  return names.length === 0 ? [] : [`    case ${quoted(command)}`, `      echo ${names.join(' ')}`]
}

/** The script. */
export function fishScript({ globals, commands }: CommandLine): string {
  const names = [...commands.map(({ name }) => name), 'help']
  const rest = commands.filter((spec) => spec.rest === true)
  const lines = [
    ...optionLines('__runts_at ""', globals),
    ...commands.map(({ name, summary }) => {
      return `complete -c runts -n '__runts_at ""' -a ${name} -d ${quoted(brief(summary))}`
    }),
    `complete -c runts -n '__runts_at ""' -a help -d 'Explains a command'`,
    `complete -c runts -n '__runts_at help 0' -a ${quoted(names.join(' '))}`,
    ...commands.flatMap((spec) => [
      ...optionLines(`__runts_at ${spec.name}`, spec.options),
      ...positionalsOf(spec).flatMap((completed, i) => {
        if (completed.kind === 'none') return []
        return `complete -c runts -n '__runts_at ${spec.name} ${i}' ${value(completed)}`
      }),
    ]),
  ]
  return `# fish completion for runts, made by "runts completion fish": install it as ~/.config/fish/completions/runts.fish, or source it

# the options of a command that take a value, without their dashes
function __runts_values
  switch "$argv[1]"
${[...valueNames('', globals), ...commands.flatMap(({ name, options }) => valueNames(name, options))].join('\n')}
  end
end

# the number of words after which all belongs to the program in the container
function __runts_words
  switch "$argv[1]"
${rest.map((spec) => `    case ${spec.name}\n      echo ${spec.positionals.length - 1}`).join('\n')}
    case '*'
      echo 99
  end
end

# true where the command is $argv[1] and, if $argv[2] is given, that many words follow it; sets what __runts_ids needs
function __runts_at
  set -l command ''
  set -l words 0
  set -l value ''
  set -g __runts_list runts
  set -l tokens (commandline -opc)
  for token in $tokens[2..-1]
    if test -n "$value"
      test "$value" = root; and test -z "$command"; and set -a __runts_list --root $token
      set value ''
    else if string match -qr -- '^--?[^=-]' $token
      set -l option (string replace -r -- '^--?([^=]*).*' '$1' $token)
      if contains -- $option (string split ' ' -- (__runts_values $command))
        if string match -q -- '*=*' $token
          test "$option" = root; and test -z "$command"; and set -a __runts_list --root (string replace -r -- '^[^=]*=' '' $token)
        else
          set value $option
        end
      end
    else if test -z "$command"
      set command $token
    else if test "$token" != --
      set words (math $words + 1)
    end
  end
  set __runts_list[1] $tokens[1]
  test "$command" = "$argv[1]"; or return 1
  test $words -lt (__runts_words "$command"); or return 1
  test (count $argv) -lt 2; or test $words = $argv[2]
end

function __runts_ids
  $__runts_list list -q 2>/dev/null
end

complete -c runts -e
complete -c runts -f
${lines.join('\n')}
`
}
