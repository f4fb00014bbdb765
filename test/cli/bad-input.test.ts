/**
 * Wrong input, as a user sees it. Each broken document and command line gives one line on stderr that names the field
 * or the option, and the exit status of a failure. Nothing is left on the machine. The documents are in
 * bad-config.ts.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { leaks, takeCensus } from '../support/census.ts'
import type { Finished } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { Runts } from '../support/runts.ts'
import { BAD_CONTAINERS, BAD_DOCUMENTS } from './bad-config.ts'

/** Command lines, with BUNDLE for a good one, and what their error names; the status is 1 where none is given. */
const COMMAND_LINES: [args: string[], words: string[], status?: number][] = [
  [['--no-such-option', 'list'], ['--no-such-option']],
  [
    ['--log-format', 'xml', 'list'],
    ['--log-format', 'xml'],
  ],
  [['--root'], ['--root']],
  [['frobnicate'], ['frobnicate']],
  [['create'], ['<ID>']],
  [['create', '-b', 'BUNDLE', 'c', 'd'], ['unexpected argument "d"']],
  [['create', '--bogus', '-b', 'BUNDLE', 'c'], ['--bogus']],
  [
    ['create', '-b', 'BUNDLE', '../c'],
    ['invalid container ID', '../c'],
  ],
  [['create', '-b', 'BUNDLE', '.'], ['invalid container ID']],
  [
    ['create', '-b', 'BUNDLE', 'a b'],
    ['invalid container ID', 'a b'],
  ],
  [['create', '-b', 'BUNDLE', ''], ['invalid container ID']],
  [
    ['create', '-b', '/no/such/bundle', 'c'],
    ['/no/such/bundle', 'ENOENT'],
  ],
  [
    ['create', '-b', 'BUNDLE', '--preserve-fds', 'x', 'c'],
    ['--preserve-fds', 'x'],
  ],
  [['create', '-b', 'BUNDLE', '--console-socket', '/run/none', 'c'], ['console socket']],
  [['create', '-b', 'BUNDLE', '--pid-file', '/no/such/folder/pid', 'c'], ['/no/such/folder']],
  [
    ['create', '-b', 'BUNDLE', '--pidfd-socket', '/run/none', 'c'],
    ['/run/none', 'ENOENT'],
  ],
  [['run'], ['<ID>']],
  [['run', '-b'], ['-b']],
  [
    ['run', '--detach=maybe', '-b', 'BUNDLE', 'c'],
    ['--detach', 'maybe'],
  ],
  [['start'], ['<ID>']],
  [['start', 'nobody'], ['container does not exist: "nobody"']],
  [['state', 'nobody'], ['container does not exist: "nobody"']],
  [['kill', 'nobody'], ['container does not exist: "nobody"']],
  [['kill', 'nobody', 'SIGFOO'], ['SIGFOO']],
  [['kill', 'nobody', '999'], ['999']],
  [['delete'], ['<ID>']],
  [['delete', 'nobody'], ['container does not exist: "nobody"']],
  [['delete', '--forcibly', 'nobody'], ['--forcibly']],
  [['pause', 'nobody'], ['container does not exist: "nobody"']],
  [['resume', 'nobody'], ['container does not exist: "nobody"']],
  [['ps', 'nobody'], ['container does not exist: "nobody"']],
  [
    ['ps', '--format', 'xml', 'nobody'],
    ['--format', 'xml'],
  ],
  [
    ['list', '--format', 'xml'],
    ['--format', 'xml'],
  ],
  [['list', 'c'], ['unexpected argument "c"']],
  [['exec'], ['<ID>']],
  [['exec', '--preserve-fds', '1.5', 'nobody', 'true'], ['--preserve-fds']],
  [['--rootless', 'maybe', 'exec', 'nobody', 'true'], ['--rootless']],
  [['exec', 'nobody'], ['<COMMAND>'], 255],
  [['exec', 'nobody', 'true'], ['container does not exist: "nobody"'], 255],
  [['exec', '--user', 'root', 'nobody', 'true'], ['--user', 'root'], 255],
  [['exec', '--process', '/no/such/process.json', 'nobody'], ['/no/such/process.json'], 255],
  [['exec', '--bogus', 'nobody', 'true'], ['--bogus']],
  [['spec', '--bundle', '/no/such/bundle'], ['/no/such/bundle']],
  [['features', '--bogus'], ['--bogus']],
  [
    ['--rootless', 'maybe', 'list'],
    ['--rootless', 'maybe'],
  ],
  [
    ['--log', '/no/such/folder/log', 'list'],
    ['the log', '/no/such/folder/log', 'ENOENT'],
  ],
  [
    ['--log', '/', 'list'],
    ['the log', 'EISDIR'],
  ],
  [
    ['--log-level', 'loud', 'list'],
    ['--log-level', 'loud'],
  ],
  [
    ['--container-log-level', 'loud', 'list'],
    ['--container-log-level', 'loud'],
  ],
  [
    ['--features-off', 'everything', 'list'],
    ['--features-off', 'everything', 'seccomp'],
  ],
  [
    ['--systemd-cgroup', 'run', '-b', 'BUNDLE', 'c'],
    ['/linux/cgroupsPath', 'slice:prefix:name'],
  ],
  [['--root', '', 'list'], ['--root']],
  [
    ['--root', '/proc/self/nothing', 'create', '-b', 'BUNDLE', 'c'],
    ['/proc/self/nothing', 'ENOENT'],
  ],
  [
    ['--root', '/dev/null', 'create', '-b', 'BUNDLE', 'c'],
    ['/dev/null/c', 'ENOTDIR'],
  ],
  [['create', '-b', 'BUNDLE', 'x'.repeat(256)], ['invalid container ID']],
  [
    ['create', '-b', 'BUNDLE/config.json', 'c'],
    ['config.json/config.json', 'ENOTDIR'],
  ],
  [['create', '-b', 'BUNDLE', '--console-socket'], ['--console-socket']],
  [
    ['create', '-b', 'BUNDLE', '--preserve-fds', '-1', 'c'],
    ['--preserve-fds', '-1'],
  ],
  [
    ['run', '-b', 'BUNDLE', '--preserve-fds', '4', 'c'],
    ['--preserve-fds 4', 'fd 3'],
  ],
  [
    ['run', '-b', 'BUNDLE', '--no-pivot=x', 'c'],
    ['--no-pivot', 'x'],
  ],
  [['run', '-xyz', 'c'], ['-xyz']],
  [['run', '-b', 'BUNDLE', '--pid-file'], ['--pid-file']],
  [['start', 'a', 'b'], ['unexpected argument "b"']],
  [['state'], ['<ID>']],
  [['kill'], ['<ID>']],
  [['kill', 'nobody', ''], ['unknown signal']],
  [['kill', 'nobody', 'TERM', 'b'], ['unexpected argument "b"']],
  [
    ['delete', '--force=maybe', 'c'],
    ['--force', 'maybe'],
  ],
  [['pause'], ['<ID>']],
  [['resume', 'a', 'b'], ['unexpected argument "b"']],
  [['ps'], ['<ID>']],
  [
    ['list', '--format'],
    ['--format', 'table|json'],
  ],
  [['update', '-r', '/no/such/file', 'nobody'], ['nobody']],
  [['update', '--pods', '1', 'nobody'], ['--pods']],
  [['exec', 'nobody'], ['<COMMAND>'], 255],
  [['exec', '--process', 'BUNDLE/rootfs/etc/passwd', 'nobody'], ['cannot parse', 'BUNDLE/rootfs/etc/passwd'], 255],
  [['exec', '--process', 'BUNDLE/config.json', 'nobody'], ['(at /'], 255],
  [['exec', '--user', '1:2:3', 'nobody', 'true'], ['--user', '1:2:3'], 255],
  [['exec', '--additional-gids', 'abc', 'nobody', 'true'], ['--additional-gids', 'abc'], 255],
  [['exec', '--preserve-fds', '99999999999999999999', 'nobody', 'true'], ['--preserve-fds']],
  [['spec', 'extra'], ['unexpected argument "extra"']],
  [
    ['spec', '--bundle', 'BUNDLE'],
    ['BUNDLE/config.json', 'does not overwrite'],
  ],
  [['completion'], ['<SHELL>']],
  [
    ['completion', 'tcsh'],
    ['tcsh', 'bash'],
  ],
  [['help', 'nothing'], ['nothing']],
  [
    ['plan', '/no/such/bundle'],
    ['/no/such/bundle', 'ENOENT'],
  ],
]

/** What every refusal has in common. */
function expectRefusal({ code, stdout, stderr }: Finished, words: readonly string[], status = 1): void {
  expect(stderr).toMatch(/^[^\n]+\n$/)
  for (const word of words) expect(stderr).toContain(word)
  expect({ code, stdout }).toEqual({ code: status, stdout: '' })
}

describe('wrong input', needs('root', 'busybox'), () => {
  let runts: Runts
  let bundle: string
  let good: string
  const census = () => takeCensus({ folder: runts.folder, namespace: runts.name, ids: [] })
  let before: ReturnType<typeof census>

  beforeAll(() => {
    runts = new Runts()
    bundle = runts.bundle(['sleep', '1000'])
    good = readFileSync(join(bundle, 'config.json'), 'utf8')
    before = census()
  })
  afterAll(async () => {
    expect(await runts.end()).toEqual([])
  })

  /** Runs the command and checks that nothing is left of it. */
  async function refused(args: readonly string[], words: readonly string[], status?: number): Promise<void> {
    expectRefusal(await runts.run(...args), words, status)
    expect(leaks(before, census())).toEqual([])
  }

  describe.each([
    ['a document that is wrong in itself', BAD_DOCUMENTS],
    ['a container that cannot be', BAD_CONTAINERS],
  ])('%s', (_, rows) => {
    test.each(rows)('%s: %s', async (pointer, words, change) => {
      const spec = JSON.parse(good)
      change(spec)
      writeFileSync(join(bundle, 'config.json'), JSON.stringify(spec))
      await refused(['create', '-b', bundle, 'c'], [`at ${pointer}`, words])
    })
  })

  test.each([
    ['{"ociVersion": ', 'cannot parse'],
    ['', 'cannot parse'],
    ['[]', 'expected an object, found a list (at /)'],
    ['{"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": 18446744073709551616}', 'found a number'],
    [`${'['.repeat(100_000)}`, 'cannot parse'],
  ])('a config.json that is no document: %.40j', async (text, words) => {
    writeFileSync(join(bundle, 'config.json'), text)
    await refused(['create', '-b', bundle, 'c'], [words])
  })

  test.each<[args: string[], words: string[], status?: number]>(COMMAND_LINES)(
    'runts %j',
    async (args, words, status) => {
      writeFileSync(join(bundle, 'config.json'), good)
      const named = (text: string): string => text.replace('BUNDLE', bundle)
      await refused(args.map(named), words.map(named), status)
    },
  )
})
