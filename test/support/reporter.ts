/**
 * Writes the counts of a run to $COUNTS_FILE as one JSON object, so that scripts/test can sum the parts of a run that has several,
 * and the names of skipped tests with what the machine lacked.
 */
import { writeFileSync } from 'node:fs'
import type { Reporter, TestModule } from 'vitest/node'

/** What $COUNTS_FILE holds. */
export interface Counts {
  readonly passed: number
  readonly failed: number
  readonly skipped: readonly string[]
}

/** The vitest reporter; vitest makes one per run. */
export class CountsReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const file = process.env['COUNTS_FILE']
    if (file === undefined) return
    let passed = 0
    let failed = errors.length
    const skipped: string[] = []
    for (const module of modules) {
      // a file that cannot be loaded has no tests, but is a failure
      failed += module.errors().length
      for (const test of module.children.allTests()) {
        const { state } = test.result()
        if (state === 'passed') passed++
        else if (state === 'failed') failed++
        else skipped.push(`${test.fullName}: ${test.meta().missing ?? 'skipped'}`)
      }
    }
    const counts: Counts = { passed, failed, skipped }
    writeFileSync(file, JSON.stringify(counts))
  }
}
