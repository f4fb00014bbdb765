/** Which cgroup a further process joins, on folders that look like cgroups. */
import { expect, test } from 'vitest'
import { Cgroup } from '../../../runtime/cgroup/cgroup.ts'
import { execJoin } from '../../../runtime/cgroup/exec-join.ts'
import { getpid } from '../../../runtime/sys/libc.ts'

const v1 = Cgroup.load({
  cpu: '/sys/fs/cgroup/cpu,cpuacct/x/c',
  cpuacct: '/sys/fs/cgroup/cpu,cpuacct/x/c',
  pids: '/sys/fs/cgroup/pids/x/c',
})
const v2 = Cgroup.load({ '': '/sys/fs/cgroup/x/c' })

test('without sub-cgroups a process joins the container on v1', () => {
  expect(execJoin(v1, getpid())).toEqual(v1.join())
})

test.each([
  ['a controller that the container has not', v1, { memory: 'a' }, 'unknown controller memory'],
  ['a controller on v2', v2, { cpu: 'a' }, 'unknown controller cpu'],
  ['a way out', v1, { pids: '../d' }, 'bad sub cgroup path: ../d'],
  ['a way out that begins like the container', v1, { pids: '../cc' }, 'bad sub cgroup path: ../cc'],
  ['a way out on v2', v2, { '': 'a/../../d' }, 'bad sub cgroup path: a/../../d'],
  ['what is not there', v1, { pids: 'a' }, 'open /sys/fs/cgroup/pids/x/c/a/cgroup.procs: no such file or directory'],
  ['what is not there, for all', v2, { '': 'a' }, 'open /sys/fs/cgroup/x/c/a/cgroup.procs: no such file or directory'],
])('%s is refused as runc refuses it', (_, cgroup, subs: Record<string, string>, reason) => {
  expect(() => execJoin(cgroup, getpid(), subs)).toThrow(`error adding pid to cgroups: ${reason}`)
})
