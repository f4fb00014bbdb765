/** AppArmor: the profile of the first process and of an exec. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished } from 'vitest'
import { startCommand } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { BY_ROOT, inModes } from '../support/oci.ts'

const CURRENT = '/proc/self/attr/current'

/** A profile that lets everything through but one file. */
const profile = (name: string): string => `profile ${name} flags=(attach_disconnected,mediate_deleted) {
  file, capability, signal, mount, umount, pivot_root, network, ptrace, unix, dbus,
  deny /etc/secret r,
}
`

inModes(BY_ROOT, 'AppArmor', (test, mode) => {
  test(
    'confines the first process and an exec, which may have a profile of its own',
    needs('apparmor'),
    async ({ runts }) => {
      const [first, second] = ['first', 'second'].map((name) => `oci-test-${mode.replaceAll(' ', '-')}-${name}`) as [
        string,
        string,
      ]
      const file = join(runts.folder, 'profiles')
      writeFileSync(file, profile(first) + profile(second))
      expect(await startCommand('apparmor_parser', ['-r', '-W', file]).finished).toMatchObject({ code: 0 })
      onTestFinished(async () => void (await startCommand('apparmor_parser', ['-R', file]).finished))
      const bundle = runts.bundle(['sleep', '1000'], (spec) => {
        spec.process.apparmorProfile = first
      })
      writeFileSync(join(bundle, 'rootfs/etc/secret'), 'secret\n')
      runts.leave('run', '-d', '-b', bundle, 'c')
      expect(await runts.exec('c', 'cat', '/proc/1/attr/current', CURRENT)).toBe(`${first} (enforce)\n`.repeat(2))
      expect(await runts.exec('--apparmor', second, 'c', 'cat', CURRENT)).toBe(`${second} (enforce)\n`)
      expect(await runts.run('exec', 'c', 'cat', '/etc/secret')).toMatchObject({ code: 1, stdout: '' })
    },
  )

  test('profiles that are not loaded are refused by name', needs('apparmor'), async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.process.apparmorProfile = 'no-such-profile'
    })
    expect(error).toContain('no-such-profile')
  })
})
