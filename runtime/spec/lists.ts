/**
 * Lists of CPUs and NUMA nodes in the kernel's form ("0-3,7"), as bit masks. Blanks and empty items are accepted, as in
 * the files that such lists are copied from. Pure.
 */

/** The largest number in a list: no kernel has as many CPUs or nodes, and a mask must stay small. */
const LIST_MAX = 65536

/** The bits of a list, little-endian, in the kernel's words of 8 bytes; or why the text is not a list. */
export type ListMask = { readonly mask: Uint8Array } | { readonly refused: string }

/** Reads a list. */
export function listMask(text: string): ListMask {
  const ranges: [from: number, to: number][] = []
  let last = -1
  for (const item of text.split(',').map((part) => part.trim())) {
    if (item === '') continue
    const match = /^(\d{1,9})(?:\s*-\s*(\d{1,9}))?$/.exec(item)
    if (match === null) return { refused: `${JSON.stringify(item)} is neither a number nor a range` }
    const from = Number(match[1])
    const to = Number(match[2] ?? match[1])
    if (from > to) return { refused: `the range ${JSON.stringify(item)} runs backwards` }
    if (to > LIST_MAX) return { refused: `${to} is more than ${LIST_MAX}` }
    ranges.push([from, to])
    last = Math.max(last, to)
  }
  if (last < 0) return { refused: 'the list is empty' }
  const mask = new Uint8Array(((last >> 6) + 1) * 8)
  for (const [from, to] of ranges) {
    for (let number = from; number <= to; number++) mask[number >> 3] = (mask[number >> 3] ?? 0) | (1 << (number & 7))
  }
  return { mask }
}

/** The mask of a list that has passed the spec's checks. */
export function checkedMask(list: string): Uint8Array {
  const result = listMask(list)
  if ('refused' in result) throw new Error(`list ${JSON.stringify(list)} passed the spec's checks: ${result.refused}`)
  return result.mask
}
