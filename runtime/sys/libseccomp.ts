/**
 * libseccomp through koffi: every function that the runtime calls, declared once and wrapped once. The library is
 * opened at its first use, so a host without it can run containers that have no profile. Invariant: a context is
 * released exactly once, and every failure of the library becomes an error with its errno.
 */

import { fstatSync, readSync } from 'node:fs'
import koffi, { type KoffiFunc, type LibraryHandle } from 'koffi'
import { RuntimeError } from '../errors.ts'
import { syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { memfdCreate } from './libc.ts'
import { EEXIST, EINVAL } from './linux.ts'

/** struct scmp_arg_cmp: one condition on an argument; `operator` is one of COMPARE. */
export interface ArgumentTest {
  readonly index: number
  readonly operator: number
  readonly a: bigint
  readonly b: bigint
}

/** enum scmp_compare. */
export const COMPARE = {
  SCMP_CMP_NE: 1,
  SCMP_CMP_LT: 2,
  SCMP_CMP_LE: 3,
  SCMP_CMP_EQ: 4,
  SCMP_CMP_GE: 5,
  SCMP_CMP_GT: 6,
  SCMP_CMP_MASKED_EQ: 7,
} as const

const FILTER_ATTRIBUTE_BAD_ARCH = 2
const FILTER_ATTRIBUTE_OPTIMIZE = 8
const OPTIMIZE_BINARY_TREE = 2
const UNKNOWN_SYSCALL = -1
const ARGUMENT_TEST_BYTES = 24

type Native = (...args: readonly unknown[]) => unknown

interface Library {
  readonly handle: LibraryHandle
  readonly init: Native
  readonly release: Native
  readonly archNative: Native
  readonly archAdd: Native
  readonly attrSet: Native
  readonly resolve: Native
  readonly resolveArch: Native
  readonly ruleAdd: Native
  readonly exportBpf: KoffiFunc<Native>
  /** libseccomp 2.6 and later */
  readonly exportBpfMem: Native | undefined
  readonly version: string
}

let library: Library | undefined

function open(): Library {
  if (library !== undefined) return library
  let handle: LibraryHandle
  try {
    handle = koffi.load('libseccomp.so.2')
  } catch (cause) {
    const message =
      'cannot compile the seccomp profile: libseccomp.so.2 is not installed (package libseccomp2 or libseccomp)'
    throw new RuntimeError('Unimplemented', message, { cause })
  }
  const version = koffi.decode(
    handle.func('const void *seccomp_version()')(),
    koffi.array('uint32_t', 3, 'Array'),
  ) as readonly number[]
  library = {
    handle,
    init: handle.func('void *seccomp_init(uint32_t action)'),
    release: handle.func('void seccomp_release(void *ctx)'),
    archNative: handle.func('uint32_t seccomp_arch_native()'),
    archAdd: handle.func('int seccomp_arch_add(void *ctx, uint32_t arch)'),
    attrSet: handle.func('int seccomp_attr_set(void *ctx, int attr, uint32_t value)'),
    resolve: handle.func('int seccomp_syscall_resolve_name(const char *name)'),
    resolveArch: handle.func('int seccomp_syscall_resolve_name_arch(uint32_t arch, const char *name)'),
    ruleAdd: handle.func(
      'int seccomp_rule_add_array(void *ctx, uint32_t action, int syscall, unsigned int count, const void *tests)',
    ),
    exportBpf: handle.func('int seccomp_export_bpf(void *ctx, int fd)'),
    exportBpfMem: optional(handle, 'int seccomp_export_bpf_mem(void *ctx, void *buffer, _Inout_ size_t *length)'),
    version: version.join('.'),
  }
  return library
}

function optional(handle: LibraryHandle, prototype: string): Native | undefined {
  try {
    return handle.func(prototype)
  } catch {
    // versions before 2.6 lack the symbol; exportBpf replaces it
    return undefined
  }
}

/**
 * Version of the installed library, as "2.5.4".
 * @throws Unimplemented when it is not installed
 */
export function seccompVersion(): string {
  return open().version
}

/** libseccomp's token for the architecture of this machine. */
export function nativeArchitecture(): number {
  return Number(open().archNative())
}

/**
 * The number of a system call on this machine; negative for a call that only other architectures have, undefined for an
 * unknown name.
 */
export function resolveSyscall(name: string): number | undefined {
  const number = Number(open().resolve(name))
  return number === UNKNOWN_SYSCALL ? undefined : number
}

/** The number of a system call on an architecture; undefined when it has no call of this name. */
export function resolveSyscallOn(architecture: number, name: string): number | undefined {
  const number = Number(open().resolveArch(architecture, name))
  return number < 0 ? undefined : number
}

/** A rule of a filter: what happens to a system call whose arguments pass all tests. */
export interface SyscallRule {
  /** for messages */
  readonly name: string
  readonly syscall: number
  readonly action: number
  readonly tests: readonly ArgumentTest[]
}

/** A filter under construction. */
export class SeccompContext {
  readonly #library = open()
  #context: unknown

  /** A filter for the native architecture; a system call of another architecture kills the thread. */
  constructor(defaultAction: number) {
    this.#context = this.#library.init(defaultAction)
    if (this.#context === null) throw failure('start', 'seccomp_init', -EINVAL)
    this.#set(FILTER_ATTRIBUTE_BAD_ARCH, 0)
  }

  /** Adds an architecture; the native one is in every filter. */
  addArchitecture(token: number, name: string): void {
    const result = Number(this.#library.archAdd(this.#context, token))
    if (result < 0 && result !== -EEXIST) throw failure(`add architecture "${name}" to`, 'seccomp_arch_add', result)
  }

  /** Makes the program search the numbers of system calls as a binary tree instead of a list. */
  useBinaryTree(): void {
    this.#set(FILTER_ATTRIBUTE_OPTIMIZE, OPTIMIZE_BINARY_TREE)
  }

  /** Adds a rule for a system call. All tests must hold, and no two of them may look at the same argument. */
  addRule({ name, syscall, action, tests }: SyscallRule): void {
    const buffer = new DataView(new ArrayBuffer(Math.max(tests.length, 1) * ARGUMENT_TEST_BYTES))
    for (const [position, { index, operator, a, b }] of tests.entries()) {
      const at = position * ARGUMENT_TEST_BYTES
      buffer.setUint32(at, index, true)
      buffer.setUint32(at + 4, operator, true)
      buffer.setBigUint64(at + 8, a, true)
      buffer.setBigUint64(at + 16, b, true)
    }
    const bytes = new Uint8Array(buffer.buffer)
    const result = Number(this.#library.ruleAdd(this.#context, action, syscall, tests.length, bytes))
    if (result < 0) throw failure(`add a rule for "${name}" to`, 'seccomp_rule_add_array', result)
  }

  /** The program: struct sock_filter[]. */
  export(): Uint8Array {
    const { exportBpf, exportBpfMem } = this.#library
    return exportBpfMem === undefined ? this.#exportToFile(exportBpf) : this.#exportToMemory(exportBpfMem)
  }

  #exportToMemory(native: Native): Uint8Array {
    const length = [0]
    let result = Number(native(this.#context, null, length))
    if (result < 0) throw failure('measure', 'seccomp_export_bpf_mem', result)
    const program = new Uint8Array(length[0] ?? 0)
    result = Number(native(this.#context, program, length))
    if (result < 0) throw failure('export', 'seccomp_export_bpf_mem', result)
    return program
  }

  /**
   * Like export, on a thread of the pool, since a long profile takes tens of milliseconds. Until it resolves nothing
   * else may use the filter.
   */
  async exportAside(): Promise<Uint8Array> {
    const { exportBpf } = this.#library
    using file = new OwnedFd(memfdCreate('seccomp'))
    const result = await new Promise<unknown>((resolve, reject) => {
      exportBpf.async(this.#context, file.fd, (error: unknown, value: unknown) =>
        error ? reject(error) : resolve(value),
      )
    })
    return exported(file.fd, Number(result))
  }

  #exportToFile(native: Native): Uint8Array {
    using file = new OwnedFd(memfdCreate('seccomp'))
    return exported(file.fd, Number(native(this.#context, file.fd)))
  }

  #set(attribute: number, value: number): void {
    const result = Number(this.#library.attrSet(this.#context, attribute, value))
    if (result < 0) throw failure('configure', 'seccomp_attr_set', result)
  }

  [Symbol.dispose](): void {
    if (this.#context === undefined) return
    this.#library.release(this.#context)
    this.#context = undefined
  }
}

/** The program that the library has written into a memory file. */
function exported(fd: number, result: number): Uint8Array {
  if (result < 0) throw failure('export', 'seccomp_export_bpf', result)
  const program = new Uint8Array(fstatSync(fd).size)
  const read = readSync(fd, program, 0, program.length, 0)
  if (read !== program.length) throw new Error(`read ${read} of ${program.length} bytes of a memory file`)
  return program
}

function failure(action: string, call: string, result: number): RuntimeError {
  return syscallError(`cannot ${action} the seccomp filter`, { call, errno: -result })
}
