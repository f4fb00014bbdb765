/**
 * The contract between runtime/ (TypeScript, which decides) and c/init/ (C, which does): the operations that a plan may hold,
 * the status records that come back, the fds both sides agree on, and the limits. Everything here is constant data and pure
 * functions over it; scripts/gen.ts turns it into c/init/plan.gen.h, so that no number is typed twice.
 * Long because it is this one table: in two files the numbers of an operation and of its flags would have to be looked up in both.
 *
 *   plan   := header op*                       header := magic u32, schema hash u32, total size u32, op count u32
 *   op     := code u16, zero u16, size u32 (of the whole record), args in the order of the schema, no padding
 *   record := type u32, size u32 (of the payload), payload       (status records; all integers little-endian)
 *
 * Invariant: a helper built from another schema refuses the plan before its first system call (the schema hash differs).
 *
 *   runtime                     ts-init (stage 0, host side)          container side (stage 1)
 *      | plan fd ------------------> reads, validates all
 *      |                             host ops, opens cgroups, joins
 *      |                             clone3(CLONE_PARENT) ---------------> waits for id maps, if any
 *      | <------------- child{pid}   id maps                              cgroups, mounts, pivot_root, ...
 *      | <------------- reached{ID_MAPS}, continue                        (only where the runtime writes the maps)
 *      | <--------------------------------------------------- net_socket       (network devices: the fd is taken by pidfd_getfd)
 *      | continue ------------------------------------------------->           (they are moved)
 *      | <--------------------------------------------------- reached{point}   (only where a hook waits)
 *      | continue ------------------------------------------------->
 *      | <--------------------------------------------------- console          (terminal: master sent on CONSOLE_FD)
 *      | <--------------------------------------------------- listener         (seccomp notify: the fd is taken by pidfd_getfd)
 *      | continue ------------------------------------------------->
 *      | <--------------------------------------------------- ready            (create only)
 *      | continue ------------------------------------------------->           (its state is on disk; it closes its end)
 *      | whoever starts it reads exec.fifo empty ------------------> writes "0" into it, and from now on its records
 *      | <--------------------------------------------------- executing; then end of file when execve succeeded
 *      | <------------------ failed{op, errno, step} at any point, then end of file
 */

/** First four bytes of a plan: "TSIP" read as a little-endian u32. */
export const PLAN_MAGIC = 0x50495354

/** Bounds that both sides enforce, in bytes or counts. */
export const LIMITS = {
  PLAN_MAX_BYTES: 16 * 1024 * 1024,
  PLAN_MAX_OPS: 65535,
  STRING_MAX_BYTES: 1024 * 1024,
  /** "0", two short records and one of this size are less than a page: what an exec fifo holds that is read no further */
  RECORD_MAX_BYTES: 4032,
  STEP_MAX_BYTES: 4096,
  /** how many fds a program can be given besides its standard streams */
  EXTRA_FDS_MAX: 256,
  /** how much of a hook's standard output and of its standard error is kept for the error */
  HOOK_OUTPUT_MAX_BYTES: 1024,
  /** how many namespaces, and v1 cgroups, a plan may ask to hold open at once */
  NAMESPACES_MAX: 16,
  CGROUPS_MAX: 32,
} as const

/** The fds that ts-init is started with, besides 0, 1 and 2 which become the container process's own. */
export const FDS = {
  /** the plan: a file that is read from its start to its end */
  PLAN: 3,
  /** the status socket (SOCK_STREAM): records out, one-byte answers in */
  STATUS: 4,
  /** a unix socket that receives the terminal's master by SCM_RIGHTS; open only when the plan has a terminal op */
  CONSOLE: 5,
  /** the first of the fds that the program keeps (`fds` of the exec op); it sees them from 3 upwards */
  EXTRA: 6,
} as const

/** How one argument is encoded: integers little-endian; str: length u32, bytes, NUL; bytes: length u32, bytes; strs: count u32, then each as str; u32s: count u32, then 4 bytes each. */
export type ArgKind = 'u32' | 'i32' | 'u64' | 'str' | 'bytes' | 'strs' | 'u32s'

/** Codes of the argument kinds in plan.gen.h. */
export const ARG_KINDS = {
  u32: 1,
  i32: 2,
  u64: 3,
  str: 4,
  bytes: 5,
  strs: 6,
  u32s: 7,
} as const satisfies Record<ArgKind, number>

/** Bits of the mount op's `how`. */
export const MOUNT_HOW = {
  /** clone an existing tree (open_tree) instead of making a file system */
  BIND: 1,
  /** with BIND: take the sub-mounts along */
  RECURSIVE: 2,
  /** the target must be a real directory, no symlink in its last component, and is never created through one (proc, sysfs) */
  PLAIN_DIRECTORY: 4,
  /** tmpfs: copy the content of the covered directory into it */
  COPY_UP: 8,
  /** tmpfs: take the mode of the covered directory, because the options give none */
  INHERIT_MODE: 16,
  /** mqueue and others: a failure with EPERM, EINVAL or ENODEV is reported by a log record and the mount is left out */
  OPTIONAL: 32,
  /** with BIND: the host agent opens the source, with the host's rights, in the container's mount namespace */
  HOST_SOURCE: 64,
  /** with BIND and HOST_SOURCE: the mount's ids are mapped by uidMap and gidMap, where these are empty by the container's user namespace */
  IDMAP: 128,
  /** with IDMAP: the sub-mounts' too */
  IDMAP_RECURSIVE: 256,
} as const

/** Values of the rootfs op's `how`: all but the first bind it on itself with what is mounted below it. */
export const ROOTFS_HOW = {
  /** a directory among the mounts that are there */
  DIRECTORY: 0,
  /** the mount that it is in becomes private first: nothing of it reaches the host or comes from there, and it can be pivoted to */
  PRIVATE: 1,
  /** that mount becomes a slave, which can be pivoted to as well: mounts of the host still come */
  SLAVE: 2,
  /** among the caller's own mounts, which stay as they are: to be unmounted by the runtime, with all that comes below it */
  CALLERS: 3,
} as const

/** Values of the pivot op's `mode`. */
export const PIVOT_MODE = {
  /** pivot_root(2), then detach the old root */
  PIVOT: 0,
  /** MS_MOVE to / and chroot(2): for a root that cannot be pivoted (initramfs) */
  MOVE: 1,
  /** chroot(2) only: the container has no mount namespace of its own */
  CHROOT: 2,
} as const

/** Bits of the credentials op's `flags`. */
export const CREDENTIALS = {
  /** the five capability sets apply; without it they are left as they are */
  SET_CAPS: 1,
  /** call setgroups(2); without it /proc/self/setgroups says deny */
  SET_GROUPS: 2,
  /** CAP_SYS_ADMIN stays permitted until the seccomp op has used it */
  LEND_ADMIN: 4,
} as const

/** Points at which the container side stops and waits for one `continue` byte. */
export const SYNC_POINTS = {
  /** mounts and devices are done, the root is not yet pivoted: prestart and createRuntime hooks run */
  RUNTIME_HOOKS: 1,
  /** stage 0 waits: the runtime writes uid_map and gid_map of the child */
  ID_MAPS: 2,
} as const

/** Kinds of a failure, by which the reader knows how to show its text. */
export const FAILURES = {
  /** what could not be done: the reader puts "cannot set up the container: " before it and the errno behind */
  PART: 0,
  /** a complete sentence: the program cannot be found or executed */
  PROGRAM: 1,
  /** a complete sentence: a hook has failed */
  HOOK: 2,
  /** as PART: the kernel refused the attributes of a mount */
  ATTRIBUTES: 3,
} as const

/**
 * The operations, in no particular order: a plan's own order is the order of execution. `stage` says which process runs it: `host` ops
 * come before the one `clone`, `container` ops after it. `args` is the wire order. `most` is how often a plan may have it; without it, any
 * number of times. `needs` is an operation that must have come before it. `host` is what the container side uses of the host's for it: the
 * procfs handle, or that and the host agent; `hostIf` limits that to plans in which an argument has a bit, or is not empty. `failure` is the
 * kind of its failures, PART if absent.
 */
export const OPS = {
  oom_score_adj: {
    code: 1,
    stage: 'host',
    doc: 'write /proc/self/oom_score_adj; inherited by the container',
    args: { value: 'i32' },
  },
  raise_rlimit: {
    code: 2,
    stage: 'host',
    doc: 'raise the hard limit of a resource, so that a process in a new user namespace may use it',
    args: { resource: 'u32', hard: 'u64' },
  },
  cgroup_dir: {
    code: 3,
    stage: 'host',
    most: 1,
    doc: 'open a v2 cgroup directory; the clone goes into it (CLONE_INTO_CGROUP), or its cgroup.procs is written when the kernel refuses',
    args: { path: 'str' },
  },
  cgroup_tasks: {
    code: 4,
    stage: 'host',
    most: LIMITS.CGROUPS_MAX,
    doc: 'open the tasks file of a v1 cgroup; the container side moves itself by it, before anything else',
    args: { path: 'str' },
  },
  open_fifo: {
    code: 5,
    stage: 'host',
    most: 1,
    doc: 'open the exec fifo, both ends, and fill it',
    args: { path: 'str' },
  },
  open_ns: {
    code: 6,
    stage: 'host',
    most: LIMITS.NAMESPACES_MAX,
    doc: 'open a namespace file to be joined; type is its CLONE_NEW* flag',
    args: { path: 'str', type: 'u64' },
  },
  join: {
    code: 7,
    stage: 'host',
    doc: 'join all namespaces opened by open_ns: what works without the user namespace first, then that, then the rest',
    args: {},
  },
  join_process: {
    code: 8,
    stage: 'host',
    doc: 'join the namespaces (CLONE_NEW* flags) of a live process by pidfd, after its start time (clock ticks, proc_pid_stat(5) field 22) was compared',
    args: { pid: 'u32', startTime: 'u64', flags: 'u64' },
  },
  host_agent: {
    code: 9,
    stage: 'host',
    most: 1,
    doc: 'start a process that keeps the rights and namespaces of the host until the container side is ready: it opens mount sources (HOST_SOURCE) and a socket in the network namespace (net_devices) when asked; before any join',
    args: {},
  },
  initial_affinity: {
    code: 10,
    stage: 'host',
    doc: 'sched_setaffinity(2) before the clone, inherited by the container side; mask is its little-endian bits, empty for every CPU (where that is refused, a warning)',
    args: { mask: 'bytes' },
  },
  clone: {
    code: 11,
    stage: 'host',
    doc: 'clone3 with CLONE_PARENT and the given CLONE_NEW* flags; id maps are the text of uid_map and gid_map, empty for none; with runtimeMaps stage 0 reports reached{ID_MAPS} and the runtime writes them, as a user without privileges must',
    args: { flags: 'u64', uidMap: 'str', gidMap: 'str', runtimeMaps: 'u32' },
  },

  session: {
    code: 20,
    stage: 'container',
    doc: 'setsid; with becomeRoot also setresgid(0), setgroups(0) and setresuid(0) in the user namespace just entered',
    args: { becomeRoot: 'u32' },
  },
  wait_cgroup: {
    code: 21,
    stage: 'container',
    most: 1,
    doc: 'wait until stage 0 has done its part: the process is in its cgroups',
    args: {},
  },
  unshare: {
    code: 22,
    stage: 'container',
    doc: 'unshare(2); for the cgroup namespace, which must follow wait_cgroup',
    args: { flags: 'u64' },
  },
  keyring: {
    code: 23,
    stage: 'container',
    host: 'procfs',
    hostIf: { label: 'given' },
    doc: 'join a new session keyring of this name, made with this SELinux label unless it is empty; ENOSYS is ignored',
    args: { name: 'str', label: 'str' },
  },
  loopback_up: {
    code: 24,
    stage: 'container',
    doc: 'bring the loopback interface of the network namespace up',
    args: {},
  },
  propagation: {
    code: 25,
    stage: 'container',
    doc: "set the propagation (MS_* flags) of the mount at a path: of the runtime's own before rootfs, of the container's after it",
    args: { path: 'str', flags: 'u32' },
  },
  rootfs: {
    code: 26,
    stage: 'container',
    most: 1,
    doc: 'open the root directory for all later ops, made a mount or not, by ROOTFS_HOW',
    args: { path: 'str', how: 'u32' },
  },
  mount: {
    code: 27,
    stage: 'container',
    needs: 'rootfs',
    host: 'agent',
    hostIf: { how: MOUNT_HOW.HOST_SOURCE },
    doc: 'mount on a target inside the root, made if missing; MOUNT_ATTR_* bits are applied to the mount (recSet/recClear to the tree; dropped is cleared too, where that is not locked), then each propagation (MS_* flags) in turn; options are the words for the file system, "key=value" or "flag"',
    args: {
      source: 'str',
      target: 'str',
      fstype: 'str',
      options: 'strs',
      how: 'u32',
      set: 'u64',
      clear: 'u64',
      dropped: 'u64',
      recSet: 'u64',
      recClear: 'u64',
      propagation: 'u32s',
      uidMap: 'str',
      gidMap: 'str',
    },
  },
  device: {
    code: 28,
    stage: 'container',
    needs: 'rootfs',
    doc: 'mknod inside the root, or verify that the same node is there; mode holds the type bits too',
    args: { path: 'str', mode: 'u32', major: 'u32', minor: 'u32', uid: 'u32', gid: 'u32' },
  },
  symlink: {
    code: 29,
    stage: 'container',
    needs: 'rootfs',
    doc: 'make a symlink inside the root; an existing file is kept, with replace unlinked first',
    args: { target: 'str', path: 'str', replace: 'u32' },
  },
  sync: { code: 30, stage: 'container', doc: 'report reached{point} and wait for one byte', args: { point: 'u32' } },
  pivot: {
    code: 31,
    stage: 'container',
    most: 1,
    needs: 'rootfs',
    host: 'procfs',
    doc: 'make the rootfs the root directory, by PIVOT_MODE; later paths are inside the container',
    args: { mode: 'u32' },
  },
  reopen_null: {
    code: 32,
    stage: 'container',
    doc: "where fd 0, 1 or 2 is the host's /dev/null, open the container's own (verified 1:3) in its place",
    args: {},
  },
  readonly_mount: {
    code: 33,
    stage: 'container',
    doc: 'set MOUNT_ATTR_RDONLY on the one mount at this path',
    args: { path: 'str' },
  },
  readonly_path: {
    code: 34,
    stage: 'container',
    doc: 'bind a path on itself and make that tree read-only; a missing path is fine',
    args: { path: 'str' },
  },
  mask_path: {
    code: 35,
    stage: 'container',
    doc: 'cover a file by /dev/null, a directory by an empty read-only tmpfs; a missing path is fine',
    args: { path: 'str' },
  },
  sysctl: {
    code: 36,
    stage: 'container',
    host: 'procfs',
    doc: "write a value to /proc/sys/<path> through the host's procfs handle",
    args: { path: 'str', value: 'str' },
  },
  hostname: { code: 37, stage: 'container', doc: 'sethostname(2)', args: { name: 'str' } },
  domainname: { code: 38, stage: 'container', doc: 'setdomainname(2)', args: { name: 'str' } },
  terminal: {
    code: 39,
    stage: 'container',
    most: 1,
    doc: 'allocate a pty in the devpts of the root, owned by uid, size applied when both are non-zero, send its master on the console fd, make it 0, 1, 2 and the controlling terminal; with console bind it on /dev/console; with bareNewlines what is written to it gets no carriage returns (no ONLCR)',
    args: { width: 'u32', height: 'u32', uid: 'u32', console: 'u32', bareNewlines: 'u32' },
  },
  stdio_owner: {
    code: 40,
    stage: 'container',
    doc: "fchown those of fds 0, 1 and 2 that are pipes or fifos to uid, unless they are that uid's; EPERM, EROFS and EINVAL are ignored",
    args: { uid: 'u32' },
  },
  make_cwd: {
    code: 41,
    stage: 'container',
    doc: 'mkdir -p the working directory inside the root, mode 0755',
    args: { path: 'str' },
  },
  chdir: {
    code: 42,
    stage: 'container',
    doc: 'chdir and verify that getcwd is inside the root; with tolerant EACCES leaves it to the next chdir op; once done, later chdir ops do nothing',
    args: { path: 'str', tolerant: 'u32' },
  },
  umask: { code: 43, stage: 'container', doc: 'umask(2)', args: { mask: 'u32' } },
  rlimit: { code: 44, stage: 'container', doc: 'setrlimit(2)', args: { resource: 'u32', soft: 'u64', hard: 'u64' } },
  no_new_privs: { code: 45, stage: 'container', doc: 'PR_SET_NO_NEW_PRIVS', args: {} },
  apparmor: {
    code: 46,
    stage: 'container',
    host: 'procfs',
    doc: 'change to this profile on execve',
    args: { profile: 'str' },
  },
  selinux: {
    code: 47,
    stage: 'container',
    host: 'procfs',
    doc: 'change to this label on execve',
    args: { label: 'str' },
  },
  seccomp: {
    code: 48,
    stage: 'container',
    doc: 'load a filter (struct sock_filter[]) with seccomp(2) flags; with NEW_LISTENER report listener{fd} and wait for one byte',
    args: { flags: 'u32', filter: 'bytes' },
  },
  credentials: {
    code: 49,
    stage: 'container',
    most: 1,
    doc: 'bounding set, then groups, gid, uid under keepcaps, then the other capability sets, ambient last; each verified',
    args: {
      uid: 'u32',
      gid: 'u32',
      groups: 'u32s',
      flags: 'u32',
      bounding: 'u64',
      effective: 'u64',
      permitted: 'u64',
      inheritable: 'u64',
      ambient: 'u64',
    },
  },
  personality: { code: 50, stage: 'container', doc: 'personality(2)', args: { domain: 'u32' } },
  program: {
    code: 51,
    stage: 'container',
    most: 1,
    failure: 'PROGRAM',
    doc: "the program: HOME is taken from the root's /etc/passwd when env has none or an empty one, args[0] is looked up in env's PATH and must be an executable file",
    args: { args: 'strs', env: 'strs', uid: 'u32' },
  },
  ready: {
    code: 52,
    stage: 'container',
    doc: 'report ready, wait for one byte (the state is on disk), and close the socket',
    args: {},
  },
  await_start: {
    code: 53,
    stage: 'container',
    most: 1,
    needs: 'open_fifo',
    doc: 'write "0" into the exec fifo, which waits until somebody has read it empty; records go there afterwards',
    args: {},
  },
  time_offsets: {
    code: 55,
    stage: 'container',
    host: 'agent',
    doc: 'make a time namespace with these offsets (the text of timens_offsets, may be empty) and enter it',
    args: { offsets: 'str' },
  },
  net_devices: {
    code: 56,
    stage: 'container',
    most: 1,
    needs: 'host_agent',
    host: 'agent',
    doc: 'let the host agent open a netlink socket in our network namespace, report net_socket{fd} and wait for one byte: the runtime takes it and moves network devices',
    args: {},
  },
  hook: {
    code: 57,
    stage: 'container',
    failure: 'HOOK',
    doc: "run a hook to its end, in the root directory of the container or, once chdir is done, there: argv and env as given (no args: the path; one empty string as env: what op program made of the program's, HOME included), state on stdin with our pid, as we see it, between head and tail; timeout in seconds, 0 for none; the text of a failure is complete: `name` and `index` of the hook, what happened, the tail of its output",
    args: {
      name: 'str',
      index: 'u32',
      path: 'str',
      args: 'strs',
      env: 'strs',
      timeout: 'u32',
      stateHead: 'str',
      stateTail: 'str',
    },
  },
  scheduler: {
    code: 58,
    stage: 'container',
    doc: 'sched_setattr(2); times are nanoseconds',
    args: {
      policy: 'u32',
      flags: 'u64',
      nice: 'i32',
      priority: 'u32',
      runtime: 'u64',
      deadline: 'u64',
      period: 'u64',
    },
  },
  io_priority: {
    code: 59,
    stage: 'container',
    doc: 'ioprio_set(2) of our process group: class << 13 | priority',
    args: { value: 'u32' },
  },
  memory_policy: {
    code: 60,
    stage: 'container',
    doc: 'set_mempolicy(2): MPOL_* mode with its MPOL_F_* flags; nodes is the little-endian bit mask in whole words of 8 bytes, empty for none',
    args: { mode: 'u32', nodes: 'bytes' },
  },
  affinity: {
    code: 61,
    stage: 'container',
    doc: 'sched_setaffinity(2) once in the cgroup; mask as in initial_affinity, empty for every CPU that the cgroup allows',
    args: { mask: 'bytes' },
  },
  exec: {
    code: 70,
    stage: 'container',
    needs: 'program',
    failure: 'PROGRAM',
    doc: 'report executing, execve; `fds` is how many follow fd 2',
    args: { fds: 'u32' },
  },
} as const satisfies Record<
  string,
  {
    code: number
    stage: 'host' | 'container'
    most?: number
    needs?: string
    host?: 'procfs' | 'agent'
    hostIf?: Record<string, number | 'given'>
    failure?: keyof typeof FAILURES
    doc: string
    args: Record<string, ArgKind>
  }
>

/** Status records from ts-init: a fixed set, each with its payload. */
export const RECORDS = {
  child: { type: 1, doc: 'pid u32: the container process, as the runtime sees it' },
  reached: { type: 2, doc: 'point u32: the container side waits at a sync op' },
  console: { type: 3, doc: "the terminal's master was sent on the console fd" },
  ready: { type: 4, doc: 'created: only the fifo and execve are left' },
  executing: {
    type: 5,
    doc: 'execve comes next; end of file without a failed record after this means that it succeeded',
  },
  failed: {
    type: 6,
    doc: 'op index u32 (0xffffffff: none), errno i32, kind u32, then text: the step that failed and the path it concerned',
  },
  listener: {
    type: 8,
    doc: 'fd u32: number of the seccomp listener in the container process, which waits for one byte',
  },
  log: { type: 7, doc: 'level u32 (0 debug, 1 warning), then text' },
  net_socket: {
    type: 9,
    doc: 'fd u32: number of a NETLINK_ROUTE socket of its network namespace in the container process, which waits for one byte',
  },
} as const

/** Name of an operation. */
export type OpName = keyof typeof OPS

type ArgValue<K> = K extends 'u32' | 'i32'
  ? number
  : K extends 'u64'
    ? bigint
    : K extends 'str'
      ? string
      : K extends 'bytes'
        ? Uint8Array
        : K extends 'strs'
          ? readonly string[]
          : K extends 'u32s'
            ? readonly number[]
            : never

/** One operation of a plan: its name and its arguments; `origin` is the JSON pointer in config.json that asked for it, for errors only, `note` what the runtime does meanwhile, for readers only. */
export type Op = {
  [N in OpName]: Readonly<
    { op: N; origin?: string; note?: string } & {
      -readonly [A in keyof (typeof OPS)[N]['args']]: ArgValue<(typeof OPS)[N]['args'][A]>
    }
  >
}[OpName]
