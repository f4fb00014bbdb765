/**
 * The conformance checklist, part five: pods in a user namespace, whose root is an ordinary user of the host.
 * Also what a daemon tells the kubelet about our handlers, which it learns from our program.
 * 1.6 has neither. 1.7 has pods in user namespaces, but without mapped volumes, and tells the kubelet nothing.
 */
import { chownSync, mkdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { until } from '../../support/command.ts'
import { NamespaceMode, valueAt } from '../../support/cri.ts'
import { Channel } from '../../support/cri-stream.ts'
import { needs } from '../../support/needs.ts'
import { BIN } from '../../support/places.ts'
import { expect, pidOf, podTest } from '../../support/pods.ts'

const SLEEP = ['sleep', '1000']
const ROOT = 131_072
/** As the kubelet writes it for a pod of its own. */
const MAPPING = [{ hostId: ROOT, containerId: 0, length: 65_536 }]
const NAMESPACES = {
  network: NamespaceMode.POD,
  usernsOptions: { mode: NamespaceMode.POD, uids: MAPPING, gids: MAPPING },
}

/**
 * The way in which every 2.x knows what the runtime can: only handlers of runc's type are asked before 2.2.7 and
 * 2.3.4.
 */
const test = podTest(
  () => `
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ts-runc]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = "${BIN}/containerd-shim-ts-v2"
`,
)
const NEEDS = needs('root', 'containerd', 'busybox', 'the built shim', 'our shim', 'CNI plugins', 'iproute2')

describe('a pod in a user namespace', NEEDS, () => {
  test.for(['ts', 'ts-runc'])(
    'has root that is nobody special on the host, with a network of its own (%s)',
    async (handler, { daemon, cri }) => {
      if (!daemon.isAtLeast(1, 7)) return
      const pod = await cri.runPod({ handler, namespaces: NAMESPACES })
      const one = await cri.runContainer(pod, SLEEP)
      const two = await cri.runContainer(pod, ['httpd', '-f', '-p', '80', '-h', '/etc'])
      for (const id of [pod.id, one, two]) {
        const pid = await pidOf(daemon, id)
        expect(readFileSync(`/proc/${pid}/uid_map`, 'utf8').trim().split(/\s+/)).toEqual(['0', `${ROOT}`, '65536'])
        expect(statSync(`/proc/${pid}`).uid).toBeGreaterThanOrEqual(ROOT)
      }
      expect(await cri.sh(one, 'id -u; stat -c %u /bin/busybox; touch /root/x; stat -c %u /root/x')).toBe('0\n0\n0')
      const [user, other] = [await cri.sh(one, 'readlink /proc/self/ns/user'), readlinkSync('/proc/self/ns/user')]
      expect(user).not.toBe(other)
      expect(await cri.sh(two, 'readlink /proc/self/ns/user')).toBe(user)
      await until('the server to listen', async () => (await cri.sh(one, 'netstat -ltn')).includes(':80 '))
      expect(await cri.sh(one, 'wget -qO- http://127.0.0.1/passwd')).toContain('worker')
      expect(await cri.sh(one, 'echo here >/dev/shm/note; chown 1000 /tmp && stat -c %u /tmp')).toBe('1000')
      expect(await cri.sh(two, 'cat /dev/shm/note')).toBe('here')
    },
  )

  test('has streams that its programs may open again, a terminal, and limits', async ({ daemon, cri }) => {
    if (!daemon.isAtLeast(1, 7)) return
    const pod = await cri.runPod({ namespaces: NAMESPACES })
    const id = await cri.runContainer(pod, ['sh', '-c', 'echo one >/dev/stdout; echo two >/dev/stderr; sleep 1000'])
    await until('its output', () => cri.logOf(id).length === 2)
    expect(await cri.execSync(id, ['sh', '-c', 'echo out >/dev/stdout; echo err >/dev/stderr; exit 3'])).toEqual({
      exitCode: 3,
      stdout: 'out\n',
      stderr: 'err\n',
    })
    using stream = await cri.exec(id, ['sh'], { stdin: true, tty: true })
    stream.write(Channel.STDIN, 'stat -c %u:%g $(tty)\nexit 4\n')
    expect(await stream.result()).toMatchObject({ exitCode: 4 })
    expect(stream.stdout).toMatch(/^0:\d+\r$/m)
    await cri.update(id, { memoryLimitInBytes: 48 << 20 })
    expect((await cri.statsOf(id)).memory).toBeGreaterThan(0)
    await cri.stopContainer(id, 0)
    expect(await cri.status(id)).toMatchObject({ exitCode: 137 })
  })

  test('may make pods of its own where it is given what that takes', async ({ daemon, cri }) => {
    if (!daemon.isAtLeast(1, 7)) return
    const pod = await cri.runPod({ namespaces: NAMESPACES })
    const unconfined = { profileType: 1 }
    const id = await cri.runContainer(pod, SLEEP, {
      security: {
        capabilities: { addCapabilities: ['SYS_ADMIN'] },
        maskedPaths: [],
        readonlyPaths: [],
        seccomp: unconfined,
        apparmor: unconfined,
      },
    })
    const inner = 'mount -t proc proc /proc && mount -t tmpfs none /mnt && ps -o pid,args'
    expect(await cri.sh(id, `unshare -m -p -f --propagation private sh -c '${inner}'`)).toMatch(/^ +1 /m)
    expect((await cri.execSync(id, ['mount', '-t', 'tmpfs', 'none', '/mnt'])).exitCode).toBe(0)
  })

  test('has volumes whose files are its own and keep the owners that they have on the host', async ({
    daemon,
    cri,
  }) => {
    if (!daemon.isAtLeast(2, 0)) return
    const volume = join(daemon.folder, 'volume')
    mkdirSync(volume)
    writeFileSync(join(volume, 'note'), 'from the host\n')
    chownSync(join(volume, 'note'), 1000, 1000)
    const pod = await cri.runPod({ namespaces: NAMESPACES })
    const mount = { containerPath: '/data', hostPath: volume, uidMappings: MAPPING, gidMappings: MAPPING }
    const id = await cri.runContainer(pod, SLEEP, { config: { mounts: [mount] } })
    expect(await cri.sh(id, 'stat -c %u:%g /data/note; touch /data/mine; chown 7:8 /data/mine')).toBe('1000:1000')
    expect(statSync(join(volume, 'mine'))).toMatchObject({ uid: 7, gid: 8 })
  })
})

describe('a handler', NEEDS, () => {
  test('is known to the kubelet for what our program says that it can', async ({ daemon, cri }) => {
    if (!daemon.isAtLeast(2, 0)) return
    const answer = await cri.call('Status', 'StatusRequest', 'StatusResponse')
    const features = { recursiveReadOnlyMounts: true, userNamespaces: true }
    const names = daemon.isAtLeast(2, 3) ? ['ts', 'ts-runc'] : ['ts-runc']
    for (const name of names) expect(valueAt(answer, 'runtimeHandlers')).toContainEqual({ name, features })
  })

  test('mounts a volume read-only with all that is below it where it is known to', async ({ daemon, cri }) => {
    if (!daemon.isAtLeast(2, 0)) return
    const volume = join(daemon.folder, 'tree')
    mkdirSync(volume)
    const pod = await cri.runPod({ handler: 'ts-runc' })
    const mount = { containerPath: '/data', hostPath: '/dev', readonly: true, recursiveReadOnly: true }
    const id = await cri.runContainer(pod, SLEEP, { config: { mounts: [mount] } })
    expect((await cri.execSync(id, ['touch', '/data/shm/x'])).stderr).toContain('Read-only file system')
  })
})
