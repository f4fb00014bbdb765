/**
 * Loop devices: a file as the block device of a file system. Invariant: a device that was attached here detaches itself
 * when its last user closes it, be that the mount or the descriptor here. So no code has to detach it.
 */

import { constants, openSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { errnoOf, syscallError } from './errno.ts'
import { OwnedFd } from './fd.ts'
import { lastErrno, rawIoctl } from './libc.ts'
import { EBUSY } from './linux.ts'

const CONTROL = '/dev/loop-control'
const LOOP_CTL_GET_FREE = 0x4c82
const LOOP_CONFIGURE = 0x4c0a
/** struct loop_config: the file's fd, the block size, a loop_info64, and eight reserved words. */
const CONFIG_BYTES = 304
const INFO_AT = 8
const FLAGS_AT = INFO_AT + 52
const NAME_AT = INFO_AT + 56
const NAME_BYTES = 64
const LO_FLAGS_READ_ONLY = 1
const LO_FLAGS_AUTOCLEAR = 4
const LO_FLAGS_DIRECT_IO = 16
/** Another process may take the free device between LOOP_CTL_GET_FREE and the open. */
const ATTEMPTS = 100

/** An attached device. Mount it while `fd` is open; from then on the mount keeps it attached. */
export interface LoopDevice extends Disposable {
  readonly path: string
  readonly fd: number
}

/** Attaches a file to a free device. @throws the system's error; Unimplemented where the kernel has no loop devices */
export function attachLoop(file: string, { readonly, direct }: { readonly: boolean; direct: boolean }): LoopDevice {
  const mode = readonly ? constants.O_RDONLY : constants.O_RDWR
  // without O_NONBLOCK the open of a fifo would wait for its other end
  using backing = open(file, mode | constants.O_NONBLOCK)
  using control = openControl()
  const config = Buffer.alloc(CONFIG_BYTES)
  config.writeUInt32LE(backing.fd, 0)
  const flags = LO_FLAGS_AUTOCLEAR | (readonly ? LO_FLAGS_READ_ONLY : 0) | (direct ? LO_FLAGS_DIRECT_IO : 0)
  config.writeUInt32LE(flags, FLAGS_AT)
  // the name that losetup(8) shows, cut to the field
  config.write(file, NAME_AT, NAME_BYTES - 1)
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const number = rawIoctl.number(control.fd, LOOP_CTL_GET_FREE, 0)
    if (number < 0)
      throw syscallError('cannot get a free loop device', { call: 'ioctl', errno: lastErrno(), path: CONTROL })
    const path = `/dev/loop${number}`
    const device = open(path, mode)
    if (rawIoctl.buffer(device.fd, LOOP_CONFIGURE, config) === 0)
      return { path, fd: device.fd, [Symbol.dispose]: () => device.close() }
    const errno = lastErrno()
    device.close()
    if (errno !== EBUSY) throw syscallError(`cannot attach "${file}" to "${path}"`, { call: 'ioctl', errno, path })
  }
  throw new RuntimeError(
    'ResourceExhausted',
    `cannot attach "${file}": others took ${ATTEMPTS} free loop devices first`,
  )
}

function open(path: string, flags: number): OwnedFd {
  try {
    return new OwnedFd(openSync(path, flags))
  } catch (error) {
    throw syscallError(`cannot open "${path}"`, { call: 'open', errno: errnoOf(error), path })
  }
}

function openControl(): OwnedFd {
  try {
    return new OwnedFd(openSync(CONTROL, constants.O_RDWR))
  } catch (error) {
    const message = `cannot use loop devices: "${CONTROL}" is missing or cannot be opened`
    throw new RuntimeError('Unimplemented', message, { cause: error })
  }
}
