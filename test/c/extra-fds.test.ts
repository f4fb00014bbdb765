/**
 * The fds that a program gets besides its standard streams, and that it gets no others, whatever the runtime's
 * process had open.
 */
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Op } from '../../proto/init-plan.ts'
import { receiveFd, socketPair } from '../../runtime/sys/socket.ts'
import { needs } from '../support/needs.ts'
import { filterOf, RETURN } from './filter.ts'
import { containerPlan, make, Rootfs, Run, TS_INIT } from './run.ts'

const EBADF = 9
const LIST = 'cd /proc/self/fd; echo *' // the shell's own listing has no fd of its own by then

describe('a program', needs('root', 'busybox', 'make', 'gcc'), () => {
  let rootfs: Rootfs
  beforeAll(() => {
    make(TS_INIT)
    rootfs = new Rootfs()
  }, 120_000)
  afterAll(() => rootfs[Symbol.dispose]())

  /** `count` files that say which they are. */
  function files(count: number): number[] {
    return Array.from({ length: count }, (_, i) => {
      const path = join(rootfs.folder, `file-${i}`)
      writeFileSync(path, `${i}\n`)
      return openSync(path, 'r')
    })
  }

  function plan(script: string, fds: number, parts: { inside?: readonly Op[]; late?: readonly Op[] } = {}): Op[] {
    const whole = containerPlan(rootfs, { args: ['/bin/sh', '-c', script], ...parts })
    return whole.map((op) => (op.op === 'exec' ? { op: 'exec', fds } : op))
  }

  async function output(ops: readonly Op[], extra: readonly number[], enter: readonly string[] = []): Promise<string> {
    using run = new Run(ops, undefined, enter, extra)
    for (const fd of extra) closeSync(fd)
    await run.ended
    if (run.find('failed')) throw new Error(JSON.stringify(run.records))
    return await run.stdout
  }

  test.for([1, 2, 3, 4, 20])('finds its %d extra fds from 3 upwards, in their order', async (count) => {
    const numbers = Array.from({ length: count }, (_, i) => i + 3)
    // a shell redirects only from fds of one digit
    const read = numbers.map((fd) => `busybox cat /proc/self/fd/${fd}`).join('; ')
    const text = await output(plan(`${read}; ${LIST}`, count), files(count))
    // 255 or 10: where a shell keeps its script; here it has none
    const listed = text.split('\n')
    expect(listed.slice(0, count)).toEqual(numbers.map((fd) => `${fd - 3}`))
    expect(
      listed[count]
        ?.split(' ')
        .map(Number)
        .filter((fd) => fd <= count + 2),
    ).toHaveLength(count + 3)
  })

  test('has exactly those, and nothing else that was inherited', async () => {
    // stays open in the helper's parent without close-on-exec
    const leak = ['sh', '-c', 'exec 9</etc/passwd; exec "$0"']
    // the last number of each is the fd of ls itself
    expect(await output(plan('exec busybox ls /proc/self/fd', 2), files(2), leak)).toBe('0\n1\n2\n3\n4\n5\n')
    expect(await output(plan('exec busybox ls /proc/self/fd', 0), [], leak)).toBe('0\n1\n2\n3\n')
  })

  test('keeps nothing that was inherited while it waits for its start', async () => {
    const fifo = rootfs.fifo()
    const ops = containerPlan(rootfs, {
      args: ['/bin/id'],
      host: [{ op: 'open_fifo', path: fifo }],
      late: [{ op: 'ready' }, { op: 'await_start' }],
    })
    using run = new Run(ops, undefined, ['sh', '-c', 'exec 9</etc/passwd; exec "$0"'])
    await run.until('ready')
    const held = readdirSync(`/proc/${run.pid}/fd`).map((fd) => readlinkSync(`/proc/${run.pid}/fd/${fd}`))
    expect(held).toContain(fifo)
    expect(held).not.toContain('/etc/passwd')
  })

  test('has them alone: no hook before it sees them', async () => {
    const hook = {
      op: 'hook',
      name: 'createContainer',
      index: 0,
      env: [],
      timeout: 0,
      stateHead: '',
      stateTail: '',
    } as const
    const script = 'ls /proc/self/fd; exit 1'
    const ops = containerPlan(rootfs, {
      args: ['/bin/id'],
      outside: [{ ...hook, path: '/bin/sh', args: ['sh', '-c', script] }],
    }).map((op) => (op.op === 'exec' ? { ...op, fds: 4 } : op))
    const extra = files(4)
    using run = new Run(ops, undefined, [], extra)
    for (const fd of extra) closeSync(fd)
    await run.ended
    expect(run.find('failed')?.text).toMatch(/stdout: 0\\x0a1\\x0a2\\x0a3, stderr: $/) // 3 is ls itself
  })

  test('that cannot be given what it was promised does not start', async () => {
    const extra = files(1)
    using run = new Run(plan('id', 2), undefined, [], extra)
    for (const fd of extra) closeSync(fd)
    await run.ended
    expect(run.records).toEqual([
      {
        type: 'failed',
        value: 0xffffffff,
        errno: EBADF,
        text: 'fd 7 is not open, but the program is to have it',
      },
    ])
  })

  test('needs no console fd for that', async () => {
    expect(await output(plan('busybox cat <&4', 2), files(2), ['sh', '-c', 'exec "$0" 5<&-'])).toBe('1\n')
  })

  test('gets them behind a filter that allows no more than the end needs', async () => {
    const filter = filterOf({ fcntl: RETURN.kill, dup2: RETURN.kill, dup3: RETURN.kill })
    const late: Op[] = [{ op: 'seccomp', flags: 0, filter }]
    const whole = plan('', 2, { late }).map((op) =>
      op.op === 'program' ? { ...op, args: ['/bin/busybox', 'cat', '/proc/self/fd/4'] } : op,
    )
    expect(await output(whole, files(2))).toBe('1\n')
  })

  test('with a terminal has them too, and the master goes out on the console socket', async () => {
    const { ours, theirs } = socketPair()
    const inside: Op[] = [{ op: 'terminal', width: 0, height: 0, uid: 0, console: 0, bareNewlines: 0 }]
    const extra = files(3)
    const ops = plan(`busybox cat <&5; ${LIST}`, 3, { inside }).filter(({ op }) => op !== 'stdio_owner')
    using run = new Run(ops, theirs.fd, [], extra)
    theirs.close()
    for (const fd of extra) closeSync(fd)
    await run.ended
    expect(run.find('failed')).toBeUndefined()
    const master = receiveFd(ours.fd)
    ours.close()
    if (master === undefined) throw new Error('no master')
    await run.exit()
    const bytes = Buffer.alloc(4096)
    expect(bytes.toString('utf8', 0, readSync(master.fd, bytes))).toMatch(/^2\r\n/)
    master.close()
  })

  test('waits for its start with them open and is named once it runs', async () => {
    using own = new Rootfs()
    const fifo = own.fifo()
    const extra = files(1)
    const whole = containerPlan(own, {
      args: ['/bin/sh', '-c', 'busybox cat <&3'],
      host: [{ op: 'open_fifo', path: fifo }],
      late: [{ op: 'ready' }, { op: 'await_start' }],
    })
    using run = new Run(
      whole.map((op) => (op.op === 'exec' ? { op: 'exec', fds: 1 } : op)),
      undefined,
      [],
      extra,
    )
    for (const fd of extra) closeSync(fd)
    await run.until('ready')
    const flags = readFileSync(`/proc/${run.pid}/fdinfo/3`, 'utf8').match(/^flags:\s*(\d+)$/m)?.[1]
    expect(Number.parseInt(flags ?? '0', 8) & 0o2000000).toBe(0) // no close-on-exec
    await run.start(fifo)
    expect(await run.stdout).toBe('0\n')
  })
})
