/** The reaper beside Node's own child processes. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { Reaper } from '../../runtime/index.ts'

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
