/**
 * The Intel RDT groups of a container in its state. The paths have runc's names, so each runtime puts a process that it
 * adds into the class of the other's container.
 */
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'

/** Where the groups are, and whether the class goes with the container. */
export interface SavedIntelRdt {
  /** the resctrl file system */
  readonly root: string
  /** the class of service */
  readonly path: string
  /** the group that counts for the container alone, if it has one */
  readonly monPath?: string
  /** the class was made for this container, and has its name */
  readonly mayRemove: boolean
}

/** As fields of state.json. */
export function intelRdtFields(saved: SavedIntelRdt | undefined): object {
  if (saved === undefined) return {}
  const { root, path, monPath, mayRemove } = saved
  return {
    intel_rdt_path: path,
    ...(monPath === undefined ? {} : { intel_rdt_mon_path: monPath }),
    intel_rdt_root: root,
    intel_rdt_made: mayRemove,
  }
}

/** Reads these fields; undefined where there are none. */
export function readIntelRdtFields(fields: Readonly<Record<string, unknown>>): SavedIntelRdt | undefined {
  const { intel_rdt_path: path, intel_rdt_mon_path: monPath, intel_rdt_root: root } = fields
  if (typeof path !== 'string' || !path.startsWith('/')) return undefined
  return {
    // runc does not say: its classes lie directly below the root
    root: typeof root === 'string' && root.startsWith('/') ? root : dirname(path),
    path,
    ...(typeof monPath === 'string' && monPath.startsWith(`${path}/`) ? { monPath } : {}),
    mayRemove: fields['intel_rdt_made'] === true,
  }
}

/**
 * The files by which a process enters the groups: the class first, since the counting group is a part of it. A group
 * that is gone is left out, as with runc: its processes have fallen back to the group above.
 */
export function tasksFiles(saved: SavedIntelRdt | undefined): readonly string[] {
  if (saved === undefined) return []
  const groups = [saved.path, ...(saved.monPath === undefined ? [] : [saved.monPath])]
  return groups.map((group) => `${group}/tasks`).filter((file) => existsSync(file))
}
