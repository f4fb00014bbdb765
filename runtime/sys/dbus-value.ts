/**
 * Values of D-Bus: a signature and data that fits it. Pure. Invariant: whole numbers are bigint, and only a double is a
 * number, so that data never loses its width on the way.
 */

/** The data of a value: of a container, its members; of a variant, a whole value. */
export type DbusData = boolean | bigint | number | string | Uint8Array | readonly DbusData[] | DbusValue

/** A value of one complete type. */
export interface DbusValue {
  readonly signature: string
  readonly data: DbusData
}

/** One property with its value. */
export interface DbusProperty extends DbusValue {
  readonly name: string
}

/** The index behind the complete type that begins at `at`. */
function endOfType(signature: string, at: number): number {
  const first = signature[at]
  if (first === 'a') return endOfType(signature, at + 1)
  if (first !== '(' && first !== '{') return at + 1
  let end = at + 1
  while (signature[end] !== ')' && signature[end] !== '}') {
    if (end >= signature.length) throw new Error(`"${signature}" is no signature of D-Bus`)
    end = endOfType(signature, end)
  }
  return end + 1
}

/** The complete types of a signature, in order. */
export function completeTypes(signature: string): string[] {
  const types: string[] = []
  for (let at = 0; at < signature.length; ) {
    const end = endOfType(signature, at)
    types.push(signature.slice(at, end))
    at = end
  }
  return types
}
