/**
 * The public face of the runtime: containers, the specs they are made from, the reaper that owns their processes, and the few host
 * operations that whoever embeds the runtime needs besides. Nothing else of this folder is meant to be imported from outside.
 */
export type { CgroupStats } from './cgroup/stats.ts'
export { Container, type ContainerState } from './container/container.ts'
export { deleteContainer } from './container/delete-by-id.ts'
export type { ContainerInfo } from './container/info.ts'
export type { CreateOptions, ExecOptions, ExecProcess, FeatureGates } from './container/options.ts'
export { describeBundle } from './container/prepare.ts'
export { bundleOf, isLeftover, isThere } from './container/remains.ts'
export type { ProcessResult, RunningProcess } from './container/running-process.ts'
export { type Status, StatusCode } from './container/status.ts'
export { type ErrorDetail, RuntimeError, type RuntimeErrorCode, specError } from './errors.ts'
export { failpoint, longTime } from './failpoint.ts'
export { features } from './features.ts'
export { deviceFromPath, hostDevices } from './host/devices.ts'
export { type HostFacts, hostFacts } from './host/facts.ts'
export { hostGid, hostUid, newNamespaces } from './host/ids.ts'
export { createPidFile } from './host/pid-file.ts'
export type { Stdio } from './init/spawn.ts'
export { FileInput } from './io/file-input.ts'
export { type ProcessPipes, processPipes } from './io/pipes.ts'
export { leaveStderrAlone, pollableSocket, pollableSource } from './io/pollable.ts'
export { pipeSource, Relay, type Sink, type Source } from './io/relay.ts'
export { discardSink, FileSink, type OutputPipe, PipeSink, type SinkOptions, SocketSink } from './io/sinks.ts'
export { openPeer, rawInput, resizeTerminal, type TerminalSize, terminalSize } from './io/terminal.ts'
export { type ConfiguredLog, configureLogging, type Log, type LogSettings, openLog, parseLogLevel } from './log.ts'
export { atLevel, type LogFields, type Logger, type LogLevel, silentLogger, withFields } from './logger.ts'
export { type MountHelpers, mountEntry } from './mounts/host-mount.ts'
export { NotifySocket } from './peers/notify.ts'
export { type ProgramOptions, type ProgramResult, runProgram } from './peers/program.ts'
export { exampleSpec, SPEC_VERSION } from './spec/example.ts'
export { decodeFileJson, loadSpec, parseJson, parseProcess, parseResources, parseSpec } from './spec/load.ts'
export { stringifyJson } from './spec/stringify.ts'
export type { Capabilities, LinuxResources, OciProcess, Spec } from './spec/types.ts'
export type { OciState, OciStatus } from './state/oci-state.ts'
export { configFilePath, runtimePath } from './state/store.ts'
export { makeDirectories } from './sys/directory.ts'
export { inheritedEnvironment } from './sys/environment.ts'
export { errnoCode, errnoName, errnoOf, errnoWords, reasonOf } from './sys/errno.ts'
export {
  accessOf,
  chownFd,
  duplicate,
  growPipe,
  movePipeBytes,
  OwnedFd,
  openNull,
  pipePair,
  reopen,
  sameDescription,
  setNonBlocking,
  unreadBytes,
} from './sys/fd.ts'
export { tryLock } from './sys/flock.ts'
export { exitNow, getpid, mkfifo, realtime } from './sys/libc.ts'
export { seccompVersion } from './sys/libseccomp.ts'
export { EAGAIN, EEXIST, EIO, ENOENT, EPIPE, HIGHEST_ID, SIGKILL, SIGTERM } from './sys/linux.ts'
export { type FsMount, unmountTree } from './sys/mount.ts'
export { findProgram } from './sys/path-search.ts'
export { libDir } from './sys/paths.ts'
export { processStat, signalProcess } from './sys/pids.ts'
export { Child, type Exit, Reaper } from './sys/reaper.ts'
export { readRegularFile } from './sys/regular-file.ts'
export { removeFile } from './sys/remove.ts'
export { connectUnix, peerCredentials } from './sys/socket.ts'
export { exitText } from './sys/words.ts'
export { probeTurns } from './turns.ts'
