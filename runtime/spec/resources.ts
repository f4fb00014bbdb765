/**
 * `linux.resources` of config.json, checked for types and ranges; the same document updates a running container. The
 * cgroup code decides what the numbers mean and whether they fit together.
 */
import { specError } from '../errors.ts'
import {
  asInteger,
  asObject,
  asString,
  bigintField,
  booleanField,
  defined,
  INT64,
  integerField,
  listField,
  mapField,
  objectField,
  pointerTo,
  type Range,
  requiredString,
  stringField,
  UINT32,
  UINT64,
  wordField,
} from './fields.ts'
import type { Json, JsonObject } from './json.ts'
import type {
  BlockIoResources,
  CpuResources,
  DeviceRule,
  LinuxResources,
  MemoryResources,
  NetworkResources,
  ThrottleDevice,
  WeightDevice,
} from './types.ts'

const UINT16: Range<number> = { min: 0, max: 0xffff }
/** a byte count, or -1 for no limit */
const BYTES: Range<bigint> = { min: -1n, max: INT64.max }

/** Reads resource limits. @throws InvalidArgument */
export function readResources(value: Json, at: string): LinuxResources {
  const resources = asObject(value, at)
  const part = <T>(key: string, read: (object: JsonObject, at: string) => T): T | undefined => {
    const object = objectField(resources, key, at)
    return object === undefined ? undefined : read(object, pointerTo(at, key))
  }
  return defined({
    devices: listField(resources, 'devices', { at, read: readDeviceRule }),
    memory: part('memory', readMemory),
    cpu: part('cpu', readCpu),
    pids: part('pids', readPids),
    blockIO: part('blockIO', readBlockIo),
    hugepageLimits: listField(resources, 'hugepageLimits', { at, read: readHugepageLimit }),
    network: part('network', readNetwork),
    rdma: mapField(resources, 'rdma', { at, read: readRdma }),
    unified: mapField(resources, 'unified', { at, read: asString }),
  })
}

function readDeviceRule(value: Json, at: string): DeviceRule {
  const rule = asObject(value, at)
  const allow = booleanField(rule, 'allow', at)
  if (allow === undefined) throw specError(pointerTo(at, 'allow'), 'the device rule does not say whether to allow')
  const access = stringField(rule, 'access', at)
  if (access !== undefined && !/^[rwm]+$/.test(access)) {
    throw specError(pointerTo(at, 'access'), `device access ${JSON.stringify(access)} is not made of r, w and m`)
  }
  // older documents write -1 for "all"
  const number: Range<number> = { min: -1, max: UINT32.max }
  return defined({
    allow,
    type: wordField(rule, 'type', { at, words: ['a', 'b', 'c'], what: 'device type' }),
    major: integerField(rule, 'major', { at, range: number }),
    minor: integerField(rule, 'minor', { at, range: number }),
    access,
  })
}

function readMemory(memory: JsonObject, at: string): MemoryResources {
  const bytes = (key: string) => bigintField(memory, key, { at, range: BYTES })
  return defined({
    limit: bytes('limit'),
    reservation: bytes('reservation'),
    swap: bytes('swap'),
    kernel: bytes('kernel'),
    kernelTCP: bytes('kernelTCP'),
    swappiness: integerField(memory, 'swappiness', { at, range: { min: 0, max: 100 } }),
    disableOOMKiller: booleanField(memory, 'disableOOMKiller', at),
    useHierarchy: booleanField(memory, 'useHierarchy', at),
    checkBeforeUpdate: booleanField(memory, 'checkBeforeUpdate', at),
  })
}

function readCpu(cpu: JsonObject, at: string): CpuResources {
  return defined({
    shares: bigintField(cpu, 'shares', { at, range: UINT64 }),
    quota: bigintField(cpu, 'quota', { at, range: INT64 }),
    burst: bigintField(cpu, 'burst', { at, range: UINT64 }),
    period: bigintField(cpu, 'period', { at, range: UINT64 }),
    realtimeRuntime: bigintField(cpu, 'realtimeRuntime', { at, range: INT64 }),
    realtimePeriod: bigintField(cpu, 'realtimePeriod', { at, range: UINT64 }),
    cpus: stringField(cpu, 'cpus', at),
    mems: stringField(cpu, 'mems', at),
    idle: integerField(cpu, 'idle', { at, range: { min: 0, max: 1 } }),
  })
}

function readPids(pids: JsonObject, at: string): { limit: bigint } | undefined {
  const limit = bigintField(pids, 'limit', { at, range: INT64 })
  return limit === undefined ? undefined : { limit }
}

function readBlockIo(io: JsonObject, at: string): BlockIoResources {
  const rates = (key: string) => listField(io, key, { at, read: readThrottle })
  return defined({
    weight: integerField(io, 'weight', { at, range: UINT16 }),
    leafWeight: integerField(io, 'leafWeight', { at, range: UINT16 }),
    weightDevice: listField(io, 'weightDevice', { at, read: readWeightDevice }),
    throttleReadBpsDevice: rates('throttleReadBpsDevice'),
    throttleWriteBpsDevice: rates('throttleWriteBpsDevice'),
    throttleReadIOPSDevice: rates('throttleReadIOPSDevice'),
    throttleWriteIOPSDevice: rates('throttleWriteIOPSDevice'),
  })
}

function readNumbers(device: JsonObject, at: string): { major: number; minor: number } {
  return {
    major: integerField(device, 'major', { at, range: UINT32 }) ?? 0,
    minor: integerField(device, 'minor', { at, range: UINT32 }) ?? 0,
  }
}

function readWeightDevice(value: Json, at: string): WeightDevice {
  const device = asObject(value, at)
  return defined({
    ...readNumbers(device, at),
    weight: integerField(device, 'weight', { at, range: UINT16 }),
    leafWeight: integerField(device, 'leafWeight', { at, range: UINT16 }),
  })
}

function readThrottle(value: Json, at: string): ThrottleDevice {
  const device = asObject(value, at)
  return { ...readNumbers(device, at), rate: bigintField(device, 'rate', { at, range: UINT64 }) ?? 0n }
}

function readHugepageLimit(value: Json, at: string): { pageSize: string; limit: bigint } {
  const item = asObject(value, at)
  const pageSize = requiredString(item, 'pageSize', { at, missing: 'the huge page limit has no page size' })
  // it becomes part of a file name
  if (!/^[1-9][0-9]*[KMGTP]B$/.test(pageSize)) {
    throw specError(pointerTo(at, 'pageSize'), `huge page size ${JSON.stringify(pageSize)} is not of the form 2MB`)
  }
  return { pageSize, limit: bigintField(item, 'limit', { at, range: UINT64 }) ?? 0n }
}

function readNetwork(network: JsonObject, at: string): NetworkResources {
  return defined({
    classID: integerField(network, 'classID', { at, range: UINT32 }),
    priorities: listField(network, 'priorities', {
      at,
      read: (value, itemAt) => {
        const item = asObject(value, itemAt)
        return {
          name: requiredString(item, 'name', { at: itemAt, missing: 'the network priority has no interface name' }),
          priority: asInteger(item['priority'] ?? 0, pointerTo(itemAt, 'priority'), UINT32),
        }
      },
    }),
  })
}

function readRdma(value: Json, at: string): { hcaHandles?: number; hcaObjects?: number } {
  const limits = asObject(value, at)
  return defined({
    hcaHandles: integerField(limits, 'hcaHandles', { at, range: UINT32 }),
    hcaObjects: integerField(limits, 'hcaObjects', { at, range: UINT32 }),
  })
}
