/** `create`, and what `run` shares with it: making a container from a bundle. */
import { resolve } from 'node:path'
import { Container, type Logger, loadSpec, type OciProcess, Reaper, RuntimeError, type Spec } from '../../index.ts'
import { hostGid, hostUid } from '../../internal.ts'
import { type Command, type Context, CREATE_OPTIONS } from '../command.ts'
import { initFds, withEnv } from '../fds.ts'
import type { ParsedArgs } from '../flags.ts'
import { managerSocket } from '../notify.ts'
import { type ChosenStreams, detachedStreams, ForegroundStreams } from '../streams.ts'

/** What a command line and a document ask for the streams of a process. */
export interface StreamsAsked {
  readonly terminal: boolean
  readonly consoleSocket: string | undefined
  /** the command ends while the process goes on */
  readonly detached: boolean
  /** the user of the process, by ids of the host */
  readonly owner: { readonly uid: number; readonly gid: number }
  /** the folder of relative paths */
  readonly folder: string
}

/**
 * Opens the streams of a process. The caller disposes them once the process has been started with copies of them.
 * @throws InvalidArgument
 */
export function chooseStreams(
  { terminal, consoleSocket, detached, owner, folder }: StreamsAsked,
  logger: Logger,
): ChosenStreams & { readonly consoleSocket?: string } {
  if (!(terminal && detached) && consoleSocket !== undefined) {
    throw new RuntimeError('InvalidArgument', 'cannot use console socket if runts will not detach or allocate tty')
  }
  if (!terminal) return detached ? detachedStreams(logger) : new ForegroundStreams(owner)
  if (!detached) return { stdio: { kind: 'terminal', bareNewlines: true }, [Symbol.dispose]() {} }
  if (consoleSocket === undefined) {
    throw new RuntimeError('InvalidArgument', 'cannot allocate tty if runts will detach without setting console socket')
  }
  return { stdio: { kind: 'terminal' }, consoleSocket: resolve(folder, consoleSocket), [Symbol.dispose]() {} }
}

/** The user of a process in a container, by ids of the host. */
export function ownerOf(spec: Spec, { uid, gid }: OciProcess['user']): { readonly uid: number; readonly gid: number } {
  return { uid: hostUid(spec, uid), gid: hostGid(spec, gid) }
}

/** How a command makes its container. */
export interface Making {
  /** the command ends while the container goes on */
  readonly detached: boolean
  /** whether orphans of the container become children of this process */
  readonly subreaper: boolean
}

/** Makes the container of a create or run command line. The reaper that is returned reports the end of its process. */
export async function createContainer(
  context: Context,
  args: ParsedArgs,
  making: Making,
): Promise<{ container: Container; reaper: Reaper; streams: ChosenStreams }> {
  const bundle = resolve(args.text('bundle') ?? '.')
  const pidFile = args.text('pid-file')
  const pidfdSocket = args.text('pidfd-socket')
  const { fds, env } = initFds(args)
  const loaded = loadSpec(bundle)
  const spec: Spec = { ...loaded, process: withEnv(loaded.process, env) }
  const asked = {
    terminal: spec.process.terminal,
    consoleSocket: args.text('console-socket'),
    detached: making.detached,
    owner: ownerOf(spec, spec.process.user),
    folder: bundle,
  }
  const streams = chooseStreams(asked, context.logger)
  const { stdio, consoleSocket } = streams
  const reaper = new Reaper(context.logger)
  reaper.start(making)
  try {
    const container = await Container.create({
      root: context.root,
      id: args.positionals[0] ?? '',
      bundle,
      spec,
      stdio,
      reaper,
      logger: context.logger,
      noPivot: args.flag('no-pivot'),
      noNewKeyring: args.flag('no-new-keyring'),
      extraFds: fds,
      gates: context.gates,
      rootless: context.rootless,
      cgroupManager: context.systemdCgroup ? 'systemd' : 'cgroupfs',
      containerLogger: context.containerLogger,
      notify: managerSocket() !== undefined,
      ...(context.monitorCgroup === undefined ? {} : { monitorCgroup: context.monitorCgroup }),
      ...(consoleSocket === undefined ? {} : { consoleSocket }),
      ...(pidFile ? { pidFile } : {}),
      ...(pidfdSocket === undefined ? {} : { pidfdSocket: resolve(bundle, pidfdSocket) }),
    })
    try {
      await container.settled()
    } catch (error) {
      // ts-init met a failure after all, or another process has ended the container
      await container.abandon()
      throw error
    }
    return { container, reaper, streams }
  } catch (error) {
    streams[Symbol.dispose]()
    reaper.reclaim()
    throw error
  }
}

/** The command `runts create`. */
export const create: Command = {
  spec: {
    name: 'create',
    summary: 'Creates a container: everything is set up, and its program waits for `runts start`.',
    details: [
      'The container is made from the bundle: its config.json says what it is like, and is read now, once. The id is a name of your choice, unique below the root. The program gets the streams of the command, and /dev/null in place of each that is a terminal. If config.json asks for a terminal, its master goes to --console-socket.',
      'The command ends when the container is created. What cannot be done leaves nothing behind.',
    ],
    examples: ['runts create --bundle /containers/web --pid-file /run/web.pid web', 'runts start web'],
    positionals: ['ID'],
    options: CREATE_OPTIONS,
  },
  async run(context, args) {
    const { streams } = await createContainer(context, args, { detached: true, subreaper: true })
    streams[Symbol.dispose]()
    return 0
  },
}
