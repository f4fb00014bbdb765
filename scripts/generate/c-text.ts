/** Pieces of generated C headers: comments, strings and constants. */

const COMMENT_COLUMNS = 100

/** A doc text as a C comment, which it must not end, wrapped and indented. */
export function comment(doc: string, indent = ''): string[] {
  if (doc.includes('*/')) throw new Error(`cannot be put into a C comment: ${doc}`)
  if (indent.length + doc.length + '/*  */'.length <= COMMENT_COLUMNS) return [`${indent}/* ${doc} */`]
  const lines = ['']
  for (const word of doc.split(' ')) {
    const line = `${lines.at(-1)} ${word}`
    if (`${indent} *${line}`.length <= COMMENT_COLUMNS) lines[lines.length - 1] = line
    else lines.push(` ${word}`)
  }
  return [`${indent}/*`, ...lines.map((line) => `${indent} *${line}`), `${indent} */`]
}

/** A C string: JSON's escapes are C's for the ASCII texts of the schemas. */
export function cString(text: string): string {
  if (!/^[\n -~]*$/.test(text)) throw new Error(`cannot be put into a C string: ${JSON.stringify(text)}`)
  return JSON.stringify(text)
}

/** One #define per entry, its name with a prefix. */
export function defines(
  prefix: string,
  values: Readonly<Record<string, number | string>>,
  format = (value: number | string) => (typeof value === 'string' ? cString(value) : String(value)),
): string[] {
  return Object.entries(values).map(([name, value]) => `#define ${prefix}${name.toUpperCase()} ${format(value)}`)
}
