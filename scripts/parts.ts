/**
 * Bundles an entry point into one file, and what it imports only by import() into files of its own, its parts. A shim
 * then neither reads nor holds the code for what its container does not use. Two passes of esbuild: the first finds
 * the parts and what they share with the rest, the second joins the rest into one scope, without the cost of modules.
 * Invariant: a module exists once, in the main file or in one part.
 */
import { basename } from 'node:path'
import { type BuildOptions, build, type Metafile, type Plugin, transform } from 'esbuild'

/** The text of the main file, those of its parts by file name, and what esbuild says of the sources. */
export interface Parts {
  readonly main: string
  readonly parts: ReadonlyMap<string, string>
  readonly metafile: Metafile
}

/**
 * Each file is the text of one function, so that no copy with further lines has to be made in memory.
 * bundle-loader.cjs calls them.
 */
const MAIN = { banner: '(function (require, __filename, __dirname, share) {', footer: '})' }
const PART = { banner: '(function (require, module, exports, __filename, __dirname) {', footer: '})' }

/** What the second pass does to the text, too. */
type Form = Pick<BuildOptions, 'target' | 'charset' | 'minifySyntax' | 'minifyWhitespace' | 'legalComments'>

/** Bundles `entry`; the names of all files begin with `name`. */
export async function bundleInParts(
  entry: string,
  name: string,
  { form, ...options }: BuildOptions & { readonly form: Form },
): Promise<Parts> {
  const { outputFiles, metafile } = await build({
    ...options,
    entryPoints: [entry],
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: form.target ?? 'esnext',
    splitting: true,
    write: false,
    metafile: true,
    legalComments: 'inline',
    outdir: 'parts',
    entryNames: name,
    chunkNames: `${name}-[name]-[hash]`,
  })
  const texts = new Map(outputFiles.map(({ path, text }) => [basename(path), text]))
  const links = new Map(Object.entries(metafile.outputs).map(([path, output]) => [basename(path), output]))
  const eager = reachable(`${name}.js`, links)
  const lazy = [...texts.keys()].filter((file) => !eager.has(file))
  const shared = [...eager].filter((file) => lazy.some((part) => importsOf(part, links).includes(file)))
  const main = await join({
    name,
    texts,
    eager,
    shared: shared.map((file) => [file, links.get(file)?.exports ?? []]),
    form,
  })
  const parts = new Map<string, string>()
  for (const file of lazy) {
    const { code } = await transform(texts.get(file) ?? '', {
      ...form,
      platform: 'node',
      format: 'cjs',
      supported: { 'dynamic-import': false },
      ...PART,
    })
    parts.set(file, code)
  }
  return { main, parts, metafile }
}

type Links = ReadonlyMap<string, Metafile['outputs'][string]>

/** The other outputs that one imports when it is loaded. */
function importsOf(file: string, links: Links): string[] {
  const { imports = [] } = links.get(file) ?? {}
  return imports
    .filter(({ kind, external }) => kind === 'import-statement' && external !== true)
    .map(({ path }) => basename(path))
}

function reachable(from: string, links: Links): Set<string> {
  const found = new Set([from])
  for (const file of found) for (const next of importsOf(file, links)) found.add(next)
  return found
}

interface Join {
  readonly name: string
  readonly texts: ReadonlyMap<string, string>
  readonly eager: ReadonlySet<string>
  /** outputs that parts import, each with the names that it exports */
  readonly shared: readonly (readonly [file: string, names: readonly string[]])[]
  readonly form: Form
}

/** Joins the outputs that are always loaded into one scope, and hands what parts import of them to share(). */
async function join({ name, texts, eager, shared, form }: Join): Promise<string> {
  const imports: string[] = [`import './${name}.js'`]
  const objects: string[] = []
  for (const [i, [file, names]] of shared.entries()) {
    imports.push(`import { ${names.map((each, k) => `${each} as s${i}_${k}`).join(', ')} } from './${file}'`)
    const getters = names.map((each, k) => `get ${each}() { return s${i}_${k} }`)
    objects.push(`'./${file}': { ${getters.join(', ')} }`)
  }
  const fromFirstPass: Plugin = {
    name: 'from-the-first-pass',
    setup(esbuild) {
      esbuild.onResolve({ filter: /^\.\// }, ({ path }) =>
        eager.has(basename(path)) ? { path, namespace: 'first' } : { path, external: true },
      )
      esbuild.onLoad({ filter: /.*/, namespace: 'first' }, ({ path }) => ({
        contents: texts.get(basename(path)) ?? '',
        loader: 'js',
      }))
    },
  }
  const { outputFiles } = await build({
    ...form,
    stdin: { contents: `${imports.join('\n')}\nshare(() => ({ ${objects.join(',\n')} }))\n`, loader: 'js' },
    bundle: true,
    platform: 'node',
    format: 'cjs',
    supported: { 'dynamic-import': false },
    write: false,
    logLevel: 'warning',
    plugins: [fromFirstPass],
    banner: { js: MAIN.banner },
    footer: { js: MAIN.footer },
  })
  return outputFiles[0]?.text ?? ''
}
