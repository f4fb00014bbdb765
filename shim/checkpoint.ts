/**
 * What a Checkpoint request asks for: `path`, the folder that takes the images, which the daemon has made (and which is the client's own
 * `image_path` where there is one, so that option tells us nothing), and the options in either of their two forms; in the older one the
 * last two fields are swapped. Invariant: a request is understood whole, or refused, before anything happens to the container.
 */
import { isAbsolute } from 'node:path'
import { Code, typeNameOf } from 'ttrpc-ts'
import { type CheckpointTaskRequest, LegacyCheckpointOptions, RuncCheckpointOptions } from 'ttrpc-ts/containerd'
import { classError, messageOf } from './status.ts'

/** How a checkpoint is to be taken. */
export interface Checkpoint {
  /** folder for the images, absolute */
  readonly path: string
  /** ends the container afterwards */
  readonly exit: boolean
  readonly openTcp: boolean
  readonly externalUnixSockets: boolean
  readonly terminal: boolean
  readonly fileLocks: boolean
  readonly emptyNamespaces: readonly string[]
  readonly cgroupsMode: string
  /** folder for what is of no use afterwards; empty for one of our own */
  readonly workPath: string
  /** images that this one adds to; empty for none */
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
  return { ...given, path }
}

/** Takes a checkpoint. @throws Unimplemented: no program of this shim can dump a process */
export function checkpoint(id: string, { path }: Checkpoint): never {
  throw classError(Code.UNIMPLEMENTED, `cannot checkpoint container "${id}" to "${path}"`)
}

function readOptions(any: CheckpointTaskRequest['options']): RuncCheckpointOptions {
  if (any === undefined || any.typeUrl === '') return RuncCheckpointOptions.create()
  const name = typeNameOf(any)
  try {
    if (name === RuncCheckpointOptions.typeName) return RuncCheckpointOptions.decode(any.value)
    if (name === LegacyCheckpointOptions.typeName)
      return RuncCheckpointOptions.create(LegacyCheckpointOptions.decode(any.value))
  } catch (error) {
    // without its cause, which the log would take for a bug of ours
    throw classError(Code.INVALID_ARGUMENT, `cannot decode ${name}: ${messageOf(error)}`)
  }
  throw classError(Code.INVALID_ARGUMENT, `checkpoint options of the unknown type ${JSON.stringify(any.typeUrl)}`)
}
