/**
 * The house rules that a machine can decide. Every finding names its file and line, and is an exit status of 1. Rules
 * that name places of the tree are in check/rules.ts. `--fast` only reads: it starts no other program (tsc, biome,
 * gen, git).
 */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { checkDocumentation, checkProse } from './check/comments.ts'
import { checkCommits, readCommits } from './check/commits.ts'
import { checkCycles, checkExports, checkFolderCycles, checkImports, checkPurity } from './check/imports.ts'
import { LIMITS, SOURCE_FOLDERS } from './check/rules.ts'
import { cBudgets, checkFileLength, checkFunctionLength, checkParameters } from './check/sizes.ts'
import { type Finding, isGenerated, parseSource } from './check/source.ts'
import { checkExceptions, checkPlaces } from './check/stale.ts'
import { checkMentions, checkSleeps, checkWords } from './check/words.ts'

const ROOT = join(import.meta.dirname, '..')

function walk(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name)
    if (entry.name === 'node_modules' || entry.isSymbolicLink()) return []
    return entry.isDirectory() ? walk(path) : [path]
  })
}

/** The READMEs of the folders: there, and a page long. */
function checkReadmes(): Finding[] {
  return ['proto', 'runtime', 'shim', 'c', 'scripts', 'test'].flatMap((folder) => {
    const path = join(folder, 'README.md')
    if (statSync(join(ROOT, path), { throwIfNoEntry: false }) === undefined)
      return [{ path: folder, line: 1, what: 'has no README.md' }]
    const lines = readFileSync(join(ROOT, path), 'utf8').trimEnd().split('\n').length
    const what = `has ${lines} lines, ${LIMITS.readmeLines} are allowed`
    return lines > LIMITS.readmeLines ? [{ path, line: lines, what }] : []
  })
}

/** What a program says where it fails, at most 40 lines of it. */
function checkProgram(what: string, program: string, ...args: readonly string[]): string[] {
  const result = spawnSync(program, args, { cwd: ROOT, encoding: 'utf8', maxBuffer: 1 << 26 })
  if (result.status === 0) return []
  const lines = (result.stdout + result.stderr).trim().split('\n')
  // biome's one-line form, as the other findings are written
  const plain = lines.map((line) => line.replace(/^::\w+ title=([^,]*),file=([^,]*),line=(\d+)[^:]*::/, '$2:$3: $1: '))
  return [`${what}:\n${plain.slice(0, 40).join('\n')}`]
}

/** The findings of commits, or what could not be looked at. */
function checkHistory(): { readonly findings: readonly string[]; readonly notes: readonly string[] } {
  const commits = readCommits(ROOT)
  if (typeof commits === 'string') return { findings: [], notes: [`commits were not checked: ${commits}`] }
  return { findings: checkCommits(commits).map(({ path, what }) => `${path}: ${what}`), notes: [] }
}

/** The release of clang-format that c/ is formatted with, Debian 12's: others break lines in other places. */
const CLANG_FORMAT = 'version 14.'

function hasClangFormat(): boolean {
  const { stdout } = spawnSync('clang-format', ['--version'], { encoding: 'utf8' })
  return (stdout ?? '').includes(CLANG_FORMAT)
}

const files = SOURCE_FOLDERS.filter((folder) => statSync(join(ROOT, folder), { throwIfNoEntry: false })).flatMap(walk)
const sources = new Map(
  files
    .filter((path) => /\.(ts|c|h)$/.test(path))
    .map((path) => [path, parseSource(path, readFileSync(join(ROOT, path), 'utf8'))]),
)
const all = [...sources.values()]
const written = all.filter(({ path }) => !isGenerated(path))

const budgets = cBudgets(all)
const findings = [
  ...all.flatMap((source) =>
    [checkImports, checkDocumentation, checkWords, checkFileLength, checkSleeps].flatMap((check) => check(source)),
  ),
  ...checkPurity(sources),
  ...checkCycles(sources),
  ...checkFolderCycles(sources),
  ...checkReadmes(),
  ...checkPlaces([...files, ...all.flatMap(({ imports }) => imports.map(({ target }) => target))]),
  ...checkExceptions(sources),
  ...written.flatMap((source) => checkMentions(source, files)),
  ...written.flatMap(checkProse),
  ...written.flatMap(checkFunctionLength),
  ...written.flatMap(checkParameters),
  ...checkExports(sources),
  ...budgets.filter(({ exceeded }) => exceeded).map(({ what }) => ({ path: 'c', line: 1, what })),
].map(({ path, line, what }) => `${path}:${line}: ${what}`)
const notes = budgets.filter(({ exceeded }) => !exceeded).map(({ what }) => `c: ${what}`)

if (!process.argv.includes('--fast')) {
  const bin = join(ROOT, 'node_modules/.bin')
  findings.push(
    ...checkProgram('generated files', process.execPath, 'scripts/gen.ts', '--check'),
    ...checkProgram('types (tsc)', join(bin, 'tsc'), '-p', '.'),
    ...checkProgram(
      'format and lint (biome check)',
      join(bin, 'biome'),
      'check',
      '--colors=off',
      '--reporter=github',
      '.',
    ),
  )
  const history = checkHistory()
  findings.push(...history.findings)
  notes.push(...history.notes)
  const cFiles = written.map(({ path }) => path).filter((path) => /^c\/.*\.[ch]$/.test(path))
  if (hasClangFormat())
    findings.push(...checkProgram('format of c/ (make -C c format)', 'clang-format', '-n', '--Werror', ...cFiles))
  else notes.push(`c: the format was not checked: clang-format ${CLANG_FORMAT} is missing`)
}

for (const line of notes) process.stdout.write(`note: ${line}\n`)
for (const line of findings) process.stdout.write(`${line}\n`)
process.stdout.write(
  `${sources.size} files checked from ${relative(process.cwd(), ROOT) || '.'}, ${findings.length} findings\n`,
)
process.exitCode = findings.length === 0 ? 0 : 1
