/** The inverse of json.ts: values with bigints as JSON text, every number with all its digits. */

/** JSON.rawJSON (ES2026), which the type library lacks. */
const rawJson = (JSON as typeof JSON & { rawJSON(text: string): unknown }).rawJSON

/** Wraps a bigint so that JSON.stringify writes it as a number with all its digits. */
export function stringifyNumber(value: bigint): unknown {
  return rawJson(value.toString())
}

/** The JSON text of a value; a bigint becomes a number with all its digits. */
export function stringifyJson(value: unknown): string {
  return JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? stringifyNumber(item) : item))
}
