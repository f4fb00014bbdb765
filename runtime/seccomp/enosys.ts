/**
 * Makes a filter answer ENOSYS for system calls that are newer than its profile, as a kernel without them would.
 * Otherwise a program that probes for a new call sees EPERM and gives up instead of falling back. A prologue before the
 * compiled program does it, for each architecture: numbers above the largest one that the profile names return ENOSYS,
 * all others go on to the program. Invariant: for a number that the profile could know, the result does not change.
 * Pure.
 */
import { AUDIT_ARCH_S390, AUDIT_ARCH_S390X, AUDIT_ARCH_X86_64, ENOSYS, SECCOMP_RET_ERRNO } from '../sys/linux.ts'

/** The largest known system call number of one architecture. */
export interface KnownSyscalls {
  /** AUDIT_ARCH_* as the kernel reports it */
  readonly auditArch: number
  readonly last: number
  /** x86-64 only: the largest number of the x32 ABI, with its bit; when undefined the program decides about that ABI */
  readonly lastX32?: number
}

/** The bit of the numbers of the x32 ABI, which has the same architecture value as x86-64. */
const X32_BIT = 0x40000000

const MAX_INSTRUCTIONS = 4096
const INSTRUCTION_BYTES = 8

/** Offsets in struct seccomp_data. */
const OFFSET_NR = 0
const OFFSET_ARCH = 4

/** The instruction codes of classic BPF that the prologue uses. */
const LOAD = 0x20
const JUMP = 0x05
const JUMP_IF_EQUAL = 0x15
const JUMP_IF_GREATER = 0x25
const JUMP_IF_NOT_LESS = 0x35
const RETURN = 0x06
const RETURN_ENOSYS = SECCOMP_RET_ERRNO | ENOSYS

/** The number of tests to skip, or one of the two instructions that end a section. */
type Target = number | 'enosys' | 'program'
interface Test {
  readonly code: number
  readonly k: number
  readonly yes: Target
  readonly no: Target
}

/**
 * Puts the prologue before a program (struct sock_filter[], little-endian).
 * @throws RangeError when the result is too long
 */
export function patchEnosys(program: Uint8Array, known: readonly KnownSyscalls[]): Uint8Array {
  const prologue = known.flatMap(section)
  const head: Instruction[] = prologue.length === 0 ? [] : [{ code: LOAD, jt: 0, jf: 0, k: OFFSET_ARCH }, ...prologue]
  // a section cannot know how far the program is, so its jumps are set here
  for (const [index, instruction] of head.entries()) {
    if (instruction.code === JUMP) head[index] = { ...instruction, k: head.length - index - 1 }
  }
  const total = head.length + program.length / INSTRUCTION_BYTES
  if (total > MAX_INSTRUCTIONS) {
    throw new RangeError(
      `the seccomp filter has ${total} instructions, more than the ${MAX_INSTRUCTIONS} that the kernel takes`,
    )
  }
  const patched = new Uint8Array(head.length * INSTRUCTION_BYTES + program.length)
  const view = new DataView(patched.buffer)
  for (const [index, { code, jt, jf, k }] of head.entries()) {
    const at = index * INSTRUCTION_BYTES
    view.setUint16(at, code, true)
    view.setUint8(at + 2, jt)
    view.setUint8(at + 3, jf)
    view.setUint32(at + 4, k, true)
  }
  patched.set(program, head.length * INSTRUCTION_BYTES)
  return patched
}

interface Instruction {
  readonly code: number
  readonly jt: number
  readonly jf: number
  readonly k: number
}

/**
 * The prologue of one architecture. On another one it is skipped, with the architecture still in the accumulator. It
 * ends with two fixed instructions to which its tests jump: "go to the program" and "return ENOSYS".
 */
function section(known: KnownSyscalls): Instruction[] {
  const tests = testsFor(known)
  const offset = (from: number, target: Target) => {
    if (typeof target === 'number') return target
    return tests.length - from - 1 + (target === 'enosys' ? 1 : 0)
  }
  return [
    { code: JUMP_IF_EQUAL, jt: 0, jf: tests.length + 3, k: known.auditArch },
    { code: LOAD, jt: 0, jf: 0, k: OFFSET_NR },
    ...tests.map(({ code, k, yes, no }, index) => ({ code, jt: offset(index, yes), jf: offset(index, no), k })),
    { code: JUMP, jt: 0, jf: 0, k: 0 },
    { code: RETURN, jt: 0, jf: 0, k: RETURN_ENOSYS },
  ]
}

function testsFor({ auditArch, last, lastX32 }: KnownSyscalls): Test[] {
  const native: Test = { code: JUMP_IF_GREATER, k: last, yes: 'enosys', no: 'program' }
  if (auditArch === AUDIT_ARCH_X86_64) {
    // without x32 in the profile these numbers belong to another ABI, which the program itself refuses
    if (lastX32 === undefined) return [{ code: JUMP_IF_NOT_LESS, k: X32_BIT, yes: 'program', no: 0 }, native]
    const x32: Test = { code: JUMP_IF_GREATER, k: lastX32, yes: 'enosys', no: 'program' }
    return [{ code: JUMP_IF_NOT_LESS, k: X32_BIT, yes: 1, no: 0 }, native, x32]
  }
  if (auditArch === AUDIT_ARCH_S390 || auditArch === AUDIT_ARCH_S390X) {
    // on s390 syscall(2) passes a number that does not fit as 0
    return [{ code: JUMP_IF_EQUAL, k: 0, yes: 'enosys', no: 0 }, native]
  }
  return [native]
}
