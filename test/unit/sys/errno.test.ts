/** The one table of errno to error code, with both of its columns. */
import { constants } from 'node:os'
import { expect, test } from 'vitest'
import { cgroupError } from '../../../runtime/cgroup/files.ts'
import { errnoCode, errnoName } from '../../../runtime/sys/errno.ts'

const errnos = [...new Set(Object.values(constants.errno))]

/** Every errno whose code is not Internal, by that code. */
function codesOf(code: (errno: number) => string): Record<string, string[]> {
  const codes: Record<string, string[]> = {}
  for (const errno of errnos) {
    const found = code(errno)
    if (found !== 'Internal') codes[found] = [...(codes[found] ?? []), errnoName(errno)].sort()
  }
  return codes
}

test('errnoCode says what a system call means by an errno', () => {
  expect(codesOf((errno) => errnoCode(errno))).toEqual({
    NotFound: ['ENOENT', 'ESRCH'],
    AlreadyExists: ['EEXIST'],
    PermissionDenied: ['EACCES', 'EPERM'],
    Unimplemented: ['ENOSYS', 'ENOTSUP'],
    ResourceExhausted: ['EMFILE', 'ENFILE', 'ENOMEM', 'ENOSPC'],
  })
})

test('cgroupError says what a file of a cgroup means by an errno', () => {
  const failure = (errno: number): unknown =>
    cgroupError('cannot freeze cgroup "/x"', Object.assign(new Error('failed'), { errno: -errno }), {
      call: 'write',
      path: '/x',
    })
  expect(codesOf((errno) => (failure(errno) as { code: string }).code)).toEqual({
    FailedPrecondition: ['EBUSY', 'ENOENT', 'ENOTEMPTY'],
    InvalidArgument: ['EINVAL', 'ERANGE'],
    PermissionDenied: ['EACCES', 'EPERM', 'EROFS'],
    ResourceExhausted: ['ENOMEM', 'ENOSPC'],
  })
})
