/**
 * Addresses of unix sockets. The kernel's have room for 108 bytes, paths of file systems may be longer: those are reached through a
 * descriptor of ours, by its name in /proc. Invariant: an address is good as long as the callback runs, and names what the path names then.
 */

import { closeSync, constants, openSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { errnoOf, syscallError } from './errno.ts'
import { AF_UNIX, ENAMETOOLONG, O_PATH } from './linux.ts'

/** sun_path of struct sockaddr_un; a path there ends with a zero */
const PATH_BYTES = 108

/** What the address is for: connect wants a socket that is there, bind makes one. */
export type AddressUse = 'bind' | 'connect'

/** Calls `use` with the address of a path; `what` is the action for messages. @throws the system's error for what opening a long path met */
export function withPathAddress<T>(call: AddressUse, path: string, what: string, use: (address: Buffer) => T): T {
  const bytes = Buffer.from(path)
  if (bytes.length < PATH_BYTES) return use(addressOf(bytes))
  const fail = (errno: number) => syscallError(`${what} "${path}"`, call, errno, path)
  // a socket itself is opened, whose name may be long too; one that is to be made has but its folder
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

/** The address of an abstract socket; all bytes of its name count, and it may fill the room. @throws the system's error for a longer one */
export function abstractAddress(name: string, what: string): Buffer {
  const bytes = Buffer.from(`\0${name}`)
  if (bytes.length > PATH_BYTES) throw syscallError(`${what} "@${name}"`, 'connect', ENAMETOOLONG)
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
