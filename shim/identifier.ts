/**
 * The ids that clients give to containers and execs. containerd lets through what is written here, and so do we: an id becomes the name of
 * a folder and a word in logs and events, whoever it came from.
 */
import { Code } from 'ttrpc-ts'
import { classError } from './status.ts'

const LONGEST = 76
const IDENTIFIER = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/
/** What is shown of an id that is too long to show. */
const SHOWN = 80

/** @throws InvalidArgument */
export function checkIdentifier(what: string, id: string): void {
  if (id.length > 0 && id.length <= LONGEST && IDENTIFIER.test(id)) return
  const shown = id.length > SHOWN ? `${id.slice(0, SHOWN)}…` : id
  throw classError(Code.INVALID_ARGUMENT, `cannot use ${JSON.stringify(shown)} as the id of ${what}`)
}
