/**
 * The container process's share of the machine, as ts-init sets it and the kernel shows it: scheduler, i/o, memory
 * nodes, processors.
 */
import { execFileSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { describe, expect, test } from 'vitest'
import type { Op } from '../../proto/init-plan.ts'
import { needs } from '../support/needs.ts'
import { containerPlan, type Parts, Rootfs, Run } from './run.ts'
import { rootfs, useRootfs } from './shared-rootfs.ts'

const EINVAL = 22
const SCHED = { other: 0, fifo: 1, batch: 3, deadline: 6 }
const MPOL = { default: 0, bind: 2, interleave: 3 }
const IOPRIO_BE = 2
type Scheduler = Extract<Op, { op: 'scheduler' }>

const scheduler = (change: Partial<Scheduler>): Op => ({
  op: 'scheduler',
  policy: SCHED.other,
  flags: 0n,
  nice: 0,
  priority: 0,
  runtime: 0n,
  deadline: 0n,
  period: 0n,
  ...change,
})

describe('the container process', needs('root', 'busybox', 'make', 'gcc'), () => {
  useRootfs()

  async function output(script: string, parts: Partial<Parts>): Promise<string> {
    using run = new Run(containerPlan(rootfs, { args: ['/bin/sh', '-c', script], ...parts }))
    await run.ended
    if (run.find('failed')) throw new Error(JSON.stringify(run.records))
    return await run.stdout
  }

  async function failure(inside: readonly Op[]) {
    using run = new Run(containerPlan(rootfs, { args: ['/bin/id'], inside }))
    await run.ended
    return run.find('failed')
  }

  const sched = (pid: number | string) => execFileSync('chrt', ['-p', String(pid)], { encoding: 'utf8' })

  /** Runs a container that waits at its fifo while it is looked at from outside. */
  async function created<T>(inside: readonly Op[], look: (pid: number) => T): Promise<T> {
    using own = new Rootfs()
    const host: Op[] = [{ op: 'open_fifo', path: own.fifo() }]
    const late: Op[] = [{ op: 'ready' }, { op: 'await_start' }]
    using run = new Run(containerPlan(own, { args: ['/bin/id'], host, inside, late }))
    await run.until('ready')
    return look(run.pid)
  }

  test('has its scheduling policy and nice value', async () => {
    const [policy, nice] = await created([scheduler({ policy: SCHED.batch, nice: 19 })], (pid) => [
      sched(pid),
      execFileSync('ps', ['-o', 'ni=', '-p', String(pid)], { encoding: 'utf8' }).trim(),
    ])
    expect(policy).toContain('SCHED_BATCH')
    expect(nice).toBe('19')
  })

  test('has its deadline, with its flags', async () => {
    const wanted = scheduler({
      policy: SCHED.deadline,
      flags: 1n,
      runtime: 1_000_000n,
      deadline: 10_000_000n,
      period: 20_000_000n,
    })
    const text = await created([wanted], sched)
    expect(text).toContain('SCHED_DEADLINE|SCHED_RESET_ON_FORK')
    expect(text).toContain('1000000/10000000/20000000')
  })

  test('is not started with a scheduler that the kernel refuses', async () => {
    expect(await failure([scheduler({ policy: SCHED.fifo, priority: 1000 })])).toMatchObject({
      errno: EINVAL,
      text: 'set scheduler policy 1',
    })
  })

  test('has its i/o priority', async () => {
    const value = (IOPRIO_BE << 13) | 6
    const text = await created([{ op: 'io_priority', value }], (pid) =>
      execFileSync('ionice', ['-p', String(pid)], { encoding: 'utf8' }),
    )
    expect(text.trim()).toBe('best-effort: prio 6')
    expect(await failure([{ op: 'io_priority', value: 7 << 13 }])).toMatchObject({
      errno: EINVAL,
      text: 'set i/o priority 0xe000',
    })
  })

  test('has its memory policy', async () => {
    const policy = (mode: number, ...nodes: number[]): Op => ({ op: 'memory_policy', mode, nodes: Buffer.from(nodes) })
    const read = 'busybox head -n1 /proc/self/numa_maps | busybox cut -d" " -f2'
    expect(await output(read, { inside: [policy(MPOL.interleave, 1)] })).toBe('interleave:0\n')
    // MPOL_F_STATIC_NODES
    expect(await output(read, { inside: [policy(MPOL.bind | 0x8000, 1)] })).toBe('bind=static:0\n')
    expect(await output(read, { inside: [policy(MPOL.default)] })).toBe('default\n')
  })

  test('is not started with memory nodes that do not exist', async () => {
    const nodes = [Buffer.from([0, 0, 0, 0, 0, 0, 0, 0x80]), Buffer.alloc(8192, 0xff), Buffer.alloc(9000, 1)]
    for (const mask of nodes) {
      expect(await failure([{ op: 'memory_policy', mode: MPOL.bind, nodes: mask }])).toMatchObject({
        errno: EINVAL,
        text: 'set memory policy 0x2',
      })
    }
  })

  describe('on its processors', () => {
    const read = 'busybox grep Cpus_allowed_list /proc/self/status | busybox cut -f2'
    const mask = (...bytes: number[]) => Buffer.from(bytes)

    test('inherits the initial ones from stage 0', async () => {
      expect(await output(read, { host: [{ op: 'initial_affinity', mask: mask(1) }] })).toBe('0\n')
    })

    test('has the final ones, and all of them where none are named', async () => {
      const host: Op[] = [{ op: 'initial_affinity', mask: mask(1) }]
      const all = (await output(read, { host, inside: [{ op: 'affinity', mask: mask() }] })).trim()
      expect(all).not.toBe('0')
      expect(all).toBe((await output(read, {})).trim())
      const last = availableParallelism() - 1
      const inside: Op[] = [{ op: 'affinity', mask: Buffer.from([(1 << last) & 255]) }]
      expect(await output(read, { host, inside })).toBe(`${last}\n`)
    })

    test('is not started when the kernel has none of them', async () => {
      expect(await failure([{ op: 'affinity', mask: Buffer.concat([Buffer.alloc(512), mask(1)]) }])).toMatchObject({
        errno: EINVAL,
        text: 'set CPU affinity',
      })
    })
  })

  test('is not started without the label that its keyring should have', async () => {
    const plan = containerPlan(rootfs, { args: ['/bin/id'], inside: [] })
    const at = plan.findIndex(({ op }) => op === 'session') + 1
    plan.splice(at, 0, { op: 'keyring', name: '_ses.test', label: 'system_u:object_r:container_t:s0' })
    using run = new Run(plan)
    await run.ended
    // a host with SELinux knows the label or says why not
    const text = run.find('failed')?.text
    if (text !== undefined) expect(text).toMatch(/^apply selinux label "system_u:.*" to session keyring "_ses.test"$/)
  })
})
