/**
 * Every process of a run ends when the processes that it waits for end, wherever it waits. None has to be killed.
 * The processes of a run have an environment variable that tells them from others, until the program runs.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test, vi } from 'vitest'
import { FAILURES, MOUNT_HOW, type Op } from '../../proto/init-plan.ts'
import { isAlive } from '../support/census.ts'
import { needs } from '../support/needs.ts'
import { filterOf, RETURN } from './filter.ts'
import { CONTAINER_FLAGS, containerPlan, mount, type Parts, Rootfs, Run } from './run.ts'
import { rootfs, useRootfs } from './shared-rootfs.ts'

const [EPERM, EPIPE] = [1, 32]
const PID_FLAG = 0x20000000n
let runs = 0

/** A run whose processes can be found by their mark. */
class Marked extends Run {
  readonly #mark: string

  constructor(plan: (mark: string) => readonly Op[]) {
    const mark = `TS_INIT_RUN=${process.pid}-${runs++}`
    super(plan(mark), undefined, ['env', '-i', mark])
    this.#mark = mark
  }

  /** Those that run, zombies left out. */
  processes(): number[] {
    const marked = (pid: string): boolean => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(this.#mark)
      } catch {
        return false // gone meanwhile
      }
    }
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && marked(name))
      .map(Number)
  }

  /** Waits until exactly these run, by the names that the kernel has for them. */
  async untilRunning(...names: string[]): Promise<void> {
    const running = () =>
      this.processes()
        .map((pid) => readFileSync(`/proc/${pid}/comm`, { encoding: 'utf8' }).trim())
        .sort()
    await vi.waitFor(() => expect(running()).toEqual([...names].sort()), { timeout: 10_000, interval: 5 })
  }

  /** Stage 0, our child as the container side is, and the host agent, which is the child of stage 0. */
  helpers(): { stage0: number; agent: number } {
    const others = this.processes().filter((pid) => pid !== this.pid)
    const parents = new Map(others.map((pid) => [pid, parentOf(pid)]))
    const stage0 = others.find((pid) => parents.get(pid) === process.pid)
    const agent = others.find((pid) => parents.get(pid) === stage0)
    if (stage0 === undefined || agent === undefined) throw new Error(`stage 0 or the agent is missing: ${others}`)
    return { stage0, agent }
  }

  override [Symbol.dispose](): void {
    super[Symbol.dispose]()
    for (const pid of this.processes()) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // it was about to end
      }
    }
  }
}

function parentOf(pid: number): number {
  return Number(/^PPid:\t(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
}

describe('a run', needs('root', 'busybox', 'make', 'gcc'), () => {
  useRootfs()

  const plan = (parts: Partial<Parts>) => containerPlan(rootfs, { args: ['/bin/id'], ...parts })
  const hook = (name: string, script: string, mark: string): Op => ({
    op: 'hook',
    name,
    index: 0,
    path: '/bin/busybox',
    args: ['sh', '-c', script],
    env: [mark, 'PATH=/bin'],
    timeout: 0,
    stateHead: '',
    stateTail: '',
  })

  describe('that the runtime hangs up on ends', () => {
    test('at a sync point, the host agent with it', async () => {
      const parts = { host: [{ op: 'host_agent' } as const], outside: [{ op: 'sync', point: 1 } as const, hostMount()] }
      using run = new Marked(() => plan(parts))
      await run.until('reached')
      run.status.end()
      await run.untilRunning()
    })

    test('in a hook, which is killed', async () => {
      using own = new Rootfs()
      const host: Op[] = [{ op: 'open_fifo', path: own.fifo() }]
      const ops = (mark: string) => [hook('createContainer', '/bin/sleep 1000 & wait', mark)]
      using run = new Marked((mark) => plan({ host, outside: ops(mark) }))
      await run.until('child')
      await run.untilRunning('ts-init', 'busybox', 'sleep')
      run.status.end()
      await run.untilRunning()
      expect(run.records).toEqual([{ type: 'child', value: run.pid }])
    })
  })

  test('that is killed in a hook takes that along, also without a pid namespace', async () => {
    using own = new Rootfs()
    const host: Op[] = [{ op: 'open_fifo', path: own.fifo() }]
    const clone = { flags: CONTAINER_FLAGS & ~PID_FLAG }
    using run = new Marked((mark) =>
      plan({ host, clone, outside: [hook('createContainer', 'exec /bin/sleep 1000', mark)] }),
    )
    await run.until('child')
    await run.untilRunning('ts-init', 'sleep')
    process.kill(run.pid, 'SIGKILL')
    await run.untilRunning()
  })

  test('kills a hook that it cannot attend to', async () => {
    const filter = filterOf({ ppoll: RETURN.errno | EPERM, ppoll_time64: RETURN.errno | EPERM })
    const late = (mark: string): Op[] => [
      { op: 'seccomp', flags: 0, filter },
      hook('startContainer', 'sleep 1000', mark),
    ]
    using run = new Marked((mark) => plan({ clone: { flags: CONTAINER_FLAGS & ~PID_FLAG }, late: late(mark) }))
    await run.ended
    const text = 'error running startContainer hook #0: operation not permitted'
    expect(run.find('failed')).toMatchObject({ kind: FAILURES.HOOK, text })
    await run.untilRunning()
  })

  test('ends although its filter refuses that, when the program cannot be executed', async () => {
    const calls = ['exit_group', 'exit', 'execve'].map((name) => [name, RETURN.errno | EPERM])
    const late: Op[] = [{ op: 'seccomp', flags: 0, filter: filterOf(Object.fromEntries(calls)) }]
    using run = new Marked(() => plan({ late }))
    await run.ended
    expect(run.find('failed')).toMatchObject({ kind: FAILURES.PROGRAM, text: 'exec /bin/id: operation not permitted' })
    await run.untilRunning()
  })

  test.for([
    ['SIGHUP', 1],
    ['SIGINT', 2],
    ['SIGQUIT', 3],
    ['SIGTERM', 15],
  ] as const)('that is created ends by %s, also as the first process of a pid namespace', async ([name, number]) => {
    using own = new Rootfs()
    const host: Op[] = [{ op: 'open_fifo', path: own.fifo() }]
    using run = new Marked(() => plan({ host, late: [{ op: 'ready' }, { op: 'await_start' }] }))
    await run.until('ready')
    process.kill(run.pid, name)
    expect(await run.exit()).toEqual({ code: 128 + number, signal: 0 })
  })

  /** A mount that the agent takes part in. */
  function hostMount(): Op {
    return mount({ source: '/bin', target: '/tmp/bin', how: MOUNT_HOW.BIND | MOUNT_HOW.HOST_SOURCE })
  }

  describe('whose container side waits, with a host agent at its service,', () => {
    const parts = { host: [{ op: 'host_agent' } as const], outside: [{ op: 'sync', point: 1 } as const, hostMount()] }

    async function waiting(): Promise<Marked> {
      const run = new Marked(() => plan(parts))
      await run.until('reached')
      await run.untilRunning('ts-init', 'ts-init', 'ts-init')
      return run
    }

    test('ends as a whole when that is killed', async () => {
      using run = await waiting()
      process.kill(run.pid, 'SIGKILL')
      await run.untilRunning()
    })

    test('goes on when stage 0 is killed, whose work is done', async () => {
      using run = await waiting()
      process.kill(run.helpers().stage0, 'SIGKILL')
      await run.untilRunning('ts-init', 'ts-init')
      run.status.write('c')
      expect(await run.stdout).toMatch(/^uid=0/)
      await run.untilRunning()
    })

    test('fails when the agent is killed', async () => {
      using run = await waiting()
      const { agent } = run.helpers()
      process.kill(agent, 'SIGKILL')
      await vi.waitFor(() => expect(isAlive(agent)).toBe(false), { timeout: 10_000, interval: 5 })
      run.status.write('c')
      await run.ended
      expect(run.find('failed')).toMatchObject({ errno: EPIPE, text: 'ask the host agent' })
      await run.untilRunning()
    })
  })
})
