/**
 * Where the installed files lie: one folder holds the bundles, ts-init and Node. The variable SHIM_TS_LIB names another
 * folder, for development and for copies of the programs outside it.
 */
import { basename, join } from 'node:path'
import { LIB_FOLDER, VARIABLES } from '../../proto/launch.ts'

/** The folder that holds ts-init and the other installed files. */
export function libDir(): string {
  const override = process.env[VARIABLES.LIB]
  if (override !== undefined && override !== '') return override
  // a bundle lies in that folder; sources lie in the tree that builds it
  const here = import.meta.dirname
  return basename(here) === 'sys' ? join(here, '../../build', LIB_FOLDER) : here
}

/** Absolute path of the init helper. */
export function helperPath(): string {
  return join(libDir(), 'ts-init')
}
