/**
 * The managers behind a container, by their public names alone, and the page that says which of libcontainer's names
 * they stand for.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import * as library from '../../runtime/index.ts'
import { needs } from '../support/needs.ts'
import { ROOT } from '../support/places.ts'
import { ResctrlTree } from '../support/resctrl.ts'

const { Cgroup, Container, IntelRdt, parseResources } = library
const ID = `managers-${process.pid}`
const left: library.Cgroup[] = []
afterAll(async () => {
  for (const cgroup of left) await cgroup.remove()
})

describe('a manager by itself', needs('root'), () => {
  test('makes a cgroup, limits it, counts, freezes, is loaded from its paths, and removes it', async () => {
    const limit = (pids: number) => parseResources(JSON.stringify({ pids: { limit: pids } }))
    const cgroup = Cgroup.create({ id: ID, path: `/${ID}`, resources: limit(20) })
    left.push(cgroup)
    cgroup.set(limit(10))
    expect(cgroup.stats().pids).toEqual({ current: 0n, limit: 10n })
    await cgroup.freeze()
    const loaded = Cgroup.load(cgroup.paths)
    expect(loaded.freezerState()).toBe('frozen')
    await loaded.thaw()
    expect(loaded.procs()).toEqual([])
    await loaded.remove()
    expect(Object.values(cgroup.paths).filter((path) => existsSync(path))).toEqual([])
  })

  test('makes a class of Intel RDT, changes it, reads it, and removes it', () => {
    using tree = new ResctrlTree()
    const settings = { schemata: ['L3:0=f'], enableMonitoring: false }
    const groups = IntelRdt.plan('c1', settings, tree.root)
    groups.make(settings)
    groups.set({ ...settings, memBwSchema: 'MB:0=20' })
    expect(tree.read('c1/schemata')).toBe('MB:0=20\nL3:0=f\n')
    const loaded = IntelRdt.load(groups.saved)
    loaded.remove('c1')
    expect(tree.groups()).toEqual([])
  })
})

describe("the page that translates libcontainer's names", () => {
  const page = readFileSync(join(ROOT, 'runtime/container/README.md'), 'utf8')
  const rows = page
    .slice(0, page.indexOf('| error there'))
    .split('\n')
    .filter((line) => line.startsWith('| '))
  const cells = rows.slice(1).map((row) => row.split(' | ').map((cell) => cell.replace(/^\| | \|$/g, '')))

  test('names for each row a test that is there', () => {
    expect(cells.length).toBeGreaterThan(25)
    for (const [there = '', here = '', tests = ''] of cells) {
      if (here === 'not yet') continue
      const names = [...tests.matchAll(/`([\w/-]+)`/g)].map(([, name]) => name ?? '')
      expect(names.length, there).toBeGreaterThan(0)
      expect(names.filter((name) => !existsSync(join(ROOT, 'test', `${name}.test.ts`)))).toEqual([])
    }
  })

  test('names functions, classes and methods that the library has', () => {
    const known = new Set([
      ...Object.keys(library),
      ...[Container, Cgroup, IntelRdt].flatMap((type) => [
        ...Object.getOwnPropertyNames(type),
        ...Object.getOwnPropertyNames(type.prototype),
      ]),
    ])
    const said = cells.flatMap(([, here = '']) =>
      [...here.matchAll(/`(?:Container\.)?([a-zA-Z]+)\(/g)].map(([, name]) => name ?? ''),
    )
    expect(said.length).toBeGreaterThan(20)
    expect(said.filter((name) => !known.has(name) && name !== 'wait')).toEqual([])
  })
})
