/** Small seccomp programs (struct sock_filter[]) by hand: everything is allowed but the calls that are named. */
import { resolveSyscall } from '../../runtime/sys/libseccomp.ts'

/** SECCOMP_RET_* values. */
export const RETURN = {
  kill: 0x80000000,
  trap: 0x00030000,
  errno: 0x00050000,
  notify: 0x7fc00000,
  allow: 0x7fff0000,
} as const

function instruction(code: number, jt: number, jf: number, k: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt16LE(code, 0)
  bytes.writeUInt8(jt, 2)
  bytes.writeUInt8(jf, 3)
  bytes.writeUInt32LE(k, 4)
  return bytes
}

/** A filter that gives each named call the value beside it. */
export function filterOf(calls: Readonly<Record<string, number>>): Buffer {
  const rules = Object.entries(calls).flatMap(([name, value]) => {
    const number = resolveSyscall(name)
    return number === undefined || number < 0
      ? []
      : [instruction(0x15, 0, 1, number), instruction(0x06, 0, 0, value >>> 0)]
  })
  return Buffer.concat([instruction(0x20, 0, 0, 0), ...rules, instruction(0x06, 0, 0, RETURN.allow)])
}
