/** The other half of json.ts: values with bigints as JSON text, every number with all its digits. */

/** JSON.rawJSON (ES2026): not in the type library yet. */
const rawJson = (JSON as typeof JSON & { rawJSON(text: string): unknown }).rawJSON

/** A bigint as what JSON.stringify writes as a number of as many digits. */
export function stringifyNumber(value: bigint): unknown {
  return rawJson(value.toString())
}

/** JSON text of a value; a bigint becomes a number of as many digits as it has. */
export function stringifyJson(value: unknown): string {
  return JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? stringifyNumber(item) : item))
}
