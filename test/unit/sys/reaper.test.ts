/** The reaper beside Node's own child processes, and with more exits than one turn of the event loop should take. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Reaper } from '../../../runtime/index.ts'
import { ROOT } from '../../support/places.ts'

test('a reaper that takes no orphans leaves the exits of child_process to it', async () => {
  const reaper = new Reaper()
  reaper.start({ subreaper: false })
  try {
    const child = spawn('/bin/sh', ['-c', 'exit 7'])
    // the event loop stands still meanwhile: nobody else can have reaped it
    while (!readFileSync(`/proc/${child.pid}/stat`, 'latin1').includes(') Z '));
    reaper.reap()
    expect(await once(child, 'exit')).toEqual([7, null])
  } finally {
    reaper.close()
  }
})

/** Orphans of a shell that end while the event loop stands still; how many were reaped in each of its turns. */
const ORPHANS = `
  import { execFileSync } from 'node:child_process'
  import { readFileSync } from 'node:fs'
  import { Reaper } from '${join(ROOT, 'runtime/index.ts')}'
  const turns = [0]
  const logger = { debug: () => turns[turns.length - 1]++, info() {}, warn() {}, error() {} }
  const reaper = new Reaper(logger)
  reaper.start()
  execFileSync('sh', ['-c', 'i=0; while [ $i -lt 500 ]; do sleep 600 & i=$((i+1)); done'], { stdio: 'ignore' })
  const children = () => readFileSync('/proc/self/task/' + process.pid + '/children', 'latin1').trim().split(' ')
  const ended = (pid) => readFileSync('/proc/' + pid + '/stat', 'latin1').includes(') Z ')
  for (const pid of children()) process.kill(Number(pid), 'SIGKILL')
  while (!children().every(ended));
  const next = () => {
    if (children()[0] === '') return console.log(JSON.stringify(turns))
    turns.push(0)
    setImmediate(next)
  }
  setImmediate(next)`

test('five hundred orphans that have ended at once are reaped in several turns', () => {
  const turns: unknown = JSON.parse(
    execFileSync(process.execPath, ['--input-type=module', '-e', ORPHANS], { encoding: 'utf8' }),
  )
  const counts = (Array.isArray(turns) ? turns : []).map(Number)
  expect(counts.reduce((a, b) => a + b)).toBe(500)
  expect(Math.max(...counts)).toBeLessThan(100)
})
