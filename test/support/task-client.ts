/**
 * Our own ttrpc client of a container's shim, for what `ctr` cannot ask: Update, Shutdown, unknown ids, options of
 * any type.
 */
import { createClient, TtrpcClient } from 'ttrpc-ts'
import { TaskService, TaskV3Service } from 'ttrpc-ts/containerd'
import type { Containers } from './containerd.ts'

/** One connection to a shim. Its calls are about one container, unless they give another id. */
export interface ShimClient {
  state(id?: string): Promise<{ id: string; pid: number; status: number; exitStatus: number }>
  kill(signal: number, id?: string): Promise<void>
  waitExit(): Promise<number>
  deleteTask(): Promise<number>
  update(resources: unknown): Promise<void>
  connectPid(): Promise<{ shimPid: number; taskPid: number }>
  /** Resolves with performance.now() at the moment of the answer. */
  shutdown(): Promise<number>
  close(): void
}

const MILLISECONDS = 10_000

/** Connects to the shim that serves the container. */
export async function shimClient(ct: Containers, container: string, version: 'v2' | 'v3' = 'v2'): Promise<ShimClient> {
  const connection = new TtrpcClient({ path: ct.socket(container) })
  const task = createClient(version === 'v2' ? TaskService : TaskV3Service, connection)
  const bound = { timeoutMs: MILLISECONDS }
  return {
    async state(id = container) {
      const { pid, status, exitStatus } = await task.state({ id }, bound)
      return { id, pid, status, exitStatus }
    },
    async kill(signal, id = container) {
      await task.kill({ id, signal }, bound)
    },
    waitExit: async () => (await task.wait({ id: container }, bound)).exitStatus,
    deleteTask: async () => (await task.delete({ id: container }, bound)).exitStatus,
    async update(resources) {
      const value = new TextEncoder().encode(JSON.stringify(resources))
      await task.update(
        {
          id: container,
          resources: { typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/LinuxResources', value },
        },
        bound,
      )
    },
    async connectPid() {
      const { shimPid, taskPid } = await task.connect({ id: container }, bound)
      return { shimPid, taskPid }
    },
    async shutdown() {
      await task.shutdown({ id: container }, bound)
      return performance.now()
    },
    close: () => connection.close(),
  }
}
