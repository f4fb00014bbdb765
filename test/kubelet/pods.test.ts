/**
 * Pods of a real kubelet, with this shim below containerd: probes, limits, volumes, init and sidecar containers,
 * crashes, ends, and restarts of containerd and of the kubelet itself. The kubelet has no API server; the descriptions
 * of its pods are files.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { until } from '../support/command.ts'
import { CRI_NAMESPACE, valueAt } from '../support/cri.ts'
import { expect, type Json, type Kubelet, POD_IMAGE, kubeletTest as test } from '../support/kubelet.ts'
import { isCgroup2, needs } from '../support/needs.ts'

const NEEDS = {
  ...needs('root', 'other releases of containerd', 'busybox', 'the built shim', 'CNI plugins', 'iproute2', 'kubelet'),
  timeout: 180_000,
}

/** A container that runs a script, as a pod describes it. */
const shell = (name: string, script: string, more: Json = {}): Json => ({
  name,
  image: POD_IMAGE,
  imagePullPolicy: 'Never',
  command: ['sh', '-c', script],
  ...more,
})

const runs = ({ state }: { readonly state: Json }): boolean => 'running' in state
/** How the last run of a container ended, if it has ended. */
const lastEnd = ({ lastState }: { readonly lastState: Json }): unknown => lastState['terminated']
const execProbe = (script: string): Json => ({ exec: { command: ['sh', '-c', script] }, periodSeconds: 1 })

/** The first process of a container. */
async function pidOf(kubelet: Kubelet, id: string): Promise<number> {
  const { stdout } = await kubelet.daemon.ctr(['--namespace', CRI_NAMESPACE, 'task', 'ls'])
  const line = stdout.split('\n').find((each) => each.startsWith(id))
  return Number(line?.split(/\s+/)[1])
}

describe('a pod of the kubelet', NEEDS, () => {
  test('runs its init containers in order, then the sidecar beside the program', async ({ kubelet }) => {
    const volumeMounts = [{ name: 'shared', mountPath: '/shared' }]
    kubelet.apply('order', {
      volumes: [{ name: 'shared', emptyDir: {} }],
      initContainers: [
        shell('first', 'echo first >>/shared/log', { volumeMounts }),
        shell('beside', 'echo beside >>/shared/log; exec sleep 1000', { volumeMounts, restartPolicy: 'Always' }),
        shell('last', 'until grep -q beside /shared/log; do sleep 0.1; done; echo last >>/shared/log', {
          volumeMounts,
        }),
      ],
      containers: [shell('main', 'cat /shared/log; exec sleep 1000', { volumeMounts })],
    })
    await kubelet.until('the start', 'order/main', runs)
    await until('its output', () => kubelet.output('order', 'main') === 'first\nbeside\nlast\n')
    expect(await kubelet.container('order', 'first')).toMatchObject({ state: { terminated: { exitCode: 0 } } })
    expect(await kubelet.container('order', 'beside')).toMatchObject({ state: { running: {} }, restartCount: 0 })
  })

  test('is ready when its exec probe says so, and starts again when another one fails', async ({ kubelet }) => {
    const script = 'touch /tmp/alive; exec sleep 1000'
    kubelet.apply('probed', {
      containers: [
        shell('main', script, {
          readinessProbe: execProbe('test -e /tmp/ready'),
          livenessProbe: { ...execProbe('test -e /tmp/alive'), failureThreshold: 1, initialDelaySeconds: 1 },
        }),
      ],
    })
    const { containerID, ready } = await kubelet.until('the start', 'probed/main', runs)
    expect(ready).toBe(false)
    const root = `/proc/${await pidOf(kubelet, containerID)}/root`
    writeFileSync(join(root, 'tmp/ready'), '')
    await kubelet.until('readiness', 'probed/main', (status) => status.ready)
    execFileSync('rm', [join(root, 'tmp/alive')])
    const again = await kubelet.until('a restart', 'probed/main', (status) => status.restartCount === 1 && runs(status))
    expect(again).toMatchObject({ lastState: { terminated: { exitCode: 137 } } })
    expect(again.containerID).not.toBe(containerID)
  })

  test('has the limits that it asks for, and requests as weights', async ({ kubelet }) => {
    const files = isCgroup2()
      ? '/sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max'
      : '/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.shares'
    const resources = { limits: { memory: '32Mi', cpu: '250m' }, requests: { memory: '16Mi', cpu: '100m' } }
    kubelet.apply('limited', { containers: [shell('main', `cat ${files}; exec sleep 1000`, { resources })] })
    await kubelet.until('the start', 'limited/main', runs)
    const expected = isCgroup2() ? '33554432\n25000 100000\n' : '33554432\n25000\n102\n'
    await until(
      'its output',
      () => kubelet.output('limited', 'main') === expected,
      () => kubelet.output('limited', 'main'),
    )
  })

  test('has its volumes: of disk and of memory, parts of them, and files of the machine', async ({ kubelet }) => {
    const source = join(kubelet.folder, 'files')
    mkdirSync(source)
    writeFileSync(join(source, 'told'), 'by the machine\n')
    const mount = (name: string, mountPath: string, more: Json = {}): Json => ({ name, mountPath, ...more })
    const script = `cat /file; echo x 2>&1 >/ro/told; echo whole >/disk/part/here; cat /part/here; stat -f -c %T /memory
      stat -c %a /memory; exec sleep 1000`
    kubelet.apply('volumes', {
      volumes: [
        { name: 'disk', emptyDir: {} },
        { name: 'memory', emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } },
        { name: 'files', hostPath: { path: source, type: 'Directory' } },
      ],
      containers: [
        shell('main', script, {
          volumeMounts: [
            mount('disk', '/disk'),
            mount('disk', '/part', { subPath: 'part' }),
            mount('memory', '/memory'),
            mount('files', '/ro', { readOnly: true }),
            mount('files', '/file', { subPath: 'told' }),
          ],
        }),
      ],
    })
    await kubelet.until('the start', 'volumes/main', runs)
    const expected = "by the machine\nsh: can't create /ro/told: Read-only file system\nwhole\ntmpfs\n1777\n"
    await until('its output', () => kubelet.output('volumes', 'main').length >= expected.length)
    expect(kubelet.output('volumes', 'main')).toBe(expected)
  })

  test('sees mounts of the machine, and shows its own, where a volume says so', async ({ kubelet }) => {
    const volumeMount = (mountPropagation: string): Json => ({
      volumeMounts: [{ name: 'shared', mountPath: '/shared', mountPropagation }],
    })
    for (const name of ['down', 'up', 'none']) mkdirSync(join(kubelet.shared, name))
    kubelet.apply('propagation', {
      volumes: [{ name: 'shared', hostPath: { path: kubelet.shared } }],
      containers: [
        shell('slave', 'until [ -e /shared/down/mark ]; do sleep 0.1; done; echo seen; exec sleep 1000', {
          ...volumeMount('HostToContainer'),
        }),
        shell('shared', 'mount -t tmpfs up /shared/up && touch /shared/up/mark; exec sleep 1000', {
          ...volumeMount('Bidirectional'),
          securityContext: { privileged: true },
        }),
        shell('private', 'exec sleep 1000', volumeMount('None')),
      ],
    })
    for (const name of ['slave', 'shared', 'private']) await kubelet.until('the start', `propagation/${name}`, runs)
    await until('the mount of the container', () => existsSync(join(kubelet.shared, 'up/mark')))
    execFileSync('mount', ['-t', 'tmpfs', 'down', join(kubelet.shared, 'down')])
    writeFileSync(join(kubelet.shared, 'down/mark'), '')
    await until('the mount of the machine', () => kubelet.output('propagation', 'slave') === 'seen\n')
    const status = await kubelet.container('propagation', 'private')
    expect(existsSync(`/proc/${await pidOf(kubelet, status!.containerID)}/root/shared/down/mark`)).toBe(false)
    for (const name of ['down', 'up']) execFileSync('umount', [join(kubelet.shared, name)])
  })

  test('that crashes is started again, later each time, and tells how it ended', async ({ kubelet }) => {
    kubelet.apply('crashing', { containers: [shell('main', 'echo run; exit 3')] })
    const status = await kubelet.until('two ends', 'crashing/main', ({ restartCount }) => restartCount >= 1)
    expect(lastEnd(status)).toMatchObject({ exitCode: 3, reason: 'Error' })
    await kubelet.until(
      'the loop to be known',
      'crashing/main',
      ({ state }) => valueAt(state, 'waiting', 'reason') === 'CrashLoopBackOff',
    )
    // the kubelet keeps the log of the last run alone
    expect(kubelet.output('crashing', 'main')).toBe('run\n')
  })

  test('that needs more memory than it may have is told apart from one that is killed', async ({ kubelet }) => {
    const resources = { limits: { memory: '24Mi' } }
    kubelet.apply('oom', {
      restartPolicy: 'Never',
      containers: [
        shell('hungry', '', { command: ['tail', '/dev/zero'], resources }),
        shell('killed', 'exec sleep 1000', { resources }),
      ],
    })
    const ended = ({ state }: { readonly state: Json }): boolean => 'terminated' in state
    const hungry = await kubelet.until('the end', 'oom/hungry', ended)
    expect(hungry.state).toMatchObject({ terminated: { exitCode: 137, reason: 'OOMKilled' } })
    const { containerID } = await kubelet.until('the start', 'oom/killed', runs)
    process.kill(await pidOf(kubelet, containerID), 'SIGKILL')
    const killed = await kubelet.until('the end', 'oom/killed', ended)
    expect(killed.state).toMatchObject({ terminated: { exitCode: 137, reason: 'Error' } })
  })

  test('may end in its own way, within its grace and with its last hook', async ({ kubelet }) => {
    const ends = join(kubelet.folder, 'ends')
    mkdirSync(ends)
    const volumeMounts = [{ name: 'ends', mountPath: '/ends' }]
    kubelet.apply('graceful', {
      terminationGracePeriodSeconds: 30,
      volumes: [{ name: 'ends', hostPath: { path: ends } }],
      containers: [
        shell('main', `trap 'echo term >>/ends/log; exit 0' TERM; echo set; while :; do sleep 0.1; done`, {
          volumeMounts,
          lifecycle: { preStop: { exec: { command: ['sh', '-c', 'echo hook >>/ends/log'] } } },
        }),
      ],
    })
    await kubelet.until('the start', 'graceful/main', runs)
    await until('the trap', () => kubelet.output('graceful', 'main') === 'set\n')
    kubelet.withdraw('graceful')
    // the kubelet does not tell of a pod any more whose description is gone
    const told = (): string => (existsSync(join(ends, 'log')) ? readFileSync(join(ends, 'log'), 'utf8') : '')
    await until('its last words', () => told().includes('term'), told)
    expect(told()).toBe('hook\nterm\n')
  })

  test('has a network of its own that its containers share', async ({ kubelet }) => {
    const link = 'readlink /proc/self/ns/net; ip -o addr show dev eth0 | grep -o "inet [0-9.]*"; exec sleep 1000'
    kubelet.apply('network', { hostNetwork: false, containers: [shell('one', link), shell('two', link)] })
    for (const name of ['one', 'two']) await kubelet.until('the start', `network/${name}`, runs)
    await until('their output', () => ['one', 'two'].every((name) => kubelet.output('network', name).includes('inet')))
    expect(kubelet.output('network', 'one')).toBe(kubelet.output('network', 'two'))
    const ip = valueAt(await kubelet.status('network'), 'podIP')
    expect(kubelet.output('network', 'one')).toContain(`inet ${ip}\n`)
  })

  test('has users of its own, whose files on volumes are those of its root', needs('our shim'), async ({ kubelet }) => {
    const script = 'id -u; cat /proc/self/uid_map; touch /disk/made; stat -c %u /disk/made; exec sleep 1000'
    kubelet.apply('users', {
      hostNetwork: false,
      hostUsers: false,
      volumes: [{ name: 'disk', emptyDir: {} }],
      containers: [shell('main', script, { volumeMounts: [{ name: 'disk', mountPath: '/disk' }] })],
    })
    const { containerID } = await kubelet.until('the start', 'users/main', runs)
    await until('its output', () => kubelet.output('users', 'main').split('\n').length === 4)
    const [id, map, owner] = kubelet.output('users', 'main').split('\n')
    expect([id, owner]).toEqual(['0', '0'])
    expect(map).toMatch(/^\s*0\s+[1-9]\d+\s+65536$/)
    const status = readFileSync(`/proc/${await pidOf(kubelet, containerID)}/status`, 'utf8')
    expect(/^Uid:\t(\d+)/m.exec(status)?.[1]).toBe(map?.trim().split(/\s+/)[1])
  })

  test('lives on while containerd and the kubelet are killed and come back', async ({ kubelet }) => {
    kubelet.apply('lasting', {
      containers: [
        shell('main', 'trap "exit 4" USR1; while :; do sleep 0.1; done', { livenessProbe: execProbe('true') }),
      ],
    })
    const { containerID } = await kubelet.until('the start', 'lasting/main', runs)
    const pid = await pidOf(kubelet, containerID)
    await kubelet.daemon.kill()
    await kubelet.daemon.start()
    await kubelet.kill()
    await kubelet.start()
    const status = await kubelet.until('the same container', 'lasting/main', runs)
    expect(status).toMatchObject({ containerID, restartCount: 0 })
    expect(await pidOf(kubelet, containerID)).toBe(pid)
    // what happens while nobody looks is known afterwards
    await kubelet.kill()
    process.kill(pid, 'SIGUSR1')
    await until('its end', () => !existsSync(`/proc/${pid}`))
    await kubelet.start()
    const again = await kubelet.until('a restart', 'lasting/main', (each) => each.restartCount === 1 && runs(each))
    expect(lastEnd(again)).toMatchObject({ exitCode: 4 })
  })
})
