/**
 * Measures how long each turn of the event loop takes. A test build does so while RUNTS_TURNS names a file, and writes
 * a line for each long turn, with the place (failpoint.ts) that was passed last. Waiting for a CPU does not count,
 * since it says nothing about this program. The product contains none of this.
 */
import { openSync, readSync, writeSync } from 'node:fs'
import { lastPlace } from './failpoint.ts'

/** set by scripts/build.ts; undefined when the sources run unbundled */
declare const RUNTS_FAILPOINTS: boolean | undefined

/** Shorter turns are not written. */
const WORTH_MS = 0.5
const NS_PER_MS = 1_000_000

/** Begins to measure, if a test asks for it; the event loop never rests from then on. */
export function probeTurns(): void {
  if (typeof RUNTS_FAILPOINTS !== 'undefined' && RUNTS_FAILPOINTS) {
    const path = process.env['RUNTS_TURNS']
    if (path !== undefined) probe(openSync(path, 'a'))
  }
}

function probe(out: number): void {
  const file = openSync('/proc/thread-self/schedstat', 'r')
  const bytes = Buffer.alloc(128)
  const waited = (): number => {
    const length = readSync(file, bytes, 0, bytes.length, 0)
    return Number(bytes.toString('latin1', 0, length).split(' ')[1]) / NS_PER_MS
  }
  let before = { at: performance.now(), waited: waited() }
  const turn = (): void => {
    const now = { at: performance.now(), waited: waited() }
    const held = now.at - before.at - (now.waited - before.waited)
    if (held >= WORTH_MS) {
      writeSync(out, `${held.toFixed(2)} ${lastPlace()}\n`)
      before = { at: performance.now(), waited: waited() }
    } else before = now
    setImmediate(turn)
  }
  setImmediate(turn)
}
