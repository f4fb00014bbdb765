/**
 * The life of a pod's containers as the kubelet drives it: crash loops, ends with and without grace, lack of memory.
 * Also changed limits, rotated logs, statistics, and a daemon that is killed and comes back.
 */
import { mkdtempSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { isAlive } from '../support/census.ts'
import { until } from '../support/command.ts'
import { ContainerState, Cri, NamespaceMode, PodState, valueAt } from '../support/cri.ts'
import { isCgroup2, needs } from '../support/needs.ts'
import { IS_OURS } from '../support/places.ts'
import { expect, POD_IMAGE, pidOf, podTest } from '../support/pods.ts'

const SLEEP = ['sleep', '1000']
const { EXITED, RUNNING } = ContainerState
const MIB = 1 << 20

const test = podTest()
const NEEDS = needs('root', 'containerd', 'busybox', 'the built shim', 'CNI plugins', 'iproute2')

/** Waits until a container has ended, and tells how. */
async function ended(cri: Cri, id: string): Promise<Awaited<ReturnType<Cri['status']>>> {
  await until('the container to end', async () => (await cri.status(id)).state === EXITED)
  return await cri.status(id)
}

describe('a container that keeps failing', NEEDS, () => {
  test('is made, started and removed again and again in one pod', async ({ cri }) => {
    const pod = await cri.runPod({ namespaces: { network: NamespaceMode.POD } })
    const beside = await cri.runContainer(pod, SLEEP)
    const network = await cri.sh(beside, 'readlink /proc/self/ns/net')
    for (let attempt = 0; attempt < 8; attempt++) {
      const metadata = { name: 'crashing', attempt }
      const script = `readlink /proc/self/ns/net; exit ${attempt + 1}`
      const id = await cri.runContainer(pod, ['sh', '-c', script], { config: { metadata } })
      expect(await ended(cri, id)).toMatchObject({ exitCode: attempt + 1, reason: 'Error' })
      await until('its output', () => cri.logOf(id).length === 1)
      expect(cri.logOf(id)[0]?.text).toBe(network)
      await cri.removeContainer(id)
    }
    expect((await cri.status(beside)).state).toBe(RUNNING)
  })

  test('to start for want of its program is told as such, and removed', async ({ cri }) => {
    const pod = await cri.runPod()
    for (let attempt = 0; attempt < 3; attempt++) {
      const metadata = { name: 'missing', attempt }
      const id = await cri.createContainer(pod, ['no-such-program'], { config: { metadata } })
      await expect(cri.startContainer(id)).rejects.toMatchObject({
        details: expect.stringMatching(/"no-such-program".*(executable file not found|no such file)/),
      })
      expect(await cri.status(id)).toMatchObject({ state: EXITED, exitCode: 128, reason: 'StartError' })
      await cri.removeContainer(id)
    }
  })

  test('is ended once it was made, before it was started', async ({ cri }) => {
    const pod = await cri.runPod()
    const id = await cri.createContainer(pod, SLEEP)
    await cri.stopContainer(id, 0)
    await cri.removeContainer(id)
  })
})

describe('a container that is to end', NEEDS, () => {
  test('leaves its last words where the kubelet looks for them, and has the kubelet’s hosts', async ({
    daemon,
    cri,
  }) => {
    const folder = mkdtempSync(join(daemon.folder, 'kubelet-'))
    writeFileSync(join(folder, 'words'), '')
    writeFileSync(join(folder, 'hosts'), '10.88.0.1 a-pod\n')
    const mounts = [
      { containerPath: '/dev/termination-log', hostPath: join(folder, 'words') },
      { containerPath: '/etc/hosts', hostPath: join(folder, 'hosts'), readonly: true },
    ]
    const script = 'cat /etc/hosts; echo over >/dev/termination-log; exit 5'
    const id = await cri.runContainer(await cri.runPod(), ['sh', '-c', script], { config: { mounts } })
    expect((await ended(cri, id)).exitCode).toBe(5)
    expect(readFileSync(join(folder, 'words'), 'utf8')).toBe('over\n')
    await until('its output', () => cri.logOf(id)[0]?.text === '10.88.0.1 a-pod')
  })

  test('may end in its own way when it is told to', async ({ cri }) => {
    const id = await cri.runContainer(await cri.runPod(), ['payload', 'trap'])
    await until('the trap to be set', () => cri.logOf(id).length > 0)
    await cri.stopContainer(id, 60)
    expect(await cri.status(id)).toMatchObject({ state: EXITED, exitCode: 7 })
    // twice is once
    await cri.stopContainer(id, 60)
  })

  test('is killed when it does not, with all that it started', async ({ cri }) => {
    const id = await cri.runContainer(await cri.runPod(), [
      'sh',
      '-c',
      'trap "echo no" TERM; sleep 1000 & while :; do wait; done',
    ])
    await until('the trap to be set', async () => /sleep 1000/.test(await cri.sh(id, 'ps -o args')))
    await cri.stopContainer(id, 1)
    expect(await cri.status(id)).toMatchObject({ state: EXITED, exitCode: 137 })
    expect(cri.logOf(id).map(({ text }) => text)).toContain('no')
  })

  test('is removed while it runs, with its pod', async ({ cri }) => {
    const pod = await cri.runPod({ namespaces: { network: NamespaceMode.POD } })
    await Promise.all([1, 2, 3].map(() => cri.runContainer(pod, SLEEP)))
    await cri.removePod(pod)
  })
})

describe('many pods', NEEDS, () => {
  test('come, work and go side by side', async ({ cri }) => {
    const life = async (n: number): Promise<void> => {
      const pod = await cri.runPod({ namespaces: { network: NamespaceMode.POD, pid: n % 2 } })
      const ids = await Promise.all([1, 2].map(() => cri.runContainer(pod, ['payload', 'trap'])))
      const execs = ids.flatMap((id) =>
        [1, 2].map((k) => cri.execSync(id, ['payload', 'both', String(k), `${n}-${k}`])),
      )
      expect((await Promise.all(execs)).map(({ exitCode, stdout }) => [exitCode, stdout])).toEqual(
        ids.flatMap(() => [1, 2].map((k) => [k, `out:${n}-${k}\n`])),
      )
      await until('the traps to be set', () => ids.every((id) => cri.logOf(id).length > 0))
      const ends = ids.map(async (id, k) => {
        await cri.stopContainer(id, k * 60)
        return (await cri.status(id)).exitCode
      })
      expect(await Promise.all(ends)).toEqual([137, 7])
      await cri.removePod(pod)
    }
    await Promise.all([0, 1, 2, 3, 4, 5].map(life))
  })
})

describe('the resources of a container', NEEDS, () => {
  const memory = needs('memory controller')

  test('run out: the kubelet hears that it was for want of memory', memory, async ({ cri }) => {
    const pod = await cri.runPod()
    const id = await cri.runContainer(pod, ['payload', 'eat', String(64 * MIB)], {
      resources: { memoryLimitInBytes: 16 * MIB },
    })
    expect(await ended(cri, id)).toMatchObject({ exitCode: 137, reason: 'OOMKilled' })
    // nobody's fault but its own
    const killed = await cri.runContainer(pod, SLEEP)
    await cri.stopContainer(killed, 0)
    expect(await cri.status(killed)).toMatchObject({ exitCode: 137, reason: 'Error' })
  })

  test('run out in a program beside it, which alone ends', memory, async ({ cri }) => {
    const id = await cri.runContainer(await cri.runPod(), SLEEP, { resources: { memoryLimitInBytes: 16 * MIB } })
    expect((await cri.execSync(id, ['payload', 'eat', String(64 * MIB)])).exitCode).toBe(137)
    expect((await cri.status(id)).state).toBe(RUNNING)
  })

  test('are changed while it runs', memory, async ({ cri }) => {
    const resources = { cpuPeriod: 100_000, cpuQuota: 50_000, cpuShares: 512, memoryLimitInBytes: 32 * MIB }
    const id = await cri.runContainer(await cri.runPod(), SLEEP, { resources })
    const read = async (...names: readonly string[]): Promise<string[]> =>
      (await cri.sh(id, `cd /sys/fs/cgroup; cat ${names.join(' ')}`)).split('\n')
    // how shares become a weight of version 2 is another test's affair
    const files = isCgroup2()
      ? ['cpu.max', 'memory.max']
      : ['cpu/cpu.cfs_quota_us', 'memory/memory.limit_in_bytes', 'cpu/cpu.shares']
    const expected = (quota: number, shares: number, limit: number): string[] =>
      isCgroup2() ? [`${quota} 100000`, `${limit}`] : [quota, limit, shares].map(String)
    expect(await read(...files)).toEqual(expected(50_000, 512, 32 * MIB))
    const linux = { cpuPeriod: 100_000, cpuQuota: 70_000, cpuShares: 1024, memoryLimitInBytes: 48 * MIB }
    await cri.update(id, linux, { 'tests.local/why': 'a resize' })
    expect(await read(...files)).toEqual(expected(70_000, 1024, 48 * MIB))
    // what is not said stays
    await cri.update(id, { memoryLimitInBytes: 24 * MIB })
    expect(await read(...files)).toEqual(expected(70_000, 1024, 24 * MIB))
    // as a kubelet that gives processors to containers does every ten seconds
    await cri.update(id, { cpusetCpus: '0' })
    await cri.update(id, { cpusetCpus: '0' })
    expect(await read(isCgroup2() ? 'cpuset.cpus' : 'cpuset/cpuset.cpus')).toEqual(['0'])
    expect(await cri.sh(id, 'grep Cpus_allowed_list /proc/1/status')).toMatch(/\s0$/)
  })

  test('are changed before it is started', memory, async ({ cri }) => {
    const id = await cri.createContainer(await cri.runPod(), SLEEP)
    await cri.update(id, { memoryLimitInBytes: 48 * MIB })
    await cri.startContainer(id)
    const file = isCgroup2() ? 'memory.max' : 'memory/memory.limit_in_bytes'
    expect(await cri.sh(id, `cat /sys/fs/cgroup/${file}`)).toBe(String(48 * MIB))
  })

  test('are counted, for it and for its pod', memory, async ({ daemon, cri }) => {
    const pod = await cri.runPod({ namespaces: { network: NamespaceMode.POD } })
    const id = await cri.runContainer(pod, ['sh', '-c', 'while :; do :; done'])
    const idle = await cri.runContainer(pod, SLEEP)
    const before = await cri.statsOf(id)
    expect(before.memory).toBeGreaterThan(0)
    await until('processor time to be used', async () => (await cri.statsOf(id)).cpu > before.cpu)
    const filter = { podSandboxId: pod.id }
    const answer = await cri.call('ListContainerStats', 'ListContainerStatsRequest', 'ListContainerStatsResponse', {
      filter,
    })
    const counted = [0, 1].map((n) => String(valueAt(answer, 'stats', n, 'attributes', 'id')))
    expect(counted.sort()).toEqual([id, idle].sort())
    // 1.6 has no statistics of pods
    if (!daemon.isAtLeast(1, 7)) return
    const ofPod = await cri.call('PodSandboxStats', 'PodRequest', 'PodStatsResponse', { podSandboxId: pod.id })
    expect(valueAt(ofPod, 'stats', 'linux', 'containers')).toHaveLength(2)
    expect(Number(valueAt(ofPod, 'stats', 'linux', 'process', 'processCount', 'value'))).toBeGreaterThanOrEqual(2)
    expect(valueAt(ofPod, 'stats', 'linux', 'network', 'defaultInterface', 'name')).toBe('eth0')
  })
})

describe('the log of a container', NEEDS, () => {
  test('has both streams line by line, and long lines in parts', async ({ cri }) => {
    const script = 'echo one; echo two >&2; head -c 40000 /dev/zero | tr "\\0" x; echo; printf rest'
    const id = await cri.runContainer(await cri.runPod(), ['sh', '-c', script])
    await ended(cri, id)
    // the daemon reads each stream by itself: either may be in the log first
    await until('all of it', () => ['two', 'rest'].every((end) => cri.logOf(id).some(({ text }) => text === end)))
    const lines = cri.logOf(id)
    expect(lines.filter(({ stream }) => stream === 'stderr')).toEqual([{ stream: 'stderr', tag: 'F', text: 'two' }])
    const out = lines.filter(({ stream }) => stream === 'stdout')
    expect(out[0]).toMatchObject({ tag: 'F', text: 'one' })
    const long = out.slice(1, -1)
    expect(long.map(({ tag }) => tag)).toEqual([...long.slice(1).map(() => 'P'), 'F'])
    expect(long.length).toBeGreaterThan(2)
    expect(long.map(({ text }) => text).join('')).toBe('x'.repeat(40_000))
    // the end of output ends a line that nothing ended
    expect(out.at(-1)?.text).toBe('rest')
  })

  test('goes on in a new file when it was rotated', async ({ cri }) => {
    const id = await cri.runContainer(await cri.runPod(), ['payload', 'trap'])
    await until('the trap to be set', () => cri.logOf(id).length > 0)
    renameSync(cri.logPath(id), `${cri.logPath(id)}.1`)
    await cri.call('ReopenContainerLog', 'ContainerRequest', 'Nothing', { containerId: id })
    await cri.stopContainer(id, 60)
    expect(cri.logOf(id).map(({ text }) => text)).toEqual(['signal 15'])
  })

  test('loses nothing of what was printed right before the end', async ({ cri }) => {
    const id = await cri.runContainer(await cri.runPod(), ['payload', 'bytes', String(6_400_000), 'text'])
    expect((await ended(cri, id)).exitCode).toBe(0)
    await until('all lines', () => cri.logOf(id).length === 100_000)
  })
})

describe('a daemon that was killed', NEEDS, () => {
  test('finds its pods again, hears who ended meanwhile, and goes on with their logs', async ({ daemon, cri }) => {
    const pod = await cri.runPod({ namespaces: { network: NamespaceMode.POD } })
    const volume = mkdtempSync(join(daemon.folder, 'volume-'))
    const trap = await cri.runContainer(pod, ['payload', 'trap'])
    const ending = await cri.runContainer(
      pod,
      ['sh', '-c', 'until [ -e /v/go ]; do sleep 0.05; done; echo gone; exit 9'],
      {
        config: { mounts: [{ containerPath: '/v', hostPath: volume }] },
      },
    )
    await until('the trap to be set', () => cri.logOf(trap).length > 0)
    const { ip } = await cri.podStatus(pod)
    const pid = await pidOf(daemon, ending)
    await daemon.kill()
    writeFileSync(join(volume, 'go'), '')
    await until('the end of it', () => !isAlive(pid))
    await daemon.start()
    using again = new Cri(daemon, POD_IMAGE)
    await until('the CRI to answer', () =>
      again.podStatus(pod).then(
        () => true,
        () => false,
      ),
    )
    expect(await again.podStatus(pod)).toEqual({ state: PodState.READY, ip })
    expect((await again.status(trap)).state).toBe(RUNNING)
    // from 1.7 on containerd takes a shim without processes for a leaked one, and makes up how it ended
    expect((await ended(again, ending)).exitCode).toBe(daemon.isAtLeast(1, 7) ? 255 : 9)
    // the runc shim's fifo has lost them with its reader
    if (IS_OURS && !daemon.isAtLeast(1, 7)) {
      await until('its last words', () => cri.logOf(ending).at(-1)?.text === 'gone')
    }
    expect(await again.sh(trap, 'kill -USR1 1; echo sent')).toBe('sent')
    await until('the log to go on', () => cri.logOf(trap).at(-1)?.text === 'signal 10')
    await again.stopContainer(trap, 60)
    expect((await again.status(trap)).exitCode).toBe(7)
  })
})

describe('a shim that was killed', NEEDS, () => {
  test('takes its container along, which is told as ended, and nothing else of the pod', async ({ daemon, cri }) => {
    const pod = await cri.runPod({ namespaces: { network: NamespaceMode.POD } })
    const one = await cri.runContainer(pod, ['sh', '-c', 'sleep 2345 & sleep 3456'])
    const two = await cri.runContainer(pod, SLEEP)
    const pid = await pidOf(daemon, one)
    const shim = Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
    expect(readFileSync(`/proc/${shim}/cmdline`, 'utf8')).toContain(IS_OURS ? one : pod.id)
    process.kill(shim, 'SIGKILL')
    await until('the end of its container', async () => (await cri.status(one)).state === EXITED)
    // runc's shim serves the whole pod
    if (!IS_OURS) return
    await until('the process to be gone', () => !isAlive(pid))
    expect((await cri.status(two)).state).toBe(RUNNING)
    expect(await cri.sh(two, 'echo still')).toBe('still')
    expect((await cri.podStatus(pod)).state).toBe(PodState.READY)
    await cri.removeContainer(one)
    const again = await cri.runContainer(pod, SLEEP)
    expect((await cri.status(again)).state).toBe(RUNNING)
  })
})
