/**
 * The public face of the runtime: containers, the specs they are made from, the reaper that owns their processes, and the few host
 * operations that whoever embeds the runtime needs besides. Nothing else of this folder is meant to be imported from outside.
 */
export type { CgroupStats } from './cgroup/stats.ts'
export {
  Container,
  type CreateOptions,
  type ExecOptions,
  type FeatureGates,
  type Status,
} from './container/container.ts'
export { type HostFacts, hostFacts } from './container/host.ts'
export { hostGid, hostUid, newNamespaces } from './container/ids.ts'
export { describeBundle } from './container/prepare.ts'
export type { RunningProcess } from './container/process.ts'
export { type ErrorDetail, RuntimeError, type RuntimeErrorCode, specError } from './errors.ts'
export { features } from './features.ts'
export type { Stdio } from './init/spawn.ts'
export { resizeTerminal } from './io/terminal.ts'
export { type LogFields, type Logger, silentLogger } from './logger.ts'
export { exampleSpec, SPEC_VERSION } from './spec/example.ts'
export { loadSpec, parseJson, parseProcess, parseResources, parseSpec } from './spec/load.ts'
export { stringifyJson } from './spec/stringify.ts'
export type { Capabilities, LinuxResources, OciProcess, Spec } from './spec/types.ts'
export { errnoName, errnoOf } from './sys/errno.ts'
export { chownFd, OwnedFd, pipePair } from './sys/fd.ts'
export { exitNow, getpid, mkfifo, realtime } from './sys/libc.ts'
export { seccompVersion } from './sys/libseccomp.ts'
export { type FsMount, mountFs, unmountTree } from './sys/mount.ts'
export { libDir } from './sys/paths.ts'
export { processStat } from './sys/process.ts'
export { Child, type Exit, Reaper } from './sys/reaper.ts'
export { connectUnix, peerCredentials } from './sys/socket.ts'
