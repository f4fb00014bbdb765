/**
 * A container that counts: each number is a line of its output and of a file in its root. A restored one goes on with
 * the next number, so a gap or a new beginning shows.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { until } from './command.ts'
import { OCI_RUNTIME } from './places.ts'
import type { Runts } from './runts.ts'
import type { SpecChange } from './spec.ts'

/** The shell's script. */
export const COUNT =
  'i=0; while :; do i=$((i+1)); echo "line $i"; echo $i >>/all; echo $i >/count.new; mv /count.new /count; sleep 0.05; done'

/**
 * Counts by one when it is told to. In between it has no file open: what goes on after a dump would change that file,
 * and a file that has changed cannot be restored.
 */
export const COUNT_STEPS =
  'i=0; while :; do if [ -d /step ]; then i=$((i+1)); echo $i >>/all; rmdir /step; fi; sleep 0.02; done'

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

  /** Whether it has counted a number again: it was restored to an earlier one. */
  get repeats(): boolean {
    const numbers = contents(join(this.bundle, 'rootfs/all')).split('\n').filter(Boolean)
    return new Set(numbers).size < numbers.length
  }

  /** Has it count by one, where its script is COUNT_STEPS. */
  async step(): Promise<void> {
    const order = join(this.bundle, 'rootfs/step')
    mkdirSync(order)
    await until('the container to count', () => !existsSync(order))
  }

  /** Waits until it has counted on by two: one step may have been begun before. Answers the last number. */
  async goesOn(): Promise<number> {
    const from = this.count
    await until('the container to count on', () => this.count >= from + 2)
    return this.count
  }
}

/** The content of a file; empty for one that has gone. */
export function contents(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/** Runs a command that leaves a container, with the null device as its streams: nothing else is restored everywhere. */
export function leave(runts: Runts, ...args: string[]): void {
  leaveBy(OCI_RUNTIME, runts, args)
}

/** Does the same with a runtime that is named. */
export function leaveBy(program: string, runts: Runts, args: readonly string[]): void {
  const log = join(runts.folder, 'log')
  const { status } = spawnSync(program, ['--root', runts.root, '--log', log, ...args], { stdio: 'ignore' })
  expect(status, `${args.join(' ')}: ${contents(log)}`).toBe(0)
}

/** Starts a container that counts, and waits until it does. */
export async function beginCounting(runts: Runts, change?: SpecChange): Promise<Counter> {
  const counter = new Counter(runts, change)
  leave(runts, 'run', '-d', '-b', counter.bundle, 'c')
  await counter.goesOn()
  return counter
}
