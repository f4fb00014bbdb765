/**
 * Generates proto/ttrpc-ts/gen/*.ts: one module per .proto file.
 * A module has an interface, a codec and a descriptor for each message, and a method table for each service.
 * The code of a codec is straight-line; what all messages share is in proto/ttrpc-ts/wire.ts.
 */
import type { Definition, Enum, Field, Message, ProtoFile, ScalarType, Service } from './proto-model.ts'

interface Scalar {
  readonly ts: string
  readonly initial: string
  readonly wireType: number
  /** Statement that appends the value `v` under the tag `t`. */
  readonly write: (tag: number, value: string) => string
  readonly read: string
  /** Condition under which a field is sent; undefined counts as the default. */
  readonly isSet: (value: string) => string
}

const truthy = (value: string) => value
/** A scalar for which protobufjs has a method of the reader and of the writer, both of the same name. */
const method = (
  name: string,
  { isSet = truthy, ...rest }: Pick<Scalar, 'ts' | 'initial' | 'wireType'> & { isSet?: Scalar['isSet'] },
): Scalar => ({
  ...rest,
  write: (tag, value) => `w.uint32(${tag}).${name}(${value})`,
  read: `r.${name}()`,
  isSet,
})
const wide = (name: string): Scalar => ({
  ts: 'bigint',
  initial: '0n',
  wireType: 0,
  write: (tag, value) => `write${name}(w.uint32(${tag}), ${value})`,
  read: `read${name}(r)`,
  isSet: truthy,
})

const SCALARS: Readonly<Record<ScalarType, Scalar>> = {
  string: method('string', { ts: 'string', initial: "''", wireType: 2 }),
  bytes: method('bytes', {
    ts: 'Uint8Array',
    initial: 'EMPTY_BYTES',
    wireType: 2,
    isSet: (value) => `${value}?.length`,
  }),
  bool: method('bool', { ts: 'boolean', initial: 'false', wireType: 0 }),
  uint32: method('uint32', { ts: 'number', initial: '0', wireType: 0 }),
  int32: method('int32', { ts: 'number', initial: '0', wireType: 0 }),
  // NaN is falsy too, and not the default.
  double: method('double', {
    ts: 'number',
    initial: '0',
    wireType: 1,
    isSet: (value) => `${value} !== undefined && ${value} !== 0`,
  }),
  uint64: wide('Uint64'),
  int64: wide('Int64'),
}

const scalarOf = (field: Field): Scalar => SCALARS[field.type.kind === 'scalar' ? field.type.scalar : 'int32']
const delimitedTag = (field: Field) => (field.id << 3) | 2
const tagOf = (field: Field) =>
  field.type.kind === 'message' || field.shape === 'map'
    ? delimitedTag(field)
    : (field.id << 3) | scalarOf(field).wireType
const isPacked = (field: Field) =>
  field.shape === 'repeated' && field.type.kind !== 'message' && scalarOf(field).wireType !== 2

/** uint64 and int32 lists are the only packed ones we have. */
function packedName(field: Field): string {
  const name = field.type.kind === 'enum' ? 'int32' : field.type.kind === 'scalar' ? field.type.scalar : ''
  if (name !== 'uint64' && name !== 'int32') throw new Error(`lists of ${name} are not supported (${field.name})`)
  return name === 'uint64' ? 'PackedUint64' : 'PackedInt32'
}

function tsType(field: Field): string {
  const single = field.type.kind === 'message' ? field.type.ref.tsName : scalarOf(field).ts
  if (field.shape === 'map') return 'Record<string, string>'
  if (field.shape === 'repeated') return `${single}[]`
  return field.shape === 'optional' || field.type.kind === 'message' ? `${single} | undefined` : single
}

function initialOf(field: Field): string {
  if (field.shape === 'map') return 'stringMap()'
  if (field.shape === 'repeated') return '[]'
  return field.shape === 'optional' || field.type.kind === 'message' ? 'undefined' : scalarOf(field).initial
}

function writeLine(field: Field): string {
  const value = `m.${field.name}`
  const tag = tagOf(field)
  if (field.shape === 'map') return `if (${value}) writeStringMap(w, ${tag}, ${value})`
  if (isPacked(field)) return `if (${value}) write${packedName(field)}(w, ${delimitedTag(field)}, ${value})`
  const one = (v: string) =>
    field.type.kind === 'message'
      ? `writeMessage(w.uint32(${tag}), ${field.type.ref.tsName}, ${v})`
      : scalarOf(field).write(tag, v)
  if (field.shape === 'repeated') return `if (${value}) for (const v of ${value}) ${one('v')}`
  if (field.shape === 'optional') return `if (${value} !== undefined) ${one(value)}`
  return `if (${field.type.kind === 'message' ? value : scalarOf(field).isSet(value)}) ${one(value)}`
}

function readCases(field: Field): [tag: number, statement: string][] {
  const target = `m.${field.name}`
  const tag = tagOf(field)
  if (field.shape === 'map') return [[tag, `readStringMapEntry(r, ${target})`]]
  const one = (into: string) =>
    field.type.kind === 'message' ? `readMessage(r, ${field.type.ref.tsName}, ${into})` : scalarOf(field).read
  if (field.shape !== 'repeated') return [[tag, `${target} = ${one(target)}`]]
  const push: [number, string] = [tag, `${target}.push(${one('undefined')})`]
  return isPacked(field) ? [[delimitedTag(field), `read${packedName(field)}(r, ${target})`], push] : [push]
}

function messageCode(message: Message): string[] {
  const name = message.tsName
  const { fields } = message
  const none = fields.length === 0
  return [
    `/** ${message.doc} */`,
    ...(none
      ? [`export type ${name} = Record<never, never>`]
      : [
          `export interface ${name} {`,
          ...fields.flatMap((field) => [
            ...(field.doc ? [`  /** ${field.doc} */`] : []),
            `  ${field.name}: ${tsType(field)}`,
          ]),
          '}',
        ]),
    '',
    `/** Codec of ${message.fullName}. */`,
    `export const ${name}: MessageType<${name}> = /* @__PURE__ */ messageType({`,
    `  typeName: '${message.fullName}',`,
    `  init: init${name},`,
    `  write: write${name},`,
    `  read: read${name},`,
    '})',
    '',
    `function init${name}(): ${name} {`,
    ...(none
      ? ['  return {}']
      : ['  return {', ...fields.map((field) => `    ${field.name}: ${initialOf(field)},`), '  }']),
    '}',
    '',
    ...(none
      ? [`function write${name}(): void {}`]
      : [
          `function write${name}(w: Writer, m: MessageInput<${name}>): void {`,
          ...fields.map((field) => `  ${writeLine(field)}`),
          '}',
        ]),
    '',
    `function read${name}(r: Reader, m: ${name}): ${name} {`,
    '  while (r.pos < r.len) {',
    '    const tag = r.tag()',
    ...(none
      ? ['    r.skipType(tag & 7, 0, tag >>> 3)']
      : [
          '    switch (tag) {',
          ...fields
            .flatMap(readCases)
            .flatMap(([tag, statement]) => [`      case ${tag}:`, `        ${statement}`, '        break']),
          '      default:',
          '        r.skipType(tag & 7, 0, tag >>> 3)',
          '    }',
        ]),
    '  }',
    '  return m',
    '}',
    '',
  ]
}

function enumCode(definition: Enum): string[] {
  return [
    `/** ${definition.doc} */`,
    `export const ${definition.tsName} = {`,
    ...Object.entries(definition.values).map(([name, value]) => `  ${name}: ${value},`),
    '} as const',
    '',
  ]
}

function serviceCode(service: Service): string[] {
  return [
    `/** ${service.doc} */`,
    `export const ${service.tsName} = {`,
    `  typeName: '${service.fullName}',`,
    '  methods: {',
    ...service.methods.map(
      (m) => `    ${m.key}: { name: '${m.name}', input: ${m.input.tsName}, output: ${m.output.tsName} },`,
    ),
    '  },',
    '} as const satisfies ServiceDescriptor',
    '',
  ]
}

function usedNames(body: string, names: readonly string[]): string[] {
  return names.filter((name) => new RegExp(`\\b${name}\\b`).test(body))
}

const WIRE_NAMES = [
  'EMPTY_BYTES',
  'messageType',
  'readInt64',
  'readMessage',
  'readPackedInt32',
  'readPackedUint64',
  'readStringMapEntry',
  'readUint64',
  'stringMap',
  'writeInt64',
  'writeMessage',
  'writePackedInt32',
  'writePackedUint64',
  'writeStringMap',
  'writeUint64',
]

function references(file: ProtoFile): Definition[] {
  const inFields = file.messages
    .flatMap((m) => m.fields)
    .flatMap((f) => (f.type.kind === 'message' ? [f.type.ref] : []))
  const inMethods = file.services.flatMap((service) => service.methods).flatMap((m) => [m.input, m.output])
  return [...inFields, ...inMethods].filter((ref) => ref.module !== file.module)
}

function importLine(keyword: string, names: readonly string[], from: string): string[] {
  if (names.length === 0) return []
  const line = `${keyword} { ${names.join(', ')} } from '${from}'`
  return line.length <= 120 ? [line] : [`${keyword} {`, ...names.map((name) => `  ${name},`), `} from '${from}'`]
}

function importLines(file: ProtoFile, body: string): string[] {
  const byModule = new Map<string, Set<string>>()
  for (const ref of references(file)) byModule.set(ref.module, (byModule.get(ref.module) ?? new Set()).add(ref.tsName))
  return [
    ...importLine(
      'import type',
      usedNames(body, ['MessageInput', 'MessageType', 'ServiceDescriptor']),
      '../service.ts',
    ),
    ...importLine('import type', usedNames(body, ['Reader', 'Writer']), '../wire.ts'),
    ...importLine('import', usedNames(body, WIRE_NAMES), '../wire.ts'),
    ...[...byModule].sort().flatMap(([module, names]) => importLine('import', [...names].sort(), `./${module}.ts`)),
    '',
  ]
}

function fileCode(file: ProtoFile): string {
  const body = [
    ...file.enums.flatMap(enumCode),
    ...file.messages.flatMap(messageCode),
    ...file.services.flatMap(serviceCode),
  ]
  const head = `// GENERATED by scripts/gen.ts from proto/${file.name}: do not edit.`
  return [head, ...importLines(file, body.join('\n')), ...body].join('\n')
}

/** Modules with a door of their own in package.json: they are not about containerd, whose messages are in index.ts. */
const APART: readonly string[] = ['criu']

/** Text of every generated module by file name, index.ts among them. */
export function messageModules(files: readonly ProtoFile[]): Map<string, string> {
  const index = [
    '// GENERATED by scripts/gen.ts from proto/*.proto: do not edit.',
    ...files.filter(({ module }) => !APART.includes(module)).map((file) => `export * from './${file.module}.ts'`),
    '',
  ]
  const modules = new Map(files.map((file) => [`${file.module}.ts`, fileCode(file)]))
  return modules.set('index.ts', index.join('\n'))
}
