/**
 * A container that counts: each number is a line of its output and of a file in its root. A restored one goes on with
 * the next number, so a gap or a new beginning shows.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { until } from './command.ts'
import type { Runts } from './runts.ts'
import type { SpecChange } from './spec.ts'

const COUNT = 'i=0; while :; do i=$((i+1)); echo "line $i"; echo $i >/count.new; mv /count.new /count; sleep 0.05; done'

/** A bundle whose container counts. */
export class Counter {
  readonly bundle: string
  readonly images: string

  constructor(runts: Runts, change?: SpecChange, script = COUNT) {
    this.bundle = runts.bundle(['sh', '-c', script], change)
    this.images = `${this.bundle}-images`
  }

  /** The last number; 0 before the first. */
  get count(): number {
    try {
      return Number(readFileSync(join(this.bundle, 'rootfs/count'), 'utf8'))
    } catch {
      // it has not begun
      return 0
    }
  }

  /** Waits until it has counted on by two: one step may have been begun before. Answers the last number. */
  async goesOn(): Promise<number> {
    const from = this.count
    await until('the container to count on', () => this.count >= from + 2)
    return this.count
  }
}
