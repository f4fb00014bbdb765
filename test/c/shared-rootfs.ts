/**
 * One root file system for the containers of a test file that leave it as it is, and what comes of a container in it:
 * output, or a failure.
 */
import { afterAll, beforeAll, expect } from 'vitest'
import { containerPlan, make, type Parts, Rootfs, Run, TS_INIT } from './run.ts'

/** The root file system of this test file. */
export let rootfs: Rootfs

/** Builds ts-init and makes the root file system for the tests of the `describe` that this is called in. */
export function useRootfs(): void {
  beforeAll(() => {
    make(TS_INIT)
    rootfs = new Rootfs()
  }, 120_000)
  afterAll(() => rootfs[Symbol.dispose]())
}

/** Runs a container to its end and returns what it printed. */
export async function output(parts: Parts): Promise<string> {
  using run = new Run(containerPlan(rootfs, parts))
  await run.ended
  if (run.find('failed')) throw new Error(JSON.stringify(run.records))
  const text = await run.stdout
  expect(await run.stderr).toBe('')
  return text
}

/** The same for a script of the image's shell. */
export const sh = (script: string, parts: Partial<Parts> = {}): Promise<string> =>
  output({ ...parts, args: ['/bin/sh', '-c', script] })

/** Runs a container that cannot be set up and returns the failure. */
export async function failure(parts: Parts) {
  using run = new Run(containerPlan(rootfs, parts))
  await run.ended
  return { ...run.find('failed'), op: containerPlan(rootfs, parts)[run.find('failed')?.value ?? -1]?.op }
}

/** The records of a run by their types, in order. */
export const types = (run: Run) => run.records.map(({ type }) => type)
