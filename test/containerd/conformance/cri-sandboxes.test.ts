/**
 * The conformance checklist, part six: the sandbox service, which 1.7 has where it is switched on, and 2.x always,
 * where all other tests of pods go through it. A pod is a task like any other to us; a handler whose shim is to be
 * more than that is refused.
 */
import { describe } from 'vitest'
import { until } from '../../support/command.ts'
import { ContainerState, NamespaceMode } from '../../support/cri.ts'
import { needs } from '../../support/needs.ts'
import { expect, podTest, shimsOf } from '../../support/pods.ts'

/** The code of gRPC for a service that is not there. */
const UNIMPLEMENTED = 12

// read by the daemon when it starts
process.env['ENABLE_CRI_SANDBOXES'] = '1'

const test = podTest(
  () => `
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ts-sandbox]
  runtime_type = "io.containerd.ts.v2"
  sandbox_mode = "shim"
  sandboxer = "shim"
`,
)
const NEEDS = needs('root', 'containerd', 'busybox', 'the built shim', 'our shim', 'CNI plugins', 'iproute2')

describe('the sandbox service', NEEDS, () => {
  test('of 1.7 runs pods as the older one does', async ({ daemon, cri }) => {
    if (daemon.version !== '1.7') return
    const pod = await cri.runPod({ namespaces: { network: NamespaceMode.POD } })
    const one = await cri.runContainer(pod, ['payload', 'trap'])
    const two = await cri.runContainer(pod, ['sleep', '1000'])
    expect(shimsOf(daemon).sort()).toEqual([pod.id, one, two].sort())
    await until('the trap to be set', () => cri.logOf(one).length > 0)
    for (const id of [one, two])
      expect((await cri.execSync(id, ['payload', 'both', '3', id])).stdout).toBe(`out:${id}\n`)
    await cri.stopContainer(one, 60)
    expect(await cri.status(one)).toMatchObject({ state: ContainerState.EXITED, exitCode: 7 })
    await cri.removeContainer(one)
    expect((await cri.status(two)).state).toBe(ContainerState.RUNNING)
  })

  test('is told that our shim does not make pods by itself', async ({ daemon, cri }) => {
    // 1.6 has none, and 2.1 crashes on a nil pointer before it asks
    if (daemon.version !== '1.7' && !daemon.isAtLeast(2, 3)) return
    await expect(cri.runPod({ handler: 'ts-sandbox' })).rejects.toMatchObject({
      code: UNIMPLEMENTED,
      details: expect.stringContaining('service containerd.runtime.sandbox.v1.Sandbox'),
    })
  })
})
