/**
 * The facts of a container that never change from its create on, in one record, as wrappers and monitors keep them. Invariant: derived
 * from what is on disk, so that every process gets the same.
 */
import type { CgroupPaths } from '../cgroup/request.ts'
import type { Namespace, Spec } from '../spec/types.ts'
import type { OciState } from '../state/oci-state.ts'
import type { SavedState } from '../state/store.ts'
import { isAlive } from '../sys/pids.ts'

/** The record. */
export interface ContainerInfo {
  readonly containerId: string
  /** RFC 3339 */
  readonly createdAt: string
  readonly runtimeRoot: string
  readonly bundlePath: string
  /** socket that got the terminal's master */
  readonly consoleSocket?: string
  readonly pidFile?: string
  /** cgroup of the process that made it, where it was moved to one */
  readonly monitorCgroup?: string
  /** its own, by controller; "" is the v2 tree */
  readonly cgroupDirs: CgroupPaths
  readonly annotations: Readonly<Record<string, string>>
  readonly namespaces: readonly Namespace[]
  /** parts of the isolation that were switched off */
  readonly featuresOff: readonly string[]
}

/** The record of a container. */
export function containerInfo(root: string, state: SavedState, spec: Spec): ContainerInfo {
  const { consoleSocket, pidFile, monitorCgroup } = state.made
  return {
    containerId: state.id,
    createdAt: state.created,
    runtimeRoot: root,
    bundlePath: state.bundle,
    ...(consoleSocket === undefined ? {} : { consoleSocket }),
    ...(pidFile === undefined ? {} : { pidFile }),
    ...(monitorCgroup === undefined ? {} : { monitorCgroup }),
    cgroupDirs: state.cgroupPaths,
    annotations: spec.annotations,
    namespaces: spec.linux.namespaces,
    featuresOff: state.made.featuresOff ?? [],
  }
}

/** The state document with what runc's users expect besides, and who waits for init, if he is there. */
export type ToldState = OciState & {
  readonly pid: number
  readonly rootfs: string
  readonly created: string
  readonly owner: string
  readonly monitorPid?: number
}

/** Puts it together; the order of its fields is runc's. */
export function toldState(
  { ociVersion, id, status, pid = 0, bundle, annotations }: OciState,
  { rootfs, created, owner }: { readonly rootfs: string; readonly created: string; readonly owner: string },
  { made: { monitor } }: SavedState,
): ToldState {
  const noted = annotations === undefined ? {} : { annotations }
  // nobody else learns the exit status of init
  const watched = monitor !== undefined && isAlive(monitor.pid, monitor.startTime) ? { monitorPid: monitor.pid } : {}
  return { ociVersion, id, pid, status, bundle, rootfs, created, ...noted, owner, ...watched }
}
