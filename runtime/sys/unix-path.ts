/**
 * Addresses of unix sockets. An address has room for 108 bytes, but a path may be longer: such a path is reached
 * through a descriptor, by its name in /proc. Invariant: an address is valid only while the callback runs, and names
 * what the path named at its start.
 */

import { closeSync, constants, openSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { errnoOf, syscallError } from './errno.ts'
import { AF_UNIX, ENAMETOOLONG, O_PATH } from './linux.ts'

/** sun_path of struct sockaddr_un; a path in it ends with a zero byte */
const PATH_BYTES = 108

/** What the address is for: connect(2) needs an existing socket, bind(2) makes one. */
export type AddressUse = 'bind' | 'connect'

/** A path that becomes an address, the call that takes it, and the action for messages. */
export interface PathAddress {
  readonly call: AddressUse
  readonly path: string
  readonly what: string
}

/**
 * Calls `use` with the address of a path.
 * @throws the system's error when a long path cannot be opened
 */
export function withPathAddress<T>({ call, path, what }: PathAddress, use: (address: Buffer) => T): T {
  const bytes = Buffer.from(path)
  if (bytes.length < PATH_BYTES) return use(addressOf(bytes))
  const fail = (errno: number) => syscallError(`${what} "${path}"`, { call, errno, path })
  // connect: the socket itself is opened, since its name may be long too; bind: its folder, since there is no socket
  // yet
  const [opened, rest] = call === 'connect' ? [path, ''] : [dirname(path), `/${basename(path)}`]
  let fd: number
  try {
    fd = openSync(opened, O_PATH | (call === 'bind' ? constants.O_DIRECTORY : 0))
  } catch (error) {
    throw fail(errnoOf(error))
  }
  try {
    const near = Buffer.from(`/proc/self/fd/${fd}${rest}`)
    if (near.length >= PATH_BYTES) throw fail(ENAMETOOLONG)
    return use(addressOf(near))
  } finally {
    closeSync(fd)
  }
}

/**
 * The address of an abstract socket; every byte of its name counts, and no zero ends it.
 * @throws ENAMETOOLONG for a name that does not fit
 */
export function abstractAddress(name: string, what: string): Buffer {
  const bytes = Buffer.from(`\0${name}`)
  if (bytes.length > PATH_BYTES) throw syscallError(`${what} "@${name}"`, { call: 'connect', errno: ENAMETOOLONG })
  return Buffer.concat([family(), bytes])
}

function addressOf(path: Buffer): Buffer {
  return Buffer.concat([family(), path, Buffer.alloc(1)])
}

function family(): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(AF_UNIX)
  return bytes
}
