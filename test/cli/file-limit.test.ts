/**
 * The soft limit of open files: Node raises its own at its start, but a container gets the limit of the runtime's
 * caller. (Programs that use select(2), or that close every number up to the limit, depend on it.)
 */
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { startCommand } from '../support/command.ts'
import { notRunc } from '../support/needs.ts'
import { OCI_RUNTIME } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'

const NEEDS = notRunc('whether Go’s own raised limit is restored depends on its release', 'root', 'busybox')

/** Runs the runtime where the limit of open files is another one. */
async function limited(runts: Runts, limits: string, ...args: readonly string[]): Promise<string> {
  const words = [`--nofile=${limits}`, OCI_RUNTIME, '--root', runts.root, ...args]
  const result = await startCommand('prlimit', words).finished
  expect(result, result.stderr).toMatchObject({ code: 0 })
  return result.stdout
}

/** Starts a container there, in the background and without our streams. */
async function background(runts: Runts, limits: string, bundle: string): Promise<void> {
  const words = [OCI_RUNTIME, '--root', runts.root, 'run', '-d', '-b', bundle, runts.name]
  const script = `exec prlimit --nofile=${limits} "$@" </dev/null >/dev/null 2>&1`
  expect(await startCommand('sh', ['-c', script, 'sh', ...words]).finished).toMatchObject({ code: 0 })
}

/** A hook that writes what limits it has. */
function hook(runts: Runts): { path: string; out: string } {
  const [path, out] = [join(runts.folder, 'hook'), join(runts.folder, 'hook.out')]
  writeFileSync(path, `#!/bin/sh\necho "$(ulimit -Sn) $(ulimit -Hn)" >>'${out}'\n`)
  chmodSync(path, 0o755)
  return { path, out }
}

describe('the limit of open files', NEEDS, () => {
  test('of a container, of an exec and of hooks on either side is the caller’s, soft and hard', async ({ runts }) => {
    const { path, out } = hook(runts)
    const bundle = runts.bundle(['sleep', '1000'], (spec) => {
      spec.hooks = { createRuntime: [{ path }], createContainer: [{ path }], poststop: [{ path }] }
    })
    await background(runts, '321:4321', bundle)
    expect(await limited(runts, '322:4322', 'exec', runts.name, 'payload', 'limits')).toContain('nofile 322 4322\n')
    const { pid } = await runts.state(runts.name)
    expect(readFileSync(`/proc/${pid}/limits`, 'utf8')).toMatch(/^Max open files +321 +4321 /m)
    await limited(runts, '323:4323', 'delete', '-f', runts.name)
    expect(readFileSync(out, 'utf8')).toBe('321 4321\n321 4321\n323 4323\n')
  })

  test('of the document comes first, for the container and for what is executed in it', async ({ runts }) => {
    const bundle = runts.bundle(['sleep', '1000'], (spec) => {
      spec.process.rlimits = [{ type: 'RLIMIT_NOFILE', soft: 50, hard: 60 }]
    })
    await background(runts, '321:4321', bundle)
    expect(await limited(runts, '322:4322', 'exec', runts.name, 'payload', 'limits')).toContain('nofile 50 60\n')
    await runts.ok('delete', '-f', runts.name)
  })

  test('may be the hard one, and is then left as it is', async ({ runts }) => {
    const bundle = runts.bundle(['payload', 'limits'])
    expect(await limited(runts, '4321:4321', 'run', '-b', bundle, runts.name)).toContain('nofile 4321 4321\n')
  })

  test('is read from the caller, not from what somebody has put into the environment', async ({ runts }) => {
    const bundle = runts.bundle(['payload', 'limits'])
    const words = ['--nofile=321:4321', 'env', 'RUNTS_SOFT_NOFILE=7', OCI_RUNTIME, '--root', runts.root]
    const result = await startCommand('prlimit', [...words, 'run', '-b', bundle, runts.name]).finished
    expect(result.stdout).toContain('nofile 321 4321\n')
  })
})
