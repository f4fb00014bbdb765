/** Limits that are set on a running container, put together with those that it has. */
import { expect, test } from 'vitest'
import { parseResources } from '../../../runtime/spec/load.ts'
import { completeUpdate, mergeResources } from '../../../runtime/spec/merge-resources.ts'

const merged = (earlier: object, later: object) =>
  mergeResources(parseResources(JSON.stringify(earlier)), parseResources(JSON.stringify(later)))

test('what the later document leaves out stays, down to the single value', () => {
  const earlier = { memory: { limit: 1000, swap: 2000 }, cpu: { shares: 5 }, pids: { limit: 1 } }
  expect(merged(earlier, { memory: { limit: 1500 }, pids: { limit: 2 } })).toMatchObject({
    memory: { limit: 1500n, swap: 2000n },
    cpu: { shares: 5n },
    pids: { limit: 2n },
  })
  expect(merged(earlier, {})).toEqual(parseResources(JSON.stringify(earlier)))
})

test('a list that is named replaces the old one, and page sizes, devices and files go by name', () => {
  const rule = { allow: true, type: 'c', major: 1, minor: 3, access: 'rwm' }
  const weight = { major: 8, minor: 0, weight: 100 }
  const earlier = {
    devices: [rule],
    hugepageLimits: [
      { pageSize: '2MB', limit: 1 },
      { pageSize: '1GB', limit: 1 },
    ],
    unified: { 'memory.high': '1', 'pids.max': '7' },
    rdma: { mlx: { hcaHandles: 1 } },
    blockIO: { weight: 10, weightDevice: [weight] },
  }
  const later = {
    devices: [{ ...rule, allow: false }],
    hugepageLimits: [{ pageSize: '2MB', limit: 2 }],
    unified: { 'memory.high': '2' },
    blockIO: { weight: 20 },
  }
  const { devices, hugepageLimits, unified, rdma, blockIO } = merged(earlier, later)
  expect(devices).toMatchObject([{ allow: false }])
  expect(hugepageLimits).toEqual([
    { pageSize: '1GB', limit: 1n },
    { pageSize: '2MB', limit: 2n },
  ])
  expect(unified).toEqual({ 'memory.high': '2', 'pids.max': '7' })
  expect(rdma).toEqual({ mlx: { hcaHandles: 1 } })
  expect(blockIO).toMatchObject({ weight: 20, weightDevice: [weight] })
})

test('a container without any limits takes what is set', () => {
  const later = parseResources('{"cpu":{"idle":1}}')
  expect(mergeResources(undefined, later)).toEqual(later)
})

test('a limit on memory and swap together stays when only the one on memory changes, and goes with it', () => {
  const complete = (earlier: object, later: object) =>
    completeUpdate(parseResources(JSON.stringify(earlier)), parseResources(JSON.stringify(later))).memory
  const earlier = { memory: { limit: 1000, swap: 2000 } }
  expect(complete(earlier, { memory: { limit: 500 } })).toEqual({ limit: 500n, swap: 2000n })
  expect(complete(earlier, { memory: { limit: 500, swap: 600 } })).toEqual({ limit: 500n, swap: 600n })
  expect(complete(earlier, { memory: { limit: -1 } })).toEqual({ limit: -1n, swap: 0n })
  expect(complete(earlier, { memory: { reservation: 5 } })).toEqual({ reservation: 5n })
  expect(complete({}, { memory: { limit: 500 } })).toEqual({ limit: 500n })
})
