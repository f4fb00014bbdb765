/**
 * The judge of the house rules, judged: each rule finds what breaks it and leaves the rest, and its tables name what
 * is there.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { checkDocumentation, checkProse } from '../../scripts/check/comments.ts'
import { functionsOf } from '../../scripts/check/functions.ts'
import { checkCycles, checkExports, checkImports, checkPurity } from '../../scripts/check/imports.ts'
import { cBudgets, checkFileLength, checkFunctionLength, checkParameters } from '../../scripts/check/sizes.ts'
import { type Finding, linesOfCode, parseSource, type Source } from '../../scripts/check/source.ts'
import { checkExceptions, checkPlaces } from '../../scripts/check/stale.ts'
import { checkMentions, checkSleeps, checkWords } from '../../scripts/check/words.ts'
import { ROOT } from '../support/places.ts'

const source = (text: string, path = 'runtime/x.ts'): Source => parseSource(path, text)
const said = (findings: readonly Finding[]): string[] => findings.map(({ line, what }) => `${line}: ${what}`)
const tree = (files: Readonly<Record<string, string>>): Map<string, Source> =>
  new Map(Object.entries(files).map(([path, text]) => [path, parseSource(path, text)]))
const words = (count: number): string => Array.from({ length: count }, () => 'word').join(' ')

describe('a source', () => {
  test('is seen without its comments and without what its strings contain', () => {
    const { code } = source(
      "const a = 'rm(' // rm(\nconst b = `x \u0024{rm(1)} y`\nconst c = /'rm(/g\nconst d = 4 / 2 / 1\n",
    )
    expect(code.match(/rm\(/g)).toHaveLength(1)
    expect(code.split('\n')).toHaveLength(5)
    expect(code).toContain('4 / 2 / 1')
  })

  test('has lines of code where there is more than a comment', () => {
    expect(linesOfCode(source('/**\n * Two.\n */\nconst a = 1 // one\n\n// two\nconst b = `\n  text\n`\n'))).toBe(4)
  })

  test('has imports with their names, and those of templates are none', () => {
    const text =
      "import type { A } from './a.ts'\nexport { b as c } from './b.ts'\nconst { d } = await import('./d.ts')\n"
    const { imports } = source(`${text}const e = \`\nimport { f } from './f.ts'\n\`\n`)
    expect(imports.map(({ target, names, typeOnly }) => ({ target, names, typeOnly }))).toEqual([
      { target: 'runtime/a.ts', names: ['A'], typeOnly: true },
      { target: 'runtime/b.ts', names: ['b'], typeOnly: false },
      { target: 'runtime/d.ts', names: ['d'], typeOnly: false },
    ])
  })

  test('has functions, whatever their parameters and their types look like', () => {
    const text = [
      'export function one(a: Map<string, number>, b = f(1, 2)): { c: number } {\n  return x\n}',
      'const two = async (a: number, { b, c }: D): Promise<E> => {\n  await one(a, b)\n}',
      'class X {\n  #three(...rest: string[]): asserts x is Y | Z {\n    if (x) {\n    }\n  }\n}',
      'one(1, 2)\nconst four = x ? one(3, 4) : { five: one(5, 6) }',
    ].join('\n')
    expect(functionsOf(source(text)).map(({ name, lines, parameters }) => ({ name, lines, parameters }))).toEqual([
      { name: 'one', lines: 3, parameters: 2 },
      { name: 'two', lines: 3, parameters: 2 },
      { name: '#three', lines: 4, parameters: 1 },
    ])
  })

  test('of C has functions too', () => {
    const text = 'static int op_x(struct ctx *ctx, const char *name)\n{\n\tif (name)\n\t\treturn 1;\n\treturn 0;\n}\n'
    expect(functionsOf(source(text, 'c/x.c'))).toMatchObject([{ name: 'op_x', lines: 6, parameters: 2 }])
  })
})

describe('comments', () => {
  test('are no wider than 120 columns, in code that may be', () => {
    const wide = 'x'.repeat(120)
    expect(said(checkProse(source(`// ${wide}\nconst a = '${wide}'\n`)))).toEqual([
      '1: a comment of 123 columns, 120 are allowed',
    ])
  })

  test('have sentences of at most 30 words of prose, over all their lines', () => {
    expect(checkProse(source(`/** ${words(30)}. ${words(30)}. */\n`))).toHaveLength(1) // the width
    const long = `/**\n * Short. ${words(16)}\n * ${words(15)}.\n * - ${words(20)}\n * - ${words(20)}\n */\n`
    expect(said(checkProse(source(long)))).toEqual(['2: a sentence of 31 words, 30 are allowed'])
    const lines = `// ${words(16)}\n// ${words(15)}\n`
    expect(said(checkProse(source(lines)))).toEqual(['1: a sentence of 31 words, 30 are allowed'])
  })

  test('may have names of code, numbers and drawings as long as they like', () => {
    const names = Array.from({ length: 10 }, (_, index) => `a_${index} \`of b\` /c/d`).join(' ')
    expect(
      checkProse(source(`/**\n * ${words(15)} ${names.slice(0, 40)}\n * a ──> b ──> ${words(15)}\n */\n`)),
    ).toEqual([])
  })

  test('say who does something', () => {
    const hidden = '// whoever waits\n// for want of a fd\nconst a = "whoever" // `whoever` is a name\n'
    expect(said(checkProse(source(hidden)))).toEqual([
      '1: "whoever" in a comment: name who it is',
      '2: "for want of" in a comment: name who it is',
    ])
  })

  test('stand at the head of a file and above each export', () => {
    expect(said(checkDocumentation(source('const a = 1\n\nexport const b = 2\n')))).toEqual([
      '1: has no head comment',
      '3: export b has no comment',
    ])
    const both = '/** Head. */\n\n/** B. */\nexport type B = 1\nexport const B = 1\n'
    expect(checkDocumentation(source(both))).toEqual([])
  })
})

describe('imports', () => {
  test('are those that the place may have', () => {
    const found = checkImports(
      source("import 'node:fs'\nimport { x } from 'koffi'\nimport y from 'fs'\n", 'runtime/plan/x.ts'),
    )
    expect(said(found)).toEqual([
      '2: may not import "koffi"',
      '3: may not import "fs"',
      '3: "fs" needs its node: prefix',
    ])
  })

  test('of a pure file are pure all the way, types aside', () => {
    const sources = tree({
      'runtime/plan/a.ts': "import { b } from '../b.ts'\n",
      'runtime/b.ts': "import { c } from './c.ts'\nimport type { d } from './d.ts'\n",
      'runtime/c.ts': "import { e } from 'node:fs'\n",
      'runtime/d.ts': "import { e } from 'node:fs'\n",
      'runtime/plan/f.ts': "import type { d } from '../d.ts'\n",
    })
    expect(checkPurity(sources)).toMatchObject([
      { path: 'runtime/plan/a.ts', what: 'is pure, and reaches runtime/b.ts -> runtime/c.ts -> node:fs' },
    ])
  })

  test('make no circles', () => {
    const sources = tree({ 'a.ts': "import { b } from './b.ts'\n", 'b.ts': "import { a } from './a.ts'\n" })
    expect(checkCycles(sources)).toMatchObject([{ what: 'import cycle: a.ts -> b.ts -> a.ts' }])
  })

  test('use every export', () => {
    const sources = tree({
      'a.ts':
        'export const used = 1\nexport const unused = 2\nexport type Alone = 1\nexport type Taken = 2\nfunction f(x: Taken) {}\n',
      'b.ts': "import { used } from './a.ts'\n",
    })
    expect(said(checkExports(sources))).toEqual([
      '2: export unused: no other file imports it',
      '3: export Alone: no other file imports it',
    ])
  })
})

describe('sizes', () => {
  const lines = (count: number): string => Array.from({ length: count }, (_, index) => `  x(${index})`).join('\n')

  test('of files and functions have limits', () => {
    expect(said(checkFunctionLength(source(`function f() {\n${lines(79)}\n}\n`)))).toEqual([
      '1: f has 81 lines, 80 are allowed',
    ])
    expect(checkFunctionLength(source(`function f() {\n${lines(78)}\n}\n`))).toEqual([])
    expect(checkFileLength(source(lines(401)))).toHaveLength(1)
    expect(checkFileLength(source(lines(400)))).toEqual([])
  })

  test('of parameter lists have one', () => {
    expect(said(checkParameters(source('function f(a: 1, b: 2, c: 3, { d, e, f }: G) {\n}\n')))).toEqual([
      '1: f takes 4 parameters by place, 3 are allowed',
    ])
    expect(checkParameters(source('const f = (a: 1, b: 2, { d, e, f }: G) => 1\n'))).toEqual([])
  })

  test('of the native programs have budgets', () => {
    const big = cBudgets([parseSource('c/init/init.c', lines(2901)), parseSource('c/init/plan.gen.h', lines(10))])
    expect(big.map(({ exceeded }) => exceeded)).toEqual([true, false, false])
  })
})

describe('words', () => {
  test('that have no place are found in code, and some in comments', () => {
    const found = checkWords(source("// process.pid\nconst a = process.pid\nconst b = 'process.exit()'\n// TODO\n"))
    expect(said(found)).toEqual([
      '2: "process.pid": process.pid is wrong in a forked child: ask sys/',
      '4: "TODO": unfinished work belongs in an issue',
    ])
  })

  test('that name a file name one that is there', () => {
    const text = "// sys/fd.ts, runtime/sys/gone.ts, spec/gone.ts and linux/sched.h\nimport { x } from '../gone.ts'\n"
    expect(said(checkMentions(source(text), ['runtime/sys/fd.ts']))).toEqual([
      '1: names "runtime/sys/gone.ts", which is not there',
      '1: names "spec/gone.ts", which is not there',
    ])
  })

  test('that wait for a time are found in tests, but not where a loop looks again', () => {
    const text = [
      "test('sleeps', async () => {\n  await delay(50)\n  await delay(0)\n})",
      'while (!x()) await delay(5)',
      'for (;;) {\n  try {\n    x()\n  } catch {\n    await new Promise((resolve) => setTimeout(resolve, 5))\n  }\n}',
      "await until('it is so', async () => {\n  await delay(5)\n})",
      'await new Promise((resolve) => setTimeout(resolve, 5))\n',
    ].join('\n')
    expect(checkSleeps(source(text, 'test/cli/x.test.ts')).map(({ line }) => line)).toEqual([2, 16])
    expect(checkSleeps(source(text, 'runtime/x.ts'))).toEqual([])
  })
})

describe('the rules themselves', () => {
  const paths = ['proto', 'runtime', 'shim', 'scripts', 'test', 'c'].flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).map((path) => join(folder, path)),
  )

  const read = new Map(
    paths
      .filter((path) => /\.(ts|c|h)$/.test(path) && !path.includes('node_modules'))
      .map((path) => [path, parseSource(path, readFileSync(join(ROOT, path), 'utf8'))]),
  )

  test('name places that are there', () => {
    const imported = [...read.values()].flatMap(({ imports }) => imports.map(({ target }) => target))
    expect(checkPlaces([...paths, ...imported])).toEqual([])
    expect(checkPlaces(paths, [/^runtime\/container\/nowhere\.ts$/])).toMatchObject([
      { what: String.raw`/^runtime\/container\/nowhere\.ts$/ matches no file of the tree` },
    ])
  })

  test('except only what needs it', () => {
    expect(checkExceptions(read)).toEqual([])
    expect(checkExceptions(new Map()).length).toBeGreaterThan(5)
  })
})
