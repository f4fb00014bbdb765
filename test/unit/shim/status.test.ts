/** The errors of the runtime as containerd sees them. */
import { Code, TtrpcError } from 'ttrpc-ts'
import { describe, expect, test } from 'vitest'
import { RuntimeError, type RuntimeErrorCode } from '../../../runtime/index.ts'
import { messageOf } from '../../../runtime/internal.ts'
import { classError, notFound, refused, stepFailed, toTtrpcError } from '../../../shim/status.ts'

describe('toTtrpcError', () => {
  const codes: [RuntimeErrorCode, number, string][] = [
    ['NotFound', Code.NOT_FOUND, 'what happened: not found'],
    ['AlreadyExists', Code.ALREADY_EXISTS, 'what happened: already exists'],
    ['FailedPrecondition', Code.FAILED_PRECONDITION, 'what happened: failed precondition'],
    ['Unimplemented', Code.UNIMPLEMENTED, 'what happened: not implemented'],
    ['DeadlineExceeded', Code.DEADLINE_EXCEEDED, 'what happened: context deadline exceeded'],
    ['Canceled', Code.CANCELED, 'what happened: context canceled'],
    ['InvalidArgument', Code.UNKNOWN, 'what happened'],
    ['PermissionDenied', Code.UNKNOWN, 'what happened'],
    ['ResourceExhausted', Code.UNKNOWN, 'what happened'],
    ['Unavailable', Code.UNKNOWN, 'what happened'],
    ['Internal', Code.UNKNOWN, 'what happened'],
  ]
  test.each(codes)('%s becomes %i', (code, number, message) => {
    expect(toTtrpcError(new RuntimeError(code, 'what happened'))).toMatchObject({ code: number, message })
  })

  test('the class is named once', () => {
    expect(toTtrpcError(new RuntimeError('NotFound', 'process already finished: not found')).message).toBe(
      'process already finished: not found',
    )
  })

  test('a TtrpcError stays what it is', () => {
    const error = refused('cannot start a running process')
    expect(toTtrpcError(error)).toBe(error)
  })

  test('a bug is Internal', () => {
    expect(toTtrpcError(new TypeError('x is undefined'))).toMatchObject({
      code: Code.INTERNAL,
      message: 'x is undefined',
    })
  })
})

describe('the shim’s own refusals', () => {
  test('have the codes and texts that clients know', () => {
    expect(notFound('container not created')).toMatchObject({ code: 5, message: 'container not created: not found' })
    expect(classError(Code.FAILED_PRECONDITION, 'process not created')).toMatchObject({
      code: 9,
      message: 'process not created: failed precondition',
    })
    expect(refused('cannot delete a running process')).toMatchObject({
      code: 2,
      message: 'cannot delete a running process',
    })
  })
})

describe('stepFailed', () => {
  test('makes one line that begins with the step, of code Unknown', () => {
    const error = stepFailed('OCI runtime create failed', new RuntimeError('NotFound', 'cannot read\nthe file'))
    expect(error).toMatchObject({
      code: Code.UNKNOWN,
      message: String.raw`OCI runtime create failed: cannot read\x0athe file`,
    })
    expect(error.cause).toBeInstanceOf(RuntimeError)
  })

  test('keeps "already exists", but not of a system call', () => {
    expect(stepFailed('create', new RuntimeError('AlreadyExists', 'id "c"')).code).toBe(Code.ALREADY_EXISTS)
    const detail = { source: 'syscall', call: 'mkdir', errno: 17 } as const
    expect(stepFailed('create', new RuntimeError('AlreadyExists', 'cannot make "x": EEXIST', { detail })).code).toBe(
      Code.UNKNOWN,
    )
  })

  test('keeps the class of an error that has one already', () => {
    expect(stepFailed('create', classError(Code.ALREADY_EXISTS, 'container "c"'))).toBeInstanceOf(TtrpcError)
  })
})

test('an undo of which several steps fail tells of each, in their order', async () => {
  const undo = new AsyncDisposableStack()
  for (const step of ['unmount', 'close', 'destroy']) undo.defer(() => Promise.reject(new Error(`cannot ${step}`)))
  const message = await undo.disposeAsync().catch(messageOf)
  expect(message).toBe('cannot destroy; cannot close; cannot unmount')
})
