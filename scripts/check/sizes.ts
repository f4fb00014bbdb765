/** Limits of size: lines of files and functions, parameters of functions, and lines of code of the native programs. */
import { functionsOf } from './functions.ts'
import { C_BUDGETS, type Exception, LIMITS, LONG_FILES, LONG_FUNCTIONS, MANY_PARAMETERS } from './rules.ts'
import { type Finding, isGenerated, linesOfCode, type Source } from './source.ts'

function isExcepted(exceptions: readonly Exception[], path: string, name?: string): boolean {
  return exceptions.some((exception) => exception.path === path && exception.name === name)
}

/** A file of the product with more lines of code than one idea takes. */
export function checkFileLength(source: Source): Finding[] {
  const { path } = source
  if (path.startsWith('test/') || isGenerated(path) || isExcepted(LONG_FILES, path)) return []
  const count = linesOfCode(source)
  const what = `${count} lines of code, ${LIMITS.fileLines} are allowed: has a second idea moved in?`
  return count > LIMITS.fileLines ? [{ path, line: 1, what }] : []
}

/** Functions that are longer than a reader can hold. Those of tests are stories, and may be. */
export function checkFunctionLength(source: Source): Finding[] {
  const { path } = source
  if (/^test\/(?!support\/)/.test(path) || isGenerated(path)) return []
  return functionsOf(source)
    .filter(({ name, lines }) => lines > LIMITS.functionLines && !isExcepted(LONG_FUNCTIONS, path, name))
    .map(({ name, line, lines }) => ({
      path,
      line,
      what: `${name} has ${lines} lines, ${LIMITS.functionLines} are allowed`,
    }))
}

/** Functions of TypeScript whose calls cannot be read, because too many arguments have a place and no name. */
export function checkParameters(source: Source): Finding[] {
  const { path } = source
  if (/^test\/(?!support\/)/.test(path) || isGenerated(path) || !path.endsWith('.ts')) return []
  return functionsOf(source)
    .filter(({ name, parameters }) => parameters > LIMITS.parameters && !isExcepted(MANY_PARAMETERS, path, name))
    .map(({ name, line, parameters }) => ({
      path,
      line,
      what: `${name} takes ${parameters} parameters by place, ${LIMITS.parameters} are allowed`,
    }))
}

/** What is left of the budgets of the native programs: a sentence for each, and whether it is too much. */
export function cBudgets(sources: readonly Source[]): { readonly what: string; readonly exceeded: boolean }[] {
  return C_BUDGETS.map(({ program, files, lines }) => {
    const count = sources.filter(({ path }) => files.test(path)).reduce((sum, source) => sum + linesOfCode(source), 0)
    return { what: `${program} has ${count} lines of code, ${lines} are allowed`, exceeded: count > lines }
  })
}
