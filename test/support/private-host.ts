/**
 * A place on this machine with a network and mounts of its own, for one test file.
 * Bridges, firewall rules and what clients keep below /run/containerd and /var/lib/cni are not those of the machine.
 * So several runs can use the same names. Mounts of the machine still arrive here; mounts of this place stay inside.
 */
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Command, type Finished, startCommand } from './command.ts'
import type { Place } from './daemon.ts'

/** Folders whose place clients of containerd cannot change, and what takes their place here. */
const FOLDERS = { '/run/containerd': 'run', '/var/lib/cni': 'cni' } as const

/** A mount namespace and a network namespace, held by a process that ends with the tests. */
export class PrivateHost implements Place {
  readonly #holder: Command
  readonly #folder: string

  /** Makes the place; what it shows in place of the machine's folders lies below `folder`. */
  static async open(folder: string): Promise<PrivateHost> {
    const binds = Object.entries(FOLDERS).map(([path, part]) => {
      mkdirSync(join(folder, part), { recursive: true })
      mkdirSync(path, { recursive: true })
      return `mount --bind ${join(folder, part)} ${path}`
    })
    const script = ['set -e', ...binds, 'ip link set lo up', 'echo ready', 'exec cat'].join('\n')
    const holder = startCommand('unshare', ['--net', '--mount', '--propagation', 'slave', 'sh', '-c', script], {
      input: 'open',
      timeoutMs: 3_600_000,
    })
    await holder.untilOutput('ready')
    return new PrivateHost(holder, folder)
  }

  constructor(holder: Command, folder: string) {
    this.#holder = holder
    this.#folder = folder
  }

  get enter(): readonly string[] {
    return ['nsenter', '--target', String(this.#holder.pid), '--net', '--mount', '--']
  }

  get mountinfo(): string {
    return `/proc/${this.#holder.pid}/mountinfo`
  }

  get pids(): readonly number[] {
    return [this.#holder.pid]
  }

  /** Runs a program there to its end. */
  run(program: string, ...args: readonly string[]): Promise<Finished> {
    const [enter, ...words] = [...this.enter, program, ...args]
    return startCommand(enter!, words).finished
  }

  /** What containers have left in the network and in the clients' files, an item each. */
  async traces(): Promise<string[]> {
    const links = (await this.run('ip', '-brief', 'link')).stdout.split('\n').map((line) => line.split(/\s/)[0]!)
    const rules = (await this.run('iptables-save')).stdout.split('\n')
    const list = (...path: readonly string[]): string[] => {
      try {
        return readdirSync(join(this.#folder, ...path))
      } catch {
        return []
      }
    }
    return [
      // allowed: the default network's bridge, which stays for the next container
      ...links.filter((name) => !['', 'lo', 'nerdctl0'].includes(name)).map((name) => `network link ${name}`),
      // allowed: rules that name no container and no address; the plugins make them once
      ...rules.filter((rule) => /^-A .*( -[sd] |id: |CNI-DN-)/.test(rule)).map((rule) => `firewall rule ${rule}`),
      ...list('cni/networks').flatMap((network) =>
        list('cni/networks', network)
          .filter((name) => /^[0-9.]+$/.test(name))
          .map((address) => `address ${address} of ${network}`),
      ),
      ...list('cni/results').map((name) => `network attachment ${name}`),
      ...list('run/fifo').map((name) => `fifo ${name}`),
      ...list('run/s').map((name) => `socket ${name}`),
    ]
  }

  async close(): Promise<void> {
    this.#holder.endInput()
    await this.#holder.finished
  }
}
