/** The output of `--version`, in the lines that runc's users parse. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { LIB_FILES } from '../../../proto/launch.ts'
import { SPEC_VERSION } from '../../index.ts'
import { libDir, seccompVersion } from '../../internal.ts'

function installed(name: string): string | undefined {
  try {
    return readFileSync(join(libDir(), name), 'utf8').trim()
  } catch {
    // the build writes COMMIT only if it knows the commit
    return undefined
  }
}

function seccompLine(): string[] {
  try {
    return [`libseccomp: ${seccompVersion()}`]
  } catch {
    // only seccomp profiles need the library
    return []
  }
}

/** The version text. */
export function versionText(): string {
  const commit = installed('COMMIT')
  return [
    `runts version ${installed(LIB_FILES.VERSION) ?? 'unknown'}`,
    ...(commit === undefined ? [] : [`commit: ${commit}`]),
    `spec: ${SPEC_VERSION}`,
    ...seccompLine(),
    '',
  ].join('\n')
}
