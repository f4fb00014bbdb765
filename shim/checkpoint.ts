/**
 * What a Checkpoint request asks for: `path`, the folder for the images, and the options in one of two forms.
 * containerd has made the folder. The option `image_path` is not read: containerd has already put it into `path`. In
 * the older form of the options the last two fields are swapped.
 *
 * Invariant: a request is read whole, or refused, before anything happens to the container.
 */

import { existsSync, readdirSync, renameSync, rmdirSync } from 'node:fs'
import { isAbsolute, join, relative } from 'node:path'
import { Code, typeNameOf } from 'ttrpc-ts'
import { type CheckpointTaskRequest, LegacyCheckpointOptions, RuncCheckpointOptions } from 'ttrpc-ts/containerd'
import { CGROUPS_MODES, type CriuOptions, RuntimeError } from '../runtime/index.ts'
import { messageOf, removeFile } from '../runtime/internal.ts'
import type { RestoreSwitches } from './options.ts'
import { classError } from './status.ts'
import type { Task } from './task/registry.ts'

/** The folder in a bundle for CRIU's logs, unless the request names another. */
const WORK = 'criu-work'
/** Where the log of a failed dump is kept, in the bundle. */
const KEPT_LOG = 'criu-dump.log'

/** How a checkpoint is to be taken. */
export interface Checkpoint extends RestoreSwitches {
  /** folder for the images, absolute */
  readonly path: string
  /** whether the container is to end afterwards */
  readonly exit: boolean
  /** folder for temporary files and logs; empty lets the program that dumps choose one */
  readonly workPath: string
  /** folder of an earlier checkpoint to which this one is incremental; empty for none */
  readonly parentPath: string
}

/** Reads a request. Without options a checkpoint leaves the container running. @throws InvalidArgument */
export function parseCheckpoint({ path, options }: CheckpointTaskRequest): Checkpoint {
  const given = readOptions(options)
  for (const [what, folder] of [
    ['path', path],
    ['work_path', given.workPath],
    ['parent_path', given.parentPath],
  ] as const) {
    if (isAbsolute(folder) || (folder === '' && what !== 'path')) continue
    throw classError(Code.INVALID_ARGUMENT, `the ${what} ${JSON.stringify(folder)} of a checkpoint is not absolute`)
  }
  // refuses what it does not know
  criuOptions(given)
  return { ...given, path }
}

/**
 * Takes a checkpoint of a running or paused container.
 * @throws InvalidArgument; what the runtime says, with the place of CRIU's log
 */
export async function checkpoint(task: Task, asked: Checkpoint): Promise<void> {
  const own = join(task.bundle, WORK)
  const workPath = asked.workPath === '' ? own : asked.workPath
  try {
    await task.container.checkpoint({
      ...criuOptions(asked),
      imagePath: asked.path,
      workPath,
      leaveRunning: !asked.exit,
      // the runtime takes it as CRIU does: from the folder of the images
      ...(asked.parentPath === '' ? {} : { parentPath: relative(asked.path, asked.parentPath) }),
    })
  } catch (error) {
    if (workPath !== own || !(error instanceof RuntimeError)) throw error
    throw withKeptLog(task.bundle, error)
  } finally {
    if (workPath === own) removeWork(own)
  }
}

/** What a checkpoint and a restore are asked for in the same words. @throws InvalidArgument */
export function criuOptions({
  openTcp,
  externalUnixSockets,
  terminal,
  fileLocks,
  emptyNamespaces,
  cgroupsMode: mode,
}: RestoreSwitches): Omit<CriuOptions, 'imagePath'> {
  const cgroupsMode = CGROUPS_MODES.find((name) => name === mode)
  if (mode !== '' && cgroupsMode === undefined) {
    throw classError(Code.INVALID_ARGUMENT, `the cgroups_mode ${JSON.stringify(mode)} of a checkpoint is unknown`)
  }
  const namespaces = emptyNamespaces.map((name): 'network' => {
    if (name === 'network') return name
    throw classError(
      Code.INVALID_ARGUMENT,
      `the namespace ${JSON.stringify(name)} of a checkpoint cannot be left empty`,
    )
  })
  return {
    tcpEstablished: openTcp,
    externalUnixSockets,
    shellJob: terminal,
    fileLocks,
    emptyNamespaces: namespaces,
    ...(cgroupsMode === undefined ? {} : { cgroupsMode }),
  }
}

/** Keeps CRIU's log in the bundle, under the name that clients of runc know, and names it there. */
function withKeptLog(bundle: string, error: RuntimeError): RuntimeError {
  const [from, to] = [join(bundle, WORK, 'dump.log'), join(bundle, KEPT_LOG)]
  if (!existsSync(from)) return error
  renameSync(from, to)
  return new RuntimeError(error.code, error.message.replaceAll(from, to), { cause: error, detail: error.detail })
}

/** Removes the folder of CRIU's logs. What is no file of it stays, and with it the folder. */
function removeWork(folder: string): void {
  if (!existsSync(folder)) return
  const entries = readdirSync(folder, { withFileTypes: true })
  for (const entry of entries) if (entry.isFile()) removeFile(join(folder, entry.name))
  if (entries.every((entry) => entry.isFile())) rmdirSync(folder)
}

function readOptions(any: CheckpointTaskRequest['options']): RuncCheckpointOptions {
  if (any === undefined || any.typeUrl === '') return RuncCheckpointOptions.create()
  const name = typeNameOf(any)
  try {
    if (name === RuncCheckpointOptions.typeName) return RuncCheckpointOptions.decode(any.value)
    if (name === LegacyCheckpointOptions.typeName)
      return RuncCheckpointOptions.create(LegacyCheckpointOptions.decode(any.value))
  } catch (error) {
    // without its cause: calls.ts would log an error class of another package as a bug of the shim
    throw classError(Code.INVALID_ARGUMENT, `cannot decode ${name}: ${messageOf(error)}`)
  }
  throw classError(Code.INVALID_ARGUMENT, `checkpoint options of the unknown type ${JSON.stringify(any.typeUrl)}`)
}
