/**
 * Attacks on the shim: its socket from inside a container that shares the host's network, and its folders from
 * outside.
 */
import { chmodSync, copyFileSync, existsSync, lstatSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe } from 'vitest'
import { startCommand } from '../support/command.ts'
import { expect, test } from '../support/containerd.ts'
import { needs } from '../support/needs.ts'
import { ATTACK } from '../support/places.ts'

const modeOf = (path: string): string => (lstatSync(path).mode & 0o7777).toString(8)

describe('the shim', needs('root', 'containerd', 'busybox', 'the built shim', 'our shim', 'gcc'), () => {
  test('has no socket that a container in the host network could reach (CVE-2020-15257)', async ({ ct }) => {
    const id = await ct.detached()
    const change = ['--net-host', '--mount', `type=bind,src=${dirname(ATTACK)},dst=/mnt,options=rbind:ro`]
    const { code, stdout, stderr } = await ct.run(change, ['/mnt/attack', 'abstract'])
    expect(code, stderr).toBe(0)
    expect(stdout).not.toMatch(/connected .*(containerd|shim|ttrpc)/)
    const inside = await ct.run(change, ['/mnt/attack', 'connect', ct.socket(id)])
    expect(inside.stdout).toBe('No such file or directory\n')
  })

  test('lets nobody but root speak to its socket (CVE-2020-15257)', async ({ ct }) => {
    const socket = ct.socket(await ct.detached())
    expect(modeOf(dirname(socket))).toMatch(/^7[01][01]$/)
    expect(modeOf(socket)).toBe('600')
    const attack = join(ct.folder, 'attack')
    copyFileSync(ATTACK, attack)
    chmodSync(ct.folder, 0o755)
    const connect = (uid: string): Promise<{ stdout: string }> =>
      startCommand('setpriv', ['--reuid', uid, '--regid', uid, '--clear-groups', attack, 'connect', socket]).finished
    expect(await connect('0')).toMatchObject({ stdout: 'connected\n' })
    expect(await connect('1000')).toMatchObject({ stdout: 'Permission denied\n' })
  })

  test('keeps its state for root alone (CVE-2021-41103, CVE-2024-25621)', async ({ ct }) => {
    const id = await ct.detached()
    const root = join(ct.daemon.folder, 'ts', ct.daemon.namespace)
    for (const folder of [root, join(root, id)])
      expect({ folder, mode: modeOf(folder) }).toEqual({ folder, mode: '700' })
    for (const name of readdirSync(join(root, id))) expect(modeOf(join(root, id, name)), name).toMatch(/^[0-6]00$/)
    // containerd's own mode of the bundle is left as it is
    expect(existsSync(ct.bundle(id))).toBe(true)
    expect(modeOf(ct.bundle(id))).toMatch(/^7[01]0$/)
  })
})
