/**
 * The process of a config.json, and the document of an exec, which is one: every refusal, and where its pointer
 * leads.
 */
import { describe, expect, test } from 'vitest'
import { parseProcess } from '../../../runtime/spec/load.ts'
import { expectRefusal, type RefusedCase, refusal } from './fixture.ts'

const REFUSED: RefusedCase[] = [
  ['no process', '/process', 'process property must not be empty', (s) => delete s.process],
  ['a null process', '/process', 'process property must not be empty', (s) => (s.process = null)],
  ['a process that is a list', '/process', 'expected an object, found a list', (s) => (s.process = [])],
  ['no args', '/process/args', 'args must not be empty', (s) => delete s.process.args],
  ['empty args', '/process/args', 'args must not be empty', (s) => (s.process.args = [])],
  [
    'an empty program name',
    '/process/args/0',
    'exec: "": executable file not found in $PATH',
    (s) => (s.process.args = ['']),
  ],
  [
    'an argument that is no string',
    '/process/args/1',
    'expected a string, found a number',
    (s) => (s.process.args = ['a', 1]),
  ],
  ['a NUL in an argument', '/process/args/1', 'NUL byte', (s) => (s.process.args = ['a', 'b\0c'])],
  ['half a surrogate pair', '/process/args/1', 'not valid Unicode', (s) => (s.process.args = ['a', '\ud800'])],
  ['args that are a string', '/process/args', 'expected a list', (s) => (s.process.args = 'sh')],
  ['no cwd', '/process/cwd', 'Cwd property must not be empty', (s) => delete s.process.cwd],
  ['a relative cwd', '/process/cwd', 'Cwd must be an absolute path', (s) => (s.process.cwd = 'home')],
  ['a variable without =', '/process/env/1', 'invalid environment variable: "HOME"', (s) => s.process.env.push('HOME')],
  ['a variable without a name', '/process/env/1', 'invalid environment variable', (s) => s.process.env.push('=x')],
  ['an empty variable', '/process/env/1', 'invalid environment variable', (s) => s.process.env.push('')],
  ['a NUL in a variable', '/process/env/1', 'NUL byte', (s) => s.process.env.push('A=\0')],
  ['a negative uid', '/process/user/uid', 'out of range', (s) => (s.process.user.uid = -1)],
  [
    'the uid that means none',
    '/process/user/uid',
    '4294967295 is out of range, expected 0 to 4294967294',
    (s) => (s.process.user.uid = 4294967295),
  ],
  ['a uid of 33 bits', '/process/user/uid', 'out of range', (s) => (s.process.user.uid = 4294967296)],
  [
    'a uid that is text',
    '/process/user/uid',
    'expected a whole number, found a string',
    (s) => (s.process.user.uid = '0'),
  ],
  [
    'a uid with a fraction',
    '/process/user/uid',
    'expected a whole number, found 1.5',
    (s) => (s.process.user.uid = 1.5),
  ],
  ['a gid out of range', '/process/user/gid', 'out of range', (s) => (s.process.user.gid = 4294967295)],
  [
    'a group out of range',
    '/process/user/additionalGids/1',
    'out of range',
    (s) => (s.process.user.additionalGids = [0, -5]),
  ],
  ['a negative umask', '/process/user/umask', 'out of range', (s) => (s.process.user.umask = -1)],
  [
    'an unknown rlimit',
    '/process/rlimits/0/type',
    'unknown rlimit "RLIMIT_X"',
    (s) => (s.process.rlimits[0].type = 'RLIMIT_X'),
  ],
  ['an rlimit without type', '/process/rlimits/0/type', 'has no type', (s) => delete s.process.rlimits[0].type],
  [
    'the same rlimit twice',
    '/process/rlimits/1/type',
    'duplicate rlimit "RLIMIT_NOFILE"',
    (s) => s.process.rlimits.push({ ...s.process.rlimits[0] }),
  ],
  [
    'a soft limit above the hard one',
    '/process/rlimits/0/soft',
    'above the hard limit 1024',
    (s) => (s.process.rlimits[0].soft = 1025),
  ],
  ['a negative rlimit', '/process/rlimits/0/hard', 'out of range', (s) => (s.process.rlimits[0].hard = -1)],
  [
    'an oom score too high',
    '/process/oomScoreAdj',
    '1001 is out of range, expected -1000 to 1000',
    (s) => (s.process.oomScoreAdj = 1001),
  ],
  ['an oom score too low', '/process/oomScoreAdj', 'out of range', (s) => (s.process.oomScoreAdj = -1001)],
  [
    'a console too wide',
    '/process/consoleSize/width',
    'out of range',
    (s) => (s.process.consoleSize = { width: 70000, height: 1 }),
  ],
]

describe('parseSpec()', () => {
  test.each(REFUSED)('refuses %s at %s', (...row) => expectRefusal(row))
})

describe('parseProcess()', () => {
  test('reads the document of an exec', () => {
    const process = parseProcess(JSON.stringify({ args: ['id'], cwd: '/tmp', user: { uid: 1000, gid: 1000 } }))
    expect(process).toMatchObject({
      args: ['id'],
      cwd: '/tmp',
      user: { uid: 1000, gid: 1000 },
      terminal: false,
      env: [],
    })
  })

  test('points into the document itself', () => {
    const error = refusal(JSON.stringify({ args: ['id'], cwd: 'tmp' }), (text) => parseProcess(text))
    expect(error.detail).toEqual({ source: 'spec', pointer: '/cwd' })
  })
})
