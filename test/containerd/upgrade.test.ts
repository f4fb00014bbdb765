/** Containers outlive their daemon's release: a newer one takes them over, and an older one again. */
import { describe } from 'vitest'
import { expect, test } from '../support/containerd.ts'
import { needs } from '../support/needs.ts'

describe(
  'a containerd of another release',
  needs('root', 'busybox', 'our shim', 'other releases of containerd'),
  () => {
    for (const [from, to] of [
      ['', '2'],
      ['1.7', '2'],
      ['2', '1.7'],
    ] as const) {
      test(`takes over what ${from === '' ? "the machine's own" : from} has left: ${to}`, async ({ ct }) => {
        const { daemon } = ct
        await daemon.kill('SIGTERM')
        daemon.use(from)
        await daemon.start()
        const id = await ct.detached()
        const [task, shim] = [await ct.task(id), ct.shimPid(id)]
        await daemon.kill('SIGKILL')
        daemon.use(to)
        await daemon.start()
        expect(`${daemon.version}.`).toContain(`${to}.`)
        expect(await ct.task(id)).toEqual(task)
        expect(ct.shimPid(id)).toBe(shim)
        expect(await ct.exec(id, ['payload', 'both', '9', 'x'])).toMatchObject({ code: 9, stdout: 'out:x\n' })
        const started = await ct.detached()
        await ct.ok('task', 'rm', '-f', started)
        await ct.ok('task', 'rm', '-f', id)
      })
    }
  },
)
