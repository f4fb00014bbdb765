/**
 * Carries out the writes of resources.ts on a container's cgroup. Invariant: when a write fails on a cgroup that was in
 * use, the earlier writes are undone. On a fresh cgroup nothing is undone, since its maker removes it.
 */

import { existsSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { errnoOf } from '../sys/errno.ts'
import { EBUSY, EINVAL, ENOENT } from '../sys/linux.ts'
import { cgroupError, readText, readTextIfAny, writeText } from './files.ts'
import { displayName } from './hierarchy.ts'
import type { ResourceWrite } from './resources.ts'

/** Where the writes go: the directory of a write's controller, undefined when there is none. */
export interface ApplyTarget {
  dir(controller: string): string | undefined
  /** the key of the paths record, for messages */
  key(controller: string): string
  /** no limit was set here before: a value equal to the kernel's initial one is not written */
  readonly fresh: boolean
}

/** Undoes the writes; errors are ignored, since the failure that led here is the one to report. */
export type Undo = () => void

interface Done {
  readonly path: string
  readonly values: readonly string[]
}

/** Makes all writes, in order; the result undoes them if a later step of the caller fails. */
export function applyWrites(writes: readonly ResourceWrite[], target: ApplyTarget): Undo {
  const done: Done[] = []
  const undo = () => {
    for (const { path, values } of done.reverse()) {
      for (const value of values) {
        try {
          writeText(path, value)
        } catch {
          // the other values are still restored
        }
      }
    }
  }
  try {
    const deferred: ResourceWrite[] = []
    for (const [i, write] of writes.entries()) {
      if (
        !(target.fresh && write.value === write.initial) &&
        !attempt(write, { target, done, mayDefer: write.defer === true })
      ) {
        deferred.push(write)
      }
      if (writes[i + 1]?.controller !== write.controller) {
        for (const late of deferred.splice(0)) attempt(late, { target, done, mayDefer: false })
      }
    }
  } catch (error) {
    undo()
    throw error
  }
  return undo
}

interface Attempt {
  readonly target: ApplyTarget
  /** the writes to undo; this one is added */
  readonly done: Done[]
  readonly mayDefer: boolean
}

/** Makes one write; false when the kernel refused it for now and it may be tried again later. */
function attempt(write: ResourceWrite, { target, done, mayDefer }: Attempt): boolean {
  const dir = target.dir(write.controller)
  if (dir === undefined) {
    if (write.optional === true) return true
    throw unavailable(write, '')
  }
  const name = displayName(target.key(write.controller), dir)
  for (const { file, value } of write.fallback === undefined ? [write] : [write, write.fallback]) {
    const path = `${dir}/${file}`
    const old = target.fresh ? undefined : oldValues(path, write, file)
    try {
      writeText(path, value)
    } catch (error) {
      const errno = errnoOf(error)
      if (errno === ENOENT) continue
      if (errno === EINVAL && mayDefer) return false
      throw cgroupError(`cannot set ${write.what} on cgroup "${name}"`, error, {
        call: 'write',
        path,
        note: inUse(dir, write, errno),
      })
    }
    if (old !== undefined) done.push({ path, values: old })
    if (write.readBack === true) verify(path, value, { what: `${write.what} on cgroup "${name}"`, file: write.file })
    return true
  }
  if (!existsSync(dir))
    throw new RuntimeError('NotFound', `cannot set ${write.what} on cgroup "${name}": the cgroup is gone`)
  if (write.optional === true) return true
  throw unavailable(write, name)
}

function unavailable(write: ResourceWrite, name: string): RuntimeError {
  const where = name === '' ? '' : ` on cgroup "${name}"`
  const reason = `the ${write.controller} controller is not available, or this kernel lacks ${write.file}`
  return new RuntimeError('FailedPrecondition', `cannot set ${write.what}${where}: ${reason}`)
}

/** The values to write to restore the present state; undefined when it cannot be read. */
function oldValues(path: string, write: ResourceWrite, file: string): string[] | undefined {
  let text: string | undefined
  try {
    text = readTextIfAny(path)
  } catch {
    // a write-only file: its old value cannot be restored
    return undefined
  }
  if (text === undefined) return undefined
  if (file === 'memory.oom_control') return [/^oom_kill_disable 1$/m.test(text) ? '1' : '0']
  const lines = text.split('\n').filter((line) => line !== '')
  if (write.line === undefined) return lines
  const { key, unset } = write.line
  return [unset, ...lines.filter((line) => line.startsWith(`${key} `))]
}

function inUse(dir: string, write: ResourceWrite, errno: number): string {
  if (errno !== EBUSY || write.file !== 'memory.limit_in_bytes') return ''
  const usage = readTextIfAny(`${dir}/memory.usage_in_bytes`)?.trim()
  const peak = readTextIfAny(`${dir}/memory.max_usage_in_bytes`)?.trim()
  return ` (usage ${usage}, peak ${peak})`
}

function verify(path: string, wanted: string, { what, file }: { readonly what: string; readonly file: string }): void {
  const got = BigInt(readText(path).trim())
  if (got === BigInt(wanted)) return
  const bound = BigInt(wanted) > got ? 'maximum' : 'minimum'
  const limit = file === 'cpu.shares' ? 'cpu-shares' : file
  const message = `cannot set ${what}: the ${bound} allowed ${limit} is ${got}`
  throw new RuntimeError('InvalidArgument', message)
}
