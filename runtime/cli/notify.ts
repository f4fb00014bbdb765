/**
 * Starting a container for a service manager that waits for its readiness: the variable NOTIFY_SOCKET names the
 * manager's socket.
 */
import { type Container, NotifySocket } from '../index.ts'
import { getpid } from '../internal.ts'
import type { Context } from './command.ts'

/** The path of the service manager's socket, if a manager waits. */
export function managerSocket(): string | undefined {
  return process.env['NOTIFY_SOCKET'] || undefined
}

/** Starts a container. `told` resolves when its program is ready or has ended, or at once if no manager waits. */
async function startWatched(context: Context, container: Container, mainPid: number): Promise<{ told: Promise<void> }> {
  const manager = managerSocket()
  const socket = manager === undefined ? undefined : NotifySocket.open(container.root, container.id)
  try {
    await container.start()
  } catch (error) {
    socket?.[Symbol.dispose]()
    throw error
  }
  if (manager === undefined || socket === undefined) return { told: Promise.resolve() }
  const relayed = socket.relay(manager, { init: container.state(), mainPid, logger: context.logger })
  return { told: relayed.finally(() => socket[Symbol.dispose]()) }
}

/** Starts a container that outlives the command; waits for its readiness if a manager wants to know. */
export async function startDetached(context: Context, container: Container): Promise<void> {
  await (await startWatched(context, container, container.init.pid)).told
}

/** Starts a container in the foreground. The manager goes on watching this process, which ends with the container. */
export async function startInFront(context: Context, container: Container): Promise<void> {
  const { told } = await startWatched(context, container, getpid())
  told.catch((error: unknown) => context.logger.warn({ reason: String(error) }, 'cannot tell of the readiness'))
}
