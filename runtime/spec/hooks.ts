/**
 * `hooks` of config.json: programs that run at six points of a container's life. Their arguments and environment are
 * passed on unchanged.
 */
import { specError } from '../errors.ts'
import {
  asObject,
  asString,
  defined,
  integerField,
  listField,
  objectField,
  optionalListField,
  pointerTo,
  requiredString,
} from './fields.ts'
import type { Json, JsonObject } from './json.ts'
import { readVariable } from './process.ts'
import type { Hook, HookName, Hooks } from './types.ts'

/** Reads the six lists. @throws InvalidArgument */
export function readHooks(spec: JsonObject): Hooks {
  const hooks = objectField(spec, 'hooks', '') ?? {}
  const list = (name: HookName) => listField(hooks, name, { at: '/hooks', read: readHook })
  return {
    prestart: list('prestart'),
    createRuntime: list('createRuntime'),
    createContainer: list('createContainer'),
    startContainer: list('startContainer'),
    poststart: list('poststart'),
    poststop: list('poststop'),
  }
}

function readHook(value: Json, at: string): Hook {
  const hook = asObject(value, at)
  const path = requiredString(hook, 'path', { at, missing: 'the hook has no path' })
  if (!path.startsWith('/')) throw specError(pointerTo(at, 'path'), `hook path ${JSON.stringify(path)} is not absolute`)
  return defined({
    path,
    args: listField(hook, 'args', { at, read: asString }),
    env: optionalListField(hook, 'env', { at, read: readVariable }),
    // in seconds: at most 68 years
    timeout: integerField(hook, 'timeout', { at, range: { min: 1, max: 0x7fffffff } }),
  })
}
