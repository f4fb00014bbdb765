/**
 * vitest fixtures over a private containerd with its CRI: one daemon per file, with a handler for the runtime under
 * test. Its network is made by CNI's bridge plugin. The bridge belongs to the file, without an address of the host or
 * firewall rules. After each test its pods are removed, and then nothing may be left of them.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { isIPv4 } from 'node:net'
import { join } from 'node:path'
import { test as base, expect } from 'vitest'
import { type Census, settledLeaks, takeCensus } from './census.ts'
import { until } from './command.ts'
import { CRI_NAMESPACE, Cri } from './cri.ts'
import { Daemon } from './daemon.ts'
import { busyboxRoot, imageArchive } from './image.ts'
import { BUSYBOX, IS_OURS, PAYLOAD, PROBE, RUNTIME } from './places.ts'

/** The image of pods and of their containers. */
export const POD_IMAGE = 'test.local/pod:1'
/** Where Debian has CNI's plugins. */
const PLUGINS = '/usr/lib/cni'

/** The CRI's part of the daemon's configuration. All releases read format 2. */
const configuration = (folder: string, handlers: string, first = 'ts'): string => {
  const cri = '[plugins."io.containerd.grpc.v1.cri"'
  return `
${cri}]
  sandbox_image = "${POD_IMAGE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  # a test machine may not let anybody lower a score
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  ${cri}.cni]
    bin_dir = "${PLUGINS}"
    conf_dir = "${folder}/cni"
${cri}.containerd]
  default_runtime_name = "${first}"
${cri}.containerd.runtimes.ts]
  runtime_type = "${RUNTIME}"
${handlers}
`
}

function writeNetwork(daemon: Daemon): void {
  const network = {
    cniVersion: '0.4.0',
    name: daemon.namespace,
    plugins: [
      {
        type: 'bridge',
        bridge: daemon.namespace,
        ipam: { type: 'host-local', dataDir: join(daemon.folder, 'addresses'), subnet: '10.88.0.0/16' },
      },
    ],
  }
  mkdirSync(join(daemon.folder, 'cni'))
  writeFileSync(join(daemon.folder, 'cni/10-bridge.conflist'), JSON.stringify(network))
}

function removeBridge(name: string): void {
  if (readFileSync('/proc/net/dev', 'utf8').includes(`${name}:`)) execFileSync('ip', ['link', 'delete', name])
}

/**
 * Starts a daemon whose CRI knows the image. `release` names another containerd than the one under test, `first` the
 * handler of pods that name none.
 */
export async function startPodDaemon(
  handlers: (folder: string) => string,
  { release, first }: { readonly release?: string; readonly first?: string } = {},
): Promise<Daemon> {
  const daemon = new Daemon((folder) => configuration(folder, handlers(folder), first))
  if (release !== undefined) daemon.use(release)
  writeNetwork(daemon)
  const archive = join(daemon.folder, 'pod.tar')
  const root = busyboxRoot(BUSYBOX, { payload: PAYLOAD, probe: PROBE })
  writeFileSync(archive, imageArchive(POD_IMAGE, root, ['sleep', '100000']))
  try {
    await daemon.start()
    const imported = await daemon.ctr(['--namespace', CRI_NAMESPACE, 'image', 'import', archive])
    expect(imported, imported.stderr).toMatchObject({ code: 0 })
    using cri = new Cri(daemon, POD_IMAGE)
    await until('the CRI to know the image', () => cri.knowsImage().catch(() => false))
    return daemon
  } catch (error) {
    await stopPodDaemon(daemon)
    throw error
  }
}

/** Ends it, and removes the bridge of its pods. */
export async function stopPodDaemon(daemon: Daemon): Promise<void> {
  removeBridge(daemon.namespace)
  await daemon.stop()
}

/** The addresses that pods have. */
function addresses(daemon: Daemon): string[] {
  const folder = join(daemon.folder, 'addresses', daemon.namespace)
  return existsSync(folder) ? readdirSync(folder).filter((name) => isIPv4(name)) : []
}

/** Takes the census of a daemon's pods: of the CRI's namespace, in which other daemons may have processes too. */
export function podCensus(daemon: Daemon, ids: readonly string[]): Census {
  const files = takeCensus({ folder: daemon.folder, namespace: CRI_NAMESPACE, ids })
  return new Set([
    ...daemon.census(),
    ...[...files].filter((item) => /^(socket|bundle|work folder|state folder) /.test(item)),
    ...addresses(daemon).map((address) => `address ${address}`),
  ])
}

/** vitest's test with a private containerd and its CRI. `handlers` are more handlers for its configuration, in TOML. */
export function podTest(handlers: (folder: string) => string = () => '') {
  return base.extend<{ $file: { daemon: Daemon }; $test: { cri: Cri } }>({
    daemon: [
      // biome-ignore lint/correctness/noEmptyPattern: vitest reads the fixture's needs from this pattern
      async ({}, use) => {
        const daemon = await startPodDaemon(handlers)
        try {
          await use(daemon)
        } finally {
          await stopPodDaemon(daemon)
        }
      },
      { scope: 'file' },
    ],
    cri: async ({ daemon, task }, use) => {
      using cri = new Cri(daemon, POD_IMAGE)
      const before = podCensus(daemon, cri.ids)
      await use(cri)
      await cri.end()
      if (task.result?.state === 'fail' && process.env['VERBOSE'] !== undefined) process.stderr.write(daemon.log)
      // allowed: the runc shim leaves its socket behind when it is killed
      const ignored = IS_OURS ? /^$/ : /^socket /
      const left = (await settledLeaks(before, () => podCensus(daemon, cri.ids))).filter((item) => !ignored.test(item))
      expect(left, 'left behind by the test').toEqual([])
    },
  })
}

/** The first process of a container, as the daemon's own client tells it. */
export async function pidOf(daemon: Daemon, id: string): Promise<number> {
  const { stdout } = await daemon.ctr(['--namespace', CRI_NAMESPACE, 'task', 'ls'])
  const line = stdout.split('\n').find((each) => each.startsWith(id))
  if (line === undefined) throw new Error(`no task ${id}:\n${stdout}`)
  return Number(line.split(/\s+/)[1])
}

/** The containers whose shims of this daemon run. */
export function shimsOf(daemon: Daemon): string[] {
  return [...daemon.census()].flatMap((item) => {
    const id = /^process .*containerd-shim-ts-v2 -namespace k8s\.io -id (\S+) /.exec(item)?.[1]
    return id === undefined ? [] : [id]
  })
}

export { expect }
