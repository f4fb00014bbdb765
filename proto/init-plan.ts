/**
 * The contract between runtime/ (TypeScript, which decides) and c/init/ (C, which executes): the operations of a plan,
 * the status records that come back, the fds and limits that both sides agree on. Everything here is constant data.
 * scripts/gen.ts turns it into headers of c/init/, so that no number is written twice. The file is long because it is
 * one table: in two files a reader would need both, for an operation and for its flags.
 *
 *   plan   := header op*
 *   header := magic u32, schema hash u32, total size u32, op count u32
 *   op     := code u16, zero u16, size u32 (of the whole record), args in the order of the schema, no padding
 *   record := type u32, size u32 (of the payload), payload       (status records; all integers little-endian)
 *
 * Invariant: a helper of another schema refuses the plan before it executes anything, because the schema hash differs.
 *
 *   runtime                     ts-init (stage 0, host side)          container side
 *      | plan fd ------------------> reads and checks all of it
 *      |                             host ops: opens cgroups, joins
 *      |                             clone3(CLONE_PARENT) ---------------> waits for id maps, if any
 *      | <------------- child{pid}   writes the id maps                  cgroups, mounts, pivot_root, ...
 *      | <------------- reached{ID_MAPS}, continue                        (only if the runtime writes the maps)
 *      | <--------------------------------------------------- net_socket       (network devices, by pidfd_getfd)
 *      | continue ------------------------------------------------->           (the devices are moved)
 *      | <--------------------------------------------------- reached{point}   (only if a hook waits)
 *      | continue ------------------------------------------------->
 *      | <--------------------------------------------------- console          (terminal: master sent on CONSOLE_FD)
 *      | <--------------------------------------------------- listener         (seccomp notify, by pidfd_getfd)
 *      | continue ------------------------------------------------->
 *      | <--------------------------------------------------- ready            (create only)
 *      | continue ------------------------------------------------->           (the state is on disk)
 *      | the starter reads exec.fifo empty ------------------------> writes "0" into it, and later its records
 *      | <--------------------------------------------------- executing; end of file if execve succeeded
 *      | <------------------ failed{op, errno, kind, step} at any point, then end of file
 */

/** First four bytes of a plan: "TSIP" read as a little-endian u32. */
export const PLAN_MAGIC = 0x50495354

/** Limits that both sides enforce, in bytes or counts. */
export const LIMITS = {
  PLAN_MAX_BYTES: 16 * 1024 * 1024,
  PLAN_MAX_OPS: 65535,
  STRING_MAX_BYTES: 1024 * 1024,
  /** "0", two short records and one of this size fit into a page, the size of the exec fifo */
  RECORD_MAX_BYTES: 4032,
  STEP_MAX_BYTES: 4096,
  /** how many fds a program can get besides its standard streams */
  EXTRA_FDS_MAX: 256,
  /** how much of a hook's standard output, and of its standard error, an error quotes */
  HOOK_OUTPUT_MAX_BYTES: 1024,
  /** how many namespaces, and v1 cgroups, a plan may open */
  NAMESPACES_MAX: 16,
  CGROUPS_MAX: 32,
} as const

/** The fds that ts-init is started with. 0, 1 and 2 become the standard streams of the container process. */
export const FDS = {
  /** the plan, a regular file that is read from its start */
  PLAN: 3,
  /** the status socket (SOCK_STREAM): records out, one-byte answers in */
  STATUS: 4,
  /** a unix socket for the terminal's master (SCM_RIGHTS); needed only with a terminal op */
  CONSOLE: 5,
  /** the first of the program's extra fds (`fds` of the exec op), which the program gets from 3 upwards */
  EXTRA: 6,
} as const

/**
 * How one argument is encoded, integers little-endian. str: length u32, bytes, NUL. bytes: length u32, bytes.
 * strs: count u32, then each as str. u32s: count u32, then 4 bytes each.
 */
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
  /** the target must itself be a directory and no symlink (proc, sysfs) */
  PLAIN_DIRECTORY: 4,
  /** tmpfs: copy the content of the covered directory */
  COPY_UP: 8,
  /** tmpfs: take the mode of the covered directory, as the options give none */
  INHERIT_MODE: 16,
  /** a failure with EPERM, EINVAL or ENODEV is a warning, and the mount is left out (mqueue) */
  OPTIONAL: 32,
  /** with BIND: the host agent opens the source with the host's rights, in the container's mount namespace */
  HOST_SOURCE: 64,
  /** with HOST_SOURCE: ids are mapped by uidMap and gidMap, or if empty by the container's user namespace */
  IDMAP: 128,
  /** with IDMAP: ids of the sub-mounts are mapped too */
  IDMAP_RECURSIVE: 256,
} as const

/** Values of the rootfs op's `how`. All but the first bind it on itself, with what is mounted below it. */
export const ROOTFS_HOW = {
  /** the directory is used as it is */
  DIRECTORY: 0,
  /** its mount becomes private first: no mount propagates to the host or from it, and pivot_root accepts it */
  PRIVATE: 1,
  /** its mount becomes a slave, which pivot_root accepts too: mounts of the host still propagate to it */
  SLAVE: 2,
  /** a mount among the caller's own, which stay as they are; the runtime unmounts it later */
  CALLERS: 3,
} as const

/** Values of the pivot op's `mode`. */
export const PIVOT_MODE = {
  /** pivot_root(2), then detach the old root */
  PIVOT: 0,
  /** MS_MOVE to / and chroot(2), for a root that pivot_root refuses (initramfs) */
  MOVE: 1,
  /** chroot(2) only: the container has no mount namespace of its own */
  CHROOT: 2,
} as const

/** Bits of the credentials op's `flags`. */
export const CREDENTIALS = {
  /** set the five capability sets; without it they stay as they are */
  SET_CAPS: 1,
  /** call setgroups(2); left out where /proc/self/setgroups says deny */
  SET_GROUPS: 2,
  /** keep CAP_SYS_ADMIN permitted until the seccomp op has used it */
  LEND_ADMIN: 4,
} as const

/** Points at which ts-init waits for one `continue` byte. */
export const SYNC_POINTS = {
  /** mounts and devices are done, the root is not pivoted yet: the runtime runs prestart and createRuntime hooks */
  RUNTIME_HOOKS: 1,
  /** stage 0 waits until the runtime has written uid_map and gid_map of the child */
  ID_MAPS: 2,
  /** the process waits until another program has moved it to its cgroups */
  CGROUP: 3,
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
 * The operations, in no particular order: a plan is executed in its own order.
 * - `stage`: `host` ops come before the one `clone`, `container` ops after it.
 * - `args`: the arguments in wire order.
 * - `most`: how often a plan may have the op; absent for any number of times.
 * - `needs`: an op that must come before it.
 * - `host`: what of the host's the container side uses for it: its procfs handle, or that and the host agent.
 * - `hostIf`: limits `host` to ops in which an argument has this bit, or is not empty.
 * - `failure`: the kind of its failures; absent for PART.
 */
export const OPS = {
  oom_score_adj: {
    code: 1,
    stage: 'host',
    doc: 'write /proc/self/oom_score_adj, which the container process inherits',
    args: { value: 'i32' },
  },
  raise_rlimit: {
    code: 2,
    stage: 'host',
    doc: 'raise the hard limit of a resource, which a process in a new user namespace cannot',
    args: { resource: 'u32', hard: 'u64' },
  },
  cgroup_dir: {
    code: 3,
    stage: 'host',
    most: 1,
    doc: 'open a v2 cgroup directory; the clone goes into it (CLONE_INTO_CGROUP), or if the kernel refuses that, stage 0 writes its cgroup.procs',
    args: { path: 'str' },
  },
  cgroup_tasks: {
    code: 4,
    stage: 'host',
    most: LIMITS.CGROUPS_MAX,
    doc: 'open the tasks file of a v1 cgroup; the container side moves itself by it before its other operations',
    args: { path: 'str' },
  },
  open_fifo: {
    code: 5,
    stage: 'host',
    most: 1,
    doc: 'open both ends of the exec fifo and fill it',
    args: { path: 'str' },
  },
  open_ns: {
    code: 6,
    stage: 'host',
    most: LIMITS.NAMESPACES_MAX,
    doc: 'open a namespace file for join; type is its CLONE_NEW* flag',
    args: { path: 'str', type: 'u64' },
  },
  join: {
    code: 7,
    stage: 'host',
    doc: 'join all namespaces of open_ns: those that work without the user namespace, then that one, then the rest',
    args: {},
  },
  join_process: {
    code: 8,
    stage: 'host',
    doc: 'join namespaces (CLONE_NEW* flags) of a process by pidfd, if its start time agrees (clock ticks, field 22 of proc_pid_stat(5))',
    args: { pid: 'u32', startTime: 'u64', flags: 'u64' },
  },
  host_agent: {
    code: 9,
    stage: 'host',
    most: 1,
    doc: 'start a process that keeps the rights and namespaces of the host, before any join; it opens mount sources (HOST_SOURCE) and the socket of net_devices, and writes time offsets',
    args: {},
  },
  initial_affinity: {
    code: 10,
    stage: 'host',
    doc: 'sched_setaffinity(2) before the clone, for the container side to inherit; mask is its little-endian bits, empty for every CPU (a refusal is then a warning)',
    args: { mask: 'bytes' },
  },
  clone: {
    code: 11,
    stage: 'host',
    doc: 'clone3 with CLONE_PARENT and CLONE_NEW* flags; the maps are the text of uid_map and gid_map, empty for none; with runtimeMaps stage 0 reports reached{ID_MAPS}, and the runtime writes the maps, as it must without privileges',
    args: { flags: 'u64', uidMap: 'str', gidMap: 'str', runtimeMaps: 'u32' },
  },

  session: {
    code: 20,
    stage: 'container',
    doc: 'setsid; with becomeRoot also setresgid(0), setgroups() and setresuid(0) in the user namespace just entered',
    args: { becomeRoot: 'u32' },
  },
  wait_cgroup: {
    code: 21,
    stage: 'container',
    most: 1,
    doc: 'wait until stage 0 is done: the process is then in its cgroups',
    args: {},
  },
  unshare: {
    code: 22,
    stage: 'container',
    doc: 'unshare(2) for namespaces that the clone does not make; the cgroup namespace must follow wait_cgroup',
    args: { flags: 'u64' },
  },
  keyring: {
    code: 23,
    stage: 'container',
    host: 'procfs',
    hostIf: { label: 'given' },
    doc: 'join a new session keyring of this name, with this SELinux label if one is given; ENOSYS is ignored',
    args: { name: 'str', label: 'str' },
  },
  loopback_up: {
    code: 24,
    stage: 'container',
    doc: 'bring up the loopback interface of the network namespace',
    args: {},
  },
  propagation: {
    code: 25,
    stage: 'container',
    doc: 'set the propagation (MS_* flags) of the mount at a path: before rootfs a path of the runtime, after it one of the container',
    args: { path: 'str', flags: 'u32' },
  },
  rootfs: {
    code: 26,
    stage: 'container',
    most: 1,
    doc: 'open the root directory for all later operations, and bind it on itself as ROOTFS_HOW says',
    args: { path: 'str', how: 'u32' },
  },
  mount: {
    code: 27,
    stage: 'container',
    needs: 'rootfs',
    host: 'agent',
    hostIf: { how: MOUNT_HOW.HOST_SOURCE },
    doc: 'mount on a target inside the root, made if missing. set and clear are MOUNT_ATTR_* bits of the mount, recSet and recClear of its tree; dropped is cleared too, where it is not locked. Then each propagation (MS_* flags) is set in turn. options go to the file system, each "key=value" or "flag"',
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
    doc: 'mknod inside the root, or check that the same node is there; mode includes the type bits',
    args: { path: 'str', mode: 'u32', major: 'u32', minor: 'u32', uid: 'u32', gid: 'u32' },
  },
  symlink: {
    code: 29,
    stage: 'container',
    needs: 'rootfs',
    doc: 'make a symlink inside the root; an existing file is kept, or with replace removed first',
    args: { target: 'str', path: 'str', replace: 'u32' },
  },
  sync: { code: 30, stage: 'container', doc: 'report reached{point} and wait for one byte', args: { point: 'u32' } },
  pivot: {
    code: 31,
    stage: 'container',
    most: 1,
    needs: 'rootfs',
    host: 'procfs',
    doc: 'make the rootfs the root directory as PIVOT_MODE says; later paths are inside the container',
    args: { mode: 'u32' },
  },
  reopen_null: {
    code: 32,
    stage: 'container',
    doc: "where fd 0, 1 or 2 is a /dev/null, replace it by the container's own (device 1:3)",
    args: {},
  },
  readonly_mount: {
    code: 33,
    stage: 'container',
    doc: 'set MOUNT_ATTR_RDONLY on the mount at this path',
    args: { path: 'str' },
  },
  readonly_path: {
    code: 34,
    stage: 'container',
    doc: 'bind a path on itself and make that tree read-only; a missing path is ignored',
    args: { path: 'str' },
  },
  mask_path: {
    code: 35,
    stage: 'container',
    doc: 'cover a file by /dev/null, a directory by an empty read-only tmpfs; a missing path is ignored',
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
    doc: 'allocate a pty in the devpts of the root for uid, with a size if both numbers are non-zero; send its master on the console fd; make it fds 0 to 2 and the controlling terminal. With console it is mounted on /dev/console; with bareNewlines its output gets no carriage returns (ONLCR)',
    args: { width: 'u32', height: 'u32', uid: 'u32', console: 'u32', bareNewlines: 'u32' },
  },
  stdio_owner: {
    code: 40,
    stage: 'container',
    doc: 'fchown those of fds 0, 1 and 2 that are pipes to uid; EPERM, EROFS and EINVAL are ignored',
    args: { uid: 'u32' },
  },
  make_cwd: {
    code: 41,
    stage: 'container',
    doc: 'make the working directory inside the root, and its parents, with mode 0755',
    args: { path: 'str' },
  },
  chdir: {
    code: 42,
    stage: 'container',
    doc: 'chdir, then check that getcwd is inside the root; with tolerant, EACCES leaves it to a later chdir; after a success later ones do nothing',
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
    doc: 'set the bounding set, then groups, gid and uid under keepcaps, then the other capability sets, the ambient one last; ids and sets are read back',
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
    doc: "find the program: args[0] in env's PATH (or a default one), which must be executable. If env has no HOME or an empty one, it comes from /etc/passwd of the root",
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
    doc: 'write "0" into the exec fifo, which blocks until the starter has read it empty; later records go there',
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
    doc: 'report net_socket{fd}, a netlink socket that the host agent opens in this network namespace, and wait for one byte: the runtime takes the socket and moves network devices',
    args: {},
  },
  hook: {
    code: 57,
    stage: 'container',
    failure: 'HOOK',
    doc: "run a hook to its end, in the working directory once chdir is done, before that in the root. Without args, argv is the path; one empty string as env stands for the program's env. Its stdin is stateHead, this pid and stateTail. timeout is in seconds, 0 for none. The failure names name, index and the tail of the output",
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
    doc: 'ioprio_set(2) of the process group: class << 13 | priority',
    args: { value: 'u32' },
  },
  memory_policy: {
    code: 60,
    stage: 'container',
    doc: 'set_mempolicy(2): MPOL_* mode with MPOL_F_* flags; nodes is the little-endian bit mask in words of 8 bytes, empty for none',
    args: { mode: 'u32', nodes: 'bytes' },
  },
  affinity: {
    code: 61,
    stage: 'container',
    doc: 'sched_setaffinity(2) inside the cgroup; mask as in initial_affinity, empty for every CPU of the cgroup',
    args: { mask: 'bytes' },
  },
  exec: {
    code: 70,
    stage: 'container',
    needs: 'program',
    failure: 'PROGRAM',
    doc: 'report executing, then execve; fds is the number of fds that the program gets above fd 2',
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
  reached: { type: 2, doc: 'point u32: one of SYNC_POINTS, at which the sender waits for one byte' },
  console: { type: 3, doc: "the terminal's master was sent on the console fd" },
  ready: { type: 4, doc: 'the container is created and waits for its start' },
  executing: {
    type: 5,
    doc: 'execve comes next; it has succeeded if end of file follows without a failed record',
  },
  failed: {
    type: 6,
    doc: 'op index u32 (0xffffffff: none), errno i32, kind u32 (FAILURES), then text: what failed',
  },
  listener: {
    type: 8,
    doc: 'fd u32: the seccomp listener in the container process, which waits for one byte',
  },
  log: { type: 7, doc: 'level u32 (0 debug, 1 warning), then text' },
  net_socket: {
    type: 9,
    doc: 'fd u32: a NETLINK_ROUTE socket in the container process, which waits for one byte',
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

/**
 * One operation of a plan: its name and its arguments. `origin` is the JSON pointer in config.json that asked for it,
 * for errors. `note` says what the runtime does meanwhile, for the printed plan.
 */
export type Op = {
  [N in OpName]: Readonly<
    { op: N; origin?: string; note?: string } & {
      -readonly [A in keyof (typeof OPS)[N]['args']]: ArgValue<(typeof OPS)[N]['args'][A]>
    }
  >
}[OpName]
