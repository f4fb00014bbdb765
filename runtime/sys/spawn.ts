/**
 * Starting a process by posix_spawn(3), the only way in which the runtime starts a child: libuv would wait for its own
 * children behind the reaper's back. Invariant: every descriptor that this process opens is CLOEXEC, so a child gets
 * only those that it is given. ts-init also inherits what the caller left open, and closes it itself.
 */

import { closeSync } from 'node:fs'
import { syscallError } from './errno.ts'
import { withInheritedFileLimit } from './file-limit.ts'
import { declare, fcntl } from './libc.ts'
import { F_DUPFD_CLOEXEC } from './linux.ts'

/** POSIX_SPAWN_SETPGROUP, _SETSIGDEF and _SETSIGMASK (spawn.h). */
const OWN_GROUP_AND_DEFAULT_SIGNALS = 0x02 | 0x04 | 0x08

const posixSpawn = declare(
  'int posix_spawn(void *pid, const char *path, const void *actions, const void *attr, const char **argv, const char **envp)',
)
const actionsInit = declare('int posix_spawn_file_actions_init(void *actions)')
const actionsDestroy = declare('int posix_spawn_file_actions_destroy(void *actions)')
const actionsDup2 = declare('int posix_spawn_file_actions_adddup2(void *actions, int fd, int target)')
const actionsChdir = declare('int posix_spawn_file_actions_addchdir_np(void *actions, const char *path)')
const actionsCloseFrom = declare('int posix_spawn_file_actions_addclosefrom_np(void *actions, int from)')
const attrInit = declare('int posix_spawnattr_init(void *attr)')
const attrSetFlags = declare('int posix_spawnattr_setflags(void *attr, short flags)')
const attrSetSigDefault = declare('int posix_spawnattr_setsigdefault(void *attr, const void *set)')

/** What to start: `fds` maps our (borrowed) descriptors to the child's numbers. */
export interface SpawnOptions {
  readonly path: string
  readonly argv: readonly string[]
  readonly env: readonly string[]
  readonly fds: readonly { readonly from: number; readonly to: number }[]
  /**
   * For a program that is not part of the runtime. It runs in this folder, leads its own process group and finds every
   * signal unblocked and at its default. It gets the inherited soft limit of open files, and only the given fds.
   */
  readonly external?: { readonly cwd: string }
}

/** Starts a child and returns its pid; the caller's reaper must know the pid before the event loop runs again. */
export function spawnProcess(options: SpawnOptions): number {
  const { path, fds, external } = options
  const actions = Buffer.alloc(256)
  const pid = Buffer.alloc(4)
  const scratch: number[] = []
  // above every number that the child is given, so that no dup2 overwrites a source that is still needed
  const above = Math.max(...fds.map(({ to }) => to)) + 1
  actionsInit(actions)
  try {
    for (const { from, to } of fds) {
      let source = from
      if (from !== to && from < above) {
        source = fcntl(from, F_DUPFD_CLOEXEC, above)
        scratch.push(source)
      }
      actionsDup2(actions, source, to)
    }
    if (external !== undefined) {
      actionsChdir(actions, external.cwd)
      closeFrom(actions, above)
    }
    const attr = external === undefined ? null : externalAttributes()
    const spawn = (): number => posixSpawn(pid, path, actions, attr, [...options.argv, null], [...options.env, null])
    const errno = external === undefined ? spawn() : withInheritedFileLimit(spawn)
    if (errno !== 0) throw syscallError(`cannot start "${path}"`, { call: 'posix_spawn', errno, path })
    return pid.readInt32LE(0)
  } finally {
    actionsDestroy(actions)
    for (const fd of scratch) closeSync(fd)
  }
}

/** Closes what the caller of this process left open without CLOEXEC. */
function closeFrom(actions: Buffer, first: number): void {
  try {
    actionsCloseFrom(actions, first)
  } catch {
    // fallback: glibc before 2.34 lacks the call; the child then inherits what this process inherited
  }
}

/**
 * Attributes that undo what Node changes: it ignores SIGPIPE, and a child would inherit that. In glibc they hold no
 * memory of their own, so they need no destroy.
 */
function externalAttributes(): Buffer {
  const attr = Buffer.alloc(512)
  attrInit(attr)
  attrSetSigDefault(attr, Buffer.alloc(128, 0xff))
  attrSetFlags(attr, OWN_GROUP_AND_DEFAULT_SIGNALS)
  return attr
}
