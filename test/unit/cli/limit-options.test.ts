/** The options of `update` for single limits: what each word means. */
import { describe, expect, test } from 'vitest'
import { parsedArgs } from '../../../runtime/cli/flags.ts'
import { LIMIT_OPTIONS, limitsOf } from '../../../runtime/cli/limit-options.ts'
import { parseResources } from '../../../runtime/spec/load.ts'

const limits = (options: Readonly<Record<string, string>>) =>
  limitsOf(parsedArgs([], new Map(Object.entries(options).map(([name, value]) => [name, [value]]))))

const KIB = 1024n
const GIB = 1024n ** 3n

describe('a size', () => {
  test.each([
    ['0', 0n],
    ['1048576', 1024n * KIB],
    ['1b', 1n],
    ['1k', KIB],
    ['1K', KIB],
    ['1kb', KIB],
    ['1KiB', KIB],
    ['1 KiB', KIB],
    ['1.5g', (3n * GIB) / 2n],
    ['.5g', GIB / 2n],
    ['0.0001k', 0n],
    ['2T', 2048n * GIB],
    ['1P', 1024n * 1024n * GIB],
    ['9223372036854775807', 9223372036854775807n],
    ['-1', -1n],
  ])('%s is %s bytes', (text, bytes) => {
    expect(limits({ memory: text }).memory).toEqual({ limit: bytes })
  })

  test.each(
    ['', ' ']
      .map((text) => `${text}x`)
      .concat(['k', '1kk', '1ib', '1  k', '-2', '1e3', '1,5g', '9223372036854775808', '0x10']),
  )('%j is refused by the name of the option', (text) => {
    expect(() => limits({ 'memory-swap': text })).toThrow(`update: invalid value for memory-swap: "${text}": `)
  })
})

test('each option is the field of config.json for which it stands', () => {
  const all: Record<keyof typeof LIMIT_OPTIONS, string> = {
    'blkio-weight': '500',
    'cpu-period': '100000',
    'cpu-quota': '-1',
    'cpu-burst': '5',
    'cpu-share': '512',
    'cpu-rt-period': '1000000',
    'cpu-rt-runtime': '950000',
    'cpuset-cpus': '0-1',
    'cpuset-mems': '0',
    'kernel-memory': '1k',
    'kernel-memory-tcp': '-1',
    memory: '2k',
    'cpu-idle': '1',
    'memory-reservation': '3k',
    'memory-swap': '4k',
    'pids-limit': '-1',
  }
  expect(Object.keys(LIMIT_OPTIONS)).toEqual(Object.keys(all))
  expect(limits(all)).toEqual(
    parseResources(
      JSON.stringify({
        blockIO: { weight: 500 },
        cpu: {
          ...{ period: 100000, quota: -1, burst: 5, shares: 512, realtimePeriod: 1000000, realtimeRuntime: 950000 },
          ...{ cpus: '0-1', mems: '0', idle: 1 },
        },
        memory: { kernel: 1024, kernelTCP: -1, limit: 2048, reservation: 3072, swap: 4096 },
        pids: { limit: -1 },
      }),
    ),
  )
})

test('an option that is empty counts as left out', () => {
  expect(limits({ memory: '', 'pids-limit': '3' })).toEqual(parseResources('{"pids":{"limit":3}}'))
})

test.each([
  ['cpu-period', '-1'],
  ['cpu-share', '18446744073709551616'],
  ['cpu-quota', '9223372036854775808'],
  ['cpu-idle', '2'],
  ['blkio-weight', '70000'],
  ['pids-limit', '1.5'],
  ['cpu-burst', '5us'],
])('%s refuses %s by its name', (name, value) => {
  expect(() => limits({ [name]: value })).toThrow(`update: invalid value for ${name}: "${value}": `)
})
