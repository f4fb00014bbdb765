/**
 * The facts of a container that never change from its create on, in one record, as wrappers and monitors keep them. Invariant: derived
 * from what is on disk, so that every process gets the same.
 */
import type { CgroupPaths } from '../cgroup/request.ts'
import type { Namespace, Spec } from '../spec/types.ts'
import { isAlive } from '../sys/process.ts'
import type { SavedState } from './store.ts'

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

/** The process that made the container and waits for its init, while it is there: nobody else learns its exit status. */
export function monitorPid({ made: { monitor } }: SavedState): number | undefined {
  return monitor !== undefined && isAlive(monitor.pid, monitor.startTime) ? monitor.pid : undefined
}
