/**
 * Moves network devices into the container's network namespace (`linux.netDevices`). The runtime does it by rtnetlink,
 * with the rights of the host, over one socket of its own and one that ts-init has opened in that namespace.
 * Invariants: of each device, all checks come before it is changed. Its addresses are saved before the kernel drops
 * them. Moving and renaming is one request.
 * A device that was moved is not moved back when a later step fails. The kernel decides where it goes when the
 * namespace ends.
 */

import { setImmediate } from 'node:timers/promises'
import { RuntimeError } from '../errors.ts'
import { pointerTo } from '../spec/fields.ts'
import type { Linux } from '../spec/types.ts'
import { errnoCode, errnoOf, errnoWords, syscallError } from '../sys/errno.ts'
import { E2BIG, EBUSY, EEXIST, ENODEV } from '../sys/linux.ts'
import {
  change,
  connectToKernel,
  get,
  list,
  namespaceOfSocket,
  openRouteSocket,
  type RouteMessage,
  type RouteRequest,
} from '../sys/netlink.ts'
import { takeFd } from './handover.ts'

const DEVICES_AT = '/linux/netDevices'

const RTM_NEWLINK = 16
const RTM_GETLINK = 18
const RTM_NEWADDR = 20
const RTM_GETADDR = 22
const NLM_F_EXCL = 0x200
const NLM_F_CREATE = 0x400

/** struct ifinfomsg: family u8, padding u8, type u16, index i32, flags u32, mask of the changed flags u32. */
const LINK_BYTES = 16
const IFLA_IFNAME = 3
const IFLA_NET_NS_FD = 28
const IFLA_NEW_IFINDEX = 49
const IFF_UP = 1

/** struct ifaddrmsg: family u8, length of the prefix u8, flags u8, scope u8, index of the device u32. */
const ADDRESS_BYTES = 8
const IFA_ADDRESS = 1
const IFA_LOCAL = 2
const IFA_BROADCAST = 4
const IFA_FLAGS = 8
const RT_SCOPE_UNIVERSE = 0
const IFA_F_PERMANENT = 0x80
/** IFA_F_NODAD and IFA_F_NOPREFIXROUTE, which an administrator sets; the other flags are the kernel's own. */
const KEPT_FLAGS = 0x202

const MAX_ADDRESSES = 64
const MAX_INDEX_TRIES = 256

/** One device to move. */
export interface NetDeviceMove {
  readonly name: string
  /** its name in the container; left out: the same */
  readonly newName?: string | undefined
  /** rtnetlink socket in the namespace that the device is in; borrowed */
  readonly home: number
  /** connected rtnetlink socket in the container's network namespace; borrowed */
  readonly there: number
}

/**
 * Moves the devices of a spec. `fd` is the number of a netlink socket in the container process `pid`, which waits until
 * it is answered; until then it runs no code of the image. Devices go to the namespace of that socket, even if the
 * process has entered another one since. Anything but a netlink socket is refused unused.
 * A move can take long in the kernel: other work of this process has its turn after each.
 * @throws what the kernel says, with the device's pointer; the signal's reason
 */
export async function moveNetDevices(
  devices: Linux['netDevices'],
  { pid, fd, signal }: { readonly pid: number; readonly fd: number; readonly signal?: AbortSignal },
): Promise<void> {
  const step = 'move network devices: use the socket of their network'
  using there = attempt(step, () => takeFd(pid, fd))
  using home = attempt(step, () => {
    connectToKernel(there.fd)
    return openRouteSocket()
  })
  for (const [name, { name: newName }] of Object.entries(devices)) {
    signal?.throwIfAborted()
    moveNetDevice({ name, newName, home: home.fd, there: there.fd })
    await setImmediate()
  }
}

/**
 * Moves one device with its permanent global addresses, and brings it up.
 * @throws what the kernel says, with the device's pointer
 */
export function moveNetDevice({ name, newName, home, there }: NetDeviceMove): void {
  let doing = ''
  try {
    const index = requireIndex(home, name)
    doing = ': its name in the container'
    if (findIndex(there, newName ?? name) !== undefined) throw failure(EEXIST)
    // before the device goes down, since the kernel then drops its IPv6 addresses
    doing = ': read its addresses'
    const addresses = savedAddresses(home, index)
    doing = ': take it down'
    setUp(home, index, false)
    doing = ''
    const newIndex = moveLink({ home, there, index, newName })
    doing = ': restore its addresses'
    for (const address of addresses) {
      address.writeUInt32LE(newIndex, 4)
      change(there, { type: RTM_NEWADDR, flags: NLM_F_CREATE | NLM_F_EXCL, body: address })
    }
    doing = ': bring it up'
    setUp(there, newIndex, true)
  } catch (error) {
    throw moveError(`move network device "${name}"${doing}`, pointerTo(DEVICES_AT, name), error)
  }
}

/** An error that reads like a helper's failure: the step, then the errno by name for people and in words for tools. */
function moveError(step: string, pointer: string, error: unknown): unknown {
  const errno = errnoOf(error)
  if (errno === 0) return error
  const message = `cannot set up the container: ${step}: ${errnoWords(errno)} (at ${pointer})`
  const detail = { source: 'syscall', call: 'netlink', errno, pointer } as const
  return new RuntimeError(errnoCode(errno), message, { detail, cause: error })
}

function attempt<T>(step: string, act: () => T): T {
  try {
    return act()
  } catch (error) {
    throw moveError(step, DEVICES_AT, error)
  }
}

function failure(errno: number): Error {
  return syscallError('cannot move the device', { call: 'netlink', errno })
}

function attribute(type: number, value: Uint8Array): Buffer {
  const length = 4 + value.length
  const bytes = Buffer.alloc((length + 3) & ~3)
  bytes.writeUInt16LE(length, 0)
  bytes.writeUInt16LE(type, 2)
  bytes.set(value, 4)
  return bytes
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

function linkBody(index: number, attributes: readonly Buffer[], { flags = 0, mask = 0 } = {}): Buffer {
  const head = Buffer.alloc(LINK_BYTES)
  head.writeInt32LE(index, 4)
  head.writeUInt32LE(flags, 8)
  head.writeUInt32LE(mask, 12)
  return Buffer.concat([head, ...attributes])
}

function ifName(name: string): Buffer {
  return attribute(IFLA_IFNAME, Buffer.from(`${name}\0`))
}

function requireIndex(fd: number, name: string): number {
  const { body } = get(fd, { type: RTM_GETLINK, body: linkBody(0, [ifName(name)]) })
  return body.readInt32LE(4)
}

function findIndex(fd: number, name: string): number | undefined {
  try {
    return requireIndex(fd, name)
  } catch (error) {
    if (errnoOf(error) === ENODEV) return undefined
    throw error
  }
}

function setUp(fd: number, index: number, up: boolean): void {
  change(fd, { type: RTM_NEWLINK, body: linkBody(index, [], { flags: up ? IFF_UP : 0, mask: IFF_UP }) })
}

/**
 * Moves the device and returns its index in the container: the old one or, if that is taken, the next free one. The
 * request names the index, so that the runtime knows the device there.
 */
function moveLink({
  home,
  there,
  index,
  newName,
}: {
  readonly home: number
  readonly there: number
  readonly index: number
  readonly newName: string | undefined
}): number {
  using target = namespaceOfSocket(there)
  for (let at = index; at < index + MAX_INDEX_TRIES; at++) {
    const attributes = [attribute(IFLA_NET_NS_FD, u32(target.fd)), attribute(IFLA_NEW_IFINDEX, u32(at))]
    if (newName !== undefined) attributes.push(ifName(newName))
    try {
      change(home, { type: RTM_NEWLINK, body: linkBody(index, attributes) })
      return at
    } catch (error) {
      if (errnoOf(error) !== EBUSY) throw error
    }
  }
  throw failure(EBUSY)
}

/** Asks the kernel for this device alone: while others come and go, a list of all may repeat an entry or miss one. */
function savedAddresses(fd: number, index: number): Buffer[] {
  const wanted = Buffer.alloc(ADDRESS_BYTES)
  wanted.writeUInt32LE(index, 4)
  const request: RouteRequest = { type: RTM_GETADDR, body: wanted }
  const saved = list(fd, request).flatMap((message) => keptAddress(message, index) ?? [])
  if (saved.length > MAX_ADDRESSES) throw failure(E2BIG)
  return saved
}

/**
 * One address of the list, as the body of the request that makes it again. Addresses that are not permanent (of a DHCP
 * lease, or made by the kernel) or not global are left out.
 */
function keptAddress({ type, body }: RouteMessage, index: number): Buffer | undefined {
  if (type !== RTM_NEWADDR || body.length < ADDRESS_BYTES) return undefined
  let flags = body.readUInt8(2)
  const attributes: Buffer[] = []
  for (const [name, value] of attributesIn(body.subarray(ADDRESS_BYTES))) {
    if (name === IFA_FLAGS && value.length === 4) flags = value.readUInt32LE(0)
    if (name === IFA_LOCAL || name === IFA_ADDRESS || name === IFA_BROADCAST) attributes.push(attribute(name, value))
  }
  const scope = body.readUInt8(3)
  if (body.readUInt32LE(4) !== index || scope !== RT_SCOPE_UNIVERSE || (flags & IFA_F_PERMANENT) === 0) return undefined
  const head = Buffer.from(body.subarray(0, ADDRESS_BYTES))
  head.writeUInt8(0, 2)
  return Buffer.concat([head, ...attributes, attribute(IFA_FLAGS, u32(flags & KEPT_FLAGS))])
}

function attributesIn(data: Buffer): (readonly [type: number, value: Buffer])[] {
  const attributes: (readonly [number, Buffer])[] = []
  for (let at = 0; at + 4 <= data.length; ) {
    const length = data.readUInt16LE(at)
    if (length < 4 || at + length > data.length) break
    attributes.push([data.readUInt16LE(at + 2), data.subarray(at + 4, at + length)])
    at += (length + 3) & ~3
  }
  return attributes
}
