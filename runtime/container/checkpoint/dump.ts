/**
 * A checkpoint: CRIU saves the processes of a container as images. Invariants: after a failure the container runs as
 * before, and the folder of the images has nothing new but CRIU's log. After a success the processes have been killed,
 * unless the caller wants them to go on.
 */
import { readlinkSync, statSync, writeSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { CriuRequestType } from 'ttrpc-ts/criu'
import type { Cgroup } from '../../cgroup/cgroup.ts'
import { messageOf, RuntimeError } from '../../errors.ts'
import { failpoint } from '../../failpoint.ts'
import { hostFacts } from '../../host/facts.ts'
import type { Logger } from '../../logger.ts'
import type { Spec } from '../../spec/types.ts'
import type { SavedState } from '../../state/store.ts'
import { Reaper } from '../../sys/reaper.ts'
import { Criu, type CriuAbility, requireCriu, requireVersion } from './criu.ts'
import { mountsToDump } from './mounts.ts'
import type { CheckpointOptions } from './options.ts'
import {
  type CriuRequestOptions,
  commonOptions,
  criuFailure,
  Folders,
  namespaceName,
  OUTSIDE_NAMESPACES,
  outsideKey,
  refusalOf,
  requireOwnMounts,
  saying,
} from './request.ts'
import { keepStreams, nameStreams, type StreamNames } from './streams.ts'

const LOG = 'dump.log'

/** The container to save. The caller holds its lock. */
export interface DumpTarget {
  readonly state: SavedState
  readonly spec: Spec
  readonly cgroup: Cgroup
  /** it was paused by its user, and stays so */
  readonly paused: boolean
  readonly logger: Logger
}

/**
 * Saves a container.
 * @throws InvalidArgument, FailedPrecondition without a CRIU that can do it; Internal with the end of CRIU's log
 */
export async function dump(target: DumpTarget, options: CheckpointOptions): Promise<void> {
  await saying(`cannot checkpoint container "${target.state.id}"`, () => dumpInto(target, options))
}

async function dumpInto(target: DumpTarget, options: CheckpointOptions): Promise<void> {
  const { state, cgroup } = target
  requireOwnMounts(target.spec)
  requireCriu()
  using lease = Reaper.lease()
  const folders = new Folders(options, LOG, { make: true })
  using _open = folders
  requireParent(options, folders)
  const criu = Criu.start(lease.reaper)
  try {
    await requireVersion(criu, abilities(target))
    await requireFeatures(criu, options)
    const streams = nameStreams(state.pid, state.made.streams, await cgroup.listProcesses())
    if (options.preDump !== true) keepStreams(folders.imagePath, streams)
    failpoint('checkpoint:asked')
    const opts = { ...dumpRequest(target, options, streams), ...folders.descriptors }
    await askForDump(criu, opts, { options, logPath: folders.logPath })
    failpoint('checkpoint:dumped')
  } catch (error) {
    await criu.abort()
    await tidy(folders, target)
    if (!target.paused) await thaw(target)
    throw error
  }
  // a killed process in a frozen cgroup would not end
  if (!target.paused || !goesOn(options)) await thaw(target)
}

/** Whether the container lives on after the dump. */
function goesOn({ leaveRunning, preDump }: CheckpointOptions): boolean {
  return leaveRunning === true || preDump === true
}

/** Has CRIU dump. @throws Internal with the end of its log */
async function askForDump(
  criu: Criu,
  opts: CriuRequestOptions,
  { options, logPath }: { readonly options: CheckpointOptions; readonly logPath: string },
): Promise<void> {
  const { preDump = false, statusFd } = options
  try {
    const type = preDump ? CriuRequestType.PRE_DUMP : CriuRequestType.DUMP
    const response = await criu.ask({ type, opts }, ({ script, fd }) => {
      fd?.close()
      if (script === 'status-ready' && statusFd !== undefined) writeSync(statusFd, '\0')
    })
    if (!response.success) throw refusalOf(response)
    const failed = await criu.end()
    // after a pre-dump CRIU waits for the dump, and calls it a failure that none comes
    if (failed !== undefined && !preDump) throw new RuntimeError('Internal', `criu failed: ${failed}`)
  } catch (error) {
    throw criuFailure(`criu ${preDump ? 'pre-dump' : 'dump'}`, error, logPath)
  }
}

function dumpRequest(
  { state, spec, cgroup }: DumpTarget,
  options: CheckpointOptions,
  streams: StreamNames,
): CriuRequestOptions {
  const { parentPath, pageServer, preDump = false } = options
  // v1 and hybrid have a hierarchy for it; on v2 every cgroup can be frozen
  const freezer = cgroup.paths['freezer'] ?? (hostFacts().cgroup2 ? cgroup.paths[''] : undefined)
  const mounted = { spec, bundle: state.bundle, rootfs: state.rootfs, join: cgroup.join() }
  return {
    ...commonOptions(options, LOG, spec),
    pid: state.pid,
    root: state.rootfs,
    leaveRunning: options.leaveRunning === true,
    linkRemap: options.linkRemap === true,
    tcpSkipInFlight: options.tcpSkipInFlight === true,
    external: [...outsideNamespaces(spec, state.pid), ...streams.external],
    // a pre-dump looks at memory alone
    extMnt: preDump ? [] : [...mountsToDump(mounted, state.pid)],
    ...(freezer === undefined ? {} : { freezeCgroup: freezer }),
    ...(parentPath ? { parentImg: parentPath, trackMem: true } : {}),
    ...(preDump ? { trackMem: true } : {}),
    ...(pageServer === undefined ? {} : { ps: pageServer }),
  }
}

/** The namespaces that were joined, which CRIU must not save, by their inodes. */
function outsideNamespaces({ linux }: Spec, pid: number): readonly string[] {
  return OUTSIDE_NAMESPACES.flatMap((type) => {
    if (linux.namespaces.find((namespace) => namespace.type === type)?.path === undefined) return []
    const name = namespaceName(type)
    const inode = /\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/ns/${name}`))?.[1] ?? ''
    return [`${name}[${inode}]:${outsideKey(type)}`]
  })
}

function abilities({ spec }: DumpTarget): readonly CriuAbility[] {
  const joined = (type: string): boolean =>
    spec.linux.namespaces.some((namespace) => namespace.type === type && namespace.path !== undefined)
  return [
    ...(joined('network') ? (['a network namespace of another owner'] as const) : []),
    ...(joined('pid') ? (['a pid namespace of another owner'] as const) : []),
    ...(hostFacts().cgroup2 ? (['a freezer of cgroup v2'] as const) : []),
  ]
}

/** Asks whether the kernel lets CRIU follow changes of memory, or fetch it later. @throws FailedPrecondition */
async function requireFeatures(criu: Criu, { preDump, lazyPages }: CheckpointOptions): Promise<void> {
  if (preDump !== true && lazyPages !== true) return
  const { features } = await criu.ask({
    type: CriuRequestType.FEATURE_CHECK,
    keepOpen: true,
    features: { memTrack: preDump === true, lazyPages: lazyPages === true },
  })
  const lacks = (feature: string): RuntimeError =>
    new RuntimeError('FailedPrecondition', `this kernel or the installed criu does not support ${feature}`)
  if (preDump === true && features?.memTrack !== true) throw lacks('pre-dump: it cannot tell what memory has changed')
  if (lazyPages === true && features?.lazyPages !== true) throw lacks('lazy pages')
}

/** Refuses a parent that CRIU would not find. @throws InvalidArgument */
function requireParent({ parentPath }: CheckpointOptions, { imagePath }: Folders): void {
  if (!parentPath) return
  const refuse = (why: string): RuntimeError =>
    new RuntimeError('InvalidArgument', `cannot use the parent path "${parentPath}": ${why}`)
  if (isAbsolute(parentPath)) throw refuse('it must be relative to the image path')
  const found = statSync(join(imagePath, parentPath), { throwIfNoEntry: false })
  if (found === undefined || !found.isDirectory()) throw refuse(`"${join(imagePath, parentPath)}" is not a directory`)
}

/** Lets the processes run where a CRIU that ended early has left them frozen. */
async function thaw({ cgroup, state, logger }: DumpTarget): Promise<void> {
  try {
    if (cgroup.isFrozen()) await cgroup.thaw()
  } catch (error) {
    logger.warn({ container: state.id, reason: messageOf(error) }, 'cannot thaw a container after its checkpoint')
  }
}

async function tidy(folders: Folders, { state, logger }: DumpTarget): Promise<void> {
  try {
    await folders.removeLeftovers({ images: true })
  } catch (error) {
    logger.warn(
      { container: state.id, reason: messageOf(error) },
      'cannot remove all that a failed checkpoint has left',
    )
  }
}
