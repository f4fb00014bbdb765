/**
 * The contract between c/launcher/ (C, which containerd starts) and the TypeScript that it starts: descriptors, flags,
 * variables, file names and limits. Everything here is constant data. scripts/gen.ts turns it into a header of
 * c/launcher/; TypeScript imports it as it is, and a bundle keeps only what it uses.
 *
 *   containerd ── start ──> launcher ──> Node: NODE_FLAGS, script, FLAGS, action `serve`; listening socket on LISTEN
 *              ── delete ─> launcher: prints the file EXIT of the bundle, or becomes Node: action `delete`
 *              ── -v ─────> launcher: VERSION_HEAD, then the file VERSION
 *              ── -info ──> launcher: the file RUNTIME_INFO, a protobuf RuntimeInfo
 *
 * The path of a shim's socket is a folder and a name: the SHA-256, in hexadecimal, of the cleaned path
 * ADDRESS/NAMESPACE/ID. containerd's own shims have this rule too.
 *
 * Invariant: launcher and bundles are built together and installed together, so neither checks the other's version.
 */

/** Name of the program that containerd executes; the first word of the title that `ps` shows, and of every error. */
export const PROGRAM = 'containerd-shim-ts-v2'

/** Name of a keeper's worker, from its first instruction: only the keeper is to be seen under the other. */
export const WORKER_NAME = 'shim-worker'

/** The descriptors of Node, besides 0 and 1, which are /dev/null. */
export const LAUNCH_FDS = {
  /** the log; for `delete`, the stderr that containerd reads */
  LOG: 2,
  /** the listening socket, for `serve` */
  LISTEN: 3,
} as const

/** The flags that Node's script gets, each with a value after it but DEBUG. The action comes last. */
export const FLAGS = {
  /** containerd's namespace */
  NAMESPACE: 'namespace',
  /** the container */
  ID: 'id',
  /** containerd's gRPC socket, a path without scheme */
  ADDRESS: 'address',
  /** the bundle, an absolute path */
  BUNDLE: 'bundle',
  /** containerd's ttrpc socket, for `serve` */
  TTRPC: 'ttrpc',
  /** path of the listening socket, for `serve` */
  SOCKET: 'socket',
  /** debug messages are logged */
  DEBUG: 'debug',
} as const

/** What Node's script is told to do. */
export const ACTIONS = {
  SERVE: 'serve',
  DELETE: 'delete',
  /** serve as the worker of a keeper: proto/keeper.ts names the descriptors */
  WORK: 'work',
} as const

/** Exit statuses of the launcher and of the script. */
export const EXITS = {
  /** what was asked could not be done; stderr says why */
  FAILURE: 1,
  /** the command line cannot be understood */
  USAGE: 2,
} as const

/** Environment variables. What starts Node drops inherited ones of SOFT_NOFILE and of the prefix OUTER. */
export const VARIABLES = {
  /** folder of the installed files, instead of the one beside the programs */
  LIB: 'SHIM_TS_LIB',
  /** the soft limit of open files that the launcher has inherited; Node raises its own before a script can read it */
  SOFT_NOFILE: 'RUNTS_SOFT_NOFILE',
  /** prefix of the inherited variables that would change how Node starts; programs get them back without it */
  OUTER: 'RUNTS_OUTER_',
  /** `start` makes a keeper, which starts Node as its worker; for tests until the shim can be a worker */
  KEEPER: 'RUNTS_KEEPER',
} as const

/** The variable that names the place at which a test build kills itself; the product has no such name. */
export const FAIL_AT = 'RUNTS_FAIL_AT'

/** Beginnings of the inherited variables that would change how Node starts. */
export const CHANGING_VARIABLES = ['NODE_', 'UV_', 'OPENSSL_CONF=', 'OPENSSL_MODULES='] as const

/** The folder of the installed files, below the one that holds the folder of the programs. */
export const LIB_FOLDER = 'lib/containerd-shim-ts'

/** The last line of a program, as far as scripts/install has written one: this, then the folder of the files. */
export const LIB_RECORD = '#lib='

/** Files of that folder. */
export const LIB_FILES = {
  NODE: 'node',
  SCRIPT: 'shim.cjs',
  /** the version in one line */
  VERSION: 'VERSION',
  /** the answer to -info */
  RUNTIME_INFO: 'runtime-info',
} as const

/** What `-v` prints before the version. */
export const VERSION_HEAD = `${PROGRAM}:\n  Version:  `

/** Files of a bundle. */
export const BUNDLE_FILES = {
  /** SCHEME and the path of the socket; written by `start`, and read by containerd after its own restart */
  ADDRESS: 'address',
  /** containerd's fifo for log lines */
  LOG: 'log',
  /** a protobuf DeleteResponse: everything is cleaned up, and `delete` prints this */
  EXIT: 'shim-exit',
} as const

/** The socket of a shim. */
export const SOCKET = {
  /** what an address begins with; the rest is an absolute path */
  SCHEME: 'unix://',
  /** where sockets lie unless containerd names another folder */
  FOLDER: '/run/containerd/s',
} as const

/** Limits that both sides enforce. */
export const LAUNCH_LIMITS = {
  /** characters of a namespace, of a container's id and of an exec's id */
  IDENTIFIER_MAX: 76,
  /** connections that wait to be accepted; the kernel takes the lower one of this and net.core.somaxconn */
  BACKLOG: 4096,
} as const

/**
 * The V8 and Node options of every shim process. A code cache is valid only for the options that it was made with. A
 * small young generation keeps an idle shim small: the next calls collect the garbage of the last ones. One helper
 * thread instead of four is enough for so small a heap (0 would mean one for every processor). Warnings of Node are
 * for its programmers; a log has no reader for them.
 */
export const NODE_FLAGS = ['--no-warnings', '--max-semi-space-size=1', '--v8-pool-size=1'] as const
