/**
 * Builds everything that a running shim needs into build/, in the layout that scripts/install copies. make builds the
 * C programs, and esbuild one CommonJS bundle per entry point. koffi's native addon lies beside the bundles. Every
 * step looks at time stamps first, so a build with nothing to do takes well under a second. With --failpoints the
 * output goes to build/failpoints/, for tests that kill the programs at chosen places.
 */
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { type BuildOptions, build, type Plugin } from 'esbuild'
import { RuntimeInfo } from 'ttrpc-ts/containerd'
import { LIB_FILES, LIB_FOLDER, LIB_RECORD, VARIABLES } from '../proto/launch.ts'
import { bundleInParts } from './parts.ts'

const ROOT = join(import.meta.dirname, '..')
/**
 * True for the second build, whose programs stop or kill themselves where RUNTS_FAIL_AT says (runtime/failpoint.ts).
 */
const FAILPOINTS = process.argv.includes('--failpoints')
const OUT = join(ROOT, FAILPOINTS ? 'build/failpoints' : 'build')
const BIN = join(OUT, 'bin')
const LIB = join(OUT, LIB_FOLDER)
const META = join(OUT, 'meta')
const FEATURES_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/features/Features'

/**
 * The command `runts`. It finds Node and the bundle from its own place, so a copied tree works anywhere. In the
 * common case it starts no program but Node: a second program would cost as much as all the work of this script. Node
 * gets one helper thread of V8, since most commands end before more threads help. (0 means one for every processor.)
 */
const RUNTS = `#!/bin/sh
# The OCI command line, run by the Node that was installed with it. Variables have names that no caller exports: hooks inherit the rest.
runts_self=$0
[ ! -L "$runts_self" ] || runts_self=$(command -p readlink -f "$runts_self") || exit 1
case $runts_self in */*) ;; *) runts_self=./$runts_self ;; esac
runts_lib=\${${VARIABLES.LIB}:-\${runts_self%/*}/../${LIB_FOLDER}}
lost() {
  printf 'runts: error: cannot find the installation: %s; %s\\n' "$1" \\
    'make this program a link to the installed one, set ${VARIABLES.LIB} to that folder, or install it with scripts/install' >&2
  exit 1
}
if [ -n "\${${VARIABLES.LIB}-}" ]; then
  # a relative path would depend on the working directory of the caller
  case $runts_lib in /*) [ -e "$runts_lib/runts.cjs" ] ;; *) false ;; esac ||
    lost "${VARIABLES.LIB} is \\"$${VARIABLES.LIB}\\", where no such folder is"
elif [ ! -e "$runts_lib/runts.cjs" ]; then
  # scripts/install writes the folder's name into the last line of this file, so a copy elsewhere has it too
  runts_recorded=$(command -p sed -n '$s/^${LIB_RECORD}//p' "$runts_self")
  [ -n "$runts_recorded" ] && [ -e "$runts_recorded/runts.cjs" ] ||
    lost "\\"$runts_lib\\"\${runts_recorded:+ or \\"$runts_recorded\\"} is missing"
  runts_lib=$runts_recorded
fi
# A user sets these variables for programs of their own. They must not change this one; hooks inherit them (sys/environment.ts).
for runts_name in NODE_OPTIONS NODE_EXTRA_CA_CERTS NODE_V8_COVERAGE NODE_COMPILE_CACHE OPENSSL_CONF UV_THREADPOOL_SIZE; do
  eval "[ -z \\"\\\${$runts_name+x}\\" ] || export ${VARIABLES.OUTER}$runts_name=\\"\\$$runts_name\\""
  unset $runts_name
done
# Node raises its limit of open files; containers get the limit that this script was given
${VARIABLES.SOFT_NOFILE}=$(ulimit -Sn)
export ${VARIABLES.SOFT_NOFILE}
runts_node=$runts_lib/node
# in a node_modules folder, Node lies beside this package
[ -x "$runts_node" ] || runts_node=$runts_lib/../../../../node/bin/node
exec "$runts_node" --v8-pool-size=1 "$runts_lib/runts.cjs" "$@"
`

const BUNDLES = [
  { entry: 'shim/main.ts', name: 'shim' },
  { entry: 'runtime/cli/main.ts', name: 'runts' },
] as const

const require = createRequire(import.meta.url)

function say(text: string): void {
  process.stdout.write(`${text}\n`)
}

function mtime(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
}

/** Writes only when the content differs, so that time stamps mean something. */
function writeIfChanged(path: string, content: string, mode: number): boolean {
  try {
    if (readFileSync(path, 'utf8') === content) return false
  } catch {
    // not there yet: written below
  }
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(`${path}.tmp`, content)
  chmodSync(`${path}.tmp`, mode)
  renameSync(`${path}.tmp`, path)
  return true
}

/**
 * Replaces koffi's own loader by one that loads the addon beside the bundle, which is the only one of an installed
 * shim. koffi's loader reads the ELF header of Node, searches several folders, and adds deprecated aliases.
 */
function koffiBesideTheBundle(version: string): Plugin {
  const contents = `
    const native = require(__dirname + '/koffi.node')
    if (native.version !== ${JSON.stringify(version)}) throw new Error('koffi.node is version ' + native.version + ', expected ${version}')
    module.exports = native`
  return {
    name: 'koffi-beside-the-bundle',
    setup(esbuild) {
      esbuild.onResolve({ filter: /^koffi$/ }, () => ({ path: 'koffi', namespace: 'koffi-native' }))
      esbuild.onLoad({ filter: /.*/, namespace: 'koffi-native' }, () => ({ contents, loader: 'js' }))
    },
  }
}

/**
 * Leaves out the part of pino that hands lines to worker threads. No code here may start a thread.
 * The modules for it would cost a tenth of a cold start. A transport that is asked for anyway throws.
 */
const noWorkerThreads: Plugin = {
  name: 'no-worker-threads',
  setup(esbuild) {
    esbuild.onResolve({ filter: /^(thread-stream|worker_threads)$/ }, ({ path }) => ({ path, namespace: 'no-threads' }))
    esbuild.onLoad({ filter: /.*/, namespace: 'no-threads' }, ({ path }) => ({
      contents:
        path === 'worker_threads'
          ? 'module.exports = { isMainThread: true }'
          : 'module.exports = class { constructor() { throw new Error("pino transports are not part of this build") } }',
      loader: 'js',
    }))
  },
}

/** 64-bit integers are bigint here (ttrpc-ts/wire.ts); protobufjs takes this answer as "there is no long.js". */
const noLong: Plugin = {
  name: 'no-long',
  setup(esbuild) {
    esbuild.onResolve({ filter: /^long$/ }, ({ path }) => ({ path, namespace: 'no-long' }))
    esbuild.onLoad({ filter: /.*/, namespace: 'no-long' }, () => ({ contents: 'module.exports = null', loader: 'js' }))
  },
}

function koffiPackage(): { version: string; addon: string } {
  const main = require.resolve('koffi')
  const version: string = JSON.parse(readFileSync(join(dirname(main), 'package.json'), 'utf8')).version
  const addon = join(dirname(main), `../@koromix/koffi-linux-${process.arch}/linux_${process.arch}/koffi.node`)
  return { version, addon }
}

/** True when no input of the last build of this bundle is newer than its output. */
function bundleIsFresh(out: string, meta: string): boolean {
  const built = mtime(out)
  if (
    built === 0 ||
    built < mtime(import.meta.filename) ||
    built < mtime(join(ROOT, 'scripts/parts.ts')) ||
    built < mtime(join(ROOT, 'package-lock.json'))
  )
    return false
  try {
    const inputs: Record<string, unknown> = JSON.parse(readFileSync(meta, 'utf8')).inputs
    return Object.keys(inputs).every((path) => {
      if (/^(koffi-native|no-threads|no-long):/.test(path)) return true
      const time = mtime(join(ROOT, path))
      return time !== 0 && time <= built
    })
  } catch {
    return false
  }
}

/** What esbuild is told for every bundle; names stay readable in stack traces. */
function optionsOf(koffiVersion: string): BuildOptions {
  return {
    absWorkingDir: ROOT,
    logLevel: 'warning',
    // CommonJS has no import.meta; the bundle's own folder is what the sources mean by it
    define: {
      'import.meta.dirname': '__dirname',
      'import.meta.filename': '__filename',
      RUNTS_FAILPOINTS: String(FAILPOINTS),
    },
    plugins: [koffiBesideTheBundle(koffiVersion), noWorkerThreads, noLong],
  }
}

/** Only what the parser would skip is removed. */
const FORM = {
  target: 'node24',
  minifyWhitespace: true,
  minifySyntax: true,
  charset: 'ascii',
  legalComments: 'eof',
} as const

/** Writes the files of a program's bundle: NAME.js, and a file for each of its parts. */
async function bundle(entry: string, name: string, koffiVersion: string): Promise<void> {
  const out = join(LIB, `${name}.js`)
  const meta = join(META, `${name}.json`)
  if (bundleIsFresh(out, meta)) return
  const { main, parts, metafile } = await bundleInParts(entry, name, { ...optionsOf(koffiVersion), form: FORM })
  // V8 tells the cache of another source by its length alone, so an old cache must never lie beside a new bundle
  for (const file of readdirSync(LIB)) {
    if (file === `${name}.v8cache` || (file.startsWith(`${name}-`) && !parts.has(file))) rmSync(join(LIB, file))
  }
  for (const [file, text] of parts) writeFileSync(join(LIB, file), text)
  finishBundle(out, { text: main, meta, metafile })
}

/** Writes the library for other packages, which is one file. */
async function bundleLibrary(koffiVersion: string): Promise<void> {
  const out = join(LIB, 'runtime.js')
  const meta = join(META, 'runtime.json')
  if (bundleIsFresh(out, meta)) return
  const { outputFiles, metafile } = await build({
    ...optionsOf(koffiVersion),
    ...FORM,
    entryPoints: ['runtime/index.ts'],
    bundle: true,
    platform: 'node',
    format: 'cjs',
    write: false,
    metafile: true,
  })
  finishBundle(out, { text: outputFiles[0]?.text ?? '', meta, metafile })
}

function finishBundle(
  out: string,
  made: { readonly text: string; readonly meta: string; readonly metafile: object },
): void {
  mkdirSync(META, { recursive: true })
  writeFileSync(made.meta, JSON.stringify(made.metafile))
  writeFileSync(`${out}.tmp`, made.text)
  renameSync(`${out}.tmp`, out)
  say(`bundled ${relative(ROOT, out)}`)
}

/** Makes the code cache of a bundle, unless the cache is newer than all that it depends on. */
function codeCache(name: string): void {
  const out = join(LIB, `${name}.v8cache`)
  if (
    mtime(out) >
    Math.max(
      mtime(join(LIB, `${name}.js`)),
      mtime(join(ROOT, 'scripts/code-cache.ts')),
      mtime(join(ROOT, 'proto/launch.ts')),
    )
  )
    return
  const result = spawnSync(process.execPath, [join(ROOT, 'scripts/code-cache.ts'), LIB, name], {
    stdio: ['ignore', 'inherit', 'inherit'],
    timeout: 30_000,
  })
  if (result.status !== 0) throw new Error(`scripts/code-cache.ts ${name} failed`)
}

function make(): void {
  // -s: the compiler lines are long; a failing command prints itself
  const result = spawnSync('make', ['-s', '-C', 'c', FAILPOINTS ? 'failpoints' : 'all'], {
    cwd: ROOT,
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  if (result.status !== 0)
    throw new Error(`make -C c failed${result.error === undefined ? '' : `: ${result.error.message}`}`)
}

function linkNode(): void {
  const target = relative(LIB, join(dirname(require.resolve('node/package.json')), 'bin/node'))
  const link = join(LIB, 'node')
  try {
    if (readlinkSync(link) === target) return
  } catch {
    // missing or not a link: made below
  }
  rmSync(link, { force: true })
  symlinkSync(target, link)
}

/** Writes the commit that `runts --version` prints. A tree without git has none. */
function writeCommit(): void {
  const { status, stdout } = spawnSync('git', ['-C', ROOT, 'rev-parse', 'HEAD'], { encoding: 'utf8' })
  if (status === 0) writeIfChanged(join(LIB, 'COMMIT'), stdout, 0o644)
  else rmSync(join(LIB, 'COMMIT'), { force: true })
}

/** Writes the answer of the launcher to `-info`, so that the launcher need not start Node for it. */
function writeRuntimeInfo(version: string): void {
  const out = join(LIB, LIB_FILES.RUNTIME_INFO)
  if (mtime(out) >= Math.max(mtime(join(LIB, 'runts.js')), mtime(join(LIB, LIB_FILES.VERSION)))) return
  const { status, stdout, stderr } = spawnSync(join(BIN, 'runts'), ['features'])
  if (status !== 0) throw new Error(`runts features failed: ${stderr}`)
  const document = JSON.parse(stdout.toString())
  // whether there is CRIU says something of this machine alone
  delete document.annotations['runts.checkpoint.enabled']
  const features = { typeUrl: FEATURES_TYPE, value: Buffer.from(JSON.stringify(document)) }
  writeFileSync(`${out}.tmp`, RuntimeInfo.encode({ name: 'io.containerd.ts.v2', version: { version }, features }))
  renameSync(`${out}.tmp`, out)
}

/**
 * Writes the declarations of the library for other packages, which lack the compiler settings that the sources need.
 */
function writeTypes(): void {
  const stamp = join(META, 'types')
  const sources = readdirSync(join(ROOT, 'runtime'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(ROOT, 'runtime', name))
  const inputs = [
    ...sources,
    join(ROOT, 'proto/init-plan.ts'),
    join(ROOT, 'proto/launch.ts'),
    join(ROOT, 'scripts/types.json'),
  ]
  if (mtime(stamp) > Math.max(...inputs.map(mtime))) return
  rmSync(join(OUT, 'types'), { recursive: true, force: true })
  const tsc = join(dirname(require.resolve('typescript/package.json')), 'bin/tsc')
  const result = spawnSync(process.execPath, [tsc, '-p', join(ROOT, 'scripts/types.json')], {
    stdio: ['ignore', 'inherit', 'inherit'],
    timeout: 120_000,
  })
  if (result.status !== 0) throw new Error('tsc -p scripts/types.json failed')
  writeFileSync(stamp, '')
  say('wrote the types of runtime/index.ts')
}

async function main(): Promise<void> {
  const started = performance.now()
  for (const folder of [BIN, LIB, META]) mkdirSync(folder, { recursive: true })
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  writeIfChanged(join(LIB, LIB_FILES.VERSION), `${version}\n`, 0o644)
  writeIfChanged(join(BIN, 'runts'), RUNTS, 0o755)
  writeCommit()
  linkNode()
  const koffi = koffiPackage()
  const addon = join(LIB, 'koffi.node')
  if (mtime(addon) < mtime(koffi.addon)) {
    copyFileSync(koffi.addon, `${addon}.tmp`)
    renameSync(`${addon}.tmp`, addon)
  }
  make()
  for (const { entry, name } of BUNDLES) {
    writeIfChanged(join(LIB, `${name}.cjs`), readFileSync(join(ROOT, 'scripts/bundle-loader.cjs'), 'utf8'), 0o644)
    await bundle(entry, name, koffi.version)
    codeCache(name)
  }
  // the library for other packages: Node runs no TypeScript from node_modules
  writeIfChanged(join(LIB, 'package.json'), '{ "type": "commonjs" }\n', 0o644)
  await bundleLibrary(koffi.version)
  if (!FAILPOINTS) writeTypes()
  writeRuntimeInfo(version)
  say(`${relative(ROOT, OUT)}/ is up to date (${((performance.now() - started) / 1000).toFixed(1)} s)`)
}

try {
  await main()
} catch (error) {
  process.stderr.write(`build: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
