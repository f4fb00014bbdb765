/**
 * Attacks on the writes of LSM labels into procfs, while the helper is stopped right before the write. The kernel
 * need not have the LSM. The test looks at which file the write reaches; the kernel answers for the real file.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Op } from '../../proto/init-plan.ts'
import { needs } from '../support/needs.ts'
import { containerPlan, mount, Run } from './run.ts'
import { rootfs, useRootfs } from './shared-rootfs.ts'

const ENOENT = 2
const EXDEV = 18
const WRITES: readonly { op: Op; file: string }[] = [
  { op: { op: 'selinux', label: 'system_u:system_r:container_t:s0' }, file: 'exec' },
  { op: { op: 'keyring', name: '_ses.test', label: 'system_u:system_r:container_t:s0' }, file: 'keycreate' },
  {
    op: { op: 'apparmor', profile: 'no-such-profile' },
    file: existsSync('/proc/self/attr/apparmor/exec') ? 'apparmor/exec' : 'exec',
  },
]

describe('a label', needs('root', 'busybox', 'make', 'gcc'), () => {
  useRootfs()

  const stopsBefore = (write: Op): Op[] =>
    containerPlan(rootfs, { args: ['/bin/busybox', 'true'], inside: [{ op: 'sync', point: 1 }, write] })

  for (const { op, file } of WRITES) {
    test(`of ${op.op} is not written into what somebody mounts over its file (CVE-2025-52881, CVE-2025-62596)`, async () => {
      const decoy = join(rootfs.folder, 'decoy')
      writeFileSync(decoy, 'of the host')
      using run = new Run(stopsBefore(op))
      await run.until('reached')
      const target = `/proc/${run.pid}/attr/${file}`
      expect(spawnSync('mount', ['--bind', decoy, target], { encoding: 'utf8' })).toMatchObject({ status: 0 })
      try {
        run.status.write('x')
        await run.ended
      } finally {
        spawnSync('umount', [target])
      }
      expect(run.find('failed')).toMatchObject({ errno: EXDEV })
      expect(readFileSync(decoy, 'utf8')).toBe('of the host')
    })
  }

  test.for<Op>([
    { op: 'selinux', label: 'no_u:no_r:no_t:s0' },
    { op: 'keyring', name: '_ses.test', label: 'no_u:no_r:no_t:s0' },
  ])('is not written into a /proc that the container has made up (CVE-2019-16884): $op', async (op) => {
    const over = mount({ source: 'tmpfs', target: '/proc', fstype: 'tmpfs' })
    using run = new Run(containerPlan(rootfs, { args: ['/bin/busybox', 'true'], outside: [over], inside: [op] }))
    await run.ended
    const { errno, text } = run.find('failed') ?? {}
    expect(text).toMatch(/^apply selinux label/)
    // the kernel's own answer to a label that means nothing, where the made-up /proc would have had no such file
    expect(errno).not.toBe(ENOENT)
  })
})
