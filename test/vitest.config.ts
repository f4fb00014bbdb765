/**
 * One configuration for all suites, as projects. `npm test -- --project unit` selects one, and a path works too.
 * Tests without privilege run in parallel. Tests that start containers run two files at a time.
 * Each such file has a root, a daemon, a cgroup folder and a census of its own, and waits most of its time.
 */
import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { defineConfig } from 'vitest/config'
import { CountsReporter } from './support/reporter.ts'

const root = join(import.meta.dirname, '..')
// the CRIU of scripts/containerds, for machines that have none
process.env['PATH'] = `${process.env['PATH'] ?? ''}:${join(root, 'build/criu')}`
const slowness = process.env['TESTVM'] === '1' ? 10 : 1

/**
 * Releases of containerd besides the machine's own, as scripts/containerds knows them; the last takes Go, so it runs
 * where it was built.
 */
const RELEASES = ['1.7', '2', ...(existsSync(join(root, 'build/containerd/2.3')) ? ['2.3'] : [])]
/** What runs against them: the checklist, or with MATRIX=full all that runs against the machine's own. */
const CHECKLIST = 'test/containerd/conformance/*.test.ts'
const MATRIX = process.env['MATRIX'] === 'full' ? 'test/containerd/**/*.test.ts' : CHECKLIST
/**
 * nerdctl's tests run against the newest of Debian's, for which that nerdctl was made; with MATRIX=full against all.
 */
const NERDCTL = 'test/containerd/nerdctl/*.test.ts'
/** Another release, or another runtime, asked for by name: then only that. */
const CHOSEN = process.env['CONTAINERD'] !== undefined || process.env['RUNTIME'] !== undefined || slowness > 1

/** Runs when all other tests are done: how long a system call takes depends on what else keeps the kernel busy. */
const ALONE = 'test/shim/turns.test.ts'

const inPairs = {
  pool: 'forks',
  maxWorkers: Math.min(2, availableParallelism()),
  hookTimeout: 60_000 * slowness,
  // after the unit tests, and all as one queue: the last files of one project run beside the first of the next
  sequence: { groupOrder: 1 },
} as const
const globalSetup = join(import.meta.dirname, 'support/global-setup.ts')

export default defineConfig({
  test: {
    root,
    // the guest is slow: show each test as it ends
    reporters: [slowness > 1 ? 'verbose' : 'default', new CountsReporter()],
    projects: [
      {
        test: {
          name: 'unit',
          root,
          pool: 'forks',
          include: ['test/{unit,wire,c}/**/*.test.ts'],
          testTimeout: 20_000 * slowness,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: 'cli',
          root,
          ...inPairs,
          globalSetup,
          include: ['test/cli/**/*.test.ts'],
          testTimeout: 20_000 * slowness,
        },
      },
      {
        test: {
          name: 'oci',
          root,
          ...inPairs,
          globalSetup,
          include: ['test/oci/**/*.test.ts'],
          testTimeout: 20_000 * slowness,
        },
      },
      {
        test: {
          name: 'shim',
          root,
          ...inPairs,
          globalSetup,
          include: ['test/shim/**/*.test.ts'],
          exclude: [ALONE],
          testTimeout: 20_000 * slowness,
        },
      },
      {
        test: {
          name: 'alone',
          root,
          ...inPairs,
          maxWorkers: 1,
          sequence: { groupOrder: 2 },
          globalSetup,
          include: [ALONE],
          testTimeout: 20_000 * slowness,
        },
      },
      {
        test: {
          name: 'kubelet',
          root,
          ...inPairs,
          globalSetup,
          include: ['test/kubelet/**/*.test.ts'],
          testTimeout: 60_000 * slowness,
        },
      },
      {
        test: {
          name: 'containerd',
          root,
          ...inPairs,
          globalSetup,
          include: ['test/containerd/**/*.test.ts'],
          exclude: CHOSEN || process.env['MATRIX'] === 'full' ? [] : [NERDCTL],
          testTimeout: 30_000 * slowness,
        },
      },
      ...(CHOSEN ? [] : RELEASES).map((release) => ({
        test: {
          name: `containerd-${release}`,
          root,
          ...inPairs,
          env: { CONTAINERD: release },
          globalSetup,
          // what ctr 2.3 says about hosts with version 1 of cgroups is more than the other tests expect to see
          include: release === '2.3' ? [CHECKLIST] : release === '2' ? [MATRIX, NERDCTL] : [MATRIX],
          testTimeout: 30_000 * slowness,
        },
      })),
    ],
  },
})
