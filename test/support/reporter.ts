/**
 * Writes the counts of a run to $COUNTS_FILE as one JSON object, so that scripts/test can add up the parts of a run.
 * The object also names the skipped tests with what the machine lacks, and the failed tests with their first line.
 */
import { writeFileSync } from 'node:fs'
import type { Reporter, TestModule } from 'vitest/node'

/** What $COUNTS_FILE holds. */
export interface Counts {
  readonly passed: number
  readonly failed: number
  /** A line each: the test, and the first line of its message. */
  readonly failures: readonly string[]
  readonly skipped: readonly string[]
}

/** The vitest reporter; vitest makes one per run. */
export class CountsReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const file = process.env['COUNTS_FILE']
    if (file === undefined) return
    let passed = 0
    const failures = errors.map((error) => lineOf('outside of any test', error))
    const skipped: string[] = []
    for (const module of modules) {
      // a file that cannot be loaded has no tests, but is a failure
      failures.push(...module.errors().map((error) => lineOf(module.relativeModuleId, error)))
      for (const test of module.children.allTests()) {
        const { state, errors } = test.result()
        if (state === 'passed') passed++
        else if (state === 'failed') failures.push(lineOf(`${module.relativeModuleId}: ${test.fullName}`, errors[0]))
        else skipped.push(`${test.fullName}: ${test.meta().missing ?? 'skipped'}`)
      }
    }
    const counts: Counts = { passed, failed: failures.length, failures, skipped }
    writeFileSync(file, JSON.stringify(counts))
  }
}

function lineOf(name: string, error: unknown): string {
  const message = error instanceof Object && 'message' in error ? String(error.message) : String(error)
  return `${name}: ${message.split('\n', 1)[0]}`
}
