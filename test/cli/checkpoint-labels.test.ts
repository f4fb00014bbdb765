/** AppArmor across a checkpoint: the processes keep their profile, or get the one that the command line names. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished } from 'vitest'
import { startCommand } from '../support/command.ts'
import { beginCounting, leave } from '../support/counter.ts'
import { needs } from '../support/needs.ts'
import { type Runts, test } from '../support/runts.ts'

/** A profile that lets everything through. */
const profile = (name: string): string => `profile ${name} flags=(attach_disconnected,mediate_deleted) {
  file, capability, signal, mount, umount, pivot_root, network, ptrace, unix, dbus,
}
`

async function labelOf(runts: Runts): Promise<string> {
  const { pid } = await runts.state('c')
  return readFileSync(`/proc/${Number(pid)}/attr/current`, 'utf8').trim()
}

describe('a restored container', needs('root', 'busybox', 'criu', 'apparmor'), () => {
  test('has the AppArmor profile that was saved, or that of --lsm-profile', async ({ runts }) => {
    const [first, second] = ['cli-checkpoint-first', 'cli-checkpoint-second'] as const
    const file = join(runts.folder, 'profiles')
    writeFileSync(file, profile(first) + profile(second))
    expect(await startCommand('apparmor_parser', ['-r', '-W', file]).finished).toMatchObject({ code: 0 })
    onTestFinished(async () => void (await startCommand('apparmor_parser', ['-R', file]).finished))
    const counter = await beginCounting(runts, (spec) => {
      spec.process.apparmorProfile = first
    })
    await runts.ok('checkpoint', '--image-path', counter.images, 'c')
    const restore = ['restore', '-d', '--image-path', counter.images, '-b', counter.bundle]
    leave(runts, ...restore, 'c')
    expect(await labelOf(runts)).toBe(`${first} (enforce)`)
    await runts.ok('delete', '-f', 'c')
    leave(runts, ...restore, '--lsm-profile', `apparmor:${second}`, 'c')
    expect(await labelOf(runts)).toBe(`${second} (enforce)`)
    await counter.goesOn()
  })
})
