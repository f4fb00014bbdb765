/** `linux.seccomp` of config.json, checked for words and numbers. runtime/seccomp decides what the kernel gets. */
import { specError } from '../errors.ts'
import {
  AUDIT_ARCH_S390,
  AUDIT_ARCH_S390X,
  AUDIT_ARCH_X86_64,
  SECCOMP_FILTER_FLAG_LOG,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW,
  SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
} from '../sys/linux.ts'
import {
  asObject,
  asString,
  bigintField,
  defined,
  integerField,
  listField,
  pointerTo,
  requiredString,
  stringField,
  UINT64,
  wordField,
} from './fields.ts'
import type { Json, JsonObject } from './json.ts'
import type { LinuxSeccomp, SeccompAction, SeccompArg, SeccompOperator, SeccompRule } from './types.ts'

/** The actions that a profile may name. */
export const SECCOMP_ACTIONS: readonly SeccompAction[] = [
  'SCMP_ACT_ALLOW',
  'SCMP_ACT_ERRNO',
  'SCMP_ACT_KILL',
  'SCMP_ACT_KILL_PROCESS',
  'SCMP_ACT_KILL_THREAD',
  'SCMP_ACT_LOG',
  'SCMP_ACT_NOTIFY',
  'SCMP_ACT_TRACE',
  'SCMP_ACT_TRAP',
]

/** The operators that a condition may name. */
export const SECCOMP_OPERATORS: readonly SeccompOperator[] = [
  'SCMP_CMP_EQ',
  'SCMP_CMP_GE',
  'SCMP_CMP_GT',
  'SCMP_CMP_LE',
  'SCMP_CMP_LT',
  'SCMP_CMP_MASKED_EQ',
  'SCMP_CMP_NE',
]

/**
 * Flag words with their SECCOMP_FILTER_FLAG_* bits. TSYNC is accepted without a bit, since a process with one thread
 * does not need it.
 */
export const SECCOMP_FLAGS: ReadonlyMap<string, number> = new Map([
  ['SECCOMP_FILTER_FLAG_TSYNC', 0],
  ['SECCOMP_FILTER_FLAG_LOG', SECCOMP_FILTER_FLAG_LOG],
  ['SECCOMP_FILTER_FLAG_SPEC_ALLOW', SECCOMP_FILTER_FLAG_SPEC_ALLOW],
  ['SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV', SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV],
])

/** libseccomp's token for the x32 ABI, which the kernel counts as x86-64. */
export const TOKEN_X32 = 0x4000003e

/** Architecture words with libseccomp's tokens, which are the kernel's AUDIT_ARCH_* values, except for x32. */
export const SECCOMP_ARCHITECTURES: ReadonlyMap<string, number> = new Map([
  ['SCMP_ARCH_AARCH64', 0xc00000b7],
  ['SCMP_ARCH_ARM', 0x40000028],
  ['SCMP_ARCH_LOONGARCH64', 0xc0000102],
  ['SCMP_ARCH_M68K', 0x00000004],
  ['SCMP_ARCH_MIPS', 0x00000008],
  ['SCMP_ARCH_MIPS64', 0x80000008],
  ['SCMP_ARCH_MIPS64N32', 0xa0000008],
  ['SCMP_ARCH_MIPSEL', 0x40000008],
  ['SCMP_ARCH_MIPSEL64', 0xc0000008],
  ['SCMP_ARCH_MIPSEL64N32', 0xe0000008],
  ['SCMP_ARCH_PARISC', 0x0000000f],
  ['SCMP_ARCH_PARISC64', 0x8000000f],
  ['SCMP_ARCH_PPC', 0x00000014],
  ['SCMP_ARCH_PPC64', 0x80000015],
  ['SCMP_ARCH_PPC64LE', 0xc0000015],
  ['SCMP_ARCH_RISCV64', 0xc00000f3],
  ['SCMP_ARCH_S390', AUDIT_ARCH_S390],
  ['SCMP_ARCH_S390X', AUDIT_ARCH_S390X],
  ['SCMP_ARCH_SH', 0x4000002a],
  ['SCMP_ARCH_SHEB', 0x0000002a],
  ['SCMP_ARCH_X32', TOKEN_X32],
  ['SCMP_ARCH_X86', 0x40000003],
  ['SCMP_ARCH_X86_64', AUDIT_ARCH_X86_64],
])

/**
 * Reads a profile; undefined when it is empty, so that nothing is filtered.
 * @throws InvalidArgument, Unimplemented
 */
export function readSeccomp(profile: JsonObject, at: string): LinuxSeccomp | undefined {
  const syscalls = listField(profile, 'syscalls', { at, read: readRule })
  if (stringField(profile, 'defaultAction', at) === undefined) {
    if (syscalls.length === 0) return undefined
    throw specError(pointerTo(at, 'defaultAction'), 'the seccomp profile has no default action')
  }
  const defaultAction = readAction(profile, 'defaultAction', at)
  if (defaultAction === 'SCMP_ACT_NOTIFY') {
    throw specError(pointerTo(at, 'defaultAction'), 'SCMP_ACT_NOTIFY cannot be used as default action')
  }
  const listenerPath = stringField(profile, 'listenerPath', at)
  if (listenerPath === undefined && syscalls.some(({ action }) => action === 'SCMP_ACT_NOTIFY')) {
    throw specError(pointerTo(at, 'listenerPath'), 'seccomp listenerPath is not set, and SCMP_ACT_NOTIFY needs it')
  }
  return defined({
    defaultAction,
    defaultErrnoRet: readErrno(profile, 'defaultErrnoRet', { at, action: defaultAction }),
    architectures: listField(profile, 'architectures', { at, read: readArchitecture }),
    flags:
      profile['flags'] === undefined || profile['flags'] === null
        ? undefined
        : listField(profile, 'flags', { at, read: readFlag }),
    listenerPath,
    listenerMetadata: stringField(profile, 'listenerMetadata', at),
    syscalls,
  })
}

function readAction(object: JsonObject, key: string, at: string): SeccompAction {
  const action = wordField(object, key, { at, words: SECCOMP_ACTIONS, what: 'seccomp action' })
  if (action === undefined) throw specError(pointerTo(at, key), 'the seccomp rule has no action')
  return action
}

function readErrno(
  object: JsonObject,
  key: string,
  { at, action }: { readonly at: string; readonly action: SeccompAction },
): number | undefined {
  // errno values end at 4095
  const errno = integerField(object, key, { at, range: { min: 0, max: 4095 } })
  if (errno !== undefined && action !== 'SCMP_ACT_ERRNO' && action !== 'SCMP_ACT_TRACE') {
    throw specError(pointerTo(at, key), `seccomp action "${action}" cannot carry an errno`)
  }
  return errno
}

function readArchitecture(value: Json, at: string): string {
  const name = asString(value, at)
  if (!SECCOMP_ARCHITECTURES.has(name)) throw specError(at, `unknown seccomp architecture ${JSON.stringify(name)}`)
  return name
}

function readFlag(value: Json, at: string): string {
  const name = asString(value, at)
  if (!SECCOMP_FLAGS.has(name)) throw specError(at, `unknown or unsupported seccomp flag ${JSON.stringify(name)}`)
  return name
}

function readRule(value: Json, at: string): SeccompRule {
  const rule = asObject(value, at)
  const names = listField(rule, 'names', { at, read: asString })
  if (names.length === 0) throw specError(pointerTo(at, 'names'), 'the seccomp rule names no system call')
  const empty = names.indexOf('')
  if (empty >= 0) throw specError(`${at}/names/${empty}`, 'the name of a system call must not be empty')
  const action = readAction(rule, 'action', at)
  // ts-init itself calls write(2) to report the listener, before an agent could answer
  const write = names.indexOf('write')
  if (action === 'SCMP_ACT_NOTIFY' && write >= 0) {
    throw specError(`${at}/names/${write}`, 'SCMP_ACT_NOTIFY cannot be used for the write syscall')
  }
  return defined({
    names,
    action,
    errnoRet: readErrno(rule, 'errnoRet', { at, action }),
    args: listField(rule, 'args', { at, read: readArg }),
  })
}

function readArg(value: Json, at: string): SeccompArg {
  const arg = asObject(value, at)
  requiredString(arg, 'op', { at, missing: 'the seccomp condition has no operator' })
  const op = wordField(arg, 'op', { at, words: SECCOMP_OPERATORS, what: 'seccomp operator' })
  if (op === undefined) throw specError(pointerTo(at, 'op'), 'the seccomp condition has no operator')
  return {
    index: integerField(arg, 'index', { at, range: { min: 0, max: 5 } }) ?? 0,
    value: bigintField(arg, 'value', { at, range: UINT64 }) ?? 0n,
    valueTwo: bigintField(arg, 'valueTwo', { at, range: UINT64 }) ?? 0n,
    op,
  }
}
