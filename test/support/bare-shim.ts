/** A shim without a daemon: started from a bundle of the test's making as containerd would start it, and spoken to over its socket. */
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient, type ServiceClient, TtrpcClient } from 'ttrpc-ts'
import { TaskService } from 'ttrpc-ts/containerd'
import { expect } from 'vitest'
import { type Finished, startCommand } from './command.ts'
import type { Containers } from './containerd.ts'
import { BIN } from './places.ts'
import { type SpecChange, writeSpec } from './spec.ts'

/** A started shim that has no container yet. */
export interface BareShim {
  readonly id: string
  readonly bundle: string
  readonly socket: string
  readonly task: ServiceClient<typeof TaskService>
  /** Runs the launcher's `delete`, as the daemon does after every container. */
  delete(): Promise<Finished>
  close(): void
}

/** Starts a shim on a new bundle. */
export async function startBareShim(
  ct: Containers,
  command: readonly string[],
  change?: SpecChange,
): Promise<BareShim> {
  const id = ct.id()
  const bundle = join(ct.folder, id)
  mkdirSync(bundle)
  writeSpec(bundle, command, change)
  const env = { TTRPC_ADDRESS: `${ct.daemon.address}.ttrpc`, CONTAINERD_SHIM_TS_ROOT: join(ct.daemon.folder, 'ts') }
  const launcher = (...action: string[]): Promise<Finished> =>
    startCommand(
      join(BIN, 'containerd-shim-ts-v2'),
      ['-namespace', ct.daemon.namespace, '-id', id, '-address', ct.daemon.address, ...action],
      {
        cwd: bundle,
        env,
      },
    ).finished
  const started = await launcher('start')
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
    await launcher('-bundle', bundle, 'delete')
  })
  const connection = new TtrpcClient({ path: socket })
  return {
    id,
    bundle,
    socket,
    task: createClient(TaskService, connection),
    delete: () => launcher('-bundle', bundle, 'delete'),
    close: () => connection.close(),
  }
}
