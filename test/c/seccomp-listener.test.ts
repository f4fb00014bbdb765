/** A filter that hands system calls to an agent: how the listener leaves ts-init, and what stays behind of that. */
import { existsSync, readdirSync, readlinkSync, statSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { Op } from '../../proto/init-plan.ts'
import { OwnedFd } from '../../runtime/sys/fd.ts'
import { declare, ioctl } from '../../runtime/sys/libc.ts'
import { openProcess, pollReadable, processStat } from '../../runtime/sys/pids.ts'
import { needs } from '../support/needs.ts'
import { filterOf, RETURN } from './filter.ts'
import { containerPlan, type Parts, Rootfs, Run } from './run.ts'
import { rootfs, useRootfs } from './shared-rootfs.ts'

const NEW_LISTENER = 8
const WAIT_KILLABLE_RECV = 0x20
const SYS_PIDFD_GETFD = 438
const NOTIF_RECV = 0xc0502100
const NOTIF_SEND = 0xc0182101
const NOTIF_CONTINUE = 1
const EPERM = 1
const SIGILL = 4
const syscall = declare('long syscall(long number, long a, long b, long c)')

/** Takes the listener out of the container process, as the runtime does. */
function takeListener(run: Run): OwnedFd {
  const stat = processStat(run.pid)
  const pidfd = stat === undefined ? undefined : openProcess(run.pid, stat.startTime)
  if (pidfd === undefined) throw new Error('the container process is gone')
  using process = pidfd
  const fd = syscall(SYS_PIDFD_GETFD, process.fd, run.find('listener')?.value ?? -1, 0)
  if (fd < 0) throw new Error('pidfd_getfd failed')
  return new OwnedFd(fd)
}

/** Answers the next call that is handed over: with an errno, or 0 to let it go on. Returns its number. */
async function answer(listener: OwnedFd, errno: number): Promise<number> {
  expect(await pollReadable([listener.fd], 10_000)).toEqual([0])
  const request = Buffer.alloc(80)
  ioctl(listener.fd, NOTIF_RECV, request)
  const reply = Buffer.alloc(24)
  request.copy(reply, 0, 0, 8)
  reply.writeInt32LE(-errno, 16)
  reply.writeUInt32LE(errno === 0 ? NOTIF_CONTINUE : 0, 20)
  ioctl(listener.fd, NOTIF_SEND, reply)
  return request.readInt32LE(16)
}

describe('a seccomp listener', needs('root', 'busybox', 'make', 'gcc'), () => {
  useRootfs()

  const listen = (calls: readonly string[], flags = 0): Op => ({
    op: 'seccomp',
    flags: NEW_LISTENER | flags,
    filter: filterOf(Object.fromEntries(calls.map((name) => [name, RETURN.notify]))),
  })
  const mkdir = ['/bin/sh', '-c', 'busybox mkdir /tmp/made && echo made; echo done']
  const plan = (parts: Partial<Parts>) => containerPlan(rootfs, { args: mkdir, ...parts })

  test.for([0, WAIT_KILLABLE_RECV])('answers for the program (flags %i)', async (flags) => {
    using run = new Run(plan({ late: [listen(['mkdir', 'mkdirat'], flags)] }))
    await run.until('listener')
    using listener = takeListener(run)
    run.status.write('c')
    await answer(listener, EPERM)
    expect(await run.stdout).toBe('done\n')
    expect(await run.stderr).toMatch(/mkdir.*Operation not permitted/)
    expect(existsSync(`${rootfs.path}/tmp/made`)).toBe(false)
  })

  test('is not kept by the process that it watches', async () => {
    using own = new Rootfs()
    const late: Op[] = [listen(['mkdirat']), { op: 'ready' }, { op: 'await_start' }]
    using run = new Run(containerPlan(own, { args: ['/bin/id'], host: [{ op: 'open_fifo', path: own.fifo() }], late }))
    await run.until('listener')
    const links = () => readdirSync(`/proc/${run.pid}/fd`).map((fd) => readlinkSync(`/proc/${run.pid}/fd/${fd}`))
    expect(links()).toContain('anon_inode:seccomp notify')
    using listener = takeListener(run)
    run.status.write('c')
    await run.until('ready')
    await run.ended
    expect(links()).not.toContain('anon_inode:seccomp notify')
    expect(listener.fd).toBeGreaterThan(0)
  })

  test('may be asked about every call but write, from the answer of the runtime to execve', async () => {
    const late = [listen(['read', 'close', 'close_range', 'execve', 'openat', 'mkdir', 'mkdirat', 'prctl'])]
    using run = new Run(plan({ args: ['/bin/busybox', 'echo', 'ran'], late }))
    await run.until('listener')
    using listener = takeListener(run)
    run.status.write('c')
    let asked = 0
    for (let open = true; open; ) {
      // the listener is also ready when nobody is left that it watches
      open = await answer(listener, 0).then(
        () => true,
        () => false,
      )
      asked += open ? 1 : 0
    }
    expect(asked).toBeGreaterThan(2)
    expect(await run.stdout).toBe('ran\n')
  })

  test('that nobody takes ends the process, without a program, even if it is to be asked about the end', async () => {
    using run = new Run(plan({ late: [listen(['mkdirat', 'close', 'exit', 'exit_group'])] }))
    await run.until('listener')
    run.status.end()
    expect(await run.stdout).toBe('')
    expect(await run.exit()).toMatchObject({ signal: SIGILL })
  })

  describe('leaves the process undumpable', () => {
    const without = ['setpriv', '--bounding-set=-sys_ptrace', '--inh-caps=-sys_ptrace']

    /**
     * Who owns the files of /proc/PID while the listener is taken, and when the program is about to run: its user
     * where it is dumpable, else root.
     */
    async function owners(enter: readonly string[], start: boolean): Promise<number[]> {
      using own = new Rootfs()
      const path = own.fifo()
      const host: Op[] = start ? [{ op: 'open_fifo', path }] : []
      const late: Op[] = [
        listen(['mkdirat']),
        ...(start ? ([{ op: 'ready' }, { op: 'await_start' }] as const) : ([{ op: 'sync', point: 1 }] as const)),
      ]
      using run = new Run(containerPlan(own, { args: ['/bin/id'], uid: 1000, host, late }), undefined, enter)
      await run.until('listener')
      const taking = statSync(`/proc/${run.pid}/environ`).uid
      using listener = takeListener(run)
      run.status.write('c')
      await run.until(start ? 'ready' : 'reached')
      expect(listener.fd).toBeGreaterThan(0)
      return [taking, statSync(`/proc/${run.pid}/environ`).uid]
    }

    test('for a runtime that may trace it anyway', async () => {
      expect(await owners([], true)).toEqual([0, 0])
    })

    test('again, as soon as a runtime without that privilege has taken it', async () => {
      expect(await owners(without, false)).toEqual([1000, 0])
    })

    test('but where it waits for its start, because such a runtime may have to look at its namespaces', async () => {
      expect(await owners(without, true)).toEqual([1000, 1000])
    })
  })
})
