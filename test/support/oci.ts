/**
 * The OCI command line in three modes: by root, by root with a user namespace, and by an unprivileged user with
 * subordinate ids. The same test body runs in each mode, on a bundle that fits it. The unprivileged user exists only
 * in a mount namespace of each command, so the machine's own users stay as they are.
 */
import { chmodSync, lchownSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test as plain } from 'vitest'
import { type Command, type Finished, startCommand } from './command.ts'
import { needs } from './needs.ts'
import { OCI_RUNTIME } from './places.ts'
import { Runts } from './runts.ts'
import type { SpecChange, TestMapping, TestSpec } from './spec.ts'

/** How privileged the runtime and the container's root are. */
export type Mode = 'as root' | 'in a user namespace' | 'as an unprivileged user'

/** All modes. */
export const MODES: readonly Mode[] = ['as root', 'in a user namespace', 'as an unprivileged user']
/** The modes in which root runs the command. */
export const BY_ROOT: readonly Mode[] = ['as root', 'in a user namespace']

/** What a container of each mode needs of the machine. */
const NEEDS = {
  'as root': needs('root', 'busybox', 'the OCI runtime'),
  'in a user namespace': needs('root', 'busybox', 'the OCI runtime'),
  'as an unprivileged user': needs('root', 'busybox', 'the OCI runtime', 'uidmap'),
} as const

const USER = 5000
const SUBORDINATE = 200_000

/** Where the ids of a container come from, by mode: its root, then 65536 others. */
const MAPPINGS: Readonly<Record<Mode, readonly TestMapping[]>> = {
  'as root': [],
  'in a user namespace': [{ containerID: 0, hostID: 100_000, size: 65_536 }],
  'as an unprivileged user': [
    { containerID: 0, hostID: USER, size: 1 },
    { containerID: 1, hostID: SUBORDINATE, size: 65_536 },
  ],
}

/** Runs a command as the unprivileged user. $0: the folder with the user's entries and runtime folder. */
const AS_USER = `for file in passwd subuid subgid; do
  [ -e /etc/$file ] || : >/etc/$file
  mount --bind "$0/$file" /etc/$file || exit 1
done
exec setpriv --reuid ${USER} --regid ${USER} --clear-groups env HOME="$0/home" XDG_RUNTIME_DIR="$0/run" "$@"`

/** Changes the owner of everything below a folder. */
function chownAll(folder: string, id: number): void {
  lchownSync(folder, id, id)
  for (const entry of readdirSync(folder, { recursive: true })) lchownSync(join(folder, String(entry)), id, id)
}

/** One test's runtime in one mode. */
export class OciHost extends Runts {
  readonly mode: Mode
  /** The host's id of the container's root. */
  readonly owner: number

  constructor(mode: Mode) {
    super()
    this.mode = mode
    this.owner = MAPPINGS[mode][0]?.hostID ?? 0
    chmodSync(this.folder, 0o755)
    if (this.isRootless) this.#makeUser()
  }

  get isRootless(): boolean {
    return this.mode === 'as an unprivileged user'
  }

  /** Whether containers have a user namespace. */
  get isMapped(): boolean {
    return this.mode !== 'as root'
  }

  /** The host's id for one of the container. */
  hostId(id: number): number {
    const range = MAPPINGS[this.mode].find(({ containerID, size }) => id >= containerID && id < containerID + size)
    return range === undefined ? id : range.hostID + id - range.containerID
  }

  get #user(): string {
    return join(this.folder, 'user')
  }

  #makeUser(): void {
    for (const name of ['home', 'run']) mkdirSync(join(this.#user, name), { recursive: true })
    chownAll(this.#user, USER)
    lchownSync(this.folder, USER, USER)
    const write = (name: string, text: string): void => writeFileSync(join(this.#user, name), text)
    write('passwd', `${readFileSync('/etc/passwd', 'utf8')}ocitest:x:${USER}:${USER}::/:/bin/sh\n`)
    for (const name of ['subuid', 'subgid']) write(name, `ocitest:${SUBORDINATE}:65536\n`)
  }

  protected override commandLine(args: readonly string[]): readonly [string, ...string[]] {
    const command = super.commandLine(args)
    return this.isRootless ? ['unshare', '--mount', 'sh', '-c', AS_USER, this.#user, ...command] : command
  }

  override bundle(command: readonly string[], change?: SpecChange): string {
    const bundle = super.bundle(command, (spec) => {
      this.#fit(spec)
      change?.(spec)
    })
    if (this.isMapped) chownAll(bundle, this.owner)
    return bundle
  }

  #fit(spec: TestSpec): void {
    if (!this.isMapped) return
    spec.linux.namespaces.push({ type: 'user' })
    spec.linux.uidMappings = [...MAPPINGS[this.mode]]
    spec.linux.gidMappings = [...MAPPINGS[this.mode]]
    if (!this.isRootless) return
    // an unprivileged user may neither make cgroups here nor set limits
    delete spec.linux.cgroupsPath
    delete spec.linux.resources
  }

  /** Runs a shell script as a container and answers what it printed; it must end with 0 and print no error. */
  async inside(script: string, change?: SpecChange): Promise<string> {
    const finished = await this.run('run', '-b', this.bundle(['sh', '-c', script], change), 'inside')
    expect({ code: finished.code, stderr: finished.stderr }, `${script}\n${finished.stderr}`).toEqual({
      code: 0,
      stderr: '',
    })
    return finished.stdout
  }

  /** Starts a container that does nothing, and leaves it running. */
  sleeper(id: string, change?: SpecChange): void {
    this.leave('run', '-d', '-b', this.bundle(['sleep', '1000'], change), id)
  }

  /** The command line of a call, for a program that starts it. */
  commandOf(...args: string[]): readonly string[] {
    return this.commandLine(args)
  }

  /** Starts the runtime on some processors only. */
  startOn(processors: string, ...args: string[]): Command {
    return startCommand('taskset', ['-c', processors, ...this.commandLine(args)])
  }

  /** Runs a command in a container and answers what it printed; options come first in `args`. */
  async exec(...args: string[]): Promise<string> {
    return (await this.ok('exec', ...args)).stdout
  }

  /** Tries to run a container that the runtime must refuse with status 1, and answers the error. */
  async refused(change: SpecChange, command: readonly string[] = ['true']): Promise<string> {
    return this.refusal(await this.run('run', '-b', this.bundle(command, change), 'refused'))
  }

  /** Expects that a command failed before anything ran, and answers the error. */
  refusal(finished: Finished): string {
    expect(finished, finished.stderr).toMatchObject({ code: 1, stdout: '' })
    return finished.stderr
  }
}

/** A test whose runtime is of one mode. */
function testOf(mode: Mode) {
  return plain.extend<{ runts: OciHost }>({
    runts: async ({ task: _task }, use) => {
      const runts = new OciHost(mode)
      await use(runts)
      expect(await runts.end(), 'what the test left behind').toEqual([])
    },
  })
}

/** What bodies of `inModes` call to define their tests. */
export type OciTest = ReturnType<typeof testOf>

/** Defines the same tests for each of the modes. */
export function inModes(modes: readonly Mode[], title: string, body: (test: OciTest, mode: Mode) => void): void {
  for (const mode of modes) describe(`${title}, ${mode}`, NEEDS[mode], () => body(testOf(mode), mode))
}

/** The runtime's own name, with which it prefixes what it says. */
export const RUNTIME_NAME = OCI_RUNTIME.split('/').at(-1) ?? ''
