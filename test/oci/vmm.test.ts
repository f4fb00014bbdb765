/**
 * A virtual machine monitor as the container's process: qemu, with a machine of the microvm type.
 * Its guest kernel of a few bytes (support/vm-kernel.S) speaks on the serial port. For the runtime it is an ordinary
 * program. The test covers its whole life, its exit status, and the two devices that such programs get.
 */
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect } from 'vitest'
import { isAlive } from '../support/census.ts'
import { until } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { TEST_BUILD } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'
import type { TestSpec } from '../support/spec.ts'

const KERNEL = join(TEST_BUILD, 'vm-kernel')
/** The status with which the monitor ends when the guest switches its machine off. */
const SWITCHED_OFF = 33
const HELLO = 'the guest runs\n'

interface Machine {
  readonly accelerator?: 'tcg' | 'kvm'
  readonly serial: string
  readonly more?: readonly string[]
}

function qemu({ accelerator = 'tcg', serial, more = [] }: Machine): string[] {
  const machine = ['-M', 'microvm,rtc=off,pic=off,pit=off', '-accel', accelerator, '-m', '32', '-kernel', '/vm-kernel']
  const nothingElse = ['-nodefaults', '-no-user-config', '-display', 'none']
  const off = ['-device', 'isa-debug-exit,iobase=0xf4']
  return ['/usr/bin/qemu-system-x86_64', ...machine, ...nothingElse, ...off, '-serial', serial, ...more]
}

/**
 * A bundle that runs the machine's own qemu: its program, libraries and firmware are the host's /usr, bound
 * read-only.
 */
function bundleOf(runts: Runts, machine: Machine, change: (spec: TestSpec) => void = () => undefined): string {
  const bundle = runts.bundle(qemu(machine), (spec) => {
    spec.mounts.push({ destination: '/usr', type: 'bind', source: '/usr', options: ['rbind', 'ro', 'nosuid', 'nodev'] })
    change(spec)
  })
  const root = join(bundle, 'rootfs')
  // where Debian has them since its /usr was merged
  for (const folder of ['lib', 'lib64']) symlinkSync(`usr/${folder}`, join(root, folder))
  mkdirSync(join(root, 'usr'), { recursive: true })
  copyFileSync(KERNEL, join(root, 'vm-kernel'))
  return bundle
}

function give(spec: TestSpec, path: string, minor: number): void {
  const { linux } = spec
  Object.assign(linux, {
    devices: [{ path, type: 'c', major: 10, minor, fileMode: 0o600, uid: 0, gid: 0 }],
    resources: {
      devices: [
        { allow: false, access: 'rwm' },
        { allow: true, type: 'c', major: 10, minor, access: 'rw' },
      ],
    },
  })
}

describe('a virtual machine monitor', needs('root', 'busybox', 'gcc', 'qemu-system-x86_64'), () => {
  beforeAll(() => {
    const source = join(import.meta.dirname, '../support/vm-kernel.S')
    const link = ['-Wl,-Ttext=0x100000,-e,start', '-Wl,--build-id=none', '-Wl,-z,noexecstack']
    mkdirSync(TEST_BUILD, { recursive: true })
    execFileSync('gcc', ['-m32', '-nostdlib', '-static', ...link, '-o', KERNEL, source])
  })

  test('goes through create, start, state, kill and delete like any program', async ({ runts }) => {
    const bundle = bundleOf(runts, { serial: 'file:/tmp/serial' })
    const serial = (): string => readFileSync(join(bundle, 'rootfs/tmp/serial'), { encoding: 'utf8', flag: 'a+' })
    runts.leave('create', '-b', bundle, 'vm')
    expect(await runts.state('vm')).toMatchObject({ status: 'created', bundle })
    expect(serial()).toBe('')

    runts.leave('start', 'vm')
    await until('the guest to speak', () => serial() === HELLO, serial)
    const { status, pid } = await runts.state('vm')
    expect(status).toBe('running')
    expect(readFileSync(`/proc/${pid}/comm`, 'utf8')).toMatch(/^qemu-system/)

    await runts.ok('kill', 'vm', 'TERM')
    await runts.untilStatus('vm', 'stopped')
    await runts.ok('delete', 'vm')
    expect(isAlive(Number(pid))).toBe(false)
    expect(await runts.run('state', 'vm')).toMatchObject({ code: 1, stderr: expect.stringContaining('does not exist') })
  })

  test('is talked to over its stdio, and its exit status is the one that the guest chose', async ({ runts }) => {
    const vm = runts.start(['run', '-b', bundleOf(runts, { serial: 'stdio' }), 'vm'], { input: 'open' })
    await vm.untilOutput(HELLO)
    vm.write('ac')
    await vm.untilOutput('bd')
    vm.write('q')
    expect(await vm.finished).toMatchObject({ code: SWITCHED_OFF, stdout: `${HELLO}bd` })
  })

  test('pauses and resumes with its guest', async ({ runts }) => {
    const vm = runts.start(['run', '-b', bundleOf(runts, { serial: 'stdio' }), 'vm'], { input: 'open' })
    await vm.untilOutput(HELLO)
    await runts.ok('pause', 'vm')
    vm.write('a')
    expect(await runts.state('vm')).toMatchObject({ status: 'paused' })
    expect(vm.stdout).toBe(HELLO)
    await runts.ok('resume', 'vm')
    await vm.untilOutput('b')
    vm.write('q')
    expect(await vm.finished).toMatchObject({ code: SWITCHED_OFF })
  })

  test('can be given /dev/kvm, and can use it only with a cgroup rule', needs('/dev/kvm'), async ({ runts }) => {
    const machine: Machine = { accelerator: 'kvm', serial: 'stdio' }
    const given = bundleOf(runts, machine, (spec) => give(spec, '/dev/kvm', 232))
    const vm = runts.start(['run', '-b', given, 'vm'], { input: 'open' })
    await vm.untilOutput(HELLO)
    vm.write('q')
    expect(await vm.finished).toMatchObject({ code: SWITCHED_OFF })

    const refused = bundleOf(runts, machine, (spec) => {
      give(spec, '/dev/kvm', 232)
      spec.linux.resources = { devices: [{ allow: false, access: 'rwm' }] }
    })
    expect(await runts.run('run', '-b', refused, 'vm')).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('Operation not permitted'),
    })
  })

  test(
    'can be given /dev/net/tun, and its interface lives in the network of the container',
    needs('/dev/net/tun'),
    async ({ runts }) => {
      const more = ['-netdev', 'tap,id=n,ifname=tap0,script=no,downscript=no', '-device', 'virtio-net-device,netdev=n']
      const bundle = bundleOf(runts, { serial: 'file:/tmp/serial', more }, (spec) => {
        give(spec, '/dev/net/tun', 200)
        for (const set of Object.values(spec.process.capabilities ?? {})) set.push('CAP_NET_ADMIN')
      })
      runts.leave('run', '-d', '-b', bundle, 'vm')
      const interfaces = async (): Promise<string> => (await runts.ok('exec', 'vm', 'cat', '/proc/net/dev')).stdout
      await until('the interface', async () => (await interfaces()).includes('tap0:'))
      expect(readFileSync('/proc/net/dev', 'utf8')).not.toContain('tap0:')
      await runts.ok('kill', 'vm', 'KILL')
      await runts.untilStatus('vm', 'stopped')
    },
  )
})
