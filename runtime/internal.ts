/**
 * The second door of the runtime, for the programs of this repository: `shim/` and `runtime/cli/`. It has what they
 * need besides the public API of index.ts, such as relays, single system calls and fail points. Nothing here is public,
 * and all of it may change. No name is exported by both files.
 */

// Containers, by what they leave on disk.

export { bundleOf, isLeftover, isThere } from './container/remains.ts'
export { messageOf } from './errors.ts'
/** What only `runts events` needs. */
export const loadEvents = () => import('./events/index.ts')

// The host: facts, ids, mounts, other programs.

export { hostFacts } from './host/facts.ts'
export { hostGid, hostUid, newNamespaces } from './host/ids.ts'
export { type MountHelpers, mountEntry } from './mounts/host-mount.ts'
export { runProgram } from './peers/program.ts'
export { inheritedEnvironment } from './sys/environment.ts'
export { unmountTree } from './sys/mount.ts'
export { findProgram } from './sys/path-search.ts'
export { libDir } from './sys/paths.ts'

// Bytes between descriptors.

export { FileInput } from './io/file-input.ts'
export { leaveStderrAlone, pollableSocket, pollableSource } from './io/pollable.ts'
export { pipeSource, Relay, type Sink, type Source } from './io/relay.ts'
export { discardSink, FileSink, type OutputPipe, PipeSink, SocketSink } from './io/sinks.ts'
export { openPeer, rawInput, terminalSize } from './io/terminal.ts'

// Files, sockets and processes: system calls, whose errors say what failed.

export { errnoCode, errnoOf, reasonOf } from './sys/errno.ts'
export {
  accessOf,
  chownFd,
  duplicate,
  growPipe,
  openNull,
  pipePair,
  reopen,
  sameDescription,
  setNonBlocking,
  unreadBytes,
} from './sys/fd.ts'
export { tryLock } from './sys/flock.ts'
export { exitNow, getpid, realtime } from './sys/libc.ts'
export { seccompVersion } from './sys/libseccomp.ts'
export { EAGAIN, EEXIST, EIO, ENOENT, EPIPE, HIGHEST_ID, SIGKILL, SIGTERM } from './sys/linux.ts'
export { processStat, signalProcess } from './sys/pids.ts'
export type { Child } from './sys/reaper.ts'
export { readRegularFile } from './sys/regular-file.ts'
export { removeFile } from './sys/remove.ts'
export { connectUnix, peerCredentials } from './sys/socket.ts'
export { exitText } from './sys/words.ts'

// Logs, and the places at which tests look or kill.

export { failpoint, longTime } from './failpoint.ts'
export { type Log, logValue, openLog, parseLogLevel } from './log.ts'
export { probeTurns } from './turns.ts'
