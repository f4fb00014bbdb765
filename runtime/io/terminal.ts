/** Operations on a pty master that we hold. */
import { constants } from 'node:fs'
import { OwnedFd } from '../sys/fd.ts'
import { ioctl, ioctlNumber } from '../sys/libc.ts'

const TIOCSWINSZ = 0x5414
const TIOCGPTPEER = 0x5441
const O_CLOEXEC = 0o2000000

/**
 * The other side of a terminal (ioctl_tty(2) TIOCGPTPEER), which does not become our controlling one. For as long as somebody has it open,
 * a process that lets go of its terminal for a while finds it again: nothing hangs up.
 */
export function openPeer(master: number): OwnedFd {
  return new OwnedFd(ioctlNumber(master, TIOCGPTPEER, constants.O_RDWR | constants.O_NOCTTY | O_CLOEXEC))
}

/** Sets the size in character cells (ioctl_tty(2)); values are taken modulo 2^16 as the kernel's fields are, zeros are applied as they are. */
export function resizeTerminal(fd: number, size: { readonly width: number; readonly height: number }): void {
  const winsize = Buffer.alloc(8)
  winsize.writeUInt16LE(size.height & 0xffff, 0)
  winsize.writeUInt16LE(size.width & 0xffff, 2)
  ioctl(fd, TIOCSWINSZ, winsize)
}
