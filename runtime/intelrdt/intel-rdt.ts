/**
 * The Intel RDT groups of one container: its class of service, and the group that counts for it alone. A class that the
 * configuration names may belong to others, so it stays when the container goes, as with runc. Invariants: only what
 * this runtime made for the container is removed; a container that does not ask for Intel RDT never comes here.
 */
import { existsSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { RuntimeError } from '../errors.ts'
import type { IntelRdt as IntelRdtSettings } from '../spec/types.ts'
import type { SavedIntelRdt } from '../state/intel-rdt.ts'
import { findResctrl, groupError, makeGroup, type Resctrl, readTrimmed, removeGroup, writeSchemata } from './resctrl.ts'
import { type IntelRdtStats, readIntelRdtStats } from './stats.ts'

/** The limits that can be changed later. */
export type IntelRdtUpdate = Pick<IntelRdtSettings, 'l3CacheSchema' | 'memBwSchema'>

/** The groups of a container. */
export class IntelRdt {
  readonly saved: SavedIntelRdt
  readonly #resctrl: Resctrl

  private constructor(saved: SavedIntelRdt, resctrl: Resctrl) {
    this.saved = saved
    this.#resctrl = resctrl
  }

  /**
   * Decides what the settings mean here, and makes nothing; `root` is a folder to take for the resctrl file system.
   * @throws FailedPrecondition in runc's words where the host does not have what they ask for
   */
  static plan(id: string, settings: IntelRdtSettings, root?: string): IntelRdt {
    const resctrl = findResctrl(root)
    const missing = (pointer: string, words: string) =>
      new RuntimeError('FailedPrecondition', `${words} is not enabled (at ${pointer})`, {
        detail: { source: 'spec', pointer },
      })
    if (resctrl === undefined) {
      throw missing('/linux/intelRdt', 'intelRdt is specified in config, but Intel RDT')
    }
    const specified = (field: string) => `intelRdt.${field} is specified in config, but Intel RDT`
    if (settings.l3CacheSchema !== undefined && !resctrl.cat) {
      throw missing('/linux/intelRdt/l3CacheSchema', `${specified('l3CacheSchema')}/CAT`)
    }
    if (settings.memBwSchema !== undefined && !resctrl.mba) {
      throw missing('/linux/intelRdt/memBwSchema', `${specified('memBwSchema')}/MBA`)
    }
    const { closID, enableMonitoring } = settings
    const path = closID === '/' ? resctrl.root : join(resctrl.root, closID ?? id)
    const monPath = enableMonitoring ? join(path, 'mon_groups', id) : undefined
    const mayRemove = closID === undefined && !existsSync(path)
    return new IntelRdt({ root: resctrl.root, path, mayRemove, ...(monPath === undefined ? {} : { monPath }) }, resctrl)
  }

  /** The groups that a state names. */
  static load(saved: SavedIntelRdt): IntelRdt {
    const resctrl = findResctrl(saved.root) ?? { root: saved.root, cat: false, mba: false, counters: new Set<string>() }
    return new IntelRdt(saved, resctrl)
  }

  /** Whether shares of the cache, and of the bandwidth of memory, can be set. */
  static abilities(saved?: SavedIntelRdt): Pick<Resctrl, 'cat' | 'mba'> {
    return findResctrl(saved?.root) ?? { cat: false, mba: false }
  }

  /** Makes the groups and sets the shares. @throws FailedPrecondition for a class that must exist already */
  make(settings: IntelRdtSettings): void {
    const { root, path, monPath } = this.saved
    const lines = schemataOf(settings)
    if (settings.closID !== undefined && lines.length === 0 && !existsSync(path)) {
      const why = 'it must exist already where schemata, l3CacheSchema and memBwSchema are empty'
      throw new RuntimeError('FailedPrecondition', `cannot use the Intel RDT class "${settings.closID}": ${why}`)
    }
    for (const group of monPath === undefined ? [path] : [path, monPath]) {
      try {
        makeGroup(root, group)
      } catch (error) {
        throw groupError(root, `cannot make the Intel RDT group "${group}"`, error)
      }
    }
    if (lines.length > 0) writeSchemata(root, path, lines)
  }

  /** Sets all shares of the settings; the result sets the present ones again. */
  set(settings: IntelRdtSettings): () => void {
    const { root, path } = this.saved
    const before = this.#schemata()
    writeSchemata(root, path, schemataOf(settings))
    return () => writeSchemata(root, path, before)
  }

  #schemata(): string[] {
    const { root, path } = this.saved
    try {
      return linesOf(readTrimmed(join(path, 'schemata')))
    } catch (error) {
      throw groupError(root, `cannot read the schemata of the Intel RDT group "${path}"`, error)
    }
  }

  /** The shares, and what the group's processes use. @throws what the kernel says */
  stats(): IntelRdtStats {
    try {
      return readIntelRdtStats(this.#resctrl, this.saved)
    } catch (error) {
      throw groupError(this.saved.root, `cannot read the Intel RDT group "${this.saved.path}"`, error)
    }
  }

  /** Removes the class that was made for the container, or else its counting group. */
  remove(id: string): void {
    const { root, path, monPath, mayRemove } = this.saved
    const counts = monPath !== undefined && monPath === join(path, 'mon_groups', id)
    if (counts) removeGroup(root, monPath)
    // a damaged state must not name another group than that of the id
    if (mayRemove && dirname(path) === root && basename(path) === id) removeGroup(root, path)
  }
}

/** The lines for the file schemata, in the order in which runc writes them. */
function schemataOf({ l3CacheSchema, memBwSchema, schemata }: IntelRdtSettings): string[] {
  return [l3CacheSchema, memBwSchema, ...schemata].flatMap((text) => linesOf(text ?? ''))
}

function linesOf(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
}
