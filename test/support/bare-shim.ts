/**
 * A shim without a daemon: a test makes the bundle, starts the shim as containerd would, and calls it over its
 * socket.
 */
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient, type ServiceClient, TtrpcClient } from 'ttrpc-ts'
import { TaskService } from 'ttrpc-ts/containerd'
import { expect } from 'vitest'
import { type Finished, startCommand } from './command.ts'
import type { Containers } from './containerd.ts'
import { BIN, KEEPER_WISH } from './places.ts'
import { type SpecChange, writeSpec } from './spec.ts'

/** A started shim that has no container yet. */
export interface BareShim {
  readonly id: string
  readonly bundle: string
  readonly socket: string
  readonly task: ServiceClient<typeof TaskService>
  /**
   * Runs the launcher's `delete`, as the daemon does after every container. Its working directory is the bundle by
   * default.
   */
  delete(folder?: string): Promise<Finished>
  close(): void
}

/** What a test may want of `start`. */
export interface StartWishes {
  /** makes stdin's bytes from the container's id */
  readonly stdin?: (id: string) => Uint8Array
  readonly flags?: readonly string[]
  /** changes the bundle before the shim is started */
  readonly before?: (bundle: string) => void
}

/** Starts a shim on a new bundle. */
export async function startBareShim(
  ct: Containers,
  command: readonly string[],
  change?: SpecChange,
  { stdin, flags = [], before }: StartWishes = {},
): Promise<BareShim> {
  const id = ct.id()
  const bundle = join(ct.folder, id)
  mkdirSync(bundle)
  writeSpec(bundle, command, change)
  before?.(bundle)
  const env = {
    TTRPC_ADDRESS: `${ct.daemon.address}.ttrpc`,
    CONTAINERD_SHIM_TS_ROOT: join(ct.daemon.folder, 'ts'),
    ...KEEPER_WISH,
  }
  const identity = ['-namespace', ct.daemon.namespace, '-id', id, '-address', ct.daemon.address]
  const launcher = (words: readonly string[], cwd: string, input?: Uint8Array): Promise<Finished> =>
    startCommand(join(BIN, 'containerd-shim-ts-v2'), [...identity, ...words], {
      cwd,
      env,
      ...(input === undefined ? {} : { input }),
    }).finished
  const remove = (folder = bundle): Promise<Finished> => launcher(['-bundle', bundle, 'delete'], folder)
  const started = await launcher([...flags, 'start'], bundle, stdin?.(id))
  expect(started, started.stderr).toMatchObject({
    code: 0,
    stderr: '',
    stdout: expect.stringMatching(/^unix:\/\/\/\S+$/),
  })
  expect(readFileSync(join(bundle, 'address'), 'utf8')).toBe(started.stdout)
  const socket = started.stdout.replace(/^unix:\/\//, '')
  ct.onEnd(async () => {
    const pid = ct.findShim(id)
    if (pid === undefined) return
    process.kill(pid, 'SIGKILL')
    await remove()
  })
  const connection = new TtrpcClient({ path: socket })
  return {
    id,
    bundle,
    socket,
    task: createClient(TaskService, connection),
    delete: remove,
    close: () => connection.close(),
  }
}
