/**
 * Rules about the rules: a place that matches no file is a finding, and so is an exception that nothing needs any
 * more.
 */
import { functionsOf } from './functions.ts'
import {
  C_BUDGETS,
  IMPORT_RULES,
  LIMITS,
  LONG_FILES,
  LONG_FUNCTIONS,
  MANY_PARAMETERS,
  PUBLIC,
  PURE,
  SAYS_THE_WORDS,
  TEXTS,
  WORDS,
} from './rules.ts'
import { type Finding, linesOfCode, type Source } from './source.ts'

/** Where the tables of rules are written. */
const RULES = 'scripts/check/rules.ts'

/** Patterns of rules that match no name: `names` are the paths of the tree, and what its files import. */
export function checkPlaces(
  names: readonly string[],
  places: readonly RegExp[] = [
    ...[...IMPORT_RULES, ...WORDS, ...TEXTS].map(({ place }) => place),
    ...IMPORT_RULES.flatMap(({ may }) => may),
    ...C_BUDGETS.map(({ files }) => files),
    ...PURE,
    ...PUBLIC,
    ...SAYS_THE_WORDS,
  ],
): Finding[] {
  return places
    .filter((place) => !names.some((name) => place.test(name)))
    .map((place) => ({ path: RULES, line: 1, what: `${place} matches no file of the tree` }))
}

/** Exceptions for what is not there, or keeps the rule by now. */
export function checkExceptions(sources: ReadonlyMap<string, Source>): Finding[] {
  const named = (source: Source, name = ''): ReturnType<typeof functionsOf> =>
    functionsOf(source).filter((found) => found.name === name)
  const tables = [
    { list: LONG_FILES, needed: (source: Source) => linesOfCode(source) > LIMITS.fileLines },
    {
      list: LONG_FUNCTIONS,
      needed: (source: Source, name?: string) => named(source, name).some(({ lines }) => lines > LIMITS.functionLines),
    },
    {
      list: MANY_PARAMETERS,
      needed: (source: Source, name?: string) =>
        named(source, name).some(({ parameters }) => parameters > LIMITS.parameters),
    },
  ]
  return tables.flatMap(({ list, needed }) =>
    list
      .filter(({ path, name }) => {
        const source = sources.get(path)
        return source === undefined || !needed(source, name)
      })
      .map(({ path, name = 'the file' }) => ({
        path: RULES,
        line: 1,
        what: `the exception for ${name} of ${path} has become needless`,
      })),
  )
}
