/**
 * The five commands of bpf(2) that a device program needs: load, attach, detach, query, and an fd from an id. The
 * argument is the kernel's `union bpf_attr`, written field by field into a zeroed buffer. Pointers in it are addresses
 * of buffers that the calling function keeps referenced until the call has returned.
 */

import koffi from 'koffi'
import { errnoOf, syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { declare, lastErrno } from './libc.ts'
import { EAGAIN, ENOENT, EPERM } from './linux.ts'

const PROG_LOAD = 5
const PROG_ATTACH = 8
const PROG_DETACH = 9
const PROG_GET_FD_BY_ID = 13
const PROG_QUERY = 16

const PROG_TYPE_CGROUP_DEVICE = 15
const ATTACH_TYPE_CGROUP_DEVICE = 6
const F_ALLOW_MULTI = 2
const F_REPLACE = 4

/** As often as libbpf loads a program again. */
const LOAD_ATTEMPTS = 5

const INSTRUCTION_BYTES = 8
const ATTR_BYTES = 128
const MAX_PROGRAMS = 64

const syscall = declare('long syscall(long number, int command, void *attr, unsigned int size)')

// the number of bpf(2): x86_64 has its own, arm64 the generic one
const BPF_NUMBER = process.arch === 'x64' ? 321 : 280

function bpf(what: string, command: number, attr: Buffer): number {
  const result = syscall(BPF_NUMBER, command, attr, attr.length)
  if (result < 0) throw syscallError(what, { call: 'bpf', errno: lastErrno() })
  return result
}

/** Loads a device program. */
export function loadDeviceProgram(program: Uint8Array): OwnedFd {
  const what = 'cannot load the device program'
  const license = Buffer.from('Apache-2.0\0')
  const code = Buffer.from(program)
  const attr = Buffer.alloc(ATTR_BYTES)
  attr.writeUInt32LE(PROG_TYPE_CGROUP_DEVICE, 0)
  attr.writeUInt32LE(code.length / INSTRUCTION_BYTES, 4)
  attr.writeBigUInt64LE(koffi.address(code), 8)
  attr.writeBigUInt64LE(koffi.address(license), 16)
  for (let attempt = 1; ; attempt++) {
    try {
      return new OwnedFd(bpf(what, PROG_LOAD, attr))
    } catch (error) {
      // a signal has interrupted the kernel's check of the program
      if (errnoOf(error) !== EAGAIN || attempt === LOAD_ATTEMPTS) throw error
    }
  }
}

interface Attachment {
  readonly cgroup: number
  readonly program: number
  readonly flags: number
  /** 0 when no program is replaced */
  readonly replaced: number
}

function attachAttr({ cgroup, program, flags, replaced }: Attachment): Buffer {
  const attr = Buffer.alloc(ATTR_BYTES)
  attr.writeUInt32LE(cgroup, 0)
  attr.writeUInt32LE(program, 4)
  attr.writeUInt32LE(ATTACH_TYPE_CGROUP_DEVICE, 8)
  attr.writeUInt32LE(flags, 12)
  attr.writeUInt32LE(replaced, 16)
  return attr
}

/** Attaches a program to a cgroup beside those attached already, or in place of `replaced`. All fds are borrowed. */
export function attachDeviceProgram(cgroup: number, program: number, replaced?: number): void {
  const flags = replaced === undefined ? F_ALLOW_MULTI : F_ALLOW_MULTI | F_REPLACE
  bpf('cannot attach the device program', PROG_ATTACH, attachAttr({ cgroup, program, flags, replaced: replaced ?? 0 }))
}

/** Detaches one program from a cgroup; both fds are borrowed. */
export function detachDeviceProgram(cgroup: number, program: number): void {
  bpf('cannot detach a device program', PROG_DETACH, attachAttr({ cgroup, program, flags: 0, replaced: 0 }))
}

/**
 * The device programs attached to this cgroup itself; programs that the kernel does not let this process open are left
 * out.
 */
export function attachedDevicePrograms(cgroup: number): OwnedFd[] {
  const ids = Buffer.alloc(MAX_PROGRAMS * 4)
  const attr = Buffer.alloc(ATTR_BYTES)
  attr.writeUInt32LE(cgroup, 0)
  attr.writeUInt32LE(ATTACH_TYPE_CGROUP_DEVICE, 4)
  attr.writeBigUInt64LE(koffi.address(ids), 16)
  attr.writeUInt32LE(MAX_PROGRAMS, 24)
  bpf('cannot list the device programs of the cgroup', PROG_QUERY, attr)
  const programs: OwnedFd[] = []
  try {
    for (let i = 0; i < attr.readUInt32LE(24); i++) {
      const request = Buffer.alloc(ATTR_BYTES)
      request.writeUInt32LE(ids.readUInt32LE(i * 4), 0)
      try {
        programs.push(new OwnedFd(bpf('cannot open a device program', PROG_GET_FD_BY_ID, request)))
      } catch (error) {
        // gone since the query, or hidden by a security module: the runtime replaces neither
        if (errnoOf(error) !== EPERM && errnoOf(error) !== ENOENT) throw error
      }
    }
  } catch (error) {
    for (const program of programs) program.close()
    throw error
  }
  return programs
}
