/**
 * Which kernel parameters a container may set: only those of a namespace that the container does not share with the
 * host. One function makes the path that is both checked and written, so that the two cannot differ. Pure.
 */

/** A kernel parameter that passed, or why it did not. */
export type SysctlCheck = { readonly path: string } | { readonly refused: string }

const IPC_PARAMETERS: ReadonlySet<string> = new Set([
  'kernel/msgmax',
  'kernel/msgmnb',
  'kernel/msgmni',
  'kernel/sem',
  'kernel/shmall',
  'kernel/shmmax',
  'kernel/shmmni',
  'kernel/shm_rmid_forced',
])

/**
 * The path below /proc/sys of a key in dotted or slashed form. If the first separator is a slash, dots belong to names.
 */
export function sysctlPath(key: string): string {
  const separator = /[./]/.exec(key)?.[0]
  return separator === '/' ? key : key.replace(/[./]/g, (c) => (c === '.' ? '/' : '.'))
}

/** Checks a key against the container's own namespaces (`owned`: created, or joined by path). */
export function checkSysctl(key: string, owned: ReadonlySet<string>): SysctlCheck {
  const path = sysctlPath(key)
  const parts = path.split('/')
  if (parts.some((part) => part === '' || part === '.' || part === '..')) {
    return { refused: `sysctl ${JSON.stringify(key)} is not a valid name` }
  }
  if (IPC_PARAMETERS.has(path) || path.startsWith('fs/mqueue/')) {
    return owned.has('ipc') ? { path } : { refused: `sysctl "${key}" is not allowed in the hosts ipc namespace` }
  }
  if (path.startsWith('net/')) {
    return owned.has('network') ? { path } : { refused: `sysctl "${key}" is not allowed in host network namespace` }
  }
  if (path === 'kernel/domainname') {
    return owned.has('uts') ? { path } : { refused: `sysctl "${key}" is not allowed without a private UTS namespace` }
  }
  if (path === 'kernel/hostname') {
    return { refused: `sysctl "${key}" is not allowed: set the "hostname" field instead` }
  }
  if (path.startsWith('user/')) {
    return owned.has('user') ? { path } : { refused: `sysctl "${key}" is not allowed without a user namespace` }
  }
  return { refused: `sysctl "${key}" is not in a separate kernel namespace` }
}
