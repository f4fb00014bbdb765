/** Pods and tasks whose cgroups systemd makes, as the kubelet of kubeadm asks for it: `SystemdCgroup = true`. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { until } from '../support/command.ts'
import { ContainerState } from '../support/cri.ts'
import type { Daemon } from '../support/daemon.ts'
import { needs } from '../support/needs.ts'
import { RUNTIME } from '../support/places.ts'
import { expect, pidOf, podTest } from '../support/pods.ts'
import { shown, systemctl } from '../support/systemd.ts'

const cri = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.'
const test = podTest(
  () => `
${cri}ts-systemd]
  runtime_type = "${RUNTIME}"
  ${cri}ts-systemd.options]
    SystemdCgroup = true
`,
)
const NEEDS = needs(
  'root',
  'containerd',
  'busybox',
  'systemd',
  'cgroup2',
  'CNI plugins',
  'iproute2',
  'the built shim',
  'our shim',
)

const MIB = 1024 * 1024

interface Place {
  readonly unit: string
  readonly dir: string
}

/** Where a container is, by its process. */
async function placeOf(daemon: Daemon, id: string): Promise<Place> {
  const path = readFileSync(`/proc/${await pidOf(daemon, id)}/cgroup`, 'utf8')
    .slice('0::'.length)
    .trim()
  return { unit: path.split('/').at(-1) ?? '', dir: `/sys/fs/cgroup${path}` }
}

function limit({ dir }: Place, name: string): string {
  return readFileSync(join(dir, name), 'utf8').trim()
}

describe('a pod whose cgroups systemd makes', NEEDS, () => {
  test('has scopes in its slice: limits, exec, statistics, an update, a restart of the daemon, and the end', async ({
    daemon,
    cri,
  }) => {
    const slice = `kubepods-${daemon.namespace.replaceAll('-', '_')}.slice`
    const pod = await cri.runPod({ handler: 'ts-systemd', linux: { cgroupParent: `/kubepods.slice/${slice}` } })
    const id = await cri.runContainer(pod, ['sleep', '1000'], {
      resources: { memoryLimitInBytes: 67_108_864, cpuShares: 512, cpuQuota: 50_000, cpuPeriod: 100_000 },
    })
    const place = await placeOf(daemon, id)
    expect(place.dir).toBe(`/sys/fs/cgroup/kubepods.slice/${slice}/cri-containerd-${id}.scope`)
    expect(await shown(place.unit, 'ActiveState', 'MemoryMax', 'CPUQuotaPerSecUSec', 'Slice')).toEqual({
      ActiveState: 'active',
      MemoryMax: '67108864',
      CPUQuotaPerSecUSec: '500ms',
      Slice: slice,
    })
    expect([limit(place, 'memory.max'), limit(place, 'cpu.max')]).toEqual(['67108864', '50000 100000'])
    expect(await cri.execSync(id, ['echo', 'inside'])).toMatchObject({ exitCode: 0, stdout: 'inside\n' })
    expect((await cri.statsOf(id)).memory).toBeGreaterThan(0)
    await cri.update(id, { memoryLimitInBytes: 33_554_432 })
    expect(limit(place, 'memory.max')).toBe('33554432')
    expect(await shown(place.unit, 'MemoryMax')).toEqual({ MemoryMax: '33554432' })
    await daemon.kill()
    await daemon.start()
    await until('the CRI to know the container again', () =>
      cri.status(id).then(
        () => true,
        () => false,
      ),
    )
    expect(await cri.execSync(id, ['echo', 'again'])).toMatchObject({ exitCode: 0, stdout: 'again\n' })
    const sandbox = await placeOf(daemon, pod.id)
    await cri.stopContainer(id, 0)
    await cri.removeContainer(id)
    await cri.removePod(pod)
    expect([place, sandbox].filter(({ dir }) => existsSync(dir))).toEqual([])
    await systemctl('stop', slice)
    expect(await systemctl('list-units', '--all', place.unit, sandbox.unit)).toBe('')
  })

  test('tells that a container has ended for lack of memory', async ({ daemon, cri }) => {
    const slice = `kubepods-${daemon.namespace.replaceAll('-', '_')}.slice`
    const pod = await cri.runPod({ handler: 'ts-systemd', linux: { cgroupParent: `/kubepods.slice/${slice}` } })
    // the cgroup goes with its last process, so the count is read in a race with systemd
    for (let round = 0; round < 5; round++) {
      const id = await cri.runContainer(pod, ['payload', 'eat', String(64 * MIB)], {
        resources: { memoryLimitInBytes: 16 * MIB },
      })
      await until('the container to end', async () => (await cri.status(id)).state === ContainerState.EXITED)
      expect(await cri.status(id)).toMatchObject({ exitCode: 137, reason: 'OOMKilled' })
    }
    await cri.removePod(pod)
    await systemctl('stop', slice)
    expect(await systemctl('list-units', '--all', '--failed', 'cri-containerd-*')).toBe('')
  })
})
