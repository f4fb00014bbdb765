/**
 * An interpreter for seccomp programs: the part of classic BPF that the kernel allows over struct seccomp_data.
 * Tests run a compiled filter on chosen system calls, without making any of these calls.
 */

/** One system call, as a filter sees it. */
export interface Call {
  /** AUDIT_ARCH_* */
  readonly arch: number
  readonly nr: number
  readonly args?: readonly bigint[]
}

const MAX_INSTRUCTIONS = 4096

/**
 * Runs a program (struct sock_filter[], little-endian) and returns its SECCOMP_RET_* value. @throws where the kernel
 * refuses it
 */
export function runBpf(program: Uint8Array, call: Call): number {
  const data = new DataView(new ArrayBuffer(64))
  data.setInt32(0, call.nr | 0, true)
  data.setUint32(4, call.arch, true)
  for (const [index, value] of (call.args ?? []).entries())
    data.setBigUint64(16 + 8 * index, BigInt.asUintN(64, value), true)
  const code = new DataView(program.buffer, program.byteOffset, program.byteLength)
  const count = program.length / 8
  if (!Number.isInteger(count) || count === 0 || count > MAX_INSTRUCTIONS) throw new Error(`${count} instructions`)
  const memory = new Uint32Array(16)
  let a = 0
  let x = 0
  for (let pc = 0; pc < count; pc++) {
    const op = code.getUint16(pc * 8, true)
    const jt = code.getUint8(pc * 8 + 2)
    const jf = code.getUint8(pc * 8 + 3)
    const k = code.getUint32(pc * 8 + 4, true)
    const jump = (taken: boolean) => {
      pc += taken ? jt : jf
    }
    switch (op) {
      case 0x20: // ld [k]
        if (k % 4 !== 0 || k > 60) throw new Error(`load from ${k}`)
        a = data.getUint32(k, true)
        break
      case 0x00: // ld #k
        a = k
        break
      case 0x60: // ld M[k]
        a = memory[k] ?? 0
        break
      case 0x02: // st M[k]
        memory[k] = a
        break
      case 0x07: // tax
        x = a
        break
      case 0x87: // txa
        a = x
        break
      case 0x54: // and #k
        a = (a & k) >>> 0
        break
      case 0x05: // ja
        pc += k
        break
      case 0x15:
        jump(a === k)
        break
      case 0x25:
        jump(a > k)
        break
      case 0x35:
        jump(a >= k)
        break
      case 0x45:
        jump((a & k) !== 0)
        break
      case 0x06: // ret #k
        return k
      default:
        throw new Error(`instruction 0x${op.toString(16)} at ${pc}`)
    }
  }
  throw new Error('the program ends without a return')
}
