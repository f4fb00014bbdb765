/**
 * What wrappers and monitors of a container want to know: a record of the facts that never change after create, and
 * the state document that runc's users expect. Invariant: the record follows from what is on disk, so every process
 * gets the same.
 */
import type { CgroupPaths } from '../cgroup/request.ts'
import type { Namespace, Spec } from '../spec/types.ts'
import type { OciState } from '../state/oci-state.ts'
import type { SavedState } from '../state/store.ts'
import { isAlive } from '../sys/pids.ts'

/** The facts of a container that never change after create. */
export interface ContainerInfo {
  readonly containerId: string
  /** RFC 3339 */
  readonly createdAt: string
  readonly runtimeRoot: string
  readonly bundlePath: string
  /** socket that received the terminal's master */
  readonly consoleSocket?: string
  readonly pidFile?: string
  /** cgroup that the creating process moved to, if it did */
  readonly monitorCgroup?: string
  /** the container's cgroup directories by controller; "" is the v2 tree */
  readonly cgroupDirs: CgroupPaths
  readonly annotations: Readonly<Record<string, string>>
  readonly namespaces: readonly Namespace[]
  /** feature gates that were off */
  readonly featuresOff: readonly string[]
}

/** Reads the record off a container's state and spec. */
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

/** The state document with runc's further fields, and the pid of the live process that waits for init. */
export type FullState = OciState & {
  readonly pid: number
  readonly rootfs: string
  readonly created: string
  readonly owner: string
  readonly monitorPid?: number
}

/** Makes that document; the order of its fields is runc's. */
export function fullState(
  { ociVersion, id, status, pid = 0, bundle, annotations }: OciState,
  { rootfs, created, owner }: { readonly rootfs: string; readonly created: string; readonly owner: string },
  { made: { monitor } }: SavedState,
): FullState {
  const noted = annotations === undefined ? {} : { annotations }
  // only the monitor, init's parent, learns the exit status of init
  const watched = monitor !== undefined && isAlive(monitor.pid, monitor.startTime) ? { monitorPid: monitor.pid } : {}
  return { ociVersion, id, pid, status, bundle, rootfs, created, ...noted, owner, ...watched }
}
