/** Operations on a pty master that we hold. */
import { ioctl } from '../sys/libc.ts'

const TIOCSWINSZ = 0x5414

/** Sets the size in character cells (ioctl_tty(2)); values are taken modulo 2^16 as the kernel's fields are, zeros are applied as they are. */
export function resizeTerminal(fd: number, size: { readonly width: number; readonly height: number }): void {
  const winsize = Buffer.alloc(8)
  winsize.writeUInt16LE(size.height & 0xffff, 0)
  winsize.writeUInt16LE(size.width & 0xffff, 2)
  ioctl(fd, TIOCSWINSZ, winsize)
}
