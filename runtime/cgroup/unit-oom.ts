/**
 * OOM kills in a cgroup that systemd removes as soon as its last process has ended, often before anybody has read its
 * count. The count of the slice above includes it and stays. Invariant: while the cgroup is there, its own count is the
 * truth. Once it has gone, only what the slice has counted since the last look is added: a moment, since each kill in
 * the slice causes a look.
 */
import { type FSWatcher, watch } from 'node:fs'
import { dirname } from 'node:path'
import { readOomKills } from './oom.ts'

const LOOKS = 3

/** The count of one unit on v2. */
export class UnitOomCount {
  readonly #own: string
  readonly #above: string
  #known: { readonly own: number; readonly above: number } | undefined

  constructor(dir: string) {
    this.#own = `${dir}/memory.events`
    this.#above = `${dirname(dir)}/memory.events`
  }

  /** How many processes the OOM killer has killed, as far as that is known. */
  read(): number {
    let above = readOomKills(this.#above) ?? 0
    for (let look = 1; look <= LOOKS; look++) {
      const own = readOomKills(this.#own)
      if (own === undefined) break
      const after = readOomKills(this.#above) ?? 0
      this.#known = { own, above: after }
      // a kill between the two readings may be in one of them only
      if (after === above) return own
      above = after
    }
    return this.#known === undefined ? 0 : this.#known.own + Math.max(0, above - this.#known.above)
  }

  /** Looks whenever the slice counts a kill, until disposed. */
  watch(): Disposable {
    let watcher: FSWatcher | undefined
    try {
      watcher = watch(this.#above, { persistent: false }, () => void this.read()).on('error', () => watcher?.close())
    } catch {
      // the root of a hierarchy has no such file: then only this cgroup's own count is known
    }
    return { [Symbol.dispose]: () => watcher?.close() }
  }
}
