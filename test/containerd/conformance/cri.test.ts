/**
 * The conformance checklist, part four: pods. The daemon's own CRI runs them with runtime handlers as an operator would configure them, in the
 * host's network; a container has its own shim, and the handler's options arrive in the form that the release gives them.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test as base, describe, expect } from 'vitest'
import { settledLeaks } from '../../support/census.ts'
import { until } from '../../support/command.ts'
import { CRI_NAMESPACE, Cri } from '../../support/cri.ts'
import { Daemon } from '../../support/daemon.ts'
import { busyboxRoot, imageArchive } from '../../support/image.ts'
import { needs } from '../../support/needs.ts'
import { BIN, BUSYBOX, PAYLOAD } from '../../support/places.ts'

const IMAGE = 'test.local/pod:1'

/** One handler for each way in which options can come. Format 2 of the configuration is read by all releases. */
const handlers = (folder: string): string => {
  const cri = '[plugins."io.containerd.grpc.v1.cri"'
  const runtime = `${cri}.containerd.runtimes`
  return `
${cri}]
  sandbox_image = "${IMAGE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  # a test machine may not let anybody lower a score
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "${folder}/cni"
${cri}.containerd]
  default_runtime_name = "ts"
${runtime}.ts]
  runtime_type = "io.containerd.ts.v2"
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

const test = base.extend<{ $file: { daemon: Daemon }; $test: { cri: Cri } }>({
  daemon: [
    // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixture's needs from this pattern
    async ({}, use) => {
      const daemon = new Daemon(handlers)
      writeFileSync(join(daemon.folder, 'shim.toml'), `Root = '${daemon.folder}/file'\n`)
      const archive = join(daemon.folder, 'pod.tar')
      writeFileSync(archive, imageArchive(IMAGE, busyboxRoot(BUSYBOX, { payload: PAYLOAD }), ['sleep', '100000']))
      try {
        await daemon.start()
        const imported = await daemon.ctr(['--namespace', CRI_NAMESPACE, 'image', 'import', archive])
        expect(imported, imported.stderr).toMatchObject({ code: 0 })
        using cri = new Cri(daemon)
        await until('the CRI to know the image', () => cri.knows(IMAGE).catch(() => false))
        await use(daemon)
      } finally {
        await daemon.stop()
      }
    },
    { scope: 'file' },
  ],
  cri: async ({ daemon }, use) => {
    const before = daemon.census()
    using cri = new Cri(daemon)
    await use(cri)
    expect(await settledLeaks(before, () => daemon.census()), 'left behind by the test').toEqual([])
    const bundles = join(daemon.folder, 'state/io.containerd.runtime.v2.task', CRI_NAMESPACE)
    expect(readdirSync(bundles)).toEqual([])
  },
})

describe('a pod', needs('root', 'containerd', 'busybox', 'the built shim', 'our shim'), () => {
  test('runs containers of which each has a shim, with exec, logs, statistics, limits and an end', async ({
    daemon,
    cri,
  }) => {
    const logs = join(daemon.folder, 'logs')
    mkdirSync(logs)
    const pod = await cri.runPod('ts', logs)
    const one = await cri.runContainer(
      pod,
      IMAGE,
      ['sh', '-c', 'echo hello; trap "exit 7" TERM; while :; do sleep 0.1; done'],
      'one.log',
    )
    const two = await cri.runContainer(pod, IMAGE, ['sleep', '1000'])
    expect(shimsOf(daemon).sort()).toEqual([pod.id, one, two].sort())
    expect(await cri.execSync(one, ['payload', 'both', '3', 'x'])).toEqual({ exitCode: 3, stdout: 'out:x\n' })
    expect(await cri.memoryOf(two)).toBeGreaterThan(0)
    await cri.setMemoryLimit(two, 1 << 27)
    expect(await cri.status(one)).toEqual({ state: 1, exitCode: 0 })
    await cri.stopContainer(one, 10)
    expect(await cri.status(one)).toEqual({ state: 2, exitCode: 7 })
    await cri.stopContainer(two, 0)
    expect(await cri.status(two)).toEqual({ state: 2, exitCode: 137 })
    expect(readFileSync(join(logs, 'one.log'), 'utf8')).toMatch(/^\S+ stdout F hello\n$/)
    for (const id of [one, two]) await cri.removeContainer(id)
    await cri.removePod(pod)
    rmSync(logs, { recursive: true })
  })

  test('gets the options of its handler from a table, which 1.6 does not pass on', async ({ daemon, cri }) => {
    const pod = await cri.runPod('ts-table')
    const folder = daemon.isAtLeast(1, 7) ? 'table' : 'ts'
    expect(statesIn(daemon, folder)).toContain(pod.id)
    await cri.removePod(pod)
    expect(statesIn(daemon, folder)).not.toContain(pod.id)
  })

  test('gets the options of its handler from a file', async ({ daemon, cri }) => {
    const pod = await cri.runPod('ts-file')
    const container = await cri.runContainer(pod, IMAGE, ['sleep', '1000'])
    expect(statesIn(daemon, 'file')).toEqual(expect.arrayContaining([pod.id, container]))
    await cri.removePod(pod)
  })

  test('gets the options of runc where only the path of the handler is ours', async ({ daemon, cri }) => {
    const pod = await cri.runPod('ts-runc')
    expect(statesIn(daemon, 'runc')).toContain(pod.id)
    await cri.removePod(pod)
  })
})

/** The containers whose shims of this daemon run. */
function shimsOf(daemon: Daemon): string[] {
  return [...daemon.census()].flatMap((item) => {
    const id = /^process .*containerd-shim-ts-v2 -namespace k8s\.io -id (\S+) /.exec(item)?.[1]
    return id === undefined ? [] : [id]
  })
}

/** The containers that have their state below a folder. */
function statesIn(daemon: Daemon, folder: string): string[] {
  return readdirSync(join(daemon.folder, folder, CRI_NAMESPACE))
}
