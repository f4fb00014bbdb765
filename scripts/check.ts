/**
 * The house rules that a machine can decide: who may import what, what may not be written where, that generated files are fresh, that
 * types and format hold. Every finding names file and line; the exit status says whether there was one. `--fast` leaves out the
 * programs that this script starts (tsc, biome, gen) and only reads.
 */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { dirname, join, relative } from 'node:path'

const ROOT = join(import.meta.dirname, '..')
const SOURCE_FOLDERS = ['proto', 'runtime', 'shim', 'scripts', 'test', 'c'] as const
const REPORTED_LINES = 400
const README_LINES = 60

/** What a reviewer reads of each native program, in lines of code (no comments, no blank lines, nothing generated): growth is a question of design. */
const C_BUDGETS: readonly { readonly program: string; readonly files: RegExp; readonly lines: number }[] = [
  { program: 'ts-init', files: /^c\/init\/(?!.*\.gen\.)\w+\.[ch]$/, lines: 2900 },
  { program: 'the launcher', files: /^c\/launcher\/\w+\.[ch]$/, lines: 1200 },
]

interface Source {
  readonly path: string
  readonly text: string
  readonly imports: readonly { readonly target: string; readonly line: number; readonly typeOnly: boolean }[]
}

const findings: string[] = []
const reports: string[] = []

function find(path: string, line: number, what: string): void {
  findings.push(`${path}:${line}: ${what}`)
}

function walk(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name)
    if (entry.name === 'node_modules' || entry.isSymbolicLink()) return []
    return entry.isDirectory() ? walk(path) : [path]
  })
}

function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length
}

/** Comments and the insides of strings as spaces, so that rules about code see code only. Templates stay: they contain code. */
function codeOnly(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\/|(?<![:'"`\\])\/\/[^\n]*|'(?:[^'\\\n]|\\.)*'/g, (match) =>
    match.replaceAll(/[^\n']/g, ' '),
  )
}

function readSource(path: string): Source {
  const text = readFileSync(join(ROOT, path), 'utf8')
  const pattern = /^\s*(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?'([^']+)'|\bimport\('([^']+)'\)/gm
  const imports = [...text.matchAll(pattern)].map((match) => {
    const specifier = match[2] ?? match[3] ?? ''
    const target = specifier.startsWith('.') ? join(dirname(path), specifier) : specifier
    return { target, line: lineAt(text, match.index), typeOnly: match[1] !== undefined }
  })
  return { path, text, imports }
}

const isNode = (target: string): boolean => target.startsWith('node:') || builtinModules.includes(target)
const below =
  (folder: string) =>
  (target: string): boolean =>
    target.startsWith(`${folder}/`)
const among =
  (...names: readonly string[]) =>
  (target: string): boolean =>
    names.includes(target)

/** What the programs of this repository may import of `runtime/`: its public API, and the part that is theirs alone. */
const DOORS = ['runtime/index.ts', 'runtime/internal.ts']

/** Who may import what; the first row whose place matches decides. */
const IMPORT_RULES: readonly { readonly place: RegExp; readonly may: readonly ((target: string) => boolean)[] }[] = [
  { place: /^proto\/ttrpc-ts\//, may: [isNode, below('proto/ttrpc-ts'), (t) => t.startsWith('protobufjs')] },
  { place: /^proto\/(init-plan|plan-hash\.gen)\.ts$/, may: [] },
  {
    place: /^runtime\/sys\//,
    may: [isNode, below('runtime/sys'), among('koffi', 'runtime/errors.ts', 'runtime/logger.ts')],
  },
  { place: /^runtime\/cli\//, may: [isNode, below('runtime/cli'), among(...DOORS)] },
  {
    place: /^runtime\//,
    may: [
      isNode,
      (t) => below('runtime')(t) && !below('runtime/cli')(t),
      among('proto/init-plan.ts', 'proto/plan-hash.gen.ts'),
    ],
  },
  {
    place: /^shim\/log\.ts$/,
    may: [isNode, below('shim'), among(...DOORS, 'ttrpc-ts', 'ttrpc-ts/containerd', 'pino')],
  },
  { place: /^shim\/options-toml\.ts$/, may: [among(...DOORS, 'smol-toml')] },
  { place: /^shim\//, may: [isNode, below('shim'), among(...DOORS, 'ttrpc-ts', 'ttrpc-ts/containerd')] },
]

/** Files that decide and do nothing: they import no module of Node, which is how that is seen. */
const PURE = /^runtime\/(plan\/|seccomp\/enosys\.ts|cgroup\/(resources|devices)\.ts|host\/ids\.ts)/

/** What may not be written where. (`any`, console and default exports are the linter's.) */
const WORDS: readonly { readonly place: RegExp; readonly word: RegExp; readonly why: string }[] = [
  { place: /^(shim|runtime)\//, word: /\bprocess\.pid\b/, why: 'process.pid is wrong in a forked child: ask sys/' },
  {
    place: /^(shim|runtime)\//,
    word: /\bprocess\.exit\(/,
    why: 'process.exit runs handlers of a forked child: use exitNow',
  },
  { place: /^(shim|runtime)\//, word: /\bMath\.random\b/, why: 'Math.random repeats itself in forked children' },
  {
    place: /^(shim|runtime)\//,
    word: /child_process|worker_threads/,
    why: 'the reaper is the only one who starts processes; no threads',
  },
  { place: /^(shim|runtime)\//, word: /\brm(Sync)?\(/, why: 'its errors say nothing: use sys/remove.ts' },
  { place: /\.ts$/, word: /\bas unknown as\b/, why: 'no double cast' },
]

/** Rules about every byte of a file, comments included. */
const TEXTS: readonly { readonly place: RegExp; readonly word: RegExp; readonly why: string }[] = [
  {
    place: /^runtime\/.*\.ts$|^c\/init\/.*\.[ch]$/,
    word: /containerd(?!-shim-ts)/i,
    why: 'this part has never heard of containerd',
  },
  { place: /\.(ts|c|h)$/, word: /\b(TODO|FIXME|XXX)\b/, why: 'unfinished work belongs in an issue' },
]

function checkImports(source: Source): void {
  const rule = IMPORT_RULES.find(({ place }) => place.test(source.path))
  for (const { target, line } of source.imports) {
    if (rule !== undefined && !rule.may.some((allows) => allows(target)))
      find(source.path, line, `may not import "${target}"`)
    if (PURE.test(source.path) && isNode(target)) find(source.path, line, `is pure and may not import "${target}"`)
    if (target === '@grpc/grpc-js' && !source.path.startsWith('test/'))
      find(source.path, line, 'only tests use @grpc/grpc-js')
    if (isNode(target) && !target.startsWith('node:')) find(source.path, line, `"${target}" needs its node: prefix`)
  }
}

function checkWords(path: string, text: string): void {
  // the rules themselves are written down here
  if (path === 'scripts/check.ts') return
  const code = codeOnly(text)
  for (const [rules, where] of [
    [WORDS, code],
    [TEXTS, text],
  ] as const) {
    for (const { place, word, why } of rules) {
      const match = place.test(path) ? word.exec(where) : null
      if (match !== null) find(path, lineAt(where, match.index), `"${match[0].trim()}": ${why}`)
    }
  }
}

/** A file starts with a paragraph about its idea, and every export says in a line what it is. */
function checkComments({ path, text }: Source): void {
  if (/\/gen\/|\.gen\./.test(path)) return
  if (!/^(#!.*\n)?\/\*\*/.test(text)) find(path, 1, 'has no head comment')
  if (path.startsWith('test/') && !path.startsWith('test/support/')) return
  for (const match of text.matchAll(
    /^export (?:async )?(?:abstract )?(?:const|function|class|interface|type) (\w+)/gm,
  )) {
    const before = text
      .slice(0, match.index)
      .replace(/(^\/\/.*\n)+$/m, '')
      .trimEnd()
    // a type may share the comment of the value of its name, and overloads that of the first
    const twin = new RegExp(`^export .*\\b${match[1]}\\b`, 'm').exec(text)
    if (!before.endsWith('*/') && twin?.index === match.index)
      find(path, lineAt(text, match.index), `export ${match[1]} has no comment`)
  }
}

/** Import cycles, types aside: those vanish before anything runs. */
function checkCycles(sources: ReadonlyMap<string, Source>): void {
  const done = new Set<string>()
  const visit = (path: string, trail: readonly string[]): void => {
    const at = trail.indexOf(path)
    if (at >= 0) find(path, 1, `import cycle: ${[...trail.slice(at), path].join(' -> ')}`)
    if (at >= 0 || done.has(path)) return
    for (const { target, typeOnly } of sources.get(path)?.imports ?? []) {
      if (!typeOnly && sources.has(target)) visit(target, [...trail, path])
    }
    done.add(path)
  }
  for (const path of sources.keys()) visit(path, [])
}

/** Which folders of `runtime/` know which, types included: a folder is an idea, and two that need each other are one. */
function checkFolderCycles(sources: ReadonlyMap<string, Source>): void {
  const folderOf = (path: string): string | undefined => /^runtime\/([^/]+)\//.exec(path)?.[1]
  const known = new Map<string, Set<string>>()
  for (const { path, imports } of sources.values()) {
    const from = folderOf(path)
    if (from === undefined) continue
    const targets = imports.map(({ target }) => folderOf(target)).filter((to) => to !== undefined && to !== from)
    known.set(from, new Set([...(known.get(from) ?? []), ...targets.map(String)]))
  }
  const done = new Set<string>()
  const visit = (folder: string, trail: readonly string[]): void => {
    const at = trail.indexOf(folder)
    if (at >= 0) find(`runtime/${folder}`, 1, `folder cycle: ${[...trail.slice(at), folder].join(' -> ')}`)
    if (at >= 0 || done.has(folder)) return
    for (const target of known.get(folder) ?? []) visit(target, [...trail, folder])
    done.add(folder)
  }
  for (const folder of known.keys()) visit(folder, [])
}

function checkReadmes(): void {
  for (const folder of ['proto', 'runtime', 'shim', 'c', 'scripts', 'test']) {
    const path = join(folder, 'README.md')
    if (statSync(join(ROOT, path), { throwIfNoEntry: false }) === undefined) find(folder, 1, 'has no README.md')
    else {
      const lines = readFileSync(join(ROOT, path), 'utf8').trimEnd().split('\n').length
      if (lines > README_LINES) find(path, lines, `has ${lines} lines, ${README_LINES} are allowed`)
    }
  }
}

function checkBudgets(paths: readonly string[]): void {
  for (const { program, files, lines } of C_BUDGETS) {
    const code = paths
      .filter((path) => files.test(path))
      .map((path) => readFileSync(join(ROOT, path), 'utf8').replaceAll(/\/\*[\s\S]*?\*\/|\/\/[^\n]*/g, ''))
      .flatMap((text) => text.split('\n').filter((line) => line.trim() !== ''))
    const what = `${program} has ${code.length} lines of code, ${lines} are allowed`
    if (code.length > lines) find('c', 1, what)
    else reports.push(`c: ${what}`)
  }
}

function checkProgram(what: string, program: string, ...args: readonly string[]): void {
  const result = spawnSync(program, args, { cwd: ROOT, encoding: 'utf8', maxBuffer: 1 << 26 })
  if (result.status === 0) return
  const lines = (result.stdout + result.stderr).trim().split('\n')
  // biome's one-line form, as the other findings are written
  const plain = lines.map((line) => line.replace(/^::\w+ title=([^,]*),file=([^,]*),line=(\d+)[^:]*::/, '$2:$3: $1: '))
  findings.push(`${what}:\n${plain.slice(0, 40).join('\n')}`)
}

const files = SOURCE_FOLDERS.filter((folder) => statSync(join(ROOT, folder), { throwIfNoEntry: false })).flatMap(walk)
const sources = new Map(files.filter((path) => path.endsWith('.ts')).map((path) => [path, readSource(path)]))
for (const source of sources.values()) {
  checkImports(source)
  checkComments(source)
}
for (const path of files.filter((name) => /\.(ts|c|h)$/.test(name) && !/\/gen\/|\.gen\./.test(name))) {
  const text = readFileSync(join(ROOT, path), 'utf8')
  checkWords(path, text)
  const lines = text.split('\n').length
  if (lines > REPORTED_LINES && !path.startsWith('test/'))
    reports.push(`${path}: ${lines} lines: has a second idea moved in?`)
}
checkCycles(sources)
checkFolderCycles(sources)
checkReadmes()
checkBudgets(files)
if (!process.argv.includes('--fast')) {
  const bin = join(ROOT, 'node_modules/.bin')
  checkProgram('generated files', process.execPath, 'scripts/gen.ts', '--check')
  checkProgram('types (tsc)', join(bin, 'tsc'), '-p', '.')
  checkProgram('format and lint (biome check)', join(bin, 'biome'), 'check', '--colors=off', '--reporter=github', '.')
}

for (const line of reports) process.stdout.write(`note: ${line}\n`)
for (const line of findings) process.stdout.write(`${line}\n`)
process.stdout.write(
  `${sources.size} files checked from ${relative(process.cwd(), ROOT) || '.'}, ${findings.length} findings\n`,
)
process.exitCode = findings.length === 0 ? 0 : 1
