/**
 * SELinux: the labels of processes and of what is mounted, in a guest with a policy.
 * The guest's kernel need not enforce the policy, since the tests only look at the labels that it was asked to set.
 */
import { expect } from 'vitest'
import { missing, needs } from '../support/needs.ts'
import { BY_ROOT, inModes } from '../support/oci.ts'

const CURRENT = '/proc/self/attr/current'

inModes(BY_ROOT, 'SELinux', (test) => {
  test('labels the first process and an exec', needs('selinux'), async ({ runts }) => {
    const label = 'system_u:system_r:container_t:s0:c4,c5'
    runts.sleeper('c', (spec) => {
      spec.process.selinuxLabel = label
    })
    expect((await runts.exec('c', 'cat', '/proc/1/attr/current')).replace('\0', '')).toContain(label)
    expect((await runts.exec('c', 'cat', CURRENT)).replace('\0', '')).toContain(label)
    const other = 'system_u:system_r:container_t:s0:c6,c7'
    expect((await runts.exec('--process-label', other, 'c', 'cat', CURRENT)).replace('\0', '')).toContain(other)
  })

  test('labels what is mounted for it', needs('selinux'), async ({ runts }) => {
    const label = 'system_u:object_r:container_file_t:s0:c4,c5'
    runts.sleeper('c', (spec) => {
      Object.assign(spec.linux, { mountLabel: label })
    })
    expect(await runts.exec('c', 'cat', '/proc/self/mounts')).toContain(`context="${label}"`)
  })

  const off = missing('selinux') === undefined ? { skip: true, meta: { missing: 'no SELinux' } } : {}
  test('labels are refused where it is off', off, async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.process.selinuxLabel = 'system_u:system_r:container_t:s0'
    })
    expect(error).toContain('selinux label is specified in config, but selinux is disabled or not supported')
  })
})
