/**
 * The rules that name places of the tree: which file may import what, which words are forbidden where, and the
 * exceptions. A place that matches no file is a finding itself, so that a rule cannot outlive the files that it
 * guards.
 */
import { builtinModules } from 'node:module'

/** The folders that are checked. */
export const SOURCE_FOLDERS = ['proto', 'runtime', 'shim', 'scripts', 'test', 'c'] as const

/** True of a module of Node, with its prefix or without. */
export const isNode = (target: string): boolean => target.startsWith('node:') || builtinModules.includes(target)

const NODE = /^node:/
const TTRPC = /^ttrpc-ts(\/containerd)?$/
/** The contract with what starts Node. */
const LAUNCH = /^proto\/launch\.ts$/
/** What the programs may import of `runtime/`: its public face, and the part that is for them alone. */
const DOORS = /^runtime\/(index|internal|worker)\.ts$/

/** Who may import what: patterns of paths and of packages. The first row whose place matches decides. */
export const IMPORT_RULES: readonly { readonly place: RegExp; readonly may: readonly RegExp[] }[] = [
  { place: /^proto\/ttrpc-ts\//, may: [NODE, /^proto\/ttrpc-ts\//, /^protobufjs/] },
  { place: /^proto\/(init-plan|keeper|launch|plan-hash\.gen)\.ts$/, may: [] },
  {
    place: /^runtime\/sys\//,
    may: [NODE, /^runtime\/sys\//, /^koffi$/, /^runtime\/errors\.ts$/, /^runtime\/logger\.ts$/, LAUNCH],
  },
  { place: /^runtime\/cli\//, may: [NODE, /^runtime\/cli\//, DOORS, LAUNCH] },
  {
    place: /^runtime\/container\/checkpoint\//,
    may: [NODE, /^runtime\/(?!cli\/)/, /^proto\/init-plan\.ts$/, /^ttrpc-ts\/criu$/],
  },
  {
    place: /^runtime\//,
    may: [NODE, /^runtime\/(?!cli\/)/, /^proto\/(init-plan|keeper)\.ts$/, /^proto\/plan-hash\.gen\.ts$/, LAUNCH],
  },
  { place: /^shim\/log\.ts$/, may: [NODE, /^shim\//, DOORS, TTRPC, /^pino$/] },
  { place: /^shim\/options-toml\.ts$/, may: [DOORS, /^smol-toml$/] },
  { place: /^shim\//, may: [NODE, /^shim\//, DOORS, TTRPC, LAUNCH, /^proto\/keeper\.ts$/] },
]

/** Files that decide and do nothing. They reach no module of Node and no native code, through whatever they import. */
export const PURE: readonly RegExp[] = [
  /^runtime\/plan\//,
  /^runtime\/seccomp\/enosys\.ts$/,
  /^runtime\/cgroup\/(resources|devices)\.ts$/,
  /^runtime\/cgroup\/systemd\/(annotations|device-properties|properties|unit-name|variant)\.ts$/,
  /^runtime\/sys\/dbus-value\.ts$/,
  /^runtime\/host\/ids\.ts$/,
]

/** Folders whose exports are for the world: other packages import them, or generated code. */
export const PUBLIC: readonly RegExp[] = [
  /^runtime\/index\.ts$/,
  /^proto\/ttrpc-ts\/index\.ts$/,
  /^proto\/ttrpc-ts\/gen\//,
]

interface WordRule {
  readonly place: RegExp
  readonly word: RegExp
  readonly why: string
}

/** What may not be written where, in code. (`any`, console and default exports are the linter's.) */
export const WORDS: readonly WordRule[] = [
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

/** What may not be written where, comments and strings included. */
export const TEXTS: readonly WordRule[] = [
  {
    place: /^runtime\/.*\.ts$|^c\/init\/.*\.[ch]$/,
    word: /containerd(?!-shim-ts)/i,
    why: 'this part has never heard of containerd',
  },
  { place: /\.(ts|c|h)$/, word: /\b(TODO|FIXME|XXX)\b/, why: 'unfinished work belongs in an issue' },
]

/** Files that contain the words because they look for them. */
export const SAYS_THE_WORDS: readonly RegExp[] = [/^scripts\/check\/rules\.ts$/, /^test\/unit\/check\.test\.ts$/]

/**
 * What a reviewer reads of each native program, in lines of code: no comments, no blank lines, nothing generated.
 * Growth is a question of design.
 */
export const C_BUDGETS: readonly { readonly program: string; readonly files: RegExp; readonly lines: number }[] = [
  { program: 'ts-init', files: /^c\/init\/(?!.*\.gen\.)\w+\.[ch]$/, lines: 2900 },
  { program: 'the launcher', files: /^c\/launcher\/\w+\.[ch]$/, lines: 1200 },
  { program: 'the keeper', files: /^c\/keeper\/\w+\.[ch]$/, lines: 550 },
]

/** The commit after which each commit says why. */
export const COMMITS_AFTER = 'e1eb3f8505935ec18d6b425a43b9789ad4520944'

/**
 * The most lines of code of a file of the product, lines of a function, positional parameters, lines of a README, and
 * columns of the subject of a commit.
 */
export const LIMITS = {
  fileLines: 400,
  functionLines: 80,
  parameters: 3,
  readmeLines: 60,
  subjectColumns: 100,
} as const

/** A file or a function that may be longer, or take more, than the limit. */
export interface Exception {
  readonly path: string
  readonly name?: string
  readonly why: string
}

/** Files of the product that may have more lines of code than the limit. */
export const LONG_FILES: readonly Exception[] = [
  { path: 'proto/init-plan.ts', why: 'a table: each operation once, with its arguments and its sentence' },
]

/** Functions that may be longer than the limit. */
export const LONG_FUNCTIONS: readonly Exception[] = [
  { path: 'runtime/plan/build.ts', name: 'buildCreatePlan', why: 'a story: the plan of a container, in its order' },
  { path: 'scripts/generate/plan-header.ts', name: 'planHeader', why: 'a template: the header, from top to bottom' },
]

/** Functions that may take more positional parameters than the limit. */
export const MANY_PARAMETERS: readonly Exception[] = [
  {
    path: 'test/support/command.ts',
    name: 'until',
    why: 'its calls read as sentences: what, how it shows, what to say',
  },
  {
    path: 'test/support/bare-shim.ts',
    name: 'startBareShim',
    why: 'command and change stand in this order in all fixtures',
  },
  {
    path: 'test/support/containerd.ts',
    name: 'configArgs',
    why: 'command and change stand in this order in all fixtures',
  },
  {
    path: 'test/support/fake-containerd.ts',
    name: 'task',
    why: 'command and change stand in this order in all fixtures',
  },
  { path: 'test/support/library.ts', name: 'options', why: 'command and change stand in this order in all fixtures' },
  { path: 'test/support/spec.ts', name: 'writeSpec', why: 'command and change stand in this order in all fixtures' },
  { path: 'test/support/cri.ts', name: '#send', why: 'a call of the CRI: its name, its two types, what it says' },
]
