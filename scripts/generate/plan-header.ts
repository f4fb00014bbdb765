/**
 * Generates c/init/plan.gen.h and c/init/ops.gen.h, the C half of proto/init-plan.ts.
 * Every number, name and argument list of the plan comes from that file, so the two sides cannot disagree.
 * With the schema table at the end, plan_read.c validates and decodes any operation in one loop.
 */
import {
  ARG_KINDS,
  type ArgKind,
  CREDENTIALS,
  FAILURES,
  FDS,
  LIMITS,
  MOUNT_HOW,
  OPS,
  PIVOT_MODE,
  PLAN_MAGIC,
  RECORDS,
  ROOTFS_HOW,
  SYNC_POINTS,
} from '../../proto/init-plan.ts'

interface OpSchema {
  readonly code: number
  readonly stage: 'host' | 'container'
  readonly most?: number
  readonly needs?: string
  readonly host?: 'procfs' | 'agent'
  readonly hostIf?: Readonly<Record<string, number | 'given'>>
  readonly failure?: keyof typeof FAILURES
  readonly doc: string
  readonly args: Readonly<Record<string, ArgKind>>
}

const C_TYPES: Readonly<Record<ArgKind, string>> = {
  u32: 'uint32_t ',
  i32: 'int32_t ',
  u64: 'uint64_t ',
  str: 'struct plan_str ',
  bytes: 'struct plan_bytes ',
  strs: 'struct plan_strs ',
  u32s: 'struct plan_u32s ',
}

const upper = (name: string) => name.toUpperCase()
const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
const hex = (value: number) => `0x${value.toString(16).padStart(8, '0')}u`

const COMMENT_COLUMNS = 100

/** A doc text as a C comment, which it must not end, wrapped and indented. */
function comment(doc: string, indent = ''): string[] {
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

/** Whether an operation uses something of the host's, as a C expression over `op`. */
function usesHost([name, { host, hostIf }]: [string, OpSchema], what: 'procfs' | 'agent'): string[] {
  if (host === undefined || (what === 'agent' && host !== 'agent')) return []
  const conditions = Object.entries(hostIf ?? {}).map(([arg, bits]) => {
    const value = `op->${name}.${snake(arg)}`
    return bits === 'given' ? `${value}.len > 0` : `(${value} & ${bits}u) != 0`
  })
  return [[`op->code == OP_${upper(name)}`, ...conditions].join(' && ')]
}

/** A C function that tells for which operations something of the host's is used. */
function hostFunction(name: string, doc: string, what: 'procfs' | 'agent'): string[] {
  const ops: [string, OpSchema][] = Object.entries(OPS)
  const uses = ops.flatMap((op) => usesHost(op, what)).map((use) => `(${use})`)
  return [
    ...comment(doc),
    `static inline bool ${name}(const struct op *op)`,
    '{',
    `    return ${uses.join(' ||\n        ')};`,
    '}',
    '',
  ]
}

function defines(prefix: string, values: Readonly<Record<string, number>>, format = (value: number) => String(value)) {
  return Object.entries(values).map(([name, value]) => `#define ${prefix}${upper(name)} ${format(value)}`)
}

function opStruct(name: string, op: OpSchema): string[] {
  const fields = Object.entries(op.args).map(([arg, kind]) => `    ${C_TYPES[kind]}${snake(arg)};`)
  return fields.length === 0 ? [] : [`struct op_${name} {`, ...fields, '};', '']
}

function schemaRow(name: string, op: OpSchema): string[] {
  const args = Object.entries(op.args).map(
    ([arg, kind]) => `{ ARG_${upper(kind)}, offsetof(struct op, ${name}.${snake(arg)}) },`,
  )
  const needs = op.needs === undefined ? 0 : `OP_${upper(op.needs)}`
  const tooOften =
    op.most === undefined ? 'NULL' : `"${name} may come ${op.most === 1 ? 'once' : `${op.most} times`} only"`
  const unmet = op.needs === undefined ? 'NULL' : `"${name} needs ${op.needs} before it"`
  const failure = `FAILURE_${op.failure ?? 'PART'}`
  const rules = `${failure}, ${op.most ?? 0}, ${needs}, "${name}", ${tooOften}, ${unmet}`
  const head = `    { OP_${upper(name)}, STAGE_${upper(op.stage)}, ${rules}, ${args.length},`
  return args.length === 0
    ? [`${head} { { 0, 0 } } },`]
    : [head, '      {', ...args.map((arg) => `          ${arg}`), '      } },']
}

/** The number that ties a plan to the helper that may run it: FNV-1a (32 bit) over the schema's JSON text. */
function schemaHash(): number {
  const text = JSON.stringify([
    PLAN_MAGIC,
    LIMITS,
    FDS,
    ARG_KINDS,
    MOUNT_HOW,
    PIVOT_MODE,
    ROOTFS_HOW,
    CREDENTIALS,
    SYNC_POINTS,
    FAILURES,
    OPS,
    RECORDS,
  ])
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193) >>> 0
  return hash
}

/**
 * The whole text of proto/plan-hash.gen.ts. The hash changes with the schema only, so no program computes it at a
 * start.
 */
export function planHash(): string {
  return `/** GENERATED by scripts/gen.ts from proto/init-plan.ts: do not edit. */\n\n/** The number that ties a plan to the helper that may run it. */
export const PLAN_SCHEMA_HASH = ${schemaHash()}\n`
}

/** The whole text of c/init/plan.gen.h. */
export function planHeader(): string {
  const ops: [string, OpSchema][] = Object.entries(OPS)
  const maxArgs = Math.max(...ops.map(([, op]) => Object.keys(op.args).length))
  const lines = [
    '/* GENERATED by scripts/gen.ts from proto/init-plan.ts: do not edit. */',
    '#ifndef PLAN_GEN_H',
    '#define PLAN_GEN_H',
    '',
    '#include <stddef.h>',
    '#include <stdint.h>',
    '',
    '/* The first two words of a plan; another hash means another schema. */',
    `#define PLAN_MAGIC ${hex(PLAN_MAGIC)}`,
    `#define PLAN_SCHEMA_HASH ${hex(schemaHash())}`,
    '',
    '/* Bounds. */',
    ...defines('LIMIT_', LIMITS, (value) => `${value}u`),
    '',
    '/* The fds that ts-init is started with, besides 0, 1 and 2. */',
    ...defines('FD_', FDS),
    '',
    "/* Bits of the mount operation's how. */",
    ...defines('MOUNT_HOW_', MOUNT_HOW, (value) => `${value}u`),
    '',
    "/* Values of the pivot operation's mode. */",
    ...defines('PIVOT_MODE_', PIVOT_MODE, (value) => `${value}u`),
    ...defines('ROOTFS_HOW_', ROOTFS_HOW, (value) => `${value}u`),
    '',
    "/* Bits of the credentials operation's flags. */",
    ...defines('CREDENTIALS_', CREDENTIALS, (value) => `${value}u`),
    '',
    '/* Points at which the container side waits for one byte. */',
    ...defines('SYNC_', SYNC_POINTS, (value) => `${value}u`),
    '',
    '/* Kinds of a failure. */',
    ...defines('FAILURE_', FAILURES, (value) => `${value}u`),
    '',
    '/* Which process runs an operation. */',
    '#define STAGE_HOST 0',
    '#define STAGE_CONTAINER 1',
    '',
    'enum arg_kind {',
    ...Object.entries(ARG_KINDS).map(([kind, code]) => `    ARG_${upper(kind)} = ${code},`),
    '};',
    '',
    'enum op_code {',
    ...ops.flatMap(([name, op]) => [...comment(op.doc, '    '), `    OP_${upper(name)} = ${op.code},`]),
    '};',
    '',
    'enum record_type {',
    ...Object.entries(RECORDS).flatMap(([name, record]) => [
      ...comment(record.doc, '    '),
      `    RECORD_${upper(name)} = ${record.type},`,
    ]),
    '};',
    '',
    '/* Argument values; pointers point into the plan, which outlives them. */',
    'struct plan_str { const char *s; uint32_t len; };       /* NUL-terminated, len without the NUL */',
    'struct plan_bytes { const uint8_t *p; uint32_t len; };',
    'struct plan_strs { char **v; uint32_t count; };         /* v ends with NULL */',
    'struct plan_u32s { const uint8_t *p; uint32_t count; }; /* little-endian, not aligned */',
    '',
    ...ops.flatMap(([name, op]) => opStruct(name, op)),
    '/* One decoded operation. Operations without arguments have no member. */',
    'struct op {',
    '    uint16_t code; /* enum op_code */',
    '    union {',
    ...ops.filter(([, op]) => Object.keys(op.args).length > 0).map(([name]) => `        struct op_${name} ${name};`),
    '    };',
    '};',
    '',
    `#define OP_CODE_MAX ${Math.max(...ops.map(([, op]) => op.code))}`,
    `#define OP_MAX_ARGS ${maxArgs}`,
    `#define OP_SCHEMA_COUNT ${ops.length}`,
    '',
    '/* Every operation: where each argument, in wire order, is stored in struct op. */',
    'static const struct op_schema {',
    '    uint16_t code;',
    '    uint8_t stage;',
    '    uint8_t failure; /* the kind of its failures */',
    '    uint8_t most; /* how often a plan may have it; 0: any number of times */',
    '    uint16_t needs; /* what must have come before it; 0: nothing */',
    '    const char *name, *too_often, *unmet; /* and what is wrong with a plan that breaks these two rules */',
    '    uint8_t nargs;',
    '    struct { uint8_t kind; uint16_t offset; } args[OP_MAX_ARGS];',
    '} OP_SCHEMAS[OP_SCHEMA_COUNT] = {',
    ...ops.flatMap(([name, op]) => schemaRow(name, op)),
    '};',
    '',
    '_Static_assert(sizeof(struct op) <= UINT16_MAX, "argument offsets are 16 bits wide");',
    '_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the kernel is given masks and groups as they lie in the plan");',
    '',
    '#endif',
    '',
  ]
  return lines.join('\n')
}

/** The whole text of c/init/ops.gen.h. */
export function opsHeader(): string {
  const ops: [string, OpSchema][] = Object.entries(OPS)
  const hasArgs = (op: OpSchema) => Object.keys(op.args).length > 0
  const lines = [
    '/* GENERATED by scripts/gen.ts from proto/init-plan.ts: do not edit. */',
    '#ifndef OPS_GEN_H',
    '#define OPS_GEN_H',
    '',
    '/* The function of each operation; which file holds it, c/README.md says. */',
    ...ops.map(([name, op]) => `int op_${name}(struct ctx *c${hasArgs(op) ? `, const struct op_${name} *op` : ''});`),
    '',
    ...hostFunction('asks_agent', 'Whether the host agent takes part in an operation, or may.', 'agent'),
    ...hostFunction(
      'needs_host_proc',
      "Whether the container side needs the host's procfs for an operation.",
      'procfs',
    ),
    'static inline int run_op(struct ctx *c, const struct op *op)',
    '{',
    '    switch ((enum op_code)op->code) {',
    ...ops.map(
      ([name, op]) => `    case OP_${upper(name)}: return op_${name}(c${hasArgs(op) ? `, &op->${name}` : ''});`,
    ),
    '    default: return fail_if(c, -EINVAL, "run an operation that is unknown");',
    '    }',
    '}',
    '',
    '#endif',
    '',
  ]
  return lines.join('\n')
}
