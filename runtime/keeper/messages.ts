/**
 * The messages between keeper and worker as bytes; proto/keeper.ts describes the form. Pure. Invariant: a field has the
 * type that its kind names, and a message of unknown code or of another size is an error.
 */
import { type FieldKind, type Fields, type MessageSchema, NOTICES, REQUESTS } from '../../proto/keeper.ts'

/** Name of a request of the worker. */
export type RequestName = keyof typeof REQUESTS
type NoticeName = keyof typeof NOTICES

/** The fields of a request; those called `unused` may be left out. */
export type RequestFields<Name extends RequestName> = Omit<Fields<(typeof REQUESTS)[Name]['fields']>, 'unused'>

/** A notice of the keeper, with its name. */
export type Notice = {
  [Name in NoticeName]: { readonly notice: Name } & Fields<(typeof NOTICES)[Name]['fields']>
}[NoticeName]

const CODE_BYTES = 4
const bytesOf = (kind: FieldKind): number => (kind === 'u64' ? 8 : 4)

function sizeOf({ fields }: MessageSchema): number {
  return Object.values(fields).reduce((size, kind) => size + bytesOf(kind), CODE_BYTES)
}

/** A request as bytes. @throws Error for a field that is missing or of the wrong type */
export function encodeRequest<Name extends RequestName>(name: Name, given: RequestFields<Name>): Buffer {
  const schema: MessageSchema = REQUESTS[name]
  const bytes = Buffer.alloc(sizeOf(schema))
  const values: Readonly<Record<string, unknown>> = { unused: 0, ...given }
  let at = bytes.writeUInt32LE(schema.code, 0)
  for (const [field, kind] of Object.entries(schema.fields)) {
    const value = values[field]
    if (kind === 'u64' && typeof value === 'bigint') at = bytes.writeBigUInt64LE(value, at)
    else if (kind === 'u32' && typeof value === 'number') at = bytes.writeUInt32LE(value, at)
    else if (kind === 'i32' && typeof value === 'number') at = bytes.writeInt32LE(value, at)
    else throw new Error(`${name}.${field} is not ${kind}`)
  }
  return bytes
}

function readField(bytes: Buffer, kind: FieldKind, at: number): number | bigint {
  if (kind === 'u64') return bytes.readBigUInt64LE(at)
  return kind === 'u32' ? bytes.readUInt32LE(at) : bytes.readInt32LE(at)
}

/** Reads a notice. @throws Error for one that the schema does not have */
export function decodeNotice(bytes: Buffer): Notice {
  const code = bytes.length < CODE_BYTES ? 0 : bytes.readUInt32LE(0)
  const found = Object.entries<MessageSchema>(NOTICES).find(([, schema]) => schema.code === code)
  if (found === undefined || sizeOf(found[1]) !== bytes.length) {
    throw new Error(`the keeper sent ${bytes.length} bytes of code ${code}, which this version does not know`)
  }
  let at = CODE_BYTES
  const fields = Object.entries(found[1].fields).map(([field, kind]) => {
    const value = readField(bytes, kind, at)
    at += bytesOf(kind)
    return [field, value] as const
  })
  return { notice: found[0], ...Object.fromEntries(fields) } as Notice
}
