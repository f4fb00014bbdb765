/** Programs of the host that the command line finds by name: never one of the working directory, whatever PATH says. */
import { chmodSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { startCommand } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { BIN, OCI_RUNTIME } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'

const HOST = '/usr/sbin:/usr/bin:/sbin:/bin'

/** A folder with a program that leaves a trace when it runs. */
function trap(runts: Runts, name: string): { folder: string; trace: string } {
  const folder = join(runts.folder, 'trap')
  const trace = join(runts.folder, 'trace')
  mkdirSync(join(folder, 'sub'), { recursive: true })
  for (const path of [join(folder, name), join(folder, 'sub', name)]) {
    writeFileSync(path, `#!/bin/sh\necho "$0" >>${trace}\n`)
    chmodSync(path, 0o755)
  }
  return { folder, trace }
}

describe('a program that is found by PATH', needs('root', 'busybox', 'procps', 'our shim'), () => {
  test.for(['', ':', `:${HOST}`, `${HOST}:`, `/nowhere::${HOST}`, `.:${HOST}`, `sub:${HOST}`, `./sub:${HOST}`])(
    'PATH=%j never makes `runts ps` run ./ps',
    async (PATH, { runts }) => {
      const { folder, trace } = trap(runts, 'ps')
      runts.leave('run', '-d', '-b', runts.bundle(['sleep', '1000']), 'c')
      const { stdout } = await runts.start(['ps', 'c'], { cwd: folder, env: { ...process.env, PATH } }).finished
      expect(existsSync(trace)).toBe(false)
      expect(stdout).toMatch(/^UID .*\n.* sleep 1000\n$/)
      await runts.ok('delete', '-f', 'c')
    },
  )

  test('is no folder of its name, and no file without the permission', async ({ runts }) => {
    const places = ['folder', 'text'].map((name) => join(runts.folder, name))
    mkdirSync(join(places[0]!, 'ps'), { recursive: true })
    mkdirSync(places[1]!)
    writeFileSync(join(places[1]!, 'ps'), '')
    runts.leave('run', '-d', '-b', runts.bundle(['sleep', '1000']), 'c')
    const env = { ...process.env, PATH: `${places.join(':')}:${HOST}` }
    expect(await runts.start(['ps', 'c'], { env }).finished).toMatchObject({ code: 0, stderr: '' })
    const without = { ...process.env, PATH: places.join(':') }
    expect(await runts.start(['ps', 'c'], { env: without }).finished).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('"ps": executable file not found in $PATH'),
    })
    await runts.ok('delete', '-f', 'c')
  })

  test('is none that `runts` itself needs to find its installation through a link', async ({ runts }) => {
    const { folder, trace } = trap(runts, 'readlink')
    const link = join(runts.folder, 'link')
    symlinkSync(OCI_RUNTIME.startsWith('/') ? OCI_RUNTIME : join(BIN, 'runts'), link)
    const ended = await startCommand(link, ['--version'], { cwd: folder, env: { PATH: `:${HOST}` } }).finished
    expect(existsSync(trace)).toBe(false)
    expect(ended).toMatchObject({ code: 0, stdout: expect.stringMatching(/^runts version /) })
  })
})
