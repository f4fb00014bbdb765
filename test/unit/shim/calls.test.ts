/** What is known of calls while they last, and what the log says of them when they have ended. */
import { constants } from 'node:os'
import { type CallContext, Code, TtrpcError } from 'ttrpc-ts'
import { expect, test } from 'vitest'
import { type LogFields, type Logger, RuntimeError } from '../../../runtime/index.ts'
import { Calls } from '../../../shim/calls.ts'
import { parseCheckpoint } from '../../../shim/checkpoint.ts'

function setUp() {
  const lines: [level: string, message: string, fields: LogFields][] = []
  const at = (level: string) => (fields: LogFields, message: string) => void lines.push([level, message, fields])
  const logger: Logger = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
  return { lines, calls: new Calls(logger) }
}

const contextOf = (method: string): CallContext => ({
  service: 's',
  method,
  metadata: new Map(),
  signal: new AbortController().signal,
  afterReply: () => {},
})

const durationMs = expect.any(Number)

test('a call is listed with its container, its exec and its age until it has an outcome', async () => {
  const { lines, calls } = setUp()
  const { promise, resolve } = Promise.withResolvers<object>()
  const outcome = calls.around(contextOf('Start'), () => promise, { id: 'c1', execId: 'e1', pid: 7 })
  expect(calls.running).toEqual([{ op: 'Start', container: 'c1', exec: 'e1', durationMs }])
  expect(lines).toEqual([])
  resolve({})
  await outcome
  expect(calls.running).toEqual([])
  expect(lines).toEqual([['debug', 'call', { op: 'Start', container: 'c1', exec: 'e1', durationMs }]])
})

test('a call that is answered at once is told of at once, and names no exec where it has none', () => {
  const { lines, calls } = setUp()
  calls.around(contextOf('State'), () => ({}), { id: 'c1', execId: '' })
  calls.around(contextOf('Shutdown'), () => ({}), {})
  expect(lines.map(([, , fields]) => fields)).toEqual([
    { op: 'State', container: 'c1', exec: undefined, durationMs },
    { op: 'Shutdown', container: undefined, exec: undefined, durationMs },
  ])
  expect(calls.running).toEqual([])
})

/** As node:fs throws it. */
function systemError(code: 'EMFILE' | 'EISDIR'): Error {
  return Object.assign(new Error(`${code}: open '/proc/stat'`), { code, errno: -constants.errno[code] })
}

test.each<[what: string, error: Error, level: string, message: string]>([
  ['a refusal is nobody’s fault', new TtrpcError(Code.NOT_FOUND, 'no such container'), 'debug', 'call refused'],
  ['a failure of the runtime is a warning', new RuntimeError('Internal', 'cannot mount'), 'warn', 'call failed'],
  [
    'so is one that was put into words for the client',
    new TtrpcError(Code.UNKNOWN, 'OCI runtime create failed', { cause: new RuntimeError('Internal', 'cannot mount') }),
    'warn',
    'call failed',
  ],
  ['so is what the machine has run out of', systemError('EMFILE'), 'warn', 'call failed'],
  ['another failure of a plain read is a bug of ours', systemError('EISDIR'), 'error', 'call failed: this is a bug'],
  ['anything else is a bug of ours', new TypeError('x is not a function'), 'error', 'call failed: this is a bug'],
])('%s', async (_, error, level, message) => {
  const { lines, calls } = setUp()
  const failing = () => {
    throw error
  }
  expect(() => calls.around(contextOf('Create'), failing, { id: 'c1' })).toThrow(error)
  await expect(calls.around(contextOf('Create'), () => Promise.reject(error), { id: 'c1' })).rejects.toBe(error)
  const wanted = expect.objectContaining({ op: 'Create', container: 'c1', error: error.message, durationMs })
  expect(lines).toEqual([
    [level, message, wanted],
    [level, message, wanted],
  ])
  expect(calls.running).toEqual([])
})

test('options of a Checkpoint that are no message are the client’s fault, not a bug', () => {
  const { lines, calls } = setUp()
  const options = { typeUrl: 'containerd.runc.v1.CheckpointOptions', value: Buffer.from([0]) }
  const request = { id: 'c1', path: '/images', options }
  expect(() => calls.around(contextOf('Checkpoint'), () => parseCheckpoint(request), request)).toThrow('cannot decode')
  expect(lines.map(([level, message]) => [level, message])).toEqual([['debug', 'call refused']])
})
