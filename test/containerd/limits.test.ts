/**
 * What `ctr run` limits and allows: cgroup files, where the cgroup lies, what a container sees of it, and which
 * devices it may use.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { type Containers, expect, test } from '../support/containerd.ts'
import { isCgroup2, needs } from '../support/needs.ts'
import { BIN } from '../support/places.ts'
import { writeSpec } from '../support/spec.ts'

const sh = (script: string): string[] => ['sh', '-c', script]

/** Reads a cgroup file of a running container from the host: v1 below its controller, v2 in the one tree. */
function cgroupFile(ct: Containers, id: string, v1: `${string}/${string}`, v2: string): string {
  const [controller, file] = v1.split('/')
  const path = isCgroup2()
    ? join('/sys/fs/cgroup', ct.daemon.namespace, id, v2)
    : join('/sys/fs/cgroup', controller!, ct.daemon.namespace, id, file!)
  return readFileSync(path, 'utf8').trim()
}

describe('ctr run', needs('root', 'containerd', 'busybox'), () => {
  test('--device makes a device node that works', async ({ ct }) => {
    const { stdout } = await ct.run(
      ['--device', '/dev/fuse'],
      sh('ls -l /dev/fuse | cut -c1; stat -c "%t:%T" /dev/fuse'),
    )
    expect(stdout).toBe('c\na:e5\n')
  })

  test('the default devices are there and others may not be opened', async ({ ct }) => {
    const { stdout } = await ct.run(
      ['--cap-add', 'CAP_MKNOD'],
      sh(
        'head -c 4 /dev/zero | od -An -tx1; echo x >/dev/null; ls -l /dev/ptmx /dev/stdin /dev/fd | wc -l; mknod /dev/mem2 c 1 1 && head -c1 /dev/mem2 2>&1',
      ),
    )
    expect(stdout).toContain('00 00 00 00')
    expect(stdout).toContain('Operation not permitted')
  })

  test('--memory-limit sets the limit', needs('memory controller'), async ({ ct }) => {
    const id = await ct.detached(['--memory-limit', '67108864'])
    expect(cgroupFile(ct, id, 'memory/memory.limit_in_bytes', 'memory.max')).toBe('67108864')
  })

  test('--cpus, and --cpu-quota with --cpu-period, set the bandwidth', needs('memory controller'), async ({ ct }) => {
    const half = await ct.detached(['--cpus', '0.5'])
    const quota = await ct.detached(['--cpu-quota', '30000', '--cpu-period', '60000'])
    const read = (id: string): string =>
      isCgroup2()
        ? cgroupFile(ct, id, 'cpu/x', 'cpu.max')
        : `${cgroupFile(ct, id, 'cpu/cpu.cfs_quota_us', '')} ${cgroupFile(ct, id, 'cpu/cpu.cfs_period_us', '')}`
    expect([read(half), read(quota)]).toEqual(['50000 100000', '30000 60000'])
  })

  test('--cpu-shares sets the weight', needs('memory controller'), async ({ ct }) => {
    const id = await ct.detached(['--cpu-shares', '512'])
    expect(cgroupFile(ct, id, 'cpu/cpu.shares', 'cpu.weight')).toBe(isCgroup2() ? '59' : '512')
  })

  test('--cgroup places the container', async ({ ct }) => {
    const path = `/${ct.daemon.namespace}/placed`
    const { stdout } = await ct.run(['--cgroup', path], ['sleep', '0'])
    expect(stdout).toBe('')
    const id = await ct.detached(['--cgroup', path])
    const { pid } = (await ct.task(id))!
    expect(readFileSync(`/proc/${pid}/cgroup`, 'utf8')).toContain(`${path}\n`)
  })

  test('--cgroup "" leaves the container where containerd put the shim', async ({ ct }) => {
    expect(await ct.run(['--cgroup', ''], ['payload', 'exit', '4'])).toMatchObject({ code: 4 })
  })

  test('mounts a cgroup view in a cgroup namespace', async ({ ct }) => {
    const result = await ct.ctr(
      ...ct.configArgs(['--rm'], ct.id(), sh('cat /proc/self/cgroup; ls /sys/fs/cgroup | wc -l'), (spec) => {
        spec.linux.namespaces.push({ type: 'cgroup' })
        spec.mounts.push({
          destination: '/sys/fs/cgroup',
          type: 'cgroup',
          source: 'cgroup',
          options: ['ro', 'nosuid', 'noexec', 'nodev'],
        })
      }),
    )
    expect(result.code, result.stderr).toBe(0)
    const lines = result.stdout.trim().split('\n')
    expect(Number(lines.pop())).toBeGreaterThan(3)
    for (const line of lines.filter((text) => /:(memory|pids|freezer|):/.test(text))) expect(line).toMatch(/:\/$/)
  })
})

test(
  'a container, an exec and a hook have the soft limit of open files that the daemon’s children have, not Node’s',
  needs('root', 'containerd', 'busybox', 'our shim'),
  async ({ ct }) => {
    const runtime = join(ct.folder, 'containerd-shim-limited-v2')
    writeFileSync(runtime, `#!/bin/sh\nulimit -Sn 321\nexec '${BIN}/containerd-shim-ts-v2' "$@"\n`, { mode: 0o755 })
    const [hook, out] = [join(ct.folder, 'hook'), join(ct.folder, 'hook.out')]
    writeFileSync(hook, `#!/bin/sh\nulimit -Sn >>'${out}'\n`, { mode: 0o755 })
    const id = ct.id()
    const config = writeSpec(ct.folder, ['sleep', '1000'], (spec) => {
      spec.hooks = { createRuntime: [{ path: hook }] }
    })
    await ct.ok('run', '-d', '--null-io', '--runtime', runtime, '--config', config, id)
    expect(readFileSync(`/proc/${(await ct.task(id))!.pid}/limits`, 'utf8')).toMatch(/^Max open files +321 /m)
    expect((await ct.exec(id, ['payload', 'limits'])).stdout).toMatch(/^nofile 321 /)
    expect(readFileSync(out, 'utf8')).toBe('321\n')
  },
)
