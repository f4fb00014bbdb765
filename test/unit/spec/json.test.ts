/** Numbers of config.json arrive as they were written, or are refused; never rounded. */
import { describe, expect, test } from 'vitest'
import { RuntimeError } from '../../../runtime/errors.ts'
import { parseJson } from '../../../runtime/spec/json.ts'
import { parseResources, parseSpec } from '../../../runtime/spec/load.ts'
import { stringifyJson } from '../../../runtime/spec/stringify.ts'
import { defaultSpec, specText } from './fixture.ts'

describe('parseJson()', () => {
  test.each([
    ['9007199254740991', 9007199254740991],
    ['9007199254740993', 9007199254740993n],
    ['-9007199254740993', -9007199254740993n],
    ['18446744073709551615', 18446744073709551615n],
    ['9223372036854775807', 9223372036854775807n],
    ['-9223372036854775808', -9223372036854775808n],
    ['0', 0],
    ['-1', -1],
    ['1.5', 1.5],
    ['"18446744073709551615"', '18446744073709551615'],
    ['[18446744073709551615, {"a": 18446744073709551614}]', [18446744073709551615n, { a: 18446744073709551614n }]],
    ['{"a": 1, "a": 18446744073709551615}', { a: 18446744073709551615n }],
  ])('reads %s exactly', (text, value) => {
    expect(parseJson(text)).toEqual(value)
  })

  test.each(['', '{', '{"a":}', '[1,]', 'undefined', '{"a": 01}'])(
    'refuses %j with the name of the document',
    (text) => {
      expect(() => parseJson(text, 'the configuration')).toThrow(/^cannot parse the configuration: /)
    },
  )

  test('a key named __proto__ is data', () => {
    const value = parseJson('{"__proto__": {"polluted": true}}')
    expect(Object.keys(value as object)).toEqual(['__proto__'])
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
  })
})

describe('64-bit fields', () => {
  test('RLIM_INFINITY survives', () => {
    const text = specText((spec) => {
      spec.process.rlimits = [{ type: 'RLIMIT_CORE', soft: 1, hard: 'X' }]
    }).replace('"X"', '18446744073709551615')
    expect(parseSpec(text, 'test').process.rlimits).toEqual([
      { type: 'RLIMIT_CORE', soft: 1n, hard: 18446744073709551615n },
    ])
  })

  test.each([
    ['{"memory": {"limit": 9223372036854775807}}', 9223372036854775807n],
    ['{"memory": {"limit": -1}}', -1n],
    ['{"memory": {"limit": 0}}', 0n],
  ])('%s is exact', (text, limit) => {
    expect(parseResources(text).memory?.limit).toBe(limit)
  })

  test.each([
    ['{"memory": {"limit": 9223372036854775808}}', '/memory/limit'],
    ['{"memory": {"limit": -2}}', '/memory/limit'],
    ['{"memory": {"limit": 1.5}}', '/memory/limit'],
    ['{"memory": {"limit": 1e30}}', '/memory/limit'],
    ['{"memory": {"limit": "1"}}', '/memory/limit'],
    ['{"memory": []}', '/memory'],
    ['{"memory": {"swappiness": 101}}', '/memory/swappiness'],
    ['{"memory": {"disableOOMKiller": 1}}', '/memory/disableOOMKiller'],
    ['{"cpu": {"shares": -1}}', '/cpu/shares'],
    ['{"cpu": {"period": 18446744073709551616}}', '/cpu/period'],
    ['{"cpu": {"idle": 2}}', '/cpu/idle'],
    ['{"cpu": {"cpus": 3}}', '/cpu/cpus'],
    ['{"pids": {"limit": "many"}}', '/pids/limit'],
    ['{"blockIO": {"weight": 65536}}', '/blockIO/weight'],
    ['{"blockIO": {"weightDevice": [{"major": -1}]}}', '/blockIO/weightDevice/0/major'],
    [
      '{"blockIO": {"throttleReadBpsDevice": [{"major": 1, "minor": 2, "rate": -5}]}}',
      '/blockIO/throttleReadBpsDevice/0/rate',
    ],
    ['{"hugepageLimits": [{"limit": 1}]}', '/hugepageLimits/0/pageSize'],
    ['{"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}', '/hugepageLimits/0/pageSize'],
    ['{"network": {"classID": 4294967296}}', '/network/classID'],
    ['{"network": {"priorities": [{"priority": 1}]}}', '/network/priorities/0/name'],
    ['{"rdma": {"mlx5": {"hcaHandles": -1}}}', '/rdma/mlx5/hcaHandles'],
    ['{"unified": {"memory.max": 5}}', '/unified/memory.max'],
    ['{"devices": [{"access": "rwm"}]}', '/devices/0/allow'],
    ['{"devices": [{"allow": true, "access": "x"}]}', '/devices/0/access'],
    ['{"devices": [{"allow": true, "type": "d"}]}', '/devices/0/type'],
    ['[]', ''],
  ])('%s is refused at %s', (text, pointer) => {
    const error = caught(() => parseResources(text))
    expect(error).toMatchObject({ code: 'InvalidArgument', detail: { source: 'spec', pointer } })
  })
})

test('a spec that is written and read again is the same', () => {
  const spec = defaultSpec()
  spec.linux.resources.memory = { limit: 1 }
  const text = JSON.stringify(spec).replace('"limit":1', '"limit":9223372036854775807')
  const parsed = parseSpec(text, 'test')
  expect(parsed.linux.resources?.memory?.limit).toBe(9223372036854775807n)
  expect(parseSpec(stringifyJson(parsed), 'test')).toEqual(parsed)
})

function caught(action: () => unknown): RuntimeError {
  try {
    action()
  } catch (error) {
    if (error instanceof RuntimeError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}
