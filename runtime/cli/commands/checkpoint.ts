/**
 * `checkpoint` and `restore`: the processes of a container as files, and back, by CRIU. The options are runc's. Each
 * refuses a wrong value before anything happens to a container.
 */
import { fstatSync } from 'node:fs'
import { resolve } from 'node:path'
import {
  CGROUPS_MODES,
  type CgroupsMode,
  type CheckpointOptions,
  Container,
  type CriuOptions,
  loadSpec,
  Reaper,
  RuntimeError,
} from '../../index.ts'
import { reasonOf } from '../../internal.ts'
import { type Command, type Context, CREATE_OPTIONS, loadContainer, PROCESS_OPTIONS } from '../command.ts'
import type { Options, ParsedArgs } from '../flags.ts'
import { destroyEnded, Foreground, SignalRelay } from '../foreground.ts'
import type { ChosenStreams } from '../streams.ts'
import { chooseStreams, ownerOf } from './create.ts'

const DEFAULT_IMAGES = 'checkpoint'
const HIGHEST_PORT = 65535

/** Options that both commands have. */
const CRIU_OPTIONS = {
  'image-path': { type: 'string', value: 'DIR', doc: 'folder of the images (default ./checkpoint)' },
  'work-path': { type: 'string', value: 'DIR', doc: "folder of CRIU's log and temporary files (default: the images')" },
  'tcp-established': { type: 'boolean', doc: 'with open TCP connections' },
  'ext-unix-sk': { type: 'boolean', doc: 'with unix sockets whose other end is outside' },
  'shell-job': { type: 'boolean', doc: 'with a terminal that comes from outside' },
  'file-locks': { type: 'boolean', doc: 'with file locks' },
  'manage-cgroups-mode': {
    type: 'string',
    value: CGROUPS_MODES.join('|'),
    doc: 'how much of the cgroups is saved and made again (default soft)',
  },
  'empty-ns': { type: 'string', value: 'network', multiple: true, doc: 'leave out the content of this namespace' },
  'auto-dedup': { type: 'boolean', doc: 'free the memory of images that are no longer needed' },
} as const satisfies Options

function invalid(message: string): RuntimeError {
  return new RuntimeError('InvalidArgument', message)
}

function criuOptions(command: string, args: ParsedArgs): CriuOptions {
  const workPath = args.text('work-path')
  const emptyNamespaces = args.texts('empty-ns').map((name): 'network' => {
    if (name === 'network') return name
    throw invalid(`${command}: invalid --empty-ns "${name}": must be network`)
  })
  return {
    imagePath: resolve(args.text('image-path') || DEFAULT_IMAGES),
    ...(workPath ? { workPath: resolve(workPath) } : {}),
    tcpEstablished: args.flag('tcp-established'),
    externalUnixSockets: args.flag('ext-unix-sk'),
    shellJob: args.flag('shell-job'),
    fileLocks: args.flag('file-locks'),
    cgroupsMode: cgroupsMode(command, args.text('manage-cgroups-mode') || 'soft'),
    emptyNamespaces,
    autoDedup: args.flag('auto-dedup'),
    lazyPages: args.flag('lazy-pages'),
  }
}

function cgroupsMode(command: string, text: string): CgroupsMode {
  const mode = CGROUPS_MODES.find((name) => name === text)
  if (mode !== undefined) return mode
  throw invalid(`${command}: invalid --manage-cgroups-mode "${text}": must be ${CGROUPS_MODES.join(', ')}`)
}

/** An address and a port; an IPv6 address may be in brackets. */
function pageServer(text: string): { readonly address: string; readonly port: number } {
  const [, address, port = ''] = /^\[?([^[\]]+)\]?:(\d{1,5})$/.exec(text) ?? []
  if (address !== undefined && Number(port) > 0 && Number(port) <= HIGHEST_PORT) return { address, port: Number(port) }
  throw invalid(`checkpoint: invalid --page-server "${text}": must be ADDRESS:PORT`)
}

/** A descriptor that the caller has opened. */
function statusFd(fd: number): number {
  try {
    fstatSync(fd)
    return fd
  } catch (error) {
    throw invalid(`checkpoint: invalid --status-fd ${fd}: ${reasonOf(error)}`)
  }
}

function dumpOptions(args: ParsedArgs): CheckpointOptions {
  const parentPath = args.text('parent-path')
  const server = args.text('page-server')
  const fd = args.count('status-fd')
  return {
    ...criuOptions('checkpoint', args),
    leaveRunning: args.flag('leave-running'),
    preDump: args.flag('pre-dump'),
    tcpSkipInFlight: args.flag('tcp-skip-in-flight'),
    linkRemap: args.flag('link-remap'),
    ...(parentPath ? { parentPath } : {}),
    ...(server ? { pageServer: pageServer(server) } : {}),
    ...(fd === undefined ? {} : { statusFd: statusFd(fd) }),
  }
}

/** The command `runts checkpoint`. */
export const checkpoint: Command = {
  spec: {
    name: 'checkpoint',
    summary: 'Saves the processes of a running container as files, by CRIU, and removes the container.',
    details: [
      'CRIU must be installed. The bundle is needed again for the restore, with its root file system as it is now. With --leave-running or --pre-dump the container goes on. After a failure it goes on too, and the error has the end of the log of CRIU.',
      'The file /etc/criu/runc.conf, or the one that the annotation org.criu.config names, has further options for CRIU.',
    ],
    examples: [
      'runts checkpoint --image-path /saved/web web && runts restore -d --image-path /saved/web -b /containers/web web',
      'runts checkpoint --pre-dump --image-path /saved/1 web && runts checkpoint --image-path /saved/2 --parent-path ../1 web',
    ],
    positionals: ['ID'],
    options: {
      ...CRIU_OPTIONS,
      'parent-path': {
        type: 'string',
        value: 'DIR',
        doc: 'folder of an earlier pre-dump, relative to --image-path: save only the memory that has changed since',
      },
      'leave-running': { type: 'boolean', doc: 'let the container go on' },
      'pre-dump': { type: 'boolean', doc: 'save only memory, to make a later checkpoint short; the container goes on' },
      'tcp-skip-in-flight': { type: 'boolean', doc: 'leave out TCP connections that are being made' },
      'link-remap': { type: 'boolean', doc: 'keep open files that were deleted, by links beside them' },
      'lazy-pages': { type: 'boolean', doc: 'serve the memory to a restore that has begun already' },
      'page-server': { type: 'string', value: 'ADDRESS:PORT', doc: 'send the memory to this page server' },
      'status-fd': { type: 'count', value: 'N', doc: 'write a NUL to this descriptor when pages can be fetched' },
    },
  },
  async run(context, args) {
    const options = dumpOptions(args)
    const container = loadContainer(context, args)
    await container.checkpoint(options)
    // its processes have ended, so a failure from here on does not undo the checkpoint
    if (options.leaveRunning !== true && options.preDump !== true) await container.abandon()
    return 0
  },
}

/** The command `runts restore`. */
export const restore: Command = {
  spec: {
    name: 'restore',
    summary: 'Makes a container from a bundle and the files that `runts checkpoint` has saved.',
    details: [
      'The processes go on where they were saved. Their streams are those of the command, or with a terminal the one of --console-socket, as for `runts run`. In the foreground, too, it is as that command: it ends with the exit status of the program, and removes the container.',
    ],
    examples: ['runts restore --detach --image-path /saved/web -b /containers/web web'],
    positionals: ['ID'],
    options: {
      ...CRIU_OPTIONS,
      bundle: CREATE_OPTIONS.bundle,
      detach: { type: 'boolean', short: 'd', doc: 'return when the processes run; the container stays' },
      'console-socket': PROCESS_OPTIONS['console-socket'],
      'pid-file': PROCESS_OPTIONS['pid-file'],
      'no-subreaper': {
        type: 'boolean',
        doc: 'do not become the parent of processes that the container orphans outside its pid namespace',
      },
      'no-pivot': { type: 'boolean', doc: 'accepted for compatibility: CRIU makes the root' },
      'lazy-pages': { type: 'boolean', doc: 'fetch memory when it is needed, by `criu lazy-pages`' },
      'tcp-close': { type: 'boolean', doc: 'close the TCP connections that were open' },
      'lsm-profile': {
        type: 'string',
        value: 'apparmor:PROFILE|selinux:LABEL',
        doc: 'give the processes this label instead of that of the images',
      },
      'lsm-mount-context': { type: 'string', value: 'CONTEXT', doc: 'give the mounts this SELinux context' },
    },
  },
  async run(context, args) {
    const detached = args.flag('detach')
    using signals = detached ? undefined : new SignalRelay()
    const { container, reaper, streams: chosen } = await restoreContainer(context, args, detached)
    using streams = chosen
    if (detached) return 0
    let status: number
    try {
      using front = new Foreground(container.init, streams, context.logger)
      signals?.attach(container.init)
      status = await front.ended()
    } catch (error) {
      await container.abandon()
      reaper.reclaim()
      throw error
    }
    await destroyEnded(container)
    return status
  },
}

/** Makes the container of a restore command line. */
async function restoreContainer(
  context: Context,
  args: ParsedArgs,
  detached: boolean,
): Promise<{ container: Container; reaper: Reaper; streams: ChosenStreams }> {
  const bundle = resolve(args.text('bundle') ?? '.')
  const criu = criuOptions('restore', args)
  const pidFile = args.text('pid-file')
  const [lsmProfile, lsmMountContext] = [args.text('lsm-profile'), args.text('lsm-mount-context')]
  const spec = loadSpec(bundle)
  const { terminal, user } = spec.process
  const asked = { terminal, consoleSocket: args.text('console-socket'), detached, owner: ownerOf(spec, user) }
  const streams = chooseStreams({ ...asked, folder: bundle }, context.logger)
  const { stdio, consoleSocket } = streams
  const reaper = new Reaper(context.logger)
  reaper.start({ detached, subreaper: !args.flag('no-subreaper') })
  try {
    const container = await Container.restore({
      ...criu,
      root: context.root,
      id: args.positionals[0] ?? '',
      bundle,
      spec,
      stdio,
      reaper,
      logger: context.logger,
      gates: context.gates,
      rootless: context.rootless,
      cgroupManager: context.systemdCgroup ? 'systemd' : 'cgroupfs',
      tcpClose: args.flag('tcp-close'),
      ...(context.monitorCgroup === undefined ? {} : { monitorCgroup: context.monitorCgroup }),
      ...(consoleSocket === undefined ? {} : { consoleSocket }),
      ...(pidFile ? { pidFile } : {}),
      ...(lsmProfile ? { lsmProfile } : {}),
      ...(lsmMountContext ? { lsmMountContext } : {}),
    })
    return { container, reaper, streams }
  } catch (error) {
    streams[Symbol.dispose]()
    reaper.reclaim()
    throw error
  }
}
