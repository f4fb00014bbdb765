/**
 * Network devices that move into a container: the helper hands over a socket of its network namespace, and the
 * runtime moves them by it. All with real devices in real namespaces; one stands for the host's.
 */
import { spawnSync } from 'node:child_process'
import { readdirSync, readlinkSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Op } from '../../proto/init-plan.ts'
import { RuntimeError } from '../../runtime/errors.ts'
import { takeFd } from '../../runtime/peers/handover.ts'
import { moveNetDevice, moveNetDevices } from '../../runtime/peers/net-devices.ts'
import { OwnedFd } from '../../runtime/sys/fd.ts'
import { declare, lastErrno } from '../../runtime/sys/libc.ts'
import { connectToKernel, namespaceOfSocket, openRouteSocket } from '../../runtime/sys/netlink.ts'
import { socketPair } from '../../runtime/sys/socket.ts'
import { needs } from '../support/needs.ts'
import { CONTAINER_FLAGS, containerPlan, make, type Parts, Rootfs, Run, TS_INIT, USER_FLAG } from './run.ts'

const NET_FLAG = 0x40000000n
const MAP = '0 100000 65536\n'
const USER = { flags: CONTAINER_FLAGS | USER_FLAG, uidMap: MAP, gidMap: MAP }
const [E2BIG, EBUSY, EEXIST, ENODEV, ECONNREFUSED] = [7, 16, 17, 19, 111]

const socket = declare('int socket(int domain, int type, int protocol)')
const getsockname = declare('int getsockname(int fd, void *address, void *length)')
const sendto = declare(
  'long sendto(int fd, const void *data, unsigned long size, int flags, const void *to, unsigned int length)',
)

function run(command: string, args: readonly string[], input = ''): string {
  const result = spawnSync(command, args, { encoding: 'utf8', input })
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.stderr}`)
  return result.stdout
}

let made = 0

/** A network namespace with a veth pair "out" and "peer" in it. */
class Net implements Disposable {
  readonly name = `ts-init-${process.pid}-${made++}`
  readonly enter = ['ip', 'netns', 'exec', this.name]
  readonly join: readonly Op[] = [
    { op: 'host_agent' },
    { op: 'open_ns', path: `/run/netns/${this.name}`, type: NET_FLAG },
    { op: 'join' },
  ]
  constructor() {
    run('ip', ['netns', 'add', this.name])
    this.ip('link', 'add', 'out', 'type', 'veth', 'peer', 'name', 'peer')
    this.ip('link', 'set', 'peer', 'up')
  }
  ip(...args: string[]): string {
    return run('ip', ['-n', this.name, ...args])
  }
  batch(lines: readonly string[]): void {
    run('ip', ['-n', this.name, '-batch', '-'], lines.map((line) => `${line}\n`).join(''))
  }
  index(device: string): number {
    return Number(this.ip('-o', 'link', 'show', device).split(':')[0])
  }
  [Symbol.dispose](): void {
    run('ip', ['netns', 'del', this.name])
  }
}

function openFds(): number {
  return readdirSync('/proc/self/fd').length
}

/** The error that moving a device ends with. */
function refusal(move: () => void): RuntimeError {
  try {
    move()
  } catch (error) {
    if (error instanceof RuntimeError) return error
    throw error
  }
  throw new Error('the device was moved')
}

describe('a network device', needs('root', 'busybox', 'make', 'gcc', 'ip', 'setpriv'), () => {
  let rootfs: Rootfs
  beforeAll(() => {
    make(TS_INIT)
    rootfs = new Rootfs()
    run('chmod', ['755', rootfs.folder])
    run('chown', ['-R', '100000:100000', rootfs.path])
  }, 120_000)
  afterAll(() => rootfs[Symbol.dispose]())

  /** A container that asks for devices; only in a network of its own it may bring the loopback device up. */
  function plan(script: string, parts: Partial<Parts> = {}): Op[] {
    const ops = containerPlan(rootfs, {
      host: [{ op: 'host_agent' }],
      outside: [{ op: 'net_devices' }],
      ...parts,
      args: ['/bin/sh', '-c', script],
    })
    return ops.filter(({ op }) => parts.host === undefined || op !== 'loopback_up')
  }

  const into = (net: Net, clone: Parts['clone'] = {}): Partial<Parts> => ({
    host: net.join,
    clone: { flags: CONTAINER_FLAGS & ~NET_FLAG, ...clone },
  })

  /** Takes the socket that a helper waits with, as the runtime does. */
  async function takeSocket(helper: Run): Promise<OwnedFd> {
    await helper.until('net_socket')
    const socket = takeFd(helper.pid, helper.find('net_socket')?.value ?? -1)
    connectToKernel(socket.fd)
    return socket
  }

  /** A socket of a namespace that is not ours. */
  async function socketIn(net: Net): Promise<OwnedFd> {
    using helper = new Run(plan('true', into(net)))
    return await takeSocket(helper)
  }

  interface Move {
    readonly name: string
    readonly newName?: string
  }

  /** Moves devices from a network into that of a container; what its script then says. */
  async function moveInto(net: Net, moves: readonly Move[], script: string, parts: Partial<Parts> = {}) {
    using helper = new Run(plan(script, parts), undefined, net.enter)
    using there = await takeSocket(helper)
    using home = await socketIn(net)
    for (const move of moves) moveNetDevice({ ...move, home: home.fd, there: there.fd })
    helper.status.write('c')
    await helper.ended
    if (helper.find('failed')) throw new Error(JSON.stringify(helper.records))
    expect(await helper.stage0).toBe(0)
    expect(await helper.stderr).toBe('')
    return await helper.stdout
  }

  /** Moves devices from one network to another. */
  async function moveBetween(from: Net, to: Net, ...moves: readonly Move[]): Promise<void> {
    using home = await socketIn(from)
    using there = await socketIn(to)
    const open = openFds()
    try {
      for (const move of moves) moveNetDevice({ ...move, home: home.fd, there: there.fd })
    } finally {
      expect(openFds()).toBe(open)
    }
  }

  describe('moves', () => {
    const show = 'busybox ip -o addr; busybox ip -o link | busybox cut -d: -f2; busybox ip link show up'

    const NETWORKS: readonly (readonly [string, (there: Net) => Partial<Parts>])[] = [
      ['', () => ({})],
      [' of a user namespace', () => ({ clone: USER })],
      [' that was joined', (there) => into(there)],
      [
        " that was joined and is not its user namespace's",
        (there) => into(there, { ...USER, flags: USER.flags & ~NET_FLAG }),
      ],
    ]
    test.for(NETWORKS)('with its addresses into the network%s, under another name and up', async ([, parts]) => {
      using net = new Net()
      using there = new Net()
      net.ip('addr', 'add', '192.0.2.5/24', 'brd', '192.0.2.255', 'dev', 'out')
      net.ip('addr', 'add', '192.0.2.6/24', 'dev', 'out')
      net.ip('addr', 'add', '198.51.100.1', 'peer', '198.51.100.2/32', 'dev', 'out')
      net.ip('addr', 'add', '169.254.1.1/16', 'scope', 'link', 'dev', 'out')
      net.ip('addr', 'add', '203.0.113.9/24', 'dev', 'out', 'valid_lft', '1000', 'preferred_lft', '1000')
      net.ip('addr', 'add', '2001:db8::5/64', 'dev', 'out', 'nodad')
      net.ip('link', 'set', 'out', 'up')
      const text = await moveInto(net, [{ name: 'out', newName: 'eth0' }], show, parts(there))
      expect(text).toMatch(/eth0\s+inet 192\.0\.2\.5\/24 brd 192\.0\.2\.255 scope global eth0/)
      expect(text).toMatch(/eth0\s+inet 192\.0\.2\.6\/24 scope global secondary eth0/)
      expect(text).toMatch(/eth0\s+inet 198\.51\.100\.1 peer 198\.51\.100\.2\/32 scope global eth0/)
      expect(text).toMatch(/eth0\s+inet6 2001:db8::5\/64 scope global/)
      expect(text).not.toMatch(/169\.254|203\.0\.113/)
      expect(text).toMatch(/eth0.*<[^>]*\bUP\b/)
    })

    test('under its own name, and by a pattern', async () => {
      using net = new Net()
      net.ip('link', 'add', 'out2', 'type', 'veth', 'peer', 'name', 'peer2')
      net.ip('addr', 'add', '192.0.2.7/24', 'dev', 'out2')
      const names = 'busybox ip -o link | busybox cut -d: -f2 | busybox cut -d@ -f1; busybox ip -o -4 addr show net0'
      const text = await moveInto(net, [{ name: 'out' }, { name: 'out2', newName: 'net%d' }], names)
      expect(text.match(/^ .*$/gm)?.sort()).toEqual([' lo', ' net0', ' out'])
      expect(text).toMatch(/192\.0\.2\.7\/24/)
    })

    test('with the index that it had, or if that is taken there with the next one that is free', async () => {
      using net = new Net()
      using there = new Net()
      const bridge = (name: string, index: number) =>
        there.ip('link', 'add', name, 'index', String(index), 'type', 'bridge')
      net.ip('link', 'add', 'far', 'index', '100', 'type', 'veth', 'peer', 'name', 'far2')
      net.ip('addr', 'add', '192.0.2.8/24', 'dev', 'far')
      await moveBetween(net, there, { name: 'far' })
      expect(there.index('far')).toBe(100)
      net.ip('link', 'add', 'far', 'index', '100', 'type', 'veth', 'peer', 'name', 'far3')
      net.ip('addr', 'add', '192.0.2.9/24', 'dev', 'far')
      bridge('x', 101)
      await moveBetween(net, there, { name: 'far', newName: 'moved' })
      expect(there.index('moved')).toBe(102)
      expect(there.ip('-o', '-4', 'addr', 'show', 'moved')).toContain('192.0.2.9/24')
      expect(there.ip('-o', '-4', 'addr', 'show', 'far')).not.toContain('192.0.2.9/24')
      // both namespaces gave the first indexes to a veth pair of theirs
      const index = net.index('out')
      expect(there.index('out')).toBe(index)
      await moveBetween(net, there, { name: 'out', newName: 'out2' })
      expect(there.index('out2')).not.toBe(index)
    })

    test('and keeps of its addresses what was asked for, not what became of them', async () => {
      using net = new Net()
      using there = new Net()
      net.ip('addr', 'add', '192.0.2.5/24', 'dev', 'out', 'noprefixroute')
      net.ip('addr', 'add', '192.0.2.6/24', 'dev', 'out')
      net.ip('addr', 'add', '2001:db8::5/64', 'dev', 'out', 'nodad')
      net.ip('addr', 'add', '2001:db8::6/64', 'dev', 'out', 'mngtmpaddr')
      net.ip('addr', 'add', '2001:db8::7/64', 'dev', 'out')
      net.ip('link', 'set', 'out', 'up')
      await moveBetween(net, there, { name: 'out', newName: 'in' })
      const lines = there.ip('-o', 'addr', 'show', 'in').split('\n')
      const flagsOf = (address: string) => lines.find((line) => line.includes(` ${address}/`))?.split('\\')[0]
      expect(flagsOf('192.0.2.5')).toMatch(/\/24 scope global noprefixroute in/)
      expect(flagsOf('192.0.2.6')).toMatch(/\/24 scope global secondary in|\/24 scope global in/)
      expect(flagsOf('2001:db8::5')).toContain('nodad')
      expect(flagsOf('2001:db8::6')).not.toMatch(/nodad|mngtmpaddr/)
      expect(flagsOf('2001:db8::7')).not.toMatch(/nodad|noprefixroute/)
      // those of a link come from the kernel, and are its own to give there
      expect(lines.filter((line) => line.includes('scope global'))).toHaveLength(5)
    })

    test('with 64 addresses', async () => {
      using net = new Net()
      using there = new Net()
      net.batch(Array.from({ length: 64 }, (_, i) => `addr add 10.1.${i}.1/24 dev out`))
      await moveBetween(net, there, { name: 'out', newName: 'in' })
      expect(there.ip('-o', '-4', 'addr', 'show', 'in').match(/inet 10\.1\./g)).toHaveLength(64)
    })

    test('one after the other, over the same sockets', async () => {
      using net = new Net()
      using there = new Net()
      net.ip('addr', 'add', '2001:db8::5/64', 'dev', 'out', 'nodad')
      await moveBetween(net, there, { name: 'out', newName: 'a' }, { name: 'peer', newName: 'b' })
      expect(there.ip('-o', 'addr', 'show', 'a')).toContain('2001:db8::5/64')
      expect(there.ip('-o', 'link', 'show', 'b')).toMatch(/<[^>]*\bUP\b/)
      expect(net.ip('-o', 'link').trim().split('\n')).toHaveLength(1)
    })
  })

  describe('stays where it is', () => {
    /** What moving "out" ends with, and whether it is as it was. */
    async function failing(net: Net, there: Net, move: Move): Promise<RuntimeError> {
      using home = await socketIn(net)
      using target = await socketIn(there)
      net.ip('addr', 'add', '2001:db8::5/64', 'dev', 'out', 'nodad')
      net.ip('link', 'set', 'out', 'up')
      const open = openFds()
      const error = refusal(() => moveNetDevice({ ...move, home: home.fd, there: target.fd }))
      expect(openFds()).toBe(open)
      return error
    }
    function expectUntouched(net: Net): void {
      expect(net.ip('-o', 'link', 'show', 'out')).toMatch(/<[^>]*\bUP\b/)
      expect(net.ip('-o', 'addr', 'show', 'out')).toContain('2001:db8::5/64')
    }

    test('when there is none of its name', async () => {
      using net = new Net()
      using there = new Net()
      const error = await failing(net, there, { name: 'no~such' })
      expect(error.code).toBe('Internal')
      expect(error.message).toBe(
        'cannot set up the container: move network device "no~such": ENODEV: no such device (at /linux/netDevices/no~0such)',
      )
      expect(error.detail).toMatchObject({ errno: ENODEV, pointer: '/linux/netDevices/no~0such' })
      expectUntouched(net)
    })

    test.for<Move>([{ name: 'out', newName: 'lo' }, { name: 'out' }])(
      'when its name is taken there ($newName)',
      async (move) => {
        using net = new Net()
        using there = new Net()
        const error = await failing(net, there, move)
        expect(error.code).toBe('AlreadyExists')
        expect(error.message).toBe(
          'cannot set up the container: move network device "out": its name in the container: EEXIST: file exists (at /linux/netDevices/out)',
        )
        expect(error.detail).toMatchObject({ errno: EEXIST, pointer: '/linux/netDevices/out' })
        expectUntouched(net)
      },
    )

    test('when it has more than 64 addresses', async () => {
      using net = new Net()
      using there = new Net()
      net.batch(Array.from({ length: 64 }, (_, i) => `addr add 10.1.${i}.1/24 dev out`))
      const error = await failing(net, there, { name: 'out', newName: 'in' })
      expect(error.message).toContain('move network device "out": read its addresses: E2BIG')
      expect(error.detail).toMatchObject({ errno: E2BIG })
      expectUntouched(net)
    })

    test('when 256 indexes from its own are taken there', async () => {
      using net = new Net()
      using there = new Net()
      const from = 1000
      net.ip('link', 'add', 'far', 'index', String(from), 'type', 'veth', 'peer', 'name', 'far2')
      there.batch(Array.from({ length: 256 }, (_, i) => `link add b${i} index ${from + i} type bridge`))
      const error = await failing(net, there, { name: 'far' })
      expect(error.message).toContain('move network device "far": EBUSY')
      expect(error.detail).toMatchObject({ errno: EBUSY })
      expect(net.index('far')).toBe(from)
      there.ip('link', 'del', 'b255')
      await moveBetween(net, there, { name: 'far' })
      expect(there.index('far')).toBe(from + 255)
    }, 60_000)
  })

  describe('is moved by a socket', () => {
    test('of the container’s network, which its program does not get', async () => {
      using net = new Net()
      using helper = new Run(plan('ls /proc/self/fd; busybox readlink /proc/self/ns/net'), undefined, net.enter)
      using there = await takeSocket(helper)
      using network = namespaceOfSocket(there.fd)
      const name = readlinkSync(`/proc/self/fd/${network.fd}`)
      expect(readlinkSync(`/proc/${helper.pid}/ns/net`)).toBe(name)
      helper.status.write('c')
      // ls has the directory itself open
      expect(await helper.stdout).toBe(`0\n1\n2\n3\n${name}\n`)
      expect(await helper.stage0).toBe(0)
    })

    test('while which a runtime that may trace nobody can look in, and no longer', async () => {
      const without = ['setpriv', '--bounding-set=-sys_ptrace', '--inh-caps=-sys_ptrace']
      const outside: Op[] = [{ op: 'net_devices' }, { op: 'sync', point: 1 }]
      using helper = new Run(plan('true', { outside }), undefined, without)
      const looks = () => spawnSync(without[0]!, [...without.slice(1), 'readlink', `/proc/${helper.pid}/cwd`]).status
      await helper.until('net_socket')
      expect(looks()).toBe(0)
      helper.status.write('c')
      await helper.until('reached')
      expect(looks()).toBe(1)
    })

    test('that nobody takes when the runtime is gone', async () => {
      using helper = new Run(plan('echo not reached'))
      await helper.until('net_socket')
      helper.status.end()
      expect(await helper.exit()).toEqual({ code: 255, signal: 0 })
      expect(await helper.stage0).toBe(0)
      expect(await helper.stdout).toBe('')
    })

    test('that hears nobody but the kernel', () => {
      using ours = openRouteSocket()
      const address = Buffer.alloc(12)
      const length = Buffer.from([12, 0, 0, 0])
      expect(getsockname(ours.fd, address, length)).toBe(0)
      expect(address.readUInt32LE(4)).not.toBe(0)
      using other = openRouteSocket()
      const message = Buffer.alloc(16)
      message.writeUInt32LE(16)
      expect(sendto(other.fd, message, 16, 0, address, 12)).toBe(-1)
      expect(lastErrno()).toBe(ECONNREFUSED)
    })

    test('and by nothing else that a process may have open', async () => {
      const stdin = { pid: process.pid, fd: 0 }
      await expect(moveNetDevices({ out: {} }, stdin)).rejects.toThrow(
        /^cannot set up the container: move network devices: use the socket of their network: \w+: .* \(at \/linux\/netDevices\)$/,
      )

      const { ours, theirs } = socketPair()
      using _ours = ours
      using _theirs = theirs
      expect(() => connectToKernel(ours.fd)).toThrow(/^cannot use a netlink socket: E/)

      const [AF_NETLINK, SOCK_RAW, NETLINK_GENERIC] = [16, 3, 16]
      using generic = new OwnedFd(socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC))
      expect(() => connectToKernel(generic.fd)).toThrow(/^cannot use a netlink socket: EPROTONOSUPPORT/)
    })
  })
})
