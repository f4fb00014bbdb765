/**
 * Hooks below containerd: each kind runs at its point of a task's life, also when the shim has crashed, and a failing
 * one reaches the client.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { until } from '../support/command.ts'
import { type Containers, expect, test } from '../support/containerd.ts'
import { needs } from '../support/needs.ts'
import type { SpecChange } from '../support/spec.ts'

const HOST_KINDS = ['prestart', 'createRuntime', 'poststart', 'poststop'] as const

function shell(script: string): { path: string; args: string[]; env: string[] } {
  return { path: '/bin/sh', args: ['sh', '-c', script], env: ['PATH=/bin:/usr/bin'] }
}

function hooks(lists: Record<string, unknown[]>): SpecChange {
  return (spec) => void Object.assign(spec, { hooks: lists })
}

/** A hook of the host that notes its name and the status that it was told. */
function noting(ct: Containers, name: string): { path: string; args: string[]; env: string[] } {
  return shell(`echo "${name} $(sed 's/.*"status":"\\([a-z]*\\)".*/\\1/')" >> ${join(ct.folder, 'log')}`)
}

function notes(ct: Containers): string[] {
  const path = join(ct.folder, 'log')
  return existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : []
}

// runc before 1.5 runs poststart hooks at create, and before 1.2 it does not name the kind of a hook that fails
describe('hooks of a task', needs('root', 'containerd', 'busybox', 'our shim'), () => {
  test('of all kinds run at their points', async ({ ct }) => {
    const lists = Object.fromEntries(HOST_KINDS.map((kind) => [kind, [noting(ct, kind)]]))
    const change = hooks({
      ...lists,
      createContainer: [shell('echo create-container >> hooks')],
      startContainer: [shell('echo start-container >> /hooks')],
    })
    const result = await ct.ctr(...ct.configArgs(['--rm'], ct.id(), ['cat', '/hooks'], change))
    expect(result, result.stderr).toMatchObject({ code: 0, stdout: 'create-container\nstart-container\n' })
    expect(notes(ct)).toEqual(['prestart creating', 'createRuntime creating', 'poststart running', 'poststop stopped'])
  })

  for (const kind of ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart']) {
    test(`a ${kind} hook that fails gives the client its words, and leaves nothing`, async ({ ct }) => {
      const change = hooks({
        [kind]: [shell('echo why it failed >&2; exit 4')],
        poststop: [noting(ct, 'poststop')],
      })
      const result = await ct.ctr(...ct.configArgs(['--rm'], ct.id(), ['sleep', '1000'], change))
      expect(result.code).not.toBe(0)
      expect(result.stderr).toContain(`error running ${kind} hook #0: exit status 4`)
      expect(result.stderr).toContain('why it failed')
      expect(notes(ct)).toEqual(['poststop stopped'])
    })
  }

  test('after the end run even when the shim was killed, once', async ({ ct }) => {
    const id = ct.id()
    const args = ct.configArgs(
      ['-d', '--null-io'],
      id,
      ['sleep', '1000'],
      hooks({ poststop: [noting(ct, 'poststop')] }),
    )
    const result = await ct.ctr(...args)
    expect(result, result.stderr).toMatchObject({ code: 0 })
    process.kill(ct.shimPid(id), 'SIGKILL')
    await until('the task to be forgotten', async () => (await ct.task(id)) === undefined)
    await until('the hook to run', () => notes(ct).length > 0)
    await ct.ok('container', 'rm', id)
    expect(notes(ct)).toEqual(['poststop stopped'])
  })
})
