/**
 * Where the installed files lie: one folder holds the bundles, the helper and Node, and everything is found from it.
 * SHIM_TS_LIB overrides it for tests and development.
 */
import { dirname, join } from 'node:path'

const LIB_VARIABLE = 'SHIM_TS_LIB'

/** The folder that holds ts-init and the other installed files. */
export function libDir(): string {
  const override = process.env[LIB_VARIABLE]
  if (override !== undefined && override !== '') return override
  const script = process.argv[1]
  return script === undefined ? process.cwd() : dirname(script)
}

/** Absolute path of the init helper. */
export function helperPath(): string {
  return join(libDir(), 'ts-init')
}
