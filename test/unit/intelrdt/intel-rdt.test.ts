/** The Intel RDT groups of a container, on a folder that stands for the resctrl file system. */
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { IntelRdt } from '../../../runtime/intelrdt/intel-rdt.ts'
import { parseSpec } from '../../../runtime/spec/load.ts'
import type { IntelRdt as Settings } from '../../../runtime/spec/types.ts'
import { intelRdtFields, readIntelRdtFields, tasksFiles } from '../../../runtime/state/intel-rdt.ts'
import { needs } from '../../support/needs.ts'
import { ResctrlTree } from '../../support/resctrl.ts'

const NOTHING: Settings = { schemata: [], enableMonitoring: false }

function made(tree: ResctrlTree, settings: Partial<Settings>, id = 'c1'): IntelRdt {
  const whole = { ...NOTHING, ...settings }
  const groups = IntelRdt.plan(id, whole, tree.root)
  groups.make(whole)
  return groups
}

/** The settings that config.json says. */
function parsed(intelRdt: object): Settings | undefined {
  const text = JSON.stringify({
    ociVersion: '1.2.0',
    process: { args: ['x'], cwd: '/' },
    root: { path: 'r' },
    linux: { intelRdt },
  })
  return parseSpec(text, 'config.json').linux.intelRdt
}

describe('linux.intelRdt', () => {
  test('is read with all its fields, the switches of older specifications too', () => {
    const all = { closID: 'gold', schemata: ['L2:0=f'], l3CacheSchema: 'L3:0=f', memBwSchema: 'MB:0=20' }
    expect(parsed({ ...all, enableMonitoring: true })).toEqual({ ...all, enableMonitoring: true })
    expect(parsed({})).toEqual(NOTHING)
    expect(parsed({ enableCMT: true })?.enableMonitoring).toBe(true)
    expect(parsed({ enableMBM: true, enableCMT: false })?.enableMonitoring).toBe(true)
    expect(parsed({ closID: '/' })?.closID).toBe('/')
  })

  test.each(['.', '..', 'a/b', '/a', 'a/'])('refuses the class %j', (closID) => {
    expect(() => parsed({ closID })).toThrow(`invalid intelRdt.ClosID ${JSON.stringify(closID)}`)
  })
})

describe('a host', () => {
  test.each<[string, readonly string[], Partial<Settings>, string]>([
    [
      'without shares of the cache',
      ['info/L3/'],
      { l3CacheSchema: 'L3:0=f' },
      'l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled',
    ],
    [
      'without shares of the bandwidth',
      ['info/MB'],
      { memBwSchema: 'MB:0=20' },
      'memBwSchema is specified in config, but Intel RDT/MBA is not enabled',
    ],
  ])('%s refuses them in the words of runc', (_, without, settings, words) => {
    using tree = new ResctrlTree(without)
    expect(() => IntelRdt.plan('c1', { ...NOTHING, ...settings }, tree.root)).toThrow(`intelRdt.${words}`)
    expect(tree.groups()).toEqual([])
  })

  test('without Intel RDT refuses every wish for it, and says where', needs('no resctrl'), () => {
    expect(() => IntelRdt.plan('c1', NOTHING)).toThrow(
      'intelRdt is specified in config, but Intel RDT is not enabled (at /linux/intelRdt)',
    )
  })
})

describe('the class of a container', () => {
  test('has its id as the name, takes the lines in the order of runc, and goes with it', () => {
    using tree = new ResctrlTree()
    const groups = made(tree, { schemata: ['L2:0=f', 'L3:1=3'], memBwSchema: 'MB:0=20', l3CacheSchema: 'L3:0=f' })
    expect(tree.groups()).toEqual(['c1'])
    expect(tree.read('c1/schemata')).toBe('L3:0=f\nMB:0=20\nL2:0=f\nL3:1=3\n')
    expect(tasksFiles(groups.saved)).toEqual([join(tree.root, 'c1/tasks')])
    groups.remove('c1')
    expect(tree.groups()).toEqual([])
    expect(tasksFiles(groups.saved)).toEqual([])
    groups.remove('c1')
  })

  test('may have several lines in one text, as for code and data', () => {
    using tree = new ResctrlTree()
    made(tree, { l3CacheSchema: 'L3CODE:0=f\n L3DATA:0=f0\n' }).remove('other')
    expect(tree.read('c1/schemata')).toBe('L3CODE:0=f\nL3DATA:0=f0\n')
  })

  test('that an administrator made is joined and stays, with the shares that it has or is given', () => {
    using tree = new ResctrlTree()
    tree.group('gold')
    const before = tree.read('gold/schemata')
    made(tree, { closID: 'gold' }).remove('c1')
    expect(tree.read('gold/schemata')).toBe(before)
    made(tree, { closID: 'gold', memBwSchema: 'MB:0=20' }).remove('c1')
    expect(tree.read('gold/schemata')).toBe('MB:0=20\n')
    made(tree, {}, 'gold').remove('gold')
    expect(tree.groups()).toEqual(['gold'])
  })

  test('of a name and without shares must exist, and one with shares is made and stays', () => {
    using tree = new ResctrlTree()
    expect(() => made(tree, { closID: 'gold' })).toThrow('cannot use the Intel RDT class "gold": it must exist already')
    expect(tree.groups()).toEqual([])
    made(tree, { closID: 'silver', l3CacheSchema: 'L3:0=f' }).remove('c1')
    expect(tree.groups()).toEqual(['silver'])
  })

  test('may be the default one', () => {
    using tree = new ResctrlTree()
    const groups = made(tree, { closID: '/' })
    expect(tasksFiles(groups.saved)).toEqual([join(tree.root, 'tasks')])
    groups.remove('c1')
    expect(tree.groups()).toEqual([])
  })

  test('has a counting group where that is asked for, which goes with the container', () => {
    using tree = new ResctrlTree()
    tree.group('gold')
    const shared = made(tree, { closID: 'gold', enableMonitoring: true })
    expect(tree.groups('gold/mon_groups')).toEqual(['c1'])
    expect(tasksFiles(shared.saved).map((file) => file.slice(tree.root.length))).toEqual([
      '/gold/tasks',
      '/gold/mon_groups/c1/tasks',
    ])
    shared.remove('c1')
    expect(tree.groups('gold/mon_groups')).toEqual([])
    const own = made(tree, { enableMonitoring: true })
    expect(tree.groups('c1/mon_groups')).toEqual(['c1'])
    own.remove('c1')
    expect(tree.groups()).toEqual(['gold'])
  })

  test('is changed as a whole, and has its old shares again by the undo', () => {
    using tree = new ResctrlTree()
    const settings = { ...NOTHING, l3CacheSchema: 'L3:0=f', schemata: ['L2:0=1'] }
    const groups = made(tree, settings)
    const undo = groups.set({ ...settings, l3CacheSchema: 'L3:0=ff' })
    expect(tree.read('c1/schemata')).toBe('L3:0=ff\nL2:0=1\n')
    undo()
    expect(tree.read('c1/schemata')).toBe('L3:0=f\nL2:0=1\n')
    groups.remove('c1')
  })

  test('a failure says what the kernel says, in last_cmd_status too', () => {
    using tree = new ResctrlTree()
    tree.write('info/last_cmd_status', 'mask f0f has non-consecutive 1-bits\n')
    const groups = IntelRdt.load({ root: tree.root, path: join(tree.root, 'gone'), mayRemove: false })
    expect(() => groups.set({ ...NOTHING, l3CacheSchema: 'L3:0=f0f' })).toThrow(
      /gone": ENOENT: .*, last_cmd_status: mask f0f has non-consecutive 1-bits$/,
    )
  })

  test('of a damaged state never takes another group away', () => {
    using tree = new ResctrlTree()
    tree.group('gold')
    IntelRdt.load({ root: tree.root, path: join(tree.root, 'gold'), mayRemove: true }).remove('c1')
    expect(tree.groups()).toEqual(['gold'])
    const fields = { intel_rdt_path: join(tree.root, 'gold'), intel_rdt_mon_path: '/etc', intel_rdt_made: 'yes' }
    expect(readIntelRdtFields(fields)).toEqual({ root: tree.root, path: join(tree.root, 'gold'), mayRemove: false })
    expect(readIntelRdtFields({ intel_rdt_path: 7 })).toBeUndefined()
  })

  test('is the same after it was written to the state and read', () => {
    using tree = new ResctrlTree()
    const { saved } = made(tree, { enableMonitoring: true })
    expect(readIntelRdtFields({ ...intelRdtFields(saved) })).toEqual(saved)
    expect(intelRdtFields(undefined)).toEqual({})
  })
})

test('the counters are those of the counting group, the shares those of the class and of the root', () => {
  using tree = new ResctrlTree()
  tree.group('gold')
  const groups = made(tree, { closID: 'gold', enableMonitoring: true })
  tree.group('gold/mon_groups/c1')
  tree.write('gold/mon_groups/c1/mon_data/mon_L3_00/mbm_total_bytes', '9\n')
  tree.write('gold/mon_groups/c1/mon_data/mon_L3_01/llc_occupancy', 'Unavailable\n')
  tree.write('gold/schemata', '    MB:0= 20;1=100\n    L3:0=f;1=fffff\n')
  expect(groups.stats()).toEqual({
    l3CacheInfo: { cbmMask: 'fffff', minCbmBits: 1n, numClosids: 16n },
    l3CacheSchemaRoot: 'L3:0=fffff;1=fffff',
    l3CacheSchema: 'L3:0=f;1=fffff',
    memBwInfo: { bandwidthGran: 10n, delayLinear: 1n, minBandwidth: 10n, numClosids: 8n },
    memBwSchemaRoot: 'MB:0=100;1=100',
    memBwSchema: 'MB:0= 20;1=100',
    schemata: ['MB:0= 20;1=100', '    L3:0=f;1=fffff'],
    mbmStats: [
      { totalBytes: 9n, localBytes: 300n },
      { totalBytes: 700n, localBytes: 300n },
    ],
    cmtStats: [{ llcOccupancy: 4096n }, { llcOccupancy: 0n }],
  })
})
