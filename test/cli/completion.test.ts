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

/** Types a line on a terminal, presses Tab and prints what zsh has found. No echo reads like a marker. */
const ZSH = `
zmodload zsh/zpty
local out
zpty z zsh -f -i
zpty -w z 'PROMPT=; unsetopt zle_bracketed_paste; stty -echo; autoload -Uz compinit; compinit -u -D; source '"$1"
zpty -w z 'bindkey "^I" complete-word; finish () { print -r -- "THE-""END" }; comppostfuncs=(finish)'
zpty -w z 'compadd () {
  if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]]; then builtin compadd "$@"; return; fi
  typeset -a hits; builtin compadd -A hits "$@"; print -rl -- "HIT:"$^hits; builtin compadd "$@"
}'
zpty -w z 'print "REA""DY"'
zpty -r z out '*READY*'
zpty -n -w z "$2"$'\\t'
zpty -r z out '*THE-END*'
print -r -- "$out" | tr -d '\\r' | sed -n 's/^.*HIT:\\(.\\)/\\1/p'
zpty -d z
`

const BASH = `
source "$1"
COMP_WORDS=($2); [[ $2 == *' ' ]] && COMP_WORDS+=('')
# as readline does, "=" is a word of its own
words=(); for word in "\${COMP_WORDS[@]}"; do
  if [[ $word == *=* ]]; then words+=("\${word%%=*}" '='); [[ -z \${word#*=} ]] || words+=("\${word#*=}"); else words+=("$word"); fi
done
COMP_WORDS=("\${words[@]}"); COMP_CWORD=$(( \${#words[@]} - 1 ))
_runts
printf '%s\\n' "\${COMPREPLY[@]}"
`

const FISH = `
source $argv[1]
complete -C $argv[2]
`

const SHELLS = {
  bash: { options: ['--norc'], script: BASH },
  zsh: { options: ['-f'], script: ZSH },
  fish: { options: ['--no-config'], script: FISH },
} as const

describe.for(Object.entries(SHELLS))('completion in %s', ([shell, { options, script }]) => {
  const here = needs('root', 'busybox', shell as keyof typeof SHELLS, 'our shim')

  /** What the shell offers at the end of a line. */
  function completer(folder: string): (line: string) => string[] {
    const completion = join(folder, 'completion')
    const driver = join(folder, 'driver')
    writeFileSync(completion, spawnSync(join(BIN, 'runts'), ['completion', shell], { encoding: 'utf8' }).stdout)
    writeFileSync(driver, script)
    return (line) => {
      const { status, stdout, stderr } = spawnSync(shell, [...options, driver, completion, line], {
        encoding: 'utf8',
        env: { ...ENV, HOME: folder },
        timeout: 30_000 * SLOWNESS,
      })
      expect({ status: status === 0 || stdout !== '' ? 0 : status, stderr }, line).toEqual({ status: 0, stderr: '' })
      const words = stdout.split('\n').map((text) => (text.split('\t')[0] ?? '').replace(/^--[\w-]+=/, ''))
      return [...new Set(words)].filter((word) => word !== '').sort()
    }
  }

  test('knows commands, options, their values and the ids of containers', here, ({ runts }) => {
    const complete = completer(runts.folder)
    runts.leave('run', '-d', '-b', runts.bundle(['sleep', '1000']), 'web-1')
    expect(complete('runts st')).toEqual(['start', 'state'])
    expect(complete('runts --debug help pau')).toEqual(['pause'])
    expect(complete(`runts --root ${runts.root} exec `)).toEqual(['web-1'])
    expect(complete(`runts --root=${runts.root} kill w`)).toEqual(['web-1'])
    expect(complete(`runts --root ${runts.root} update --memory 5m web`)).toEqual(['web-1'])
    expect(complete(`runts --root ${runts.root} run web`)).toEqual([])
    expect(complete(`runts kill web-1 QU`)).toEqual(['QUIT'])
    expect(complete('runts exec --preserve')).toEqual(['--preserve-fds'])
    expect(complete('runts --log-for')).toEqual(['--log-format'])
    expect(complete('runts --log-format ')).toEqual(['json', 'text'])
    expect(complete('runts list -f j')).toEqual(['json'])
    expect(complete('runts list --format=t')).toEqual(['table'])
    expect(complete('runts events --memory-pressure m')).toEqual(['medium'])
    expect(complete('runts completion ')).toEqual(['bash', 'fish', 'zsh'])
    expect(complete('runts run --bundle /us').map((word) => word.replaceAll('/', ''))).toContain('usr')
  })

  test('leaves what belongs to the program in the container alone', here, ({ runts }) => {
    const complete = completer(runts.folder)
    expect(complete('runts exec web-1 ls --preserve')).toEqual([])
    expect(complete('runts exec web-1 li')).toEqual([])
  })

  test('offers every command and every option that the parser has', here, ({ runts }) => {
    const complete = completer(runts.folder)
    expect(complete('runts ')).toEqual([...COMMANDS.map(({ spec }) => spec.name), 'help'].sort())
    const long = (words: readonly string[]) => words.filter((word) => word.startsWith('--')).sort()
    const wanted = (options: object) =>
      Object.keys(options)
        .map((name) => `--${name}`)
        .sort()
    expect(long(complete('runts --'))).toEqual(wanted(GLOBAL_OPTIONS))
    // a shell takes a moment for each line: the commands with the most options, which use all that a table can say
    const commands = COMMANDS.filter(({ spec }) => Object.keys(spec.options).length > 1)
    expect(commands.length).toBeGreaterThan(5)
    for (const { spec } of commands) {
      expect(long(complete(`runts ${spec.name} --`)), spec.name).toEqual(wanted(allOptions(spec.options)))
    }
  })
})
