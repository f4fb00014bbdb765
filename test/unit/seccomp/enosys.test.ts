/** The ENOSYS prologue around programs of one instruction, so that every change of result is its own. */
import { describe, expect, test } from 'vitest'
import { type KnownSyscalls, patchEnosys } from '../../../runtime/seccomp/enosys.ts'
import { runBpf } from '../../support/bpf.ts'

const X86_64 = 0xc000003e
const X86 = 0x40000003
const AARCH64 = 0xc00000b7
const S390X = 0x80000016
const X32 = 0x40000000
const ALLOW = 0x7fff0000
const ENOSYS = 0x00050026

/** struct sock_filter[] of raw instructions. */
function program(...instructions: readonly (readonly [code: number, k: number])[]): Uint8Array {
  const bytes = new Uint8Array(instructions.length * 8)
  const view = new DataView(bytes.buffer)
  for (const [index, [code, k]] of instructions.entries()) {
    view.setUint16(index * 8, code, true)
    view.setUint32(index * 8 + 4, k, true)
  }
  return bytes
}

const RETURN_ALLOW = program([0x06, ALLOW])

const CASES: [what: string, known: KnownSyscalls[], arch: number, nr: number, result: number][] = [
  ['a known number', [{ auditArch: AARCH64, last: 450 }], AARCH64, 450, ALLOW],
  ['the first unknown number', [{ auditArch: AARCH64, last: 450 }], AARCH64, 451, ENOSYS],
  ['number 0', [{ auditArch: AARCH64, last: 450 }], AARCH64, 0, ALLOW],
  ['a negative number', [{ auditArch: AARCH64, last: 450 }], AARCH64, -1, ENOSYS],
  ['an architecture that is not listed', [{ auditArch: AARCH64, last: 450 }], X86, 9999, ALLOW],
  ['the first of three', three(), X86_64, 451, ENOSYS],
  ['the second of three', three(), X86, 441, ENOSYS],
  ['the second of three, known', three(), X86, 440, ALLOW],
  ['the third of three', three(), AARCH64, 431, ENOSYS],
  ['none of three', three(), S390X, 999, ALLOW],
  ['x32 that the profile lacks', [{ auditArch: X86_64, last: 450 }], X86_64, X32 + 1, ALLOW],
  ['x32 that the profile lacks, unknown too', [{ auditArch: X86_64, last: 450 }], X86_64, X32 + 999, ALLOW],
  ['-1 without x32', [{ auditArch: X86_64, last: 450 }], X86_64, -1, ALLOW],
  ['below x32', [{ auditArch: X86_64, last: 450 }], X86_64, X32 - 1, ENOSYS],
  ['x86-64 beside x32', withX32(), X86_64, 450, ALLOW],
  ['x86-64 beside x32, unknown', withX32(), X86_64, 451, ENOSYS],
  ['x32', withX32(), X86_64, X32 + 547, ALLOW],
  ['x32, unknown', withX32(), X86_64, X32 + 548, ENOSYS],
  ['-1 with x32', withX32(), X86_64, -1, ENOSYS],
  ['s390x number 0', [{ auditArch: S390X, last: 450 }], S390X, 0, ENOSYS],
  ['s390x number 1', [{ auditArch: S390X, last: 450 }], S390X, 1, ALLOW],
  ['s390x, unknown', [{ auditArch: S390X, last: 450 }], S390X, 451, ENOSYS],
]

function three(): KnownSyscalls[] {
  return [
    { auditArch: X86_64, last: 450 },
    { auditArch: X86, last: 440 },
    { auditArch: AARCH64, last: 430 },
  ]
}

function withX32(): KnownSyscalls[] {
  return [{ auditArch: X86_64, last: 450, lastX32: X32 + 547 }]
}

describe('patchEnosys()', () => {
  test.each(CASES)('%s', (_, known, arch, nr, result) => {
    expect(runBpf(patchEnosys(RETURN_ALLOW, known), { arch, nr })).toBe(result)
  })

  test('the program behind it is not changed', () => {
    const patched = patchEnosys(RETURN_ALLOW, three())
    expect(patched.subarray(patched.length - RETURN_ALLOW.length)).toEqual(RETURN_ALLOW)
  })

  test('nothing known, nothing added', () => {
    expect(patchEnosys(RETURN_ALLOW, [])).toEqual(RETURN_ALLOW)
  })

  test('a program that becomes longer than the kernel takes is refused', () => {
    const longest = program(...Array.from({ length: 4096 }, () => [0x06, ALLOW] as const))
    expect(patchEnosys(longest, [])).toEqual(longest)
    expect(() => patchEnosys(longest, three())).toThrow(/more than the 4096 that the kernel takes/)
  })
})
