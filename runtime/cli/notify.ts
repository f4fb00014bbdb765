/** Starting a container for a service manager that waits for its readiness: NOTIFY_SOCKET in our environment is the manager's socket. */
import { type Container, getpid, NotifySocket } from '../index.ts'
import type { Context } from './command.ts'

/** Path of the service manager's socket, if one waits. */
export function managerSocket(): string | undefined {
  return process.env['NOTIFY_SOCKET'] || undefined
}

/** Starts a container; the promise inside resolves when its program has said that it is ready, or has ended, or nobody waits for it. */
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
  const relayed = socket.relay(manager, container.state(), mainPid, context.logger)
  return { told: relayed.finally(() => socket[Symbol.dispose]()) }
}

/** Starts a container that stays behind, and waits for its readiness where somebody wants to know. */
export async function startDetached(context: Context, container: Container): Promise<void> {
  await (await startWatched(context, container, container.init.pid)).told
}

/** Starts a container in the foreground: the manager goes on watching this process, which ends with the container. */
export async function startInFront(context: Context, container: Container): Promise<void> {
  const { told } = await startWatched(context, container, getpid())
  told.catch((error: unknown) => context.logger.warn({ reason: String(error) }, 'cannot tell of the readiness'))
}
