/**
 * The wire form of the plan: what the encoder writes is what the C reader sees, and no damaged plan makes the reader
 * misbehave.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { LIMITS, OPS, type Op, PLAN_MAGIC } from '../../proto/init-plan.ts'
import { PLAN_SCHEMA_HASH } from '../../proto/plan-hash.gen.ts'
import { encodePlan } from '../../runtime/plan/encode.ts'
import { needs } from '../support/needs.ts'
import { make } from './run.ts'

let folder: string
let dump: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'plan-'))
  dump = make('../build/test/plan_dump')
}, 120_000)
afterAll(() => rmSync(folder, { recursive: true }))

function read(bytes: Uint8Array): string {
  const path = join(folder, 'plan')
  writeFileSync(path, bytes)
  const result = spawnSync(dump, [path], { encoding: 'utf8' })
  expect(result.stderr).toBe('')
  return result.stdout
}

const MINIMAL: readonly Op[] = [
  { op: 'clone', flags: 0n, uidMap: '', gidMap: '', runtimeMaps: 0 },
  { op: 'program', args: ['/bin/true'], env: [], uid: 0 },
  { op: 'exec', fds: 0 },
]

/** Written by hand, so that encoder and reader cannot agree on the same mistake. */
function raw(records: readonly (readonly [name: keyof typeof OPS, args: Buffer])[], size?: number): Buffer {
  const body = Buffer.concat(
    records.map(([name, args]) => {
      const head = Buffer.alloc(8)
      head.writeUInt16LE(OPS[name].code, 0)
      head.writeUInt32LE(8 + args.length, 4)
      return Buffer.concat([head, args])
    }),
  )
  const header = Buffer.alloc(16)
  header.writeUInt32LE(PLAN_MAGIC, 0)
  header.writeUInt32LE(PLAN_SCHEMA_HASH, 4)
  header.writeUInt32LE(size ?? 16 + body.length, 8)
  header.writeUInt32LE(records.length, 12)
  return Buffer.concat([header, body])
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

const str = (text: string) => Buffer.concat([u32(Buffer.byteLength(text)), Buffer.from(`${text}\0`)])
const CLONE = Buffer.concat([Buffer.alloc(8), str(''), str(''), u32(0)])
const PROGRAM = Buffer.concat([u32(1), str('/bin/true'), u32(0), u32(0)])
const NONE = Buffer.alloc(0)
const EXEC = u32(0)

describe('the plan reader', needs('gcc', 'make'), () => {
  test('sees each kind of argument as the encoder wrote it', () => {
    const plan: Op[] = [
      { op: 'oom_score_adj', value: -998 },
      { op: 'raise_rlimit', resource: 7, hard: 0xffffffffffffffffn },
      { op: 'clone', flags: 0x2000_0000n, uidMap: '0 1000 1\n', gidMap: '', runtimeMaps: 0 },
      { op: 'seccomp', flags: 4, filter: new Uint8Array([6, 0, 0, 0, 0, 0, 255, 127]) },
      {
        op: 'credentials',
        uid: 1,
        gid: 2,
        groups: [3, 4294967294],
        flags: 3,
        bounding: 1n,
        effective: 2n,
        permitted: 3n,
        inheritable: 4n,
        ambient: 5n,
      },
      { op: 'program', args: ['/bin/sh', '-c', 'echo "ü"'], env: [], uid: 4294967295 },
      { op: 'exec', fds: 0 },
    ]
    expect(read(encodePlan(plan))).toBe(
      [
        'oom_score_adj -998',
        'raise_rlimit 7 18446744073709551615',
        'clone 536870912 "0 1000 1\\x0a" "" 0',
        'seccomp 4 0x060000000000ff7f',
        'credentials 1 2 [3,4294967294] 3 1 2 3 4 5',
        'program ["/bin/sh","-c","echo \\x22ü\\x22"] [] 4294967295',
        'exec 0',
        '',
      ].join('\n'),
    )
  })

  test('sees a plan that was written by hand', () => {
    expect(
      read(
        raw([
          ['clone', CLONE],
          ['program', PROGRAM],
          ['exec', EXEC],
        ]),
      ),
    ).toBe('clone 0 "" "" 0\nprogram ["/bin/true"] [] 0\nexec 0\n')
    expect(Buffer.from(encodePlan(MINIMAL))).toEqual(
      raw([
        ['clone', CLONE],
        ['program', PROGRAM],
        ['exec', EXEC],
      ]),
    )
  })

  const refused: readonly (readonly [string, Buffer, RegExp])[] = [
    ['an empty file', Buffer.alloc(0), /no plan/],
    ['another schema', Buffer.from(raw([['exec', EXEC]])).fill(1, 4, 8), /another version/],
    [
      'a wrong total size',
      raw(
        [
          ['clone', CLONE],
          ['program', PROGRAM],
          ['exec', EXEC],
        ],
        20,
      ),
      /cut short or has a tail/,
    ],
    ['no operation', raw([]), /no program/],
    [
      'an operation after exec',
      raw([
        ['clone', CLONE],
        ['program', PROGRAM],
        ['exec', EXEC],
        ['ready', NONE],
      ]),
      /exec must be the last/,
    ],
    [
      'no exec',
      raw([
        ['clone', CLONE],
        ['program', PROGRAM],
      ]),
      /exec must be the last/,
    ],
    [
      'no clone',
      raw([
        ['program', PROGRAM],
        ['exec', EXEC],
      ]),
      /wrong side of the clone/,
    ],
    [
      'two clones',
      raw([
        ['clone', CLONE],
        ['clone', CLONE],
        ['program', PROGRAM],
        ['exec', EXEC],
      ]),
      /wrong side of the clone/,
    ],
    [
      'a host operation after the clone',
      raw([
        ['clone', CLONE],
        ['open_fifo', str('/f')],
        ['program', PROGRAM],
        ['exec', EXEC],
      ]),
      /wrong side/,
    ],
    [
      'a program without arguments',
      raw([
        ['clone', CLONE],
        ['program', Buffer.concat([u32(0), u32(0), u32(0)])],
        ['exec', EXEC],
      ]),
      /no arguments/,
    ],
    [
      'a NUL in a string',
      raw([
        ['clone', CLONE],
        ['hostname', str('a\0b')],
        ['program', PROGRAM],
        ['exec', EXEC],
      ]),
      /malformed/,
    ],
    [
      'a string without its NUL',
      raw([
        ['clone', CLONE],
        ['hostname', Buffer.concat([u32(1), Buffer.from('ab')])],
        ['program', PROGRAM],
        ['exec', EXEC],
      ]),
      /malformed/,
    ],
    [
      'a string longer than its record',
      raw([
        ['clone', CLONE],
        ['hostname', Buffer.concat([u32(0xffffffff), Buffer.from('a\0')])],
        ['program', PROGRAM],
        ['exec', EXEC],
      ]),
      /malformed/,
    ],
    [
      'a string longer than the limit',
      raw([
        ['clone', CLONE],
        ['hostname', str('x'.repeat(LIMITS.STRING_MAX_BYTES + 1))],
        ['program', PROGRAM],
        ['exec', EXEC],
      ]),
      /malformed/,
    ],
    [
      'bytes behind the arguments',
      raw([
        ['clone', CLONE],
        ['ready', Buffer.alloc(4)],
        ['program', PROGRAM],
        ['exec', EXEC],
      ]),
      /malformed/,
    ],
    [
      'a list with more items than bytes',
      raw([
        ['clone', CLONE],
        ['program', Buffer.concat([u32(0x40000000), str('a'), u32(0), u32(0)])],
        ['exec', EXEC],
      ]),
      /malformed/,
    ],
    [
      'a mount before rootfs',
      Buffer.from(
        encodePlan([
          { op: 'clone', flags: 0n, uidMap: '', gidMap: '', runtimeMaps: 0 },
          {
            op: 'mount',
            source: '',
            target: '/',
            fstype: '',
            options: [],
            how: 0,
            set: 0n,
            clear: 0n,
            dropped: 0n,
            recSet: 0n,
            recClear: 0n,
            propagation: [],
            uidMap: '',
            gidMap: '',
          },
          ...MINIMAL.slice(1),
        ]),
      ),
      /mount needs rootfs before it/,
    ],
    [
      'await_start before its fifo is opened',
      raw([
        ['clone', CLONE],
        ['program', PROGRAM],
        ['await_start', NONE],
        ['exec', EXEC],
      ]),
      /await_start needs open_fifo before it/,
    ],
    [
      'a cgroup that nobody waits for',
      raw([
        ['cgroup_tasks', str('/x')],
        ['clone', CLONE],
        ['program', PROGRAM],
        ['exec', EXEC],
      ]),
      /never waited for/,
    ],
    [
      'namespaces that are not joined',
      raw([
        ['open_ns', Buffer.concat([str('/x'), Buffer.alloc(8)])],
        ['clone', CLONE],
        ['program', PROGRAM],
        ['exec', EXEC],
      ]),
      /not joined/,
    ],
  ]
  test.for(refused)('refuses %s', ([, bytes, why]) => {
    expect(read(bytes)).toMatch(why)
  })

  test('survives every truncation and every changed byte of a plan with all operations', () => {
    expect(execFileSync(dump, ['-s'], { encoding: 'utf8' })).toMatch(/candidates/)
  }, 120_000)

  test('survives the same with a plan of the encoder', () => {
    const path = join(folder, 'golden')
    writeFileSync(path, encodePlan(MINIMAL))
    expect(execFileSync(dump, ['-f', path], { encoding: 'utf8' })).toMatch(/candidates/)
  }, 120_000)
})
