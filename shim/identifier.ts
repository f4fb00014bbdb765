/**
 * The ids that clients give to containers and execs. containerd's own rule is the one below; the shim checks it again,
 * because an id becomes the name of a folder, and a word in logs and events.
 */
import { Code } from 'ttrpc-ts'
import { LAUNCH_LIMITS } from '../proto/launch.ts'
import { classError } from './status.ts'

const IDENTIFIER = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/
/** How many characters of a long id the refusal shows. */
const SHOWN = 80

/** Checks an id; `what` names its kind in the refusal. @throws InvalidArgument */
export function checkIdentifier(what: string, id: string): void {
  if (id.length > 0 && id.length <= LAUNCH_LIMITS.IDENTIFIER_MAX && IDENTIFIER.test(id)) return
  const shown = id.length > SHOWN ? `${id.slice(0, SHOWN)}…` : id
  throw classError(Code.INVALID_ARGUMENT, `cannot use ${JSON.stringify(shown)} as the id of ${what}`)
}
