/**
 * Numbers of Linux that the runtime needs by name, each written once. They are the same on x86_64 and arm64. A number
 * that only one file needs, and that means nothing outside it, stays in that file.
 */

// errno(3)
/** See errno(3). */
export const EPERM = 1
/** See errno(3). */
export const ENOENT = 2
/** See errno(3). */
export const ESRCH = 3
/** See errno(3). */
export const EINTR = 4
/** See errno(3). */
export const EIO = 5
/** See errno(3). */
export const E2BIG = 7
/** See errno(3). */
export const EAGAIN = 11
/** See errno(3). */
export const ENOMEM = 12
/** See errno(3). */
export const EACCES = 13
/** See errno(3). */
export const EFAULT = 14
/** See errno(3). */
export const EBUSY = 16
/** See errno(3). */
export const EEXIST = 17
/** See errno(3). */
export const ENODEV = 19
/** See errno(3). */
export const ENOTDIR = 20
/** See errno(3). */
export const EISDIR = 21
/** See errno(3). */
export const EINVAL = 22
/** See errno(3). */
export const ENFILE = 23
/** See errno(3). */
export const EMFILE = 24
/** See errno(3). */
export const ENOSPC = 28
/** See errno(3). */
export const EROFS = 30
/** See errno(3). */
export const EPIPE = 32
/** See errno(3). */
export const ERANGE = 34
/** See errno(3). */
export const ENAMETOOLONG = 36
/** See errno(3). */
export const ENOSYS = 38
/** See errno(3). */
export const ENOTEMPTY = 39
/** See errno(3). */
export const ELOOP = 40
/** See errno(3). */
export const EPROTO = 71
/** See errno(3). */
export const EMSGSIZE = 90
/** See errno(3). */
export const EPROTONOSUPPORT = 93
/** See errno(3). */
export const EOPNOTSUPP = 95
/** See errno(3). */
export const ECONNRESET = 104

// signal(7)
/** See signal(7). */
export const SIGKILL = 9
/** See signal(7). */
export const SIGTERM = 15
/** See signal(7). */
export const SIGSTOP = 19

// open(2)
/** See open(2). */
export const O_CLOEXEC = 0o2000000
/** See open(2). */
export const O_PATH = 0o10000000

// fcntl(2)
/** See fcntl(2). */
export const F_DUPFD_CLOEXEC = 1030
/** See fcntl(2). */
export const F_SETPIPE_SZ = 1031
/** See fcntl(2). */
export const F_GETPIPE_SZ = 1032
/** See fcntl(2). */
export const F_ADD_SEALS = 1033

// socket(2), unix(7)
/** See socket(2), unix(7). */
export const AF_UNIX = 1
/** See socket(2), unix(7). */
export const AF_NETLINK = 16
/** See socket(2), unix(7). */
export const SOCK_STREAM = 1
/** See socket(2), unix(7). */
export const SOCK_DGRAM = 2
/** See socket(2), unix(7). */
export const SOCK_RAW = 3
/** See socket(2), unix(7). */
export const SOCK_SEQPACKET = 5
/** See socket(2), unix(7). */
export const SOCK_NONBLOCK = 0o4000
/** See socket(2), unix(7). */
export const SOCK_CLOEXEC = 0o2000000
/** See socket(2), unix(7). */
export const SOL_SOCKET = 1
/** See socket(2), unix(7). */
export const MSG_TRUNC = 0x20
/** See socket(2), unix(7). */
export const MSG_DONTWAIT = 0x40
/** See socket(2), unix(7). */
export const MSG_NOSIGNAL = 0x4000
/** See socket(2), unix(7). */
export const MSG_CMSG_CLOEXEC = 0x40000000

// mount(2), umount(2)
/** See mount(2), umount(2). */
export const MS_RDONLY = 1
/** See mount(2), umount(2). */
export const MS_REMOUNT = 32
/** See mount(2), umount(2). */
export const MS_BIND = 4096
/** See mount(2), umount(2). */
export const MS_REC = 16384
const MS_UNBINDABLE = 1 << 17
/** See mount(2), umount(2). */
export const MS_PRIVATE = 1 << 18
/** See mount(2), umount(2). */
export const MS_SLAVE = 1 << 19
const MS_SHARED = 1 << 20
/** See mount(2), umount(2). */
export const MNT_DETACH = 2
/** See mount(2), umount(2). */
export const UMOUNT_NOFOLLOW = 8

// openat(2), open_tree(2)
/** See openat(2). */
export const AT_FDCWD = -100
/** See open_tree(2). */
export const AT_EMPTY_PATH = 0x1000
/** See open_tree(2). */
export const AT_RECURSIVE = 0x8000

// seccomp(2)
/** See seccomp(2). */
export const SECCOMP_FILTER_FLAG_LOG = 2
/** See seccomp(2). */
export const SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
/** See seccomp(2). */
export const SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
/** See seccomp(2). */
export const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20

/** The action that fails a system call; the low 16 bits are its errno. See seccomp(2). */
export const SECCOMP_RET_ERRNO = 0x00050000
/** See linux/audit.h. */
export const AUDIT_ARCH_X86_64 = 0xc000003e
/** See linux/audit.h. */
export const AUDIT_ARCH_S390 = 0x00000016
/** See linux/audit.h. */
export const AUDIT_ARCH_S390X = 0x80000016

// sched(7)
/** See sched(7). */
export const SCHED_DEADLINE = 6

// getrlimit(2)
/** See getrlimit(2). */
export const RLIMIT_NOFILE = 7

// user_namespaces(7)
/** The highest user or group id: the kernel takes the next number, (uid_t)-1, for "no id" and "unchanged". */
export const HIGHEST_ID = 0xfffffffe

/** The smallest page that Linux has, in bytes. */
export const PAGE_BYTES = 4096

/**
 * The kinds of namespaces (namespaces(7)): the OCI specification's word for each, its file below /proc/PID/ns, and the
 * name and number of its clone flag (without the prefix CLONE_).
 */
export const NAMESPACES = [
  { type: 'time', file: 'time', name: 'NEWTIME', flag: 0x00000080 },
  { type: 'mount', file: 'mnt', name: 'NEWNS', flag: 0x00020000 },
  { type: 'cgroup', file: 'cgroup', name: 'NEWCGROUP', flag: 0x02000000 },
  { type: 'uts', file: 'uts', name: 'NEWUTS', flag: 0x04000000 },
  { type: 'ipc', file: 'ipc', name: 'NEWIPC', flag: 0x08000000 },
  { type: 'user', file: 'user', name: 'NEWUSER', flag: 0x10000000 },
  { type: 'pid', file: 'pid', name: 'NEWPID', flag: 0x20000000 },
  { type: 'network', file: 'net', name: 'NEWNET', flag: 0x40000000 },
] as const

// personality(2)
/** What the OCI specification calls LINUX and LINUX32. */
export const PERSONALITIES = { LINUX: 0, LINUX32: 8 } as const

/** The MS_* flags of each type of propagation (mount(2)), by the OCI specification's words. */
export const PROPAGATION_FLAGS = {
  unbindable: MS_UNBINDABLE,
  runbindable: MS_UNBINDABLE | MS_REC,
  private: MS_PRIVATE,
  rprivate: MS_PRIVATE | MS_REC,
  slave: MS_SLAVE,
  rslave: MS_SLAVE | MS_REC,
  shared: MS_SHARED,
  rshared: MS_SHARED | MS_REC,
} as const
