/**
 * What the containers of a pod share: the network that CNI made, System V objects, and the host's name.
 * Processes are shared in each of the ways that the kubelet asks for. Also the effects of a pod's security context.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { until } from '../support/command.ts'
import { type Cri, type Fields, NamespaceMode, PodState } from '../support/cri.ts'
import { needs } from '../support/needs.ts'
import { expect, pidOf, podTest } from '../support/pods.ts'

const { POD, NODE, TARGET } = NamespaceMode
const SLEEP = ['sleep', '1000']
/** A server on port 8080. */
const SERVER = ['httpd', '-f', '-p', '8080', '-h', '/etc']

const test = podTest()
const NEEDS = needs('root', 'containerd', 'busybox', 'the built shim', 'CNI plugins', 'iproute2')

/** The namespace of a container's processes, seen from inside. */
const namespaceOf = (cri: Cri, id: string, kind: string): Promise<string> =>
  cri.sh(id, `readlink /proc/self/ns/${kind}`)

describe('the network of a pod', NEEDS, () => {
  test('has an address, under which other pods reach what listens in any of its containers', async ({
    daemon,
    cri,
  }) => {
    const server = await cri.runPod({ namespaces: { network: POD } })
    const client = await cri.runPod({ namespaces: { network: POD } })
    const [{ ip }, other] = [await cri.podStatus(server), await cri.podStatus(client)]
    expect(ip).toMatch(/^10\.88\./)
    expect(other.ip).not.toBe(ip)
    const serving = await cri.runContainer(server, SERVER)
    const beside = await cri.runContainer(server, SLEEP)
    const remote = await cri.runContainer(client, SLEEP)
    await until('the server to listen', async () => (await cri.sh(beside, 'netstat -ltn')).includes(':8080'))
    expect(await cri.sh(beside, 'wget -qO- http://127.0.0.1:8080/passwd')).toContain('worker')
    expect(await cri.sh(remote, `wget -qO- http://${ip}:8080/passwd`)).toContain('worker')
    expect(await cri.sh(beside, 'ip -4 -o address show dev eth0')).toContain(`inet ${ip}/`)
    expect(await cri.sh(beside, 'cat /sys/class/net/lo/operstate /proc/net/dev')).toContain('eth0:')
    const host = readlinkSync('/proc/self/ns/net')
    const inside = await namespaceOf(cri, beside, 'net')
    expect(inside).not.toBe(host)
    expect(await namespaceOf(cri, serving, 'net')).toBe(inside)
    expect(await namespaceOf(cri, remote, 'net')).not.toBe(inside)
    await cri.removePod(client)
    // the pod that is left is none the worse for it
    expect(await cri.sh(beside, 'wget -qO- http://127.0.0.1:8080/passwd')).toContain('worker')
    expect(existsSync(`/sys/class/net/${daemon.namespace}`)).toBe(true)
  })

  test('is the host’s where the pod asks for it', async ({ cri }) => {
    const pod = await cri.runPod({ namespaces: { network: NODE, ipc: NODE } })
    const container = await cri.runContainer(pod, SLEEP)
    for (const kind of ['net', 'ipc', 'uts']) {
      const expected = kind === 'uts' ? await namespaceOf(cri, container, kind) : readlinkSync(`/proc/self/ns/${kind}`)
      expect(await namespaceOf(cri, container, kind)).toBe(expected)
    }
    expect(await cri.podStatus(pod)).toEqual({ state: PodState.READY, ip: '' })
  })

  test('has the settings that the pod asks for', async ({ cri }) => {
    const sysctls = { 'net.ipv4.ip_local_port_range': '2000\t3000', 'kernel.shm_rmid_forced': '1' }
    const pod = await cri.runPod({ namespaces: { network: POD }, linux: { sysctls } })
    const container = await cri.runContainer(pod, SLEEP)
    expect(await cri.sh(container, 'cat /proc/sys/net/ipv4/ip_local_port_range')).toBe('2000\t3000')
    expect(await cri.sh(container, 'cat /proc/sys/kernel/shm_rmid_forced')).toBe('1')
  })
})

describe('the containers of a pod', NEEDS, () => {
  test('share its name, its shared memory and System V’s objects, but neither files nor processes', async ({ cri }) => {
    const pod = await cri.runPod({
      namespaces: { network: POD },
      config: { hostname: 'a-pod', dnsConfig: { servers: ['10.88.0.53'], searches: ['tests.local'] } },
    })
    const one = await cri.runContainer(pod, SLEEP)
    const two = await cri.runContainer(pod, SLEEP)
    for (const id of [one, two]) {
      expect(await cri.sh(id, 'hostname')).toBe('a-pod')
      expect(await cri.sh(id, 'cat /etc/hostname')).toBe('a-pod')
      expect(await cri.sh(id, 'cat /etc/resolv.conf')).toBe('search tests.local\nnameserver 10.88.0.53')
    }
    for (const kind of ['net', 'ipc', 'uts']) {
      expect(await namespaceOf(cri, one, kind)).toBe(await namespaceOf(cri, two, kind))
    }
    for (const kind of ['pid', 'mnt']) {
      expect(await namespaceOf(cri, one, kind)).not.toBe(await namespaceOf(cri, two, kind))
    }
    await cri.sh(one, 'echo here >/dev/shm/note; echo here >/tmp/note')
    expect(await cri.sh(two, 'cat /dev/shm/note')).toBe('here')
    expect((await cri.execSync(two, ['cat', '/tmp/note'])).exitCode).toBe(1)
    expect((await cri.sh(two, 'ps -o args')).split('\n')).toContain('sleep 1000')
    expect((await cri.sh(two, 'ps -o args')).split('\n').filter((line) => line === 'sleep 1000')).toHaveLength(1)
  })

  test('see and signal each other’s processes where the pod shares them, below its own first process', async ({
    cri,
  }) => {
    const pod = await cri.runPod({ namespaces: { network: POD, pid: POD } })
    const one = await cri.runContainer(pod, ['payload', 'trap'])
    const two = await cri.runContainer(pod, SLEEP)
    expect(await namespaceOf(cri, one, 'pid')).toBe(await namespaceOf(cri, two, 'pid'))
    const seen = await cri.sh(two, 'ps -o pid,args')
    expect(seen).toMatch(/^ +1 sleep 100000$/m)
    expect(seen).toMatch(/payload trap$/m)
    await until('the trap to be set', () => cri.logOf(one).length > 0)
    await cri.sh(two, 'kill -USR1 $(pidof payload)')
    await until('the signal', () => cri.logOf(one).some(({ text }) => text === 'signal 10'))
    await cri.sh(two, 'kill -TERM $(pidof payload)')
    await until('the end', async () => (await cri.status(one)).exitCode === 7)
    expect((await cri.status(two)).state).toBe(1)
  })

  test('take what they left running with them, also where the pod shares its processes', async ({ cri }) => {
    const pod = await cri.runPod({ namespaces: { network: POD, pid: POD } })
    const leaving = await cri.runContainer(pod, ['sh', '-c', 'setsid sleep 2345 & cat /dev/zero | sleep 3456'])
    const watching = await cri.runContainer(pod, SLEEP)
    const left = async (): Promise<number> =>
      (await cri.sh(watching, 'ps -o args')).split('\n').filter((line) => /^sleep (2345|3456)$/.test(line)).length
    await until('the children', async () => (await left()) === 2)
    await cri.stopContainer(leaving, 0)
    await until('the children to be gone', async () => (await left()) === 0)
    expect((await cri.podStatus(pod)).state).toBe(PodState.READY)
  })

  test('can be looked into by one that joins another’s processes', async ({ cri }) => {
    const pod = await cri.runPod({ namespaces: { network: POD } })
    const target = await cri.runContainer(pod, ['payload', 'trap'])
    const debug = await cri.runContainer(pod, SLEEP, { namespaces: { pid: TARGET, targetId: target } })
    expect(await namespaceOf(cri, debug, 'pid')).toBe(await namespaceOf(cri, target, 'pid'))
    expect(await cri.sh(debug, 'cat /proc/1/cmdline')).toBe('payload\0trap\0')
    await until('the trap to be set', () => cri.logOf(target).length > 0)
    await cri.stopContainer(debug, 0)
    expect((await cri.status(target)).state).toBe(1)
    // the other way round the kernel kills the processes that have joined
    const again = await cri.runContainer(pod, SLEEP, { namespaces: { pid: TARGET, targetId: target } })
    await cri.stopContainer(target, 10)
    expect((await cri.status(target)).exitCode).toBe(7)
    await until('the end of who joined', async () => (await cri.status(again)).exitCode === 137)
  })

  test('see the host’s processes where the pod asks for it, and still take only their own with them', async ({
    cri,
  }) => {
    const pod = await cri.runPod({ namespaces: { network: NODE, pid: NODE } })
    const container = await cri.runContainer(pod, ['sh', '-c', 'setsid sleep 2345 & sleep 3456'])
    expect(await namespaceOf(cri, container, 'pid')).toBe(readlinkSync('/proc/self/ns/pid'))
    expect(await cri.sh(container, `cat /proc/${process.pid}/stat`)).toMatch(new RegExp(`^${process.pid} `))
    await cri.stopContainer(container, 0)
    expect((await cri.status(container)).exitCode).toBe(137)
  })
})

describe('a container of a pod', NEEDS, () => {
  test('has the user, groups, capabilities, filter and paths of its security context', async ({ cri }) => {
    const pod = await cri.runPod({ namespaces: { network: POD } })
    const container = await cri.runContainer(pod, SLEEP, {
      security: {
        runAsUser: { value: 1000 },
        runAsGroup: { value: 1000 },
        supplementalGroups: [2000],
        readonlyRootfs: true,
        noNewPrivs: true,
        capabilities: { dropCapabilities: ['ALL'], addCapabilities: ['NET_BIND_SERVICE'] },
      },
      config: { workingDir: '/tmp', envs: [{ key: 'COLOUR', value: 'green' }] },
    })
    // whether an image's own groups are added differs between releases
    expect(await cri.sh(container, 'id -u; id -g; id -G; pwd; echo $COLOUR')).toMatch(
      /^1000\n1000\n1000 (1001 )?2000( 1001)?\n\/tmp\ngreen$/,
    )
    const status = await cri.sh(container, 'cat /proc/1/status')
    expect(status).toMatch(/^CapBnd:\s+0000000000000400$/m)
    expect(status).toMatch(/^NoNewPrivs:\s+1$/m)
    expect(status).toMatch(/^Seccomp:\s+2$/m)
    expect((await cri.execSync(container, ['touch', '/tmp/x'])).stderr).toContain('Read-only file system')
    expect(await cri.sh(container, 'cat /proc/keys')).toBe('')
    expect((await cri.execSync(container, ['sh', '-c', 'echo x >/proc/sysrq-trigger'])).exitCode).not.toBe(0)
  })

  test('is not held back where it is privileged', async ({ cri }) => {
    const pod = await cri.runPod({ namespaces: { network: POD }, security: { privileged: true } })
    const container = await cri.runContainer(pod, SLEEP, {
      security: { privileged: true, seccomp: { profileType: 1 } },
    })
    const status = await cri.sh(container, 'cat /proc/1/status')
    expect(/^CapEff:\s+(\w+)$/m.exec(status)?.[1]).toBe(
      /^CapEff:\s+(\w+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1],
    )
    expect(status).toMatch(/^Seccomp:\s+0$/m)
    await cri.sh(container, 'mount -t tmpfs none /mnt && umount /mnt')
    expect(await cri.sh(container, 'test -b /dev/loop0 -o -c /dev/fuse -o -c /dev/kmsg && echo yes')).toBe('yes')
  })

  test('has volumes and devices of the host, read-only where that is asked for', async ({ daemon, cri }) => {
    const volume = join(daemon.folder, 'volume')
    mkdirSync(volume)
    writeFileSync(join(volume, 'note'), 'from the host\n')
    const pod = await cri.runPod({ namespaces: { network: POD } })
    const container = await cri.runContainer(pod, SLEEP, {
      config: {
        mounts: [
          { containerPath: '/data', hostPath: volume },
          { containerPath: '/data-ro', hostPath: volume, readonly: true },
        ],
        devices: [{ containerPath: '/dev/nothing', hostPath: '/dev/null', permissions: 'rwm' }],
      },
    })
    expect(await cri.sh(container, 'cat /data/note; echo back >/data/answer; echo x >/dev/nothing')).toBe(
      'from the host',
    )
    expect(readFileSync(join(volume, 'answer'), 'utf8')).toBe('back\n')
    expect((await cri.execSync(container, ['touch', '/data-ro/x'])).stderr).toContain('Read-only file system')
  })

  test('sees what is mounted in a volume later, and shows the host what it mounts, where that is asked for', async ({
    daemon,
    cri,
  }) => {
    const volume = join(daemon.folder, 'shared')
    for (const name of ['', 'late', 'own']) mkdirSync(join(volume, name))
    execFileSync('mount', ['--bind', '--make-shared', volume, volume])
    try {
      const pod = await cri.runPod({ namespaces: { network: POD }, security: { privileged: true } })
      const volumeOf = (propagation: number): Fields => ({
        mounts: [{ containerPath: '/v', hostPath: volume, propagation }],
      })
      const apart = await cri.runContainer(pod, SLEEP, { config: volumeOf(0) })
      const seeing = await cri.runContainer(pod, SLEEP, { config: volumeOf(1) })
      const showing = await cri.runContainer(pod, SLEEP, { security: { privileged: true }, config: volumeOf(2) })
      execFileSync('mount', ['-t', 'tmpfs', 'late', join(volume, 'late')])
      await cri.sh(showing, 'mount -t tmpfs own /v/own')
      const mounted = (text: string): string[] =>
        [...text.matchAll(/ (late|own) /g)].map(([, name]) => name ?? '').sort()
      expect(mounted(await cri.sh(apart, 'cat /proc/self/mountinfo'))).toEqual([])
      expect(mounted(await cri.sh(seeing, 'cat /proc/self/mountinfo'))).toEqual(['late', 'own'])
      expect(mounted(await cri.sh(showing, 'cat /proc/self/mountinfo'))).toEqual(['late', 'own'])
      execFileSync('umount', [join(volume, 'late'), join(volume, 'own')])
      expect(mounted(await cri.sh(seeing, 'cat /proc/self/mountinfo'))).toEqual([])
    } finally {
      execFileSync('umount', ['-R', volume])
    }
  })
})

describe('a pod whose own process died', NEEDS, () => {
  test('is not ready, and is replaced by another one', async ({ daemon, cri }) => {
    const pod = await cri.runPod({ namespaces: { network: POD } })
    const container = await cri.runContainer(pod, SLEEP)
    process.kill(await pidOf(daemon, pod.id), 'SIGKILL')
    await until('the pod not to be ready', async () => (await cri.podStatus(pod)).state === PodState.NOTREADY)
    // what has its own processes goes on until the kubelet stops it
    expect((await cri.status(container)).state).toBe(1)
    expect(await cri.sh(container, 'hostname')).not.toBe('')
    await cri.stopPod(pod)
    expect((await cri.status(container)).exitCode).toBe(137)
    const metadata = { name: 'pod-1', uid: 'pod-1', namespace: 'tests', attempt: 1 }
    const next = await cri.runPod({ namespaces: { network: POD }, config: { metadata } })
    await cri.removePod(pod)
    const again = await cri.runContainer(next, SLEEP)
    expect(await cri.sh(again, 'hostname')).not.toBe('')
  })
})
