/**
 * A seccomp profile in the terms of runc's state.json. `runc exec` makes the filter of a process that it adds to one of
 * this runtime's containers from it; without it that process would run unfiltered. Invariant: an architecture that runc
 * has no term for is passed on by its own name, so that runc refuses the profile instead of ignoring a part of it.
 */
import { stringifyNumber } from '../spec/stringify.ts'
import type { LinuxSeccomp, SeccompAction, SeccompOperator } from '../spec/types.ts'

const ACTIONS: Readonly<Record<SeccompAction, number>> = {
  SCMP_ACT_KILL: 1,
  SCMP_ACT_ERRNO: 2,
  SCMP_ACT_TRAP: 3,
  SCMP_ACT_ALLOW: 4,
  SCMP_ACT_TRACE: 5,
  SCMP_ACT_LOG: 6,
  SCMP_ACT_NOTIFY: 7,
  SCMP_ACT_KILL_THREAD: 8,
  SCMP_ACT_KILL_PROCESS: 9,
}

const OPERATORS: Readonly<Record<SeccompOperator, number>> = {
  SCMP_CMP_EQ: 1,
  SCMP_CMP_NE: 2,
  SCMP_CMP_GT: 3,
  SCMP_CMP_GE: 4,
  SCMP_CMP_LT: 5,
  SCMP_CMP_LE: 6,
  SCMP_CMP_MASKED_EQ: 7,
}

/** runc's names, where they are not the profile's name in lower case. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x86_64: 'amd64', aarch64: 'arm64', loongarch64: 'loong64' }

/** Converts a profile. */
export function runcSeccomp(profile: LinuxSeccomp): Record<string, unknown> {
  const { defaultAction, defaultErrnoRet, architectures, flags, listenerPath, listenerMetadata } = profile
  return {
    default_action: ACTIONS[defaultAction],
    ...(defaultErrnoRet === undefined ? {} : { default_errno_ret: defaultErrnoRet }),
    architectures: architectures.map(architecture),
    ...(flags === undefined ? {} : { flags }),
    ...(listenerPath === undefined ? {} : { listener_path: listenerPath }),
    ...(listenerMetadata === undefined ? {} : { listener_metadata: listenerMetadata }),
    syscalls: profile.syscalls.flatMap(({ names, action, errnoRet, args }) => {
      const rule = {
        action: ACTIONS[action],
        ...(errnoRet === undefined ? {} : { errnoRet }),
        ...(args.length === 0 ? {} : { args: args.map(condition) }),
      }
      return names.map((name) => ({ name, ...rule }))
    }),
  }
}

function condition({ index, value, valueTwo, op }: LinuxSeccomp['syscalls'][number]['args'][number]): object {
  return { index, value: stringifyNumber(value), value_two: stringifyNumber(valueTwo), op: OPERATORS[op] }
}

function architecture(name: string): string {
  const small = name.replace('SCMP_ARCH_', '').toLowerCase()
  return ARCHITECTURES[small] ?? small
}
