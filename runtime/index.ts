/**
 * The public API of the runtime, for programs that embed it: containers, the processes in them, the specs that they are
 * made from, and the reaper that owns the processes. internal.ts has what only the programs of this repository use.
 */

// Containers: create, run, inspect, save, restore, delete.

export type { PressureLevel } from './cgroup/pressure.ts'
export type { CgroupStats } from './cgroup/stats.ts'
export {
  CGROUPS_MODES,
  type CgroupsMode,
  type CheckpointOptions,
  type CriuOptions,
  type RestoreOptions,
} from './container/checkpoint/options.ts'
export { Container, type ContainerState } from './container/container.ts'
export { type DeleteOptions, deleteContainer } from './container/delete-by-id.ts'
export type { ContainerInfo } from './container/info.ts'
export type { CreateOptions, ExecOptions, ExecProcess, FeatureGates } from './container/options.ts'
export type { ProcessResult, RunningProcess } from './container/running-process.ts'
export type { ContainerStats } from './container/stats.ts'
export { type Status, StatusCode } from './container/status.ts'
export type { InterfaceStats } from './host/interfaces.ts'
export type { OciState, OciStatus } from './state/oci-state.ts'

// The managers behind a container, for programs that need one alone: its cgroup, and its Intel RDT groups.

export { Cgroup, type CgroupCreateOptions, type CgroupJoin } from './cgroup/cgroup.ts'
export { IntelRdt, type IntelRdtUpdate } from './intelrdt/intel-rdt.ts'
export type { IntelRdtStats } from './intelrdt/stats.ts'
export type { IntelRdt as IntelRdtSettings } from './spec/types.ts'
export type { SavedIntelRdt } from './state/intel-rdt.ts'

// Processes: one reaper per program, and how each process ended.

export { type Exit, type ProcessMaker, Reaper, type ReaperMode } from './sys/reaper.ts'

// Standard streams: what a process is started with, pipes for it, its terminal, its readiness.

export type { Stdio } from './init/spawn.ts'
export { type ProcessPipes, processPipes } from './io/pipes.ts'
export { resizeTerminal, type TerminalSize } from './io/terminal.ts'
export { NotifySocket } from './peers/notify.ts'
export { OwnedFd } from './sys/fd.ts'

// Specs: config.json and its parts, checked as they are read.

export { describeBundle } from './container/prepare.ts'
export { exampleSpec, SPEC_VERSION } from './spec/example.ts'
export { decodeFileJson, loadSpec, parseProcess, parseResources, parseSpec } from './spec/load.ts'
export { stringifyJson } from './spec/stringify.ts'
export type { Capabilities, LinuxResources, OciProcess, Spec } from './spec/types.ts'

// The host: what this runtime supports, device nodes, and the files of a container.

export { features } from './features.ts'
export { deviceFromPath, hostDevices } from './host/devices.ts'
export { createPidFile } from './host/pid-file.ts'
export { configFilePath, runtimePath } from './state/store.ts'

// Errors and logs.

export { type ErrorDetail, RuntimeError, type RuntimeErrorCode } from './errors.ts'
export { type ConfiguredLog, configureLogging, type LogSettings } from './log.ts'
export { type LogFields, type Logger, type LogLevel, silentLogger, withFields } from './logger.ts'
