/**
 * The command line is runc's. Each command and option that the runc of this machine has is here too. The commands that
 * look at containers print and exit as it does.
 */
import { spawnSync } from 'node:child_process'
import { describe, expect } from 'vitest'
import { COMMANDS } from '../../runtime/cli/commands/index.ts'
import { allOptions, type Options } from '../../runtime/cli/flags.ts'
import { GLOBAL_OPTIONS } from '../../runtime/cli/globals.ts'
import { needs } from '../support/needs.ts'
import { OCI_RUNTIME } from '../support/places.ts'
import { test } from '../support/runts.ts'

/** The options in a help text of runc, without their dashes. */
function optionsIn(help: string): string[] {
  const rows = help.slice(help.search(/^(GLOBAL )?OPTIONS:/m)).split('\n')
  return rows.flatMap((row) => {
    const names = /^ {3}(--?[\w-]+(?:(?: value)?, --?[\w-]+)*)/.exec(row)?.[1]
    return names === undefined ? [] : names.split(/(?: value)?, /).map((name) => name.replace(/^--?/, ''))
  })
}

function namesOf(options: Options): string[] {
  return Object.entries(options).flatMap(([name, { short }]) => (short === undefined ? [name] : [name, short]))
}

describe('what runc has', needs('root', 'the runc shim', 'our shim'), () => {
  const help = (...words: string[]) => spawnSync('runc', [...words, '--help'], { encoding: 'utf8' }).stdout
  const names = () => [...help().matchAll(/^ {3} *([a-z]+)(?:, \w)? {2,}/gm)].flatMap(([, name]) => name ?? [])

  test('in commands, there is here', () => {
    const ours = COMMANDS.map(({ spec }) => spec.name)
    expect(names().length).toBeGreaterThan(15)
    expect(names().filter((name) => !ours.includes(name) && name !== 'help')).toEqual([])
  })

  test('in options, there is here too, by the same names long and short', () => {
    const globals = namesOf(GLOBAL_OPTIONS)
    expect(optionsIn(help()).length).toBeGreaterThan(7)
    expect(optionsIn(help()).filter((name) => !globals.includes(name))).toEqual([])
    let seen = 0
    for (const { spec } of COMMANDS) {
      if (!names().includes(spec.name)) continue
      const theirs = optionsIn(help(spec.name))
      seen += theirs.length
      expect(
        theirs.filter((name) => !namesOf(allOptions(spec.options)).includes(name)),
        spec.name,
      ).toEqual([])
    }
    expect(seen).toBeGreaterThan(50)
  })
})

/** Commands on a container "c", and whether what they print is the same to the letter. */
const CALLS: readonly (readonly [words: string, prints: 'the same' | 'its own'])[] = [
  ['list -q', 'the same'],
  ['list --quiet', 'the same'],
  ['list extra', 'its own'],
  ['list -f yaml', 'its own'],
  ['ps c', 'the same'],
  ['ps -f json c', 'the same'],
  ['ps --format table c -o pid,comm', 'the same'],
  ['ps c -eo comm,pid', 'the same'],
  ['ps c -o comm', 'its own'],
  ['ps c --no-such-option', 'its own'],
  ['ps ghost', 'its own'],
  ['ps', 'its own'],
  ['state ghost', 'its own'],
  ['state', 'its own'],
  ['start c', 'its own'],
  ['resume c', 'its own'],
  ['delete c', 'its own'],
  ['delete ghost', 'its own'],
  ['delete -f ghost', 'the same'],
  ['kill ghost', 'its own'],
  ['kill c NOSUCH', 'its own'],
  ['update ghost', 'its own'],
  ['events ghost', 'its own'],
  ['exec ghost true', 'its own'],
  ['exec c no-such-program', 'its own'],
  ['exec c sh', 'the same'],
]

const VERBS = [...new Set(CALLS.map(([words]) => words.split(' ')[0] ?? ''))]

describe('runts', needs('root', 'busybox', 'procps', 'the runc shim', 'our shim'), () => {
  test.for(VERBS)('%s prints and exits as with runc, for the same container', (verb, { runts }) => {
    const by = (program: string, words: string) => {
      const call = ['--root', runts.root, ...words.split(' ')]
      const { status, stdout } = spawnSync(program, call, { encoding: 'utf8', input: 'exit 5\n' })
      return { status, stdout }
    }
    const bundle = runts.bundle(['sleep', '1000'])
    const made = spawnSync('runc', ['--root', runts.root, 'run', '-d', '-b', bundle, 'c'], { stdio: 'ignore' })
    expect(made.status).toBe(0)
    for (const [words, prints] of CALLS.filter(([call]) => call.split(' ')[0] === verb)) {
      const [theirs, ours] = [by('runc', words), by(OCI_RUNTIME, words)]
      expect(ours.status, words).toBe(theirs.status)
      if (prints === 'the same') expect(ours.stdout, words).toBe(theirs.stdout)
    }
  })
})
