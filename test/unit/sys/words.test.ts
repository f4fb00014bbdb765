/** The words for numbers of the system: those that libc has, and Go with it. */
import { constants } from 'node:os'
import { describe, expect, test } from 'vitest'
import { errnoWords, reasonOf } from '../../../runtime/sys/errno.ts'
import { errnoText, exitText } from '../../../runtime/sys/words.ts'

describe('an errno', () => {
  test.each([
    [constants.errno.ENOENT, 'ENOENT: no such file or directory'],
    [constants.errno.EACCES, 'EACCES: permission denied'],
    [constants.errno.EPERM, 'EPERM: operation not permitted'],
    [constants.errno.ENOTDIR, 'ENOTDIR: not a directory'],
    [constants.errno.EISDIR, 'EISDIR: is a directory'],
    [constants.errno.EBUSY, 'EBUSY: device or resource busy'],
    [constants.errno.EEXIST, 'EEXIST: file exists'],
    [constants.errno.EDQUOT, 'EDQUOT: disk quota exceeded'],
    [constants.errno.ENOMEM, 'ENOMEM: cannot allocate memory'],
  ])('%i reads as tools know it: %s', (errno, words) => expect(errnoWords(errno)).toBe(words))

  test.each(Object.entries(constants.errno))('%s has words', (_, errno) => {
    expect(errnoText(errno)).toMatch(/^[a-z.].*/i)
    expect(errnoText(errno)).not.toMatch(/unknown/i)
  })

  test('that is none leaves the message of the error', () => {
    expect(reasonOf(new Error('what happened'))).toBe('what happened')
    expect(reasonOf('a word')).toBe('a word')
  })
})

describe('an end', () => {
  test.each([
    [{ status: 3 }, 'exit status 3'],
    [{ status: 137, signal: 9 }, 'signal: killed'],
    [{ status: 159, signal: 31 }, 'signal: bad system call'],
    [{ status: 139, signal: 11 }, 'signal: segmentation fault'],
    [{ status: 143, signal: 15 }, 'signal: terminated'],
  ])('%j is told as %s', (exit, words) => expect(exitText(exit)).toBe(words))

  test.each([...Array(31).keys()].map((n) => n + 1).concat([34, 50, 64]))('by signal %i has a name', (signal) => {
    expect(exitText({ status: 128 + signal, signal })).toMatch(/^signal: [a-z].*/i)
    expect(exitText({ status: 128 + signal, signal })).not.toMatch(/unknown/i)
  })
})
