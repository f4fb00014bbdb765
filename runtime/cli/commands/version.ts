/** What `--version` prints: lines of the form that runc's users parse. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { libDir, SPEC_VERSION, seccompVersion } from '../../index.ts'

function installed(name: string): string | undefined {
  try {
    return readFileSync(join(libDir(), name), 'utf8').trim()
  } catch {
    // COMMIT is written only where the build knew it
    return undefined
  }
}

function seccompLine(): string[] {
  try {
    return [`libseccomp: ${seccompVersion()}`]
  } catch {
    // the library is needed for seccomp profiles only
    return []
  }
}

/** The version text. */
export function versionText(): string {
  const commit = installed('COMMIT')
  return [
    `runts version ${installed('VERSION') ?? 'unknown'}`,
    ...(commit === undefined ? [] : [`commit: ${commit}`]),
    `spec: ${SPEC_VERSION}`,
    ...seccompLine(),
    '',
  ].join('\n')
}
