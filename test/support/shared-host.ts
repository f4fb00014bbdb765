/**
 * A mount namespace that stands for a host on which all mounts are shared, so that the machine's own stay as they
 * are.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { expect } from 'vitest'
import type { OciHost } from './oci.ts'

/** A process in a mount namespace in which every mount is shared, with no peer outside of it. */
export class SharedHost {
  readonly #process: ChildProcess

  private constructor(process: ChildProcess) {
    this.#process = process
  }

  /**
   * `inside` starts a program in a mount namespace. By default that is a new one, whose mounts become shared without a
   * peer. A given `inside` decides about its mounts itself.
   */
  static async start(inside: readonly string[] = ['unshare', '--mount']): Promise<SharedHost> {
    const share = inside.length > 2 ? '' : 'mount --make-rshared / &&'
    const [program = '', ...args] = [...inside, 'sh', '-c', `${share} echo up && exec sleep 1000`]
    const process = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(process.stdout!, 'data')
    return new SharedHost(process)
  }

  /** A command line that runs in it. */
  command(...command: readonly string[]): [string, ...string[]] {
    return ['nsenter', `--mount=/proc/${this.#process.pid}/ns/mnt`, '--', ...command]
  }

  run(...command: readonly string[]): string {
    const [program, ...args] = this.command(...command)
    const { status, stderr, stdout } = spawnSync(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    expect(status, `${command.join(' ')}: ${stderr}`).toBe(0)
    return String(stdout)
  }

  /** Whether there is something at a path. */
  sees(path: string): boolean {
    return existsSync(`/proc/${this.#process.pid}/root${path}`)
  }

  /** Mounts a tmpfs with a file in it. */
  mount(place: string): void {
    this.run('sh', '-c', `mkdir -p ${place} && mount -t tmpfs tmpfs ${place} && : >${place}/mark && mkdir ${place}/sub`)
  }

  /**
   * Runs the runtime among these mounts, with arguments that leave the container `c` running. Answers the pid of its
   * process.
   */
  async leave(runts: OciHost, ...args: string[]): Promise<unknown> {
    const [program, ...rest] = this.command(...runts.commandOf(...args))
    // the container keeps the streams, so no pipe is among them
    expect(spawnSync(program, rest, { stdio: ['ignore', 'ignore', 'inherit'] }).status).toBe(0)
    return (await runts.state('c'))['pid']
  }

  /**
   * Its mounts below a folder, and those directly on /, without the numbers that differ from one look to the next.
   * Other mounts of the machine may go at any time.
   */
  table(folder: string): string[] {
    const lines = readFileSync(`/proc/${this.#process.pid}/mountinfo`, 'utf8').trimEnd().split('\n')
    return lines
      .map((line) => line.split(' ').slice(3).join(' ').replaceAll(/:\d+/g, ''))
      .filter((line) => line.includes(folder) || /^\S+ \/[^/ ]* /.test(line))
      .sort()
  }

  [Symbol.dispose](): void {
    this.#process.kill('SIGKILL')
  }
}
