/**
 * Who imports whom: forbidden imports, cycles, purity through all imports of a file, and exports that no file
 * imports.
 */
import { IMPORT_RULES, isNode, PUBLIC, PURE } from './rules.ts'
import { type Finding, isGenerated, type Source } from './source.ts'

/** The sources of the tree by their paths. */
export type Sources = ReadonlyMap<string, Source>

/** Imports that a file of its place may not have. */
export function checkImports({ path, imports }: Source): Finding[] {
  const rule = IMPORT_RULES.find(({ place }) => place.test(path))
  return imports.flatMap(({ target, line }) => {
    const found: string[] = []
    if (rule !== undefined && !rule.may.some((allowed) => allowed.test(target)))
      found.push(`may not import "${target}"`)
    if (target === '@grpc/grpc-js' && !path.startsWith('test/')) found.push('only tests use @grpc/grpc-js')
    if (isNode(target) && !target.startsWith('node:')) found.push(`"${target}" needs its node: prefix`)
    return found.map((what) => ({ path, line, what }))
  })
}

/** Pure files that reach a module which is not of the tree, with the way there. Types are no way: they vanish. */
export function checkPurity(sources: Sources): Finding[] {
  const wayOut = (path: string, seen: Set<string>): readonly string[] | undefined => {
    seen.add(path)
    for (const { target, typeOnly } of sources.get(path)?.imports ?? []) {
      if (typeOnly || seen.has(target)) continue
      if (!sources.has(target)) return [path, target]
      const further = wayOut(target, seen)
      if (further !== undefined) return [path, ...further]
    }
    return undefined
  }
  return [...sources.keys()]
    .filter((path) => PURE.some((place) => place.test(path)))
    .flatMap((path) => {
      const way = wayOut(path, new Set())
      return way === undefined ? [] : [{ path, line: 1, what: `is pure, and reaches ${way.slice(1).join(' -> ')}` }]
    })
}

/** The cycles of a graph, each once, as its nodes in order. */
function cyclesOf(edges: ReadonlyMap<string, Iterable<string>>): string[][] {
  const found: string[][] = []
  const done = new Set<string>()
  const visit = (node: string, trail: readonly string[]): void => {
    const at = trail.indexOf(node)
    if (at >= 0) found.push([...trail.slice(at), node])
    if (at >= 0 || done.has(node)) return
    for (const next of edges.get(node) ?? []) visit(next, [...trail, node])
    done.add(node)
  }
  for (const node of edges.keys()) visit(node, [])
  return found
}

/** Import cycles of files. Types are left out, since they vanish before anything runs. */
export function checkCycles(sources: Sources): Finding[] {
  const values = ({ imports }: Source): string[] =>
    imports.filter(({ target, typeOnly }) => !typeOnly && sources.has(target)).map(({ target }) => target)
  return cyclesOf(new Map([...sources].map(([path, source]) => [path, values(source)]))).map((cycle) => ({
    path: cycle[0] ?? '',
    line: 1,
    what: `import cycle: ${cycle.join(' -> ')}`,
  }))
}

/** Cycles of the folders of `runtime/`, types included: a folder is an idea, and two that need each other are one. */
export function checkFolderCycles(sources: Sources): Finding[] {
  const folderOf = (path: string): string | undefined => /^runtime\/([^/]+)\//.exec(path)?.[1]
  const known = new Map<string, Set<string>>()
  for (const { path, imports } of sources.values()) {
    const from = folderOf(path)
    if (from === undefined) continue
    const targets = known.get(from) ?? new Set()
    known.set(from, targets)
    for (const { target } of imports) {
      const to = folderOf(target)
      if (to !== undefined && to !== from) targets.add(to)
    }
  }
  return cyclesOf(known).map((cycle) => ({
    path: `runtime/${cycle[0]}`,
    line: 1,
    what: `folder cycle: ${cycle.join(' -> ')}`,
  }))
}

/**
 * Exports that no other file imports by name. An import of a whole file is one of all its names.
 * A type that its own file uses may stay: it is a part of what another export takes or gives.
 */
export function checkExports(sources: Sources): Finding[] {
  const used = new Map<string, Set<string> | 'all'>()
  for (const { imports } of sources.values()) {
    for (const { target, names } of imports) {
      const known = used.get(target) ?? new Set<string>()
      if (names === undefined || known === 'all') used.set(target, 'all')
      else used.set(target, new Set([...known, ...names]))
    }
  }
  return [...sources.values()]
    .filter(({ path }) => !isGenerated(path) && !PUBLIC.some((place) => place.test(path)))
    .flatMap(({ path, code, exports }) => {
      const known = used.get(path) ?? new Set<string>()
      return exports
        .filter(({ name }) => known !== 'all' && !known.has(name))
        .filter(({ name, isType }) => !isType || [...code.matchAll(new RegExp(`\\b${name}\\b`, 'g'))].length < 2)
        .map(({ name, line }) => ({ path, line, what: `export ${name}: no other file imports it` }))
    })
}
