/**
 * What a Checkpoint request asks for: `path`, the folder for the images, and the options in one of two forms.
 * containerd has made the folder. The option `image_path` is not read: containerd has already put it into `path`. In
 * the older form of the options the last two fields are swapped.
 *
 * Invariant: a request is read whole, or refused, before anything happens to the container.
 */

import { isAbsolute } from 'node:path'
import { Code, typeNameOf } from 'ttrpc-ts'
import { type CheckpointTaskRequest, LegacyCheckpointOptions, RuncCheckpointOptions } from 'ttrpc-ts/containerd'
import { messageOf } from '../runtime/internal.ts'
import { classError } from './status.ts'

/** How a checkpoint is to be taken. */
export interface Checkpoint {
  /** folder for the images, absolute */
  readonly path: string
  /** whether the container is to end afterwards */
  readonly exit: boolean
  readonly openTcp: boolean
  readonly externalUnixSockets: boolean
  readonly terminal: boolean
  readonly fileLocks: boolean
  readonly emptyNamespaces: readonly string[]
  readonly cgroupsMode: string
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
    // without its cause: calls.ts would log an error class of another package as a bug of the shim
    throw classError(Code.INVALID_ARGUMENT, `cannot decode ${name}: ${messageOf(error)}`)
  }
  throw classError(Code.INVALID_ARGUMENT, `checkpoint options of the unknown type ${JSON.stringify(any.typeUrl)}`)
}
