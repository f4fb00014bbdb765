/**
 * The conformance checklist, part four: pods. The daemon's own CRI runs them in the host's network, with runtime
 * handlers as an operator would configure them. A container has its own shim. The handler's options have the form of
 * the release.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { until } from '../../support/command.ts'
import { CRI_NAMESPACE } from '../../support/cri.ts'
import type { Daemon } from '../../support/daemon.ts'
import { isCgroup2, needs } from '../../support/needs.ts'
import { BIN } from '../../support/places.ts'
import { expect, pidOf, podTest, shimsOf } from '../../support/pods.ts'

/** One handler for each way in which options can come. */
const handlers = (folder: string): string => {
  const runtime = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes'
  return `
${runtime}.ts-table]
  runtime_type = "io.containerd.ts.v2"
  ${runtime}.ts-table.options]
    Root = "${folder}/table"
    NoNewKeyring = true
    IoUid = 0
${runtime}.ts-file]
  runtime_type = "io.containerd.ts.v2"
  ${runtime}.ts-file.options]
    ConfigPath = "${folder}/shim.toml"
${runtime}.ts-runc]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = "${BIN}/containerd-shim-ts-v2"
  ${runtime}.ts-runc.options]
    Root = "${folder}/runc"
`
}

const test = podTest(handlers)

describe('a pod', needs('root', 'containerd', 'busybox', 'the built shim', 'our shim'), () => {
  test('runs containers of which each has a shim, with exec, logs, statistics, limits and an end', async ({
    daemon,
    cri,
  }) => {
    const pod = await cri.runPod()
    const one = await cri.runContainer(pod, ['payload', 'trap'])
    await until('the trap to be set', () => cri.logOf(one).length > 0)
    const two = await cri.runContainer(pod, ['sleep', '1000'])
    expect(shimsOf(daemon).sort()).toEqual([pod.id, one, two].sort())
    expect(await cri.execSync(one, ['payload', 'both', '3', 'x'])).toEqual({
      exitCode: 3,
      stdout: 'out:x\n',
      stderr: 'err:x\n',
    })
    expect((await cri.statsOf(two)).memory).toBeGreaterThan(0)
    await cri.update(two, { memoryLimitInBytes: 1 << 27 })
    expect(await cri.status(one)).toMatchObject({ state: 1, exitCode: 0 })
    await cri.stopContainer(one, 10)
    expect(await cri.status(one)).toMatchObject({ state: 2, exitCode: 7 })
    await cri.stopContainer(two, 0)
    expect(await cri.status(two)).toMatchObject({ state: 2, exitCode: 137 })
    expect(cri.logOf(one)).toEqual(['ready', 'signal 15'].map((text) => ({ stream: 'stdout', tag: 'F', text })))
    for (const id of [one, two]) await cri.removeContainer(id)
    await cri.removePod(pod)
  })

  test('gets the options of its handler from a table, which 1.6 does not pass on', async ({ daemon, cri }) => {
    const pod = await cri.runPod({ handler: 'ts-table' })
    const folder = daemon.isAtLeast(1, 7) ? 'table' : 'ts'
    expect(statesIn(daemon, folder)).toContain(pod.id)
    await cri.removePod(pod)
    expect(statesIn(daemon, folder)).not.toContain(pod.id)
  })

  test('gets the options of its handler from a file', async ({ daemon, cri }) => {
    writeFileSync(join(daemon.folder, 'shim.toml'), `Root = '${daemon.folder}/file'\n`)
    const pod = await cri.runPod({ handler: 'ts-file' })
    const container = await cri.runContainer(pod, ['sleep', '1000'])
    expect(statesIn(daemon, 'file')).toEqual(expect.arrayContaining([pod.id, container]))
    await cri.removePod(pod)
  })

  test('below a slice lies in the folder of that name: nobody asked for the systemd driver', async ({
    daemon,
    cri,
  }) => {
    const slice = `kubepods-${daemon.namespace}.slice`
    const pod = await cri.runPod({ linux: { cgroupParent: `/kubepods.slice/${slice}` } })
    const container = await cri.runContainer(pod, ['sleep', '1000'])
    const folders = [
      ...cgroupFolders(await pidOf(daemon, pod.id), `/${slice}:cri-containerd:${pod.id}`),
      ...cgroupFolders(await pidOf(daemon, container), `/${slice}:cri-containerd:${container}`),
    ]
    expect(folders.length).toBeGreaterThanOrEqual(2)
    expect(folders.filter((folder) => !existsSync(folder))).toEqual([])
    expect((await cri.statsOf(container)).memory).toBeGreaterThan(0)
    expect(await cri.execSync(container, ['echo', 'inside'])).toMatchObject({ exitCode: 0, stdout: 'inside\n' })
    await cri.stopContainer(container, 0)
    await cri.removeContainer(container)
    await cri.removePod(pod)
    expect(folders.filter((folder) => existsSync(folder))).toEqual([])
  })

  test('gets the options of runc where only the path of the handler is ours', async ({ daemon, cri }) => {
    const pod = await cri.runPod({ handler: 'ts-runc' })
    expect(statesIn(daemon, 'runc')).toContain(pod.id)
    await cri.removePod(pod)
  })
})

/** Where a process is, of its cgroups those whose path ends so. */
function cgroupFolders(pid: number, ending: string): string[] {
  const lines = readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('\n')
  const places = lines.filter((line) => line.endsWith(ending)).map((line) => /^\d+:(?:name=)?([^:]*):(.*)$/.exec(line))
  // a hybrid host has its v2 tree one level down
  const unified = isCgroup2() ? '' : 'unified'
  return places.map((match) => join('/sys/fs/cgroup', match?.[1] || unified, match?.[2] ?? ''))
}

/** The containers that have their state below a folder. */
function statesIn(daemon: Daemon, folder: string): string[] {
  return readdirSync(join(daemon.folder, folder, CRI_NAMESPACE))
}
