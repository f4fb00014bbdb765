/**
 * Where ts-init puts a container process: a user namespace of its own, the namespaces of others that it joins, and
 * cgroups.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { Op } from '../../proto/init-plan.ts'
import { needs } from '../support/needs.ts'
import { CONTAINER_FLAGS, containerPlan, credentials, Rootfs, Run, USER_FLAG } from './run.ts'
import { failure, rootfs, useRootfs } from './shared-rootfs.ts'

const ENOENT = 2
const ESRCH = 3
const EINVAL = 22
describe('ts-init', needs('root', 'busybox', 'make', 'gcc'), () => {
  useRootfs()

  describe('a user namespace', () => {
    const clone = { flags: CONTAINER_FLAGS | USER_FLAG, uidMap: '0 100000 65536\n', gidMap: '0 100000 65536\n' }

    test('is mapped before anything runs in it', async () => {
      using own = new Rootfs()
      spawnSync('chown', ['-R', '100000:100000', own.path])
      spawnSync('chmod', ['755', own.folder])
      const script =
        'busybox id; cat /proc/self/uid_map; busybox stat -c %u /bin/busybox; echo ok > /dev/null && echo null'
      using run = new Run(containerPlan(own, { args: ['/bin/sh', '-c', script], clone }))
      await run.ended
      expect(run.find('failed')).toBeUndefined()
      expect(await run.stdout).toMatch(/^uid=0\(root\) gid=0\n\s+0\s+100000\s+65536\n0\nnull\n$/)
    })

    test('refuses a uid that it does not map', async () => {
      using own = new Rootfs()
      spawnSync('chown', ['-R', '100000:100000', own.path])
      spawnSync('chmod', ['755', own.folder])
      using run = new Run(
        containerPlan(own, { args: ['/bin/id'], uid: 70000, clone: { ...clone, gidMap: '0 100000 80000\n' } }),
      )
      await run.ended
      expect(run.find('failed')).toMatchObject({
        errno: EINVAL,
        text: 'cannot setuid to unmapped uid 70000 in user namespace',
      })
    })

    test('with maps that the kernel refuses fails once, at the clone', async () => {
      using run = new Run(containerPlan(rootfs, { args: ['/bin/id'], clone: { ...clone, uidMap: 'nonsense\n' } }))
      await run.ended
      expect(run.records.filter(({ type }) => type === 'failed')).toEqual([
        { type: 'failed', value: 0, errno: EINVAL, text: "write the container's uid_map" },
      ])
      expect(await run.stage0).toBe(1)
    })
  })

  describe('joining', () => {
    const startTime = (pid: number) =>
      BigInt(
        readFileSync(`/proc/${pid}/stat`, 'utf8')
          .replace(/^.*\) /s, '')
          .split(' ')[19] ?? '0',
      )
    const execPlan = (pid: number, start: bigint, flags: bigint, args: readonly string[]): Op[] => [
      { op: 'join_process', pid, startTime: start, flags },
      { op: 'clone', flags: 0n, uidMap: '', gidMap: '', runtimeMaps: 0 },
      { op: 'session', becomeRoot: (flags & USER_FLAG) === 0n ? 0 : 1 },
      { op: 'chdir', path: '/tmp', tolerant: 1 },
      credentials(0),
      { op: 'program', args, env: ['PATH=/bin'], uid: 0 },
      { op: 'exec', fds: 0 },
    ]
    const script =
      "echo $(busybox hostname) $PWD $(busybox awk '/^NSpid/ { print NF }' /proc/self/status); echo /proc/self/fd/*; busybox ls -d /proc/1"

    test.for([
      ['', {}],
      [
        ' with a user namespace',
        { flags: CONTAINER_FLAGS | USER_FLAG, uidMap: '0 100000 65536\n', gidMap: '0 100000 65536\n' },
      ],
    ] as const)('a process by its pid runs a program in its container%s', async ([, clone]) => {
      using own = new Rootfs()
      spawnSync('chmod', ['755', own.folder])
      spawnSync('chown', ['-R', '100000:100000', own.path])
      using run = new Run(containerPlan(own, { args: ['/bin/sleep', '60'], clone }))
      await run.ended
      const flags = 'flags' in clone ? clone.flags : CONTAINER_FLAGS
      using exec = new Run(execPlan(run.pid, startTime(run.pid), flags, ['/bin/sh', '-c', script]))
      await exec.ended
      expect(exec.find('failed')).toBeUndefined()
      expect(await exec.stdout).toBe(
        'inside /tmp 2\n/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3\n/proc/1\n',
      )
      expect(await exec.exit()).toEqual({ code: 0, signal: 0 })
    })

    test('refuses a pid whose start time is another', async () => {
      using run = new Run(containerPlan(rootfs, { args: ['/bin/sleep', '60'] }))
      await run.ended
      using exec = new Run(execPlan(run.pid, startTime(run.pid) + 1n, CONTAINER_FLAGS, ['/bin/id']))
      await exec.ended
      expect(exec.records).toEqual([
        { type: 'failed', value: 0, errno: ESRCH, text: `join the namespaces of process ${run.pid}` },
      ])
    })

    test('namespaces by path, the user namespace in between', async () => {
      using own = new Rootfs()
      spawnSync('chmod', ['755', own.folder])
      spawnSync('chown', ['-R', '100000:100000', own.path])
      const clone = { flags: CONTAINER_FLAGS | USER_FLAG, uidMap: '0 100000 65536\n', gidMap: '0 100000 65536\n' }
      using run = new Run(containerPlan(own, { args: ['/bin/sleep', '60'], clone }))
      await run.ended
      const open = (name: string, type: bigint): Op => ({ op: 'open_ns', path: `/proc/${run.pid}/ns/${name}`, type })
      const plan: Op[] = [
        open('mnt', 0x20000n),
        open('user', USER_FLAG),
        open('net', 0x40000000n),
        open('uts', 0x4000000n),
        open('pid', 0x20000000n),
        { op: 'join' },
      ]
      using exec = new Run([...plan, ...execPlan(1, 0n, USER_FLAG, ['/bin/sh', '-c', script]).slice(1)])
      await exec.ended
      expect(exec.find('failed')).toBeUndefined()
      expect(await exec.stdout).toMatch(/^inside \/tmp 2\n/)
    })

    test('refuses a namespace of another type', async () => {
      using exec = new Run([
        { op: 'open_ns', path: '/proc/self/ns/net', type: 0x4000000n },
        { op: 'join' },
        ...execPlan(1, 0n, 0n, ['/bin/id']).slice(1),
      ])
      await exec.ended
      expect(exec.find('failed')).toMatchObject({ errno: EINVAL, text: 'join namespace "/proc/self/ns/net"' })
    })
  })

  describe('cgroups', () => {
    test('of version 1 are joined by their tasks files', needs('cgroup1'), async () => {
      const folder = `/sys/fs/cgroup/pids/ts-init-test-${rootfs.folder.slice(-6)}`
      mkdirSync(folder)
      const host: Op[] = [{ op: 'cgroup_tasks', path: `${folder}/tasks` }]
      {
        using run = new Run(containerPlan(rootfs, { args: ['/bin/sleep', '60'], host, late: [{ op: 'wait_cgroup' }] }))
        await run.ended
        expect(run.find('failed')).toBeUndefined()
        expect(readFileSync(`${folder}/cgroup.procs`, 'utf8')).toBe(`${run.pid}\n`)
        process.kill(run.pid, 'SIGKILL')
        await run.exit()
      }
      spawnSync('rmdir', [folder])
    })

    test('of version 2 are entered from a joined user namespace too', async () => {
      const top = existsSync('/sys/fs/cgroup/unified') ? '/sys/fs/cgroup/unified' : '/sys/fs/cgroup'
      if (!existsSync(`${top}/cgroup.procs`)) return
      using own = new Rootfs()
      spawnSync('chmod', ['755', own.folder])
      spawnSync('chown', ['-R', '100000:100000', own.path])
      const folder = `${top}/ts-init-test-${own.folder.slice(-6)}`
      mkdirSync(folder)
      {
        const clone = { flags: CONTAINER_FLAGS | USER_FLAG, uidMap: '0 100000 65536\n', gidMap: '0 100000 65536\n' }
        using holder = new Run(containerPlan(own, { args: ['/bin/sleep', '60'], clone }))
        await holder.ended
        const plan: Op[] = [
          { op: 'cgroup_dir', path: folder },
          { op: 'open_ns', path: `/proc/${holder.pid}/ns/user`, type: USER_FLAG },
          { op: 'open_ns', path: `/proc/${holder.pid}/ns/mnt`, type: 0x20000n },
          { op: 'join' },
          { op: 'clone', flags: 0n, uidMap: '', gidMap: '', runtimeMaps: 0 },
          { op: 'session', becomeRoot: 1 },
          { op: 'wait_cgroup' },
          { op: 'program', args: ['/bin/sleep', '60'], env: [], uid: 0 },
          { op: 'exec', fds: 0 },
        ]
        using run = new Run(plan)
        await run.ended
        expect(run.find('failed')).toBeUndefined()
        expect(readFileSync(`${folder}/cgroup.procs`, 'utf8')).toBe(`${run.pid}\n`)
        process.kill(run.pid, 'SIGKILL')
        await run.exit()
      }
      spawnSync('rmdir', [folder])
    })

    test('of version 2 are entered by the clone', async () => {
      const top = existsSync('/sys/fs/cgroup/unified') ? '/sys/fs/cgroup/unified' : '/sys/fs/cgroup'
      if (!existsSync(`${top}/cgroup.procs`)) return
      const folder = `${top}/ts-init-test-${rootfs.folder.slice(-6)}`
      mkdirSync(folder)
      const host: Op[] = [{ op: 'cgroup_dir', path: folder }]
      {
        using run = new Run(containerPlan(rootfs, { args: ['/bin/sleep', '60'], host, late: [{ op: 'wait_cgroup' }] }))
        await run.ended
        expect(run.find('failed')).toBeUndefined()
        expect(readFileSync(`${folder}/cgroup.procs`, 'utf8')).toBe(`${run.pid}\n`)
        process.kill(run.pid, 'SIGKILL')
        await run.exit()
      }
      spawnSync('rmdir', [folder])
    })

    test('that are missing fail before the clone', async () => {
      const bad = await failure({
        args: ['/bin/id'],
        host: [{ op: 'cgroup_dir', path: '/sys/fs/cgroup/none' }],
        late: [{ op: 'wait_cgroup' }],
      })
      expect(bad).toMatchObject({ op: 'cgroup_dir', errno: ENOENT, text: 'open cgroup "/sys/fs/cgroup/none"' })
    })
  })
})
