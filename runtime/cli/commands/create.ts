/** `create` and what `run` has in common with it: a container from a bundle. */
import { resolve } from 'node:path'
import {
  Container,
  connectUnix,
  loadSpec,
  type OwnedFd,
  Reaper,
  RuntimeError,
  type Spec,
  type Stdio,
} from '../../index.ts'
import { type Command, type Context, CREATE_OPTIONS, writePidFile } from '../command.ts'
import type { ParsedArgs } from '../flags.ts'

/** A created container and what belongs to it. */
export interface Created {
  readonly container: Container
  readonly reaper: Reaper
}

/** How a container's streams are given for a command that does (`detached`) or does not leave it behind. @throws InvalidArgument */
export function chooseStdio(
  terminal: boolean,
  consoleSocket: string | undefined,
  detached: boolean,
): { stdio: Stdio; socket?: OwnedFd } {
  if (!terminal) {
    if (consoleSocket !== undefined) {
      throw new RuntimeError('InvalidArgument', 'cannot use console socket if runts will not detach or allocate tty')
    }
    return { stdio: { kind: 'fds', stdin: 0, stdout: 1, stderr: 2 } }
  }
  if (!detached) {
    if (consoleSocket !== undefined) {
      throw new RuntimeError('InvalidArgument', 'cannot use console socket if runts will not detach or allocate tty')
    }
    const [width, height] = process.stdout.isTTY ? process.stdout.getWindowSize() : []
    return { stdio: { kind: 'terminal', ...(width && height ? { width, height } : {}) } }
  }
  if (consoleSocket === undefined) {
    throw new RuntimeError('InvalidArgument', 'cannot allocate tty if runts will detach without setting console socket')
  }
  const socket = connectUnix(consoleSocket)
  return { stdio: { kind: 'terminal', socket: socket.fd }, socket }
}

/** Makes the container of a create or run command line; the spec may be given when it is already loaded. */
export async function createContainer(
  context: Context,
  args: ParsedArgs,
  detached: boolean,
  spec?: Spec,
): Promise<Created> {
  const id = args.positionals[0] ?? ''
  const bundle = resolve(args.text('bundle') ?? '.')
  // relative to where the user stands, before anything changes it
  const pidFile = args.text('pid-file')
  const pidPath = pidFile === undefined ? undefined : resolve(pidFile)
  const loaded = spec ?? loadSpec(bundle)
  const { stdio, socket } = chooseStdio(loaded.process?.terminal === true, args.text('console-socket'), detached)
  const reaper = new Reaper(context.logger)
  reaper.start()
  try {
    const container = await Container.create({
      root: context.root,
      id,
      bundle,
      spec: loaded,
      stdio,
      reaper,
      logger: context.logger,
      noPivot: args.flag('no-pivot'),
      noNewKeyring: args.flag('no-new-keyring'),
    })
    await container.settled()
    if (pidPath !== undefined) {
      try {
        writePidFile(pidPath, container.init.pid)
      } catch (error) {
        await container.destroy({ force: true })
        throw new RuntimeError(
          'InvalidArgument',
          `cannot write the pid file "${pidPath}": ${error instanceof Error ? error.message : error}`,
          { cause: error },
        )
      }
    }
    return { container, reaper }
  } finally {
    socket?.close()
  }
}

/** runts create */
export const create: Command = {
  spec: {
    name: 'create',
    summary: 'Creates a container: everything is set up, the program waits for `runts start`.',
    positionals: ['id'],
    options: CREATE_OPTIONS,
  },
  async run(context, args) {
    await createContainer(context, args, true)
    return 0
  },
}
