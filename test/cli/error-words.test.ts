/**
 * The words by which engines and users tell failures apart: containerd's go-runc, Docker, podman and CRI-O look for
 * them in what a runtime prints. Each row is run by runc too, so that the words are those of a real runtime and not
 * of our memory.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { needs } from '../support/needs.ts'
import { OCI_RUNTIME } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'
import type { SpecChange, TestSpec } from '../support/spec.ts'

/** The one error line of a runtime. */
interface Told {
  readonly code: number | null
  readonly line: string
}

type Step = readonly string[]

/** What is done before the failing command; BUNDLE stands for the row's bundle. */
const CREATED: readonly Step[] = [['create', '-b', 'BUNDLE', 'c']]
const RUNNING: readonly Step[] = [['run', '-d', '-b', 'BUNDLE', 'c']]
const PAUSED: readonly Step[] = [...RUNNING, ['pause', 'c']]
const STOPPED: readonly Step[] = [['run', '--keep', '-b', 'BUNDLE', 'c']]
const RUN: Step = ['run', '-b', 'BUNDLE', 'c']

const args =
  (...words: string[]) =>
  (spec: TestSpec): void => {
    spec.process.args = words
  }
const bind =
  (source: string, destination: string) =>
  (spec: TestSpec): void => {
    spec.mounts.push({ destination, type: 'bind', source, options: ['bind'] })
  }
const cwd =
  (path: string) =>
  (spec: TestSpec): void => {
    spec.process.cwd = path
  }

interface Row {
  readonly what: string
  readonly before?: readonly Step[]
  readonly command: Step
  readonly spec?: SpecChange
  readonly words: readonly string[]
  /** what ours has besides, where releases of runc differ */
  readonly ours?: string
}

const NOBODY = ['container does not exist']
const COMMANDS_OF_ONE = ['start', 'state', 'kill', 'delete', 'pause', 'resume', 'ps']
const NOT_FOUND = ['exec: "nosuch": executable file not found in $PATH']
const NO_FILE = ['exec: "/no/such": stat /no/such: no such file or directory']

const ROWS: readonly Row[] = [
  ...COMMANDS_OF_ONE.map((name) => ({ what: `${name} of a missing one`, command: [name, 'nobody'], words: NOBODY })),
  { what: 'exec in a missing one', command: ['exec', 'nobody', 'true'], words: NOBODY },
  {
    what: 'an id that is taken',
    before: CREATED,
    command: CREATED[0] ?? [],
    words: ['container with given ID already exists'],
  },
  { what: 'an id that is none', command: ['create', '-b', 'BUNDLE', 'a/b'], words: ['invalid container ID format'] },
  {
    what: 'a bundle that is missing',
    command: ['run', '-b', '/no/such', 'c'],
    words: ['/no/such', 'no such file or directory'],
  },
  {
    what: 'a root file system that is missing',
    command: RUN,
    spec: (spec) => Object.assign(spec, { root: { path: '/no/such' } }),
    words: ['/no/such', 'no such file or directory'],
  },
  { what: 'run of a name that PATH has not', command: RUN, spec: args('nosuch'), words: NOT_FOUND },
  { what: 'exec of a name that PATH has not', before: RUNNING, command: ['exec', 'c', 'nosuch'], words: NOT_FOUND },
  { what: 'run of a missing file', command: RUN, spec: args('/no/such'), words: NO_FILE },
  { what: 'exec of a missing file', before: RUNNING, command: ['exec', 'c', '/no/such'], words: NO_FILE },
  { what: 'run of no name', command: RUN, spec: args(''), words: ['exec: "": executable file not found in $PATH'] },
  {
    what: 'run of a folder',
    command: RUN,
    spec: args('/tmp'),
    words: ['exec: "/tmp": '],
    ours: 'is a directory: permission denied',
  },
  {
    what: 'exec of a folder',
    before: RUNNING,
    command: ['exec', 'c', '/tmp'],
    words: ['exec: "/tmp": '],
    ours: 'is a directory: permission denied',
  },
  { what: 'run of a text', command: RUN, spec: args('/text'), words: ['exec: "/text": permission denied'] },
  {
    what: 'run of a program for nobody',
    command: RUN,
    spec: args('/garbage'),
    words: ['exec /garbage: exec format error'],
  },
  {
    what: 'run of a script of nobody',
    command: RUN,
    spec: args('/script'),
    words: ['exec /script: no such file or directory'],
  },
  { what: 'a working directory that is a file', command: RUN, spec: cwd('/text'), words: ['/text', 'not a directory'] },
  {
    what: 'an exec in a missing working directory',
    before: RUNNING,
    command: ['exec', '--cwd', '/no/such', 'c', '/bin/true'],
    words: ['chdir to cwd ("/no/such") set in config.json failed', 'no such file or directory'],
  },
  {
    what: 'a missing source',
    command: RUN,
    spec: bind('/no/such', '/mnt'),
    words: ['"/no/such"', '"/mnt"', 'no such file or directory'],
  },
  {
    what: 'a file on a folder',
    command: RUN,
    spec: bind('/etc/passwd', '/tmp'),
    words: ['"/etc/passwd"', '"/tmp"', 'not a directory'],
  },
  {
    what: 'a folder on a file',
    command: RUN,
    spec: bind('/etc', '/text'),
    words: ['"/etc"', '"/text"', 'not a directory'],
  },
  {
    what: 'a folder below a file',
    command: RUN,
    spec: bind('/etc', '/text/x'),
    words: ['"/etc"', '"/text/x"', 'not a directory'],
  },
  {
    what: 'a file system of no kernel',
    command: RUN,
    spec: (spec) => spec.mounts.push({ destination: '/tmp', type: 'nosuchfs', source: 'x' }),
    words: ['"x"', '"/tmp"', 'no such device'],
  },
  {
    what: 'a namespace that is missing',
    command: RUN,
    spec: (spec) => Object.assign(spec.linux.namespaces.find(({ type }) => type === 'ipc') ?? {}, { path: '/no/such' }),
    words: ['/no/such', 'no such file or directory'],
  },
  {
    what: 'start of a running one',
    before: RUNNING,
    command: ['start', 'c'],
    words: ['cannot start an already running container'],
  },
  {
    what: 'start of a paused one',
    before: PAUSED,
    command: ['start', 'c'],
    words: ['cannot start a container in the paused state'],
  },
  {
    what: 'start of a stopped one',
    before: STOPPED,
    spec: args('/bin/true'),
    command: ['start', 'c'],
    words: ['cannot start a container that has stopped'],
  },
  {
    what: 'kill of a stopped one',
    before: STOPPED,
    spec: args('/bin/true'),
    command: ['kill', 'c'],
    words: ['container not running'],
  },
  {
    what: 'pause of a stopped one',
    before: STOPPED,
    spec: args('/bin/true'),
    command: ['pause', 'c'],
    words: ['container not running'],
  },
  { what: 'pause of a paused one', before: PAUSED, command: ['pause', 'c'], words: ['container not running'] },
  { what: 'resume of a running one', before: RUNNING, command: ['resume', 'c'], words: ['container not paused'] },
  {
    what: 'exec in a stopped one',
    before: STOPPED,
    spec: args('/bin/true'),
    command: ['exec', 'c', 'true'],
    words: ['cannot exec in a stopped container'],
  },
  {
    what: 'exec in a paused one',
    before: PAUSED,
    command: ['exec', 'c', 'true'],
    words: ['cannot exec in a paused container'],
  },
  {
    what: 'delete of a running one',
    before: RUNNING,
    command: ['delete', 'c'],
    words: ['cannot delete container', 'that is not stopped: running'],
  },
  { what: 'kill with no signal', before: RUNNING, command: ['kill', 'c', 'NOPE'], words: ['unknown signal "NOPE"'] },
  {
    what: 'a terminal that nobody takes',
    command: ['create', '-b', 'BUNDLE', 'c'],
    spec: (spec) => Object.assign(spec.process, { terminal: true }),
    words: ['cannot allocate tty if', 'will detach without setting console socket'],
  },
  {
    what: 'a console socket that is missing',
    command: ['create', '--console-socket', '/no/such', '-b', 'BUNDLE', 'c'],
    spec: (spec) => Object.assign(spec.process, { terminal: true }),
    words: ['/no/such', 'no such file or directory'],
  },
  {
    what: 'a pid file that cannot be made',
    command: ['run', '-d', '--pid-file', '/no/such/pid', '-b', 'BUNDLE', 'c'],
    words: ['/no/such/', 'no such file or directory'],
  },
  {
    what: 'a hook that is missing',
    command: RUN,
    spec: (spec) => Object.assign(spec, { hooks: { createRuntime: [{ path: '/no/such' }] } }),
    words: ['hook #0', '/no/such', 'no such file or directory'],
  },
  ...['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart'].map((name) => ({
    what: `a ${name} hook that is killed`,
    command: RUN,
    // a path that is the same inside and outside is not to be had: the shell's is
    spec: (spec: TestSpec) =>
      Object.assign(spec, { hooks: { [name]: [{ path: '/bin/sh', args: ['sh', '-c', 'kill -SYS $$'] }] } }),
    words: ['hook #0', 'signal: bad system call'],
  })),
  {
    what: 'a sysctl that is missing',
    command: RUN,
    spec: (spec) => Object.assign(spec.linux, { sysctl: { 'net.no.such': '1' } }),
    words: ['net/no/such', 'no such file or directory'],
  },
]

/** Runs the row with one of the runtimes, and takes back what it made. */
function toldBy(program: string, runts: Runts, bundle: string, { before = [], command }: Row): Told {
  const root = join(runts.folder, program === 'runc' ? 'runc' : 'ours')
  const by = (words: Step): Told => {
    const errors = join(runts.folder, 'errors')
    const fd = openSync(errors, 'w')
    const line = ['--root', root, ...words.map((word) => word.replace('BUNDLE', bundle))]
    const { status } = spawnSync(program, line, { stdio: ['ignore', 'ignore', fd], timeout: 60_000 })
    closeSync(fd)
    return { code: status, line: readFileSync(errors, 'utf8').trimEnd() }
  }
  try {
    for (const step of before) expect(by(step), step.join(' ')).toMatchObject({ code: 0 })
    return by(command)
  } finally {
    by(['delete', '--force', 'c'])
  }
}

function bundleOf(runts: Runts, change: SpecChange | undefined): string {
  let root = ''
  const bundle = runts.bundle(['sleep', '1000'], (spec) => {
    root = spec.root?.path ?? ''
    change?.(spec)
  })
  if (!root.startsWith('/')) root = join(bundle, root)
  writeFileSync(join(root, 'text'), 'text')
  for (const [name, text] of Object.entries({ garbage: 'garbage', script: '#!/no/such\n' })) {
    writeFileSync(join(root, name), text)
    chmodSync(join(root, name), 0o755)
  }
  mkdirSync(join(root, 'tmp'), { recursive: true })
  return bundle
}

describe('the error line', needs('root', 'busybox', 'the runc shim', 'our shim'), () => {
  test.for(ROWS)('of $what has the words of runc', (row, { runts }) => {
    const bundle = bundleOf(runts, row.spec)
    const [runc, ours] = ['runc', OCI_RUNTIME].map((program) => toldBy(program, runts, bundle, row))
    for (const word of row.words) {
      // runc's line is quoted as Go quotes
      expect(runc?.line.replaceAll('\\"', '"'), 'runc').toContain(word)
      expect(ours?.line).toContain(word)
    }
    expect(ours?.line).toContain(row.ours ?? '')
    expect(ours?.line).toMatch(/^runts: error: [^\n]+$/)
    expect(ours?.code).not.toBe(0)
  })
})

describe('a process that its own filter kills before its program', needs('root', 'busybox', 'our shim'), () => {
  const ENDED = 'container process ended before it executed its program: signal: bad system call'
  const deadly = (spec: TestSpec): void => {
    spec.process.noNewPrivileges = false
    spec.linux.seccomp = {
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [{ names: ['capset'], action: 'SCMP_ACT_KILL_PROCESS' }],
    }
  }

  test.for(['create', 'run'])('is told with its signal by %s', async (name, { runts }) => {
    const bundle = bundleOf(runts, deadly)
    const { stderr } = await runts.run(name, '-b', bundle, 'c')
    expect(stderr).toBe(`runts: error: ${ENDED}\n`)
  })
})

/** The lines of a log, as a program that reads logs takes them. */
function logged(path: string): Record<string, unknown>[] {
  const text = readFileSync(path, 'utf8')
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
}

describe('--log with --log-format json', needs('root', 'busybox', 'the runc shim', 'our shim'), () => {
  test.for([
    { what: 'a create', words: ['create', '-b', 'BUNDLE', 'c'] },
    { what: 'a run', words: ['run', '-b', 'BUNDLE', 'c'] },
    { what: 'a state', words: ['state', 'c'] },
  ])('has one line for $what that fails, of the fields of runc, which podman parses whole', ({ words }, { runts }) => {
    const bundle = bundleOf(runts, args('nosuch'))
    const [runcs, ours] = ['runc', OCI_RUNTIME].map((program) => {
      const log = join(runts.folder, 'log')
      const line = words.map((word) => word.replace('BUNDLE', bundle))
      const given = ['--root', join(runts.folder, 'either'), '--log', log, '--log-format', 'json', ...line]
      const { stderr } = spawnSync(program, given, { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' })
      const lines = logged(log)
      rmSync(log)
      return { stderr, lines }
    })
    expect(ours?.lines.map((line) => Object.keys(line))).toEqual(runcs?.lines.map((line) => Object.keys(line)))
    expect(ours?.lines).toMatchObject([
      { level: 'error', time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/) },
    ])
    expect(runcs?.lines).toMatchObject([{ level: 'error' }])
    // both say it on standard error besides
    expect(runcs?.stderr).toContain(runcs?.lines[0]?.['msg'])
    expect(ours?.stderr).toBe(`runts: error: ${ours?.lines[0]?.['msg']}\n`)
  })
})
