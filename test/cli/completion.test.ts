/**
 * Completion in the real shells: a line is typed, and the shell says what it would offer for its last word. All three
 * scripts come from the tables of the parser, so all three offer the same.
 */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { describe, expect } from 'vitest'
import { COMMANDS } from '../../runtime/cli/commands/index.ts'
import { allOptions } from '../../runtime/cli/flags.ts'
import { GLOBAL_OPTIONS } from '../../runtime/cli/globals.ts'
import { needs, SLOWNESS } from '../support/needs.ts'
import { BIN } from '../support/places.ts'
import { test } from '../support/runts.ts'

const ENV = { ...process.env, PATH: `${BIN}${delimiter}${process.env['PATH']}`, HOME: '/nonexistent' }

/**
 * Types each line on a terminal, presses Tab and prints what zsh has found, and a line "=" after each. No echo reads
 * like a marker.
 */
const ZSH = `
zmodload zsh/zpty
local out line
zpty z zsh -f -i
zpty -w z 'PROMPT=; unsetopt zle_bracketed_paste; stty -echo; autoload -Uz compinit; compinit -u -D; source '"$1"
zpty -w z 'bindkey "^I" complete-word; finish () { print -r -- "THE-""END" }'
zpty -w z 'compadd () {
  if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]]; then builtin compadd "$@"; return; fi
  typeset -a hits; builtin compadd -A hits "$@"; print -rl -- "HIT:"$^hits; builtin compadd "$@"
}'
zpty -w z 'print "REA""DY"'
zpty -r z out '*READY*'
for line in "\${@[2,-1]}"; do
  zpty -n -w z $'\\C-ucomppostfuncs=(finish)\\n'
  zpty -n -w z "$line"$'\\t'
  zpty -r z out '*THE-END*'
  print -r -- "$out" | tr -d '\\r' | sed -n 's/^.*HIT:\\(.\\)/\\1/p'
  print -r -- =
done
zpty -d z
`

const BASH = `
source "$1"
for line in "\${@:2}"; do
  COMP_WORDS=($line); [[ $line == *' ' ]] && COMP_WORDS+=('')
  # as readline does, "=" is a word of its own
  words=(); for word in "\${COMP_WORDS[@]}"; do
    if [[ $word == *=* ]]; then words+=("\${word%%=*}" '='); [[ -z \${word#*=} ]] || words+=("\${word#*=}"); else words+=("$word"); fi
  done
  COMP_WORDS=("\${words[@]}"); COMP_CWORD=$(( \${#words[@]} - 1 ))
  _runts
  printf '%s\\n' "\${COMPREPLY[@]}" =
done
`

const FISH = `
source $argv[1]
for line in $argv[2..-1]
  complete -C $line
  echo =
end
`

const SHELLS = {
  bash: { options: ['--norc'], script: BASH },
  zsh: { options: ['-f'], script: ZSH },
  fish: { options: ['--no-config'], script: FISH },
} as const

const long = (words: readonly string[]): string[] => words.filter((word) => word.startsWith('--'))
const namesOf = (options: object): string[] =>
  Object.keys(options)
    .map((name) => `--${name}`)
    .sort()

describe.for(Object.entries(SHELLS))('completion in %s', ([shell, { options, script }]) => {
  const here = needs('root', 'busybox', shell as keyof typeof SHELLS, 'our shim')

  /** What the shell offers at the end of each line. */
  function complete(folder: string, lines: readonly string[]): string[][] {
    const completion = join(folder, 'completion')
    const driver = join(folder, 'driver')
    writeFileSync(completion, spawnSync(join(BIN, 'runts'), ['completion', shell], { encoding: 'utf8' }).stdout)
    writeFileSync(driver, script)
    const { stdout, stderr } = spawnSync(shell, [...options, driver, completion, ...lines], {
      encoding: 'utf8',
      env: { ...ENV, HOME: folder },
      timeout: 60_000 * SLOWNESS,
    })
    expect(stderr).toBe('')
    const answers = stdout.split('=\n').slice(0, -1)
    expect(answers).toHaveLength(lines.length)
    return answers.map((answer) => {
      const words = answer.split('\n').map((text) => (text.split('\t')[0] ?? '').replace(/^--[\w-]+=/, ''))
      return [...new Set(words)].filter((word) => word !== '').sort()
    })
  }

  /** Expects of each line what it stands for. */
  function expectOffers(folder: string, table: Readonly<Record<string, readonly string[]>>): void {
    const lines = Object.keys(table)
    const answers = complete(folder, lines)
    expect(Object.fromEntries(lines.map((line, i) => [line, answers[i]]))).toEqual(table)
  }

  test('knows commands, options, their values and the ids of containers', here, ({ runts }) => {
    runts.leave('run', '-d', '-b', runts.bundle(['sleep', '1000']), 'web-1')
    expectOffers(runts.folder, {
      'runts st': ['start', 'state'],
      'runts --debug help pau': ['pause'],
      [`runts --root ${runts.root} exec `]: ['web-1'],
      [`runts --root=${runts.root} kill w`]: ['web-1'],
      [`runts --root ${runts.root} update --memory 5m web`]: ['web-1'],
      [`runts --root ${runts.root} run web`]: [],
      'runts kill web-1 QU': ['QUIT'],
      'runts exec --preserve': ['--preserve-fds'],
      'runts --log-for': ['--log-format'],
      'runts --log-format ': ['json', 'text'],
      'runts list -f j': ['json'],
      'runts list --format=t': ['table'],
      'runts events --memory-pressure m': ['medium'],
      'runts completion ': ['bash', 'fish', 'zsh'],
    })
    const [folders = []] = complete(runts.folder, ['runts run --bundle /us'])
    expect(folders.map((word) => word.replaceAll('/', ''))).toContain('usr')
  })

  test('leaves what belongs to the program in the container alone', here, ({ runts }) => {
    expectOffers(runts.folder, { 'runts exec web-1 ls --preserve': [], 'runts exec web-1 li': [] })
  })

  test('offers every command and every option that the parser has', here, ({ runts }) => {
    const tables: [line: string, options: object][] = [
      ['runts --', GLOBAL_OPTIONS],
      ...COMMANDS.map(({ spec }): [string, object] => [`runts ${spec.name} --`, allOptions(spec.options)]),
    ]
    const [commands = [], ...offered] = complete(runts.folder, ['runts ', ...tables.map(([line]) => line)])
    expect(commands).toEqual([...COMMANDS.map(({ spec }) => spec.name), 'help'].sort())
    for (const [i, [line, known]] of tables.entries()) expect(long(offered[i] ?? []), line).toEqual(namesOf(known))
  })
})
