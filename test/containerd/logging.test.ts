/** Logs that `ctr run --log-uri` sends to a file or a program. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { isAlive } from '../support/census.ts'
import { until } from '../support/command.ts'
import { expect, test } from '../support/containerd.ts'
import { copies, linesOf, logProgram } from '../support/log-program.ts'
import { needs } from '../support/needs.ts'
import { expectedSha256 } from '../support/stream.ts'

const SIZE = 16 * 1024 * 1024

describe('`ctr run --log-uri`', needs('root', 'containerd', 'busybox'), () => {
  test('a file gets all of a container that says much', async ({ ct }) => {
    const path = join(ct.folder, 'log')
    const id = ct.id()
    await ct.ok(...ct.runArgs(['-d', '--log-uri', `file://${path}`], id, ['payload', 'bytes', String(SIZE)]))
    await ct.untilStatus(id, 'STOPPED')
    await ct.ok('task', 'rm', id)
    expect(createHash('sha256').update(readFileSync(path)).digest('hex')).toBe(expectedSha256(SIZE))
  })

  test('a program survives the daemon, and nothing is lost meanwhile', {
    timeout: 60_000,
  }, async ({ ct }) => {
    const log = logProgram(ct.folder, copies(ct.folder))
    const id = ct.id()
    const script = 'i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done'
    await ct.ok(...ct.runArgs(['-d', '--log-uri', log.uri], id, ['sh', '-c', script]))
    const out = join(ct.folder, 'out')
    await until('the first lines', () => linesOf(out).length > 3)
    const { pid } = log
    await ct.daemon.kill()
    const before = linesOf(out).length
    await until('lines while the daemon is away', () => linesOf(out).length > before + 3)
    await ct.daemon.start()
    const later = linesOf(out).length
    await until('lines after its return', () => linesOf(out).length > later + 3)
    expect(isAlive(pid!)).toBe(true)
    await ct.ok('task', 'kill', '-s', 'SIGKILL', id)
    await ct.untilStatus(id, 'STOPPED')
    await ct.ok('task', 'rm', id)
    const written = linesOf(out)
    expect(written).toEqual(written.map((_, i) => `line ${i + 1}`))
    expect(linesOf(join(ct.folder, 'end'))).toEqual(['end'])
  })
})
