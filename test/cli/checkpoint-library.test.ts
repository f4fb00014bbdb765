/**
 * Container.checkpoint and Container.restore in a program that embeds the runtime; and memory that goes to a page
 * server.
 */
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect } from 'vitest'
import { Container, loadSpec } from '../../runtime/index.ts'
import { startCommand, until } from '../support/command.ts'
import { beginCounting, Counter, contents, leave } from '../support/counter.ts'
import { Library, Streams } from '../support/library.ts'
import { needs } from '../support/needs.ts'
import { test } from '../support/runts.ts'

const library = new Library()
afterAll(() => library[Symbol.dispose]())

describe('the library', needs('root', 'busybox', 'criu'), () => {
  test('saves a container, and restores it as a child whose exit it learns', async ({ runts }) => {
    const counter = new Counter(runts)
    using streams = new Streams(runts.folder, 'init')
    const where = { root: runts.root, id: 'c1', bundle: counter.bundle, spec: loadSpec(counter.bundle) }
    const { reaper } = library
    const first = await Container.run({ ...where, stdio: streams.stdio, reaper })
    await counter.goesOn()
    expect(streams.text).toContain('line 1\n')
    await first.checkpoint({ imagePath: counter.images, leaveRunning: true })
    expect(first.status()).toBe('running')
    await first.checkpoint({ imagePath: counter.images })
    expect(await first.init.wait()).toMatchObject({ exitCode: 137 })
    await first.destroy()
    const last = counter.count
    const second = await Container.restore({ ...where, stdio: streams.stdio, reaper, imagePath: counter.images })
    expect(second.status()).toBe('running')
    await counter.goesOn()
    expect(counter.count).toBeGreaterThan(last)
    await second.pause()
    await second.resume()
    await second.signal(15)
    await second.signal(9)
    expect(await second.init.wait()).toMatchObject({ exitCode: 137, signal: 9 })
    await second.destroy()
  })

  test('gives up a restore whose signal is aborted, and leaves nothing', async ({ runts }) => {
    const counter = await beginCounting(runts)
    await runts.ok('checkpoint', '--image-path', counter.images, 'c')
    using streams = new Streams(runts.folder, 'init')
    const where = { root: runts.root, id: 'c2', bundle: counter.bundle, spec: loadSpec(counter.bundle) }
    const giveUp = new AbortController()
    const { signal } = giveUp
    const { stdio } = streams
    const restored = Container.restore({ ...where, stdio, reaper: library.reaper, imagePath: counter.images, signal })
    const log = join(counter.images, 'restore.log')
    await until('criu to begin', () => existsSync(log))
    giveUp.abort()
    await expect(restored).rejects.toMatchObject({ code: 'Canceled' })
    expect(existsSync(join(runts.root, 'c2'))).toBe(false)
    expect(contents('/proc/self/mountinfo').includes(runts.name)).toBe(false)
  })
})

describe('a page server', needs('root', 'busybox', 'criu'), () => {
  test('gets the memory of a container, which is restored from where that is', async ({ runts }) => {
    const counter = await beginCounting(runts)
    const port = String(20_000 + (process.pid % 10_000))
    mkdirSync(counter.images)
    const server = startCommand('criu', ['page-server', '--port', port, '-D', counter.images])
    const listens = (): boolean => contents('/proc/net/tcp').includes(`:${Number(port).toString(16).toUpperCase()} `)
    await until('the page server to listen', listens, () => server.describe())
    await runts.ok('checkpoint', '--page-server', `127.0.0.1:${port}`, '--image-path', counter.images, 'c')
    expect((await server.finished).code).toBe(0)
    const last = counter.count
    leave(runts, 'restore', '-d', '--image-path', counter.images, '-b', counter.bundle, 'c')
    await counter.goesOn()
    expect(counter.count).toBeGreaterThan(last)
  })
})
