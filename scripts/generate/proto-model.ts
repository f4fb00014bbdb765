/**
 * The input of the message generator: our .proto files, parsed by protobufjs and reduced to plain data with names
 * resolved. A feature of .proto files that the generator cannot translate faithfully is an error here.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import protobuf from 'protobufjs'

/** Scalar types that we use; an enum is an int32 with names. */
export type ScalarType = 'string' | 'bytes' | 'bool' | 'uint32' | 'int32' | 'uint64' | 'int64' | 'double'

const SCALARS: readonly string[] = [
  'string',
  'bytes',
  'bool',
  'uint32',
  'int32',
  'uint64',
  'int64',
  'double',
] satisfies ScalarType[]

/** Type of a field's values. */
export type FieldType =
  | { readonly kind: 'scalar'; readonly scalar: ScalarType }
  | { readonly kind: 'enum'; readonly ref: Definition }
  | { readonly kind: 'message'; readonly ref: Definition }

/** One field of a message. */
export interface Field {
  readonly name: string
  readonly doc: string
  readonly id: number
  readonly type: FieldType
  readonly shape: 'single' | 'optional' | 'repeated' | 'map'
}

/** Something that a .proto file defines: its full name, its name in TypeScript, and the file that holds it. */
export interface Definition {
  readonly fullName: string
  readonly tsName: string
  readonly module: string
  readonly doc: string
}

/** A message with its fields. */
export type Message = Definition & { readonly fields: readonly Field[] }
/** An enum with its values. */
export type Enum = Definition & { readonly values: Readonly<Record<string, number>> }
/** A service with its methods. */
export type Service = Definition & {
  readonly methods: readonly {
    readonly key: string
    readonly name: string
    readonly input: Definition
    readonly output: Definition
  }[]
}

/** One .proto file. */
export interface ProtoFile {
  readonly name: string
  /** Name of the generated module, `task-events` for task_events.proto. */
  readonly module: string
  readonly messages: readonly Message[]
  readonly enums: readonly Enum[]
  readonly services: readonly Service[]
}

interface ParsedFile {
  readonly name: string
  readonly module: string
  readonly package: string
  readonly prefix: string
  readonly nested: readonly protobuf.ReflectionObject[]
}

const camel = (name: string) => name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
const lowerFirst = (name: string) => name.charAt(0).toLowerCase() + name.slice(1)

function parseFile(dir: string, name: string): ParsedFile {
  const root = new protobuf.Root()
  const parsed = protobuf.parse(readFileSync(join(dir, name), 'utf8'), root, {
    keepCase: true,
    alternateCommentMode: true,
  })
  const pkg = parsed.package
  if (pkg === undefined) throw new Error(`${name}: has no package`)
  const namespace = root.lookup(pkg)
  if (!(namespace instanceof protobuf.Namespace)) throw new Error(`${name}: package ${pkg} is empty`)
  // swift_prefix is protobuf's own option for languages whose modules have one flat name space, as our index.ts has.
  const prefix: unknown = namespace.options?.['swift_prefix'] ?? ''
  return {
    name,
    module: name.replace(/\.proto$/, '').replaceAll('_', '-'),
    package: pkg,
    prefix: String(prefix),
    nested: namespace.nestedArray,
  }
}

function tsNameOf(file: ParsedFile, object: protobuf.ReflectionObject, taken: ReadonlyMap<string, string>): string {
  if (!(object instanceof protobuf.Service)) return file.prefix + object.name
  const plain = `${object.name}Service`
  // A second service of the same name carries the version of its package: TaskV3Service.
  return taken.has(plain) ? `${object.name}${(file.package.split('.').at(-1) ?? '').toUpperCase()}Service` : plain
}

function define(files: readonly ParsedFile[]): Map<string, Definition> {
  const definitions = new Map<string, Definition>()
  const taken = new Map<string, string>()
  for (const file of files) {
    for (const object of file.nested) {
      const fullName = `${file.package}.${object.name}`
      const tsName = tsNameOf(file, object, taken)
      const other = taken.get(tsName)
      if (other !== undefined)
        throw new Error(`${fullName} and ${other} are both called ${tsName} in TypeScript: set swift_prefix`)
      taken.set(tsName, fullName)
      definitions.set(fullName, { fullName, tsName, module: file.module, doc: docOf(file.name, object) })
    }
  }
  return definitions
}

function docOf(file: string, object: protobuf.ReflectionObject): string {
  if (object.comment === null) throw new Error(`${file}: ${object.name} has no comment`)
  return object.comment.replaceAll('\n', ' ')
}

/** Parses every .proto file of a folder, in the order of their names. */
export function loadProtoFiles(dir: string): ProtoFile[] {
  const names = readdirSync(dir).filter((name) => name.endsWith('.proto'))
  const files = names.sort().map((name) => parseFile(dir, name))
  const definitions = define(files)
  const enums = new Set(
    files.flatMap((file) =>
      file.nested.filter((o) => o instanceof protobuf.Enum).map((o) => `${file.package}.${o.name}`),
    ),
  )

  const definition = (file: ParsedFile, name: string): Definition => {
    const found = definitions.get(`${file.package}.${name}`) ?? definitions.get(name)
    if (found === undefined) throw new Error(`${file.name}: unknown type ${name}`)
    return found
  }

  const fieldType = (file: ParsedFile, name: string): FieldType => {
    if (SCALARS.includes(name)) return { kind: 'scalar', scalar: name as ScalarType }
    const ref = definition(file, name)
    return { kind: enums.has(ref.fullName) ? 'enum' : 'message', ref }
  }

  const field = (file: ParsedFile, source: protobuf.Field): Field => {
    const optional = source.options?.['proto3_optional'] === true
    if (source.partOf !== null && !optional) throw new Error(`${file.name}: oneof is not supported (${source.name})`)
    if (source instanceof protobuf.MapField && (source.keyType !== 'string' || source.type !== 'string')) {
      throw new Error(`${file.name}: only maps of strings are supported (${source.name})`)
    }
    const shape = source.map ? 'map' : source.repeated ? 'repeated' : optional ? 'optional' : 'single'
    return {
      name: camel(source.name),
      doc: source.comment?.replaceAll('\n', ' ') ?? '',
      id: source.id,
      type: fieldType(file, source.type),
      shape,
    }
  }

  const method = (file: ParsedFile, source: protobuf.Method) => {
    if (source.requestStream || source.responseStream)
      throw new Error(`${file.name}: streams are not supported (${source.name})`)
    return {
      key: lowerFirst(source.name),
      name: source.name,
      input: definition(file, source.requestType),
      output: definition(file, source.responseType),
    }
  }

  return files.map((file) => {
    const messages: Message[] = []
    const enumsHere: Enum[] = []
    const services: Service[] = []
    for (const object of file.nested) {
      const base = definition(file, object.name)
      if (object instanceof protobuf.Type) {
        const nested = object.nestedArray
        if (nested.length > 0) throw new Error(`${file.name}: nested types are not supported (${object.name})`)
        const fields = object.fieldsArray.map((source) => field(file, source)).sort((a, b) => a.id - b.id)
        messages.push({ ...base, fields })
      } else if (object instanceof protobuf.Enum) {
        enumsHere.push({ ...base, values: object.values })
      } else if (object instanceof protobuf.Service) {
        services.push({ ...base, methods: object.methodsArray.map((source) => method(file, source)) })
      } else throw new Error(`${file.name}: ${object.name} is neither message, enum nor service`)
    }
    return { name: file.name, module: file.module, messages, enums: enumsHere, services }
  })
}
