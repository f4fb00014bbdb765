/**
 * Waits in the event loop until a descriptor that has nothing to read becomes ready, such as a pressure file with a
 * trigger (POLLPRI). The loop polls streams only, and only for reading. But an epoll instance is readable when one of
 * its own descriptors is ready, for whatever event that is. So the instance stands in the place of a stream, as
 * eventfd.ts explains. The loop then tries to read it, which the kernel refuses (EINVAL), and that refusal is the
 * signal. Invariant: each signal ends its stream, so the next one needs a new stream, which is made before anybody is
 * told.
 */
import { closeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { syscallError } from './errno.ts'
import { loopSocket } from './eventfd.ts'
import { declare, lastErrno } from './libc.ts'

const EPOLL_CLOEXEC = 0o2000000
const EPOLL_CTL_ADD = 1
/** sizeof(struct epoll_event), which is packed on x86_64 and is not elsewhere */
const EVENT_BYTES = process.arch === 'x64' ? 12 : 16
/** The event of a descriptor that has something exceptional to tell (poll(2)). */
export const EPOLLPRI = 2

const epollCreate = declare('int epoll_create1(int flags)')
const epollControl = declare('int epoll_ctl(int epfd, int op, int fd, void *event)')

/** Calls `onReady` each time that one of `events` happens to `fd`, until closed. Keeps no process alive. */
export function whenReady(fd: number, events: number, onReady: () => void): { close(): void } {
  const poller = epollCreate(EPOLL_CLOEXEC)
  if (poller < 0) throw syscallError('cannot make an epoll instance', { call: 'epoll_create1', errno: lastErrno() })
  let socket: Socket | undefined
  const close = () => {
    if (socket === undefined) return
    socket.removeAllListeners('error').on('error', () => {})
    socket.destroy()
    socket = undefined
    closeSync(poller)
  }
  const listen = () => {
    socket = loopSocket(poller, 'an epoll instance')
    socket.once('error', () => {
      listen()
      onReady()
    })
    socket.resume().unref()
  }
  try {
    const event = Buffer.alloc(EVENT_BYTES)
    event.writeUInt32LE(events)
    if (epollControl(poller, EPOLL_CTL_ADD, fd, event) < 0) {
      throw syscallError('cannot watch a descriptor', { call: 'epoll_ctl', errno: lastErrno() })
    }
    listen()
  } catch (error) {
    close()
    if (socket === undefined) closeSync(poller)
    throw error
  }
  return { close }
}
