/**
 * Log programs (`binary://`) as operators write them: shell scripts that leave their pid and files for a test to
 * read.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { isAlive } from './census.ts'

/** The lines of a file, without the empty ones; none while it is not there. */
export const linesOf = (path: string): string[] =>
  existsSync(path)
    ? readFileSync(path, 'utf8')
        .replaceAll('\r', '')
        .split('\n')
        .filter((line) => line !== '')
    : []

let programs = 0

/** A log program: a shell script, which leaves its pid beside it. */
export interface TestLogProgram {
  readonly uri: string
  /** undefined before it runs */
  readonly pid: number | undefined
}

/** Writes a log program. The end of the test kills it, also if its shim is gone. */
export function logProgram(
  folder: string,
  script: string,
  options: { query?: string; scheme?: string } = {},
): TestLogProgram {
  const path = join(folder, `program-${programs++}`)
  const pidFile = `${path}.pid`
  writeFileSync(path, `#!/bin/sh\necho $$ >${pidFile}\n${script}\n`, { mode: 0o755 })
  const made = {
    uri: `${options.scheme ?? 'binary'}://${path}${options.query ?? ''}`,
    get pid(): number | undefined {
      const [pid] = linesOf(pidFile)
      return pid === undefined ? undefined : Number(pid)
    },
  }
  onTestFinished(async () => {
    const { pid } = made
    if (pid !== undefined && isAlive(pid) && readFileSync(`/proc/${pid}/environ`, 'utf8').includes('CONTAINER_ID='))
      process.kill(pid, 'SIGKILL')
  })
  return made
}

/** What most log programs do: copies both streams to files until they end. It is ready when it has them open. */
export const copies = (folder: string): string =>
  `cat <&3 >>${folder}/out & cat <&4 >>${folder}/err & exec 3<&- 4<&-; echo ready >&5; exec 5>&-; wait; echo end >>${folder}/end`
