/** Network devices of the host that move into the container, with their addresses, and back when it is gone. */
import { spawnSync } from 'node:child_process'
import { expect, onTestFinished } from 'vitest'
import { notRunc } from '../support/needs.ts'
import { BY_ROOT, inModes, type OciHost } from '../support/oci.ts'

const newer = notRunc('needs runc 1.4: linux.netDevices', 'iproute2')

function ip(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync('ip', args, { encoding: 'utf8' })
  expect(status, `ip ${args.join(' ')}: ${stderr}`).toBe(0)
  return stdout
}

/** One of two connected devices, with an address, an MTU and a hardware address; gone with the test. */
function device(runts: OciHost): string {
  const name = `t${runts.name.slice(-6)}`
  ip('link', 'add', name, 'mtu', '1789', 'address', '02:00:00:12:34:56', 'type', 'veth', 'peer', 'name', `${name}p`)
  onTestFinished(() => void spawnSync('ip', ['link', 'delete', `${name}p`]))
  ip('address', 'add', '169.254.169.77/32', 'dev', name, 'scope', 'link')
  ip('address', 'add', '10.11.12.13/24', 'dev', name)
  ip('link', 'set', name, 'up')
  return name
}

inModes(BY_ROOT, 'network devices', (test) => {
  test(
    'move in with their lasting addresses, MTU and hardware address, under their name or another',
    newer,
    async ({ runts }) => {
      for (const rename of [undefined, 'inside0']) {
        const name = device(runts)
        const shown = rename ?? name
        const script = `ip addr show dev ${shown}; ip link show | grep -c ": ${name}[@:]"; true`
        const out = await runts.inside(script, (spec) => {
          spec.linux.netDevices = { [name]: rename === undefined ? {} : { name: rename } }
        })
        expect(out).toContain('mtu 1789')
        expect(out).toContain('link/ether 02:00:00:12:34:56')
        expect(out).toContain('inet 10.11.12.13/24')
        expect(out).not.toContain('169.254.169.77')
        expect(out).toMatch(/<[^>]*\bUP\b/)
        expect(out).toMatch(rename === undefined ? /\n1\n$/ : /\n0\n$/)
        spawnSync('ip', ['link', 'delete', `${name}p`])
      }
    },
  )

  test('stay in a network that outlives the container', newer, async ({ runts }) => {
    const name = device(runts)
    ip('netns', 'add', runts.name)
    onTestFinished(() => void spawnSync('ip', ['netns', 'delete', runts.name]))
    await runts.inside('true', (spec) => {
      spec.linux.namespaces.find(({ type }) => type === 'network')!.path = `/run/netns/${runts.name}`
      spec.linux.netDevices = { [name]: { name: 'moved0' } }
      spec.mounts = spec.mounts.filter(({ destination }) => destination !== '/sys')
    })
    expect(ip('-n', runts.name, 'addr', 'show', 'dev', 'moved0')).toContain('10.11.12.13/24')
  })

  test('that do not exist, or without a network namespace, are refused', newer, async ({ runts }) => {
    const missing = await runts.refused((spec) => {
      spec.linux.netDevices = { 'no-such-dev': {} }
    })
    expect(missing).toContain('no-such-dev')
    const name = device(runts)
    const taken = await runts.refused((spec) => {
      spec.linux.netDevices = { [name]: { name: 'lo' } }
    })
    expect(taken).toMatch(/its name in the container: EEXIST|file exists/)
    const hosts = await runts.refused((spec) => {
      spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'network')
      spec.mounts = spec.mounts.filter(({ destination }) => destination !== '/sys')
      spec.linux.netDevices = { lo: {} }
    })
    expect(hosts).toContain('unable to move network devices without a NET namespace')
  })
})

/** Runs a container with a device as a runtime without CAP_SYS_PTRACE. */
function runTracingNobody(runts: OciHost) {
  const name = device(runts)
  const bundle = runts.bundle(['ip', 'addr', 'show', 'dev', 'inside0'], (spec) => {
    spec.linux.netDevices = { [name]: { name: 'inside0' } }
  })
  const without = ['--bounding-set=-sys_ptrace', '--inh-caps=-sys_ptrace']
  return spawnSync('setpriv', [...without, ...runts.commandOf('run', '-b', bundle, 'c')], { encoding: 'utf8' })
}

inModes(['as root'], 'network devices of a runtime that may trace nobody', (test) => {
  test('move in', newer, ({ runts }) => {
    const { status, stdout, stderr } = runTracingNobody(runts)
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout).toContain('inet 10.11.12.13/24')
  })
})

inModes(['in a user namespace'], 'network devices of a runtime that may trace nobody', (test) => {
  test('are refused: others might look in', newer, ({ runts }) => {
    expect(runTracingNobody(runts)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/move network devices: use the socket of their network: (EPERM|EACCES)/),
    })
  })
})

inModes(['as an unprivileged user'], 'network devices', (test) => {
  test("are not an unprivileged user's to move", newer, async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.linux.netDevices = { lo: { name: 'x' } }
    })
    expect(error).toMatch(/network devices|netDevices/)
  })
})
