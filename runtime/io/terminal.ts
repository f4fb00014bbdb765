/** Operations on terminals: the pty of a container, whose master we hold, and our caller's own, which is given back as it was. */

import { constants } from 'node:fs'
import { OwnedFd } from '../sys/fd.ts'
import { ioctl, ioctlNumber } from '../sys/libc.ts'
import { O_CLOEXEC } from '../sys/linux.ts'

const TCGETS = 0x5401
const TCSETS = 0x5402
const TIOCGWINSZ = 0x5413
const TIOCSWINSZ = 0x5414
const TIOCGPTPEER = 0x5441

/** struct termios of the kernel: four words of flags, the line discipline, 19 control characters. */
const TERMIOS_BYTES = 36
const [IFLAG, CFLAG, LFLAG] = [0, 8, 12]

/** IGNBRK BRKINT PARMRK ISTRIP INLCR IGNCR ICRNL IXON, of the input flags (termios(3), cfmakeraw) */
const COOKED_INPUT = 0o1 | 0o2 | 0o10 | 0o40 | 0o100 | 0o200 | 0o400 | 0o2000
/** ECHO ECHONL ICANON ISIG IEXTEN, of the local flags */
const COOKED_LOCAL = 0o10 | 0o100 | 0o2 | 0o1 | 0o100000
/** CSIZE and PARENB are cleared, CS8 is set, of the control flags */
const [CHARACTER, EIGHT_BITS] = [0o60 | 0o400, 0o60]

/** The size of a terminal in character cells. */
export interface TerminalSize {
  readonly width: number
  readonly height: number
}

/**
 * The other side of a terminal (ioctl_tty(2) TIOCGPTPEER), which does not become our controlling one. For as long as somebody has it open,
 * a process that lets go of its terminal for a while finds it again: nothing hangs up.
 */
export function openPeer(master: number): OwnedFd {
  return new OwnedFd(ioctlNumber(master, TIOCGPTPEER, constants.O_RDWR | constants.O_NOCTTY | O_CLOEXEC))
}

/** The size of the terminal that a borrowed fd is. @throws RuntimeError when it is none */
export function terminalSize(fd: number): TerminalSize {
  const winsize = Buffer.alloc(8)
  ioctl(fd, TIOCGWINSZ, winsize)
  return { height: winsize.readUInt16LE(0), width: winsize.readUInt16LE(2) }
}

/** Sets the size in character cells (ioctl_tty(2)); values are taken modulo 2^16 as the kernel's fields are, zeros are applied as they are. */
export function resizeTerminal(fd: number, size: TerminalSize): void {
  const winsize = Buffer.alloc(8)
  winsize.writeUInt16LE(size.height & 0xffff, 0)
  winsize.writeUInt16LE(size.width & 0xffff, 2)
  ioctl(fd, TIOCSWINSZ, winsize)
}

/**
 * Lets every key through a terminal as it is, until disposed: no echo, no lines, no signals. What is written to it is treated as before:
 * its other users go on to get their carriage returns. The fd is borrowed until then.
 */
export function rawInput(fd: number): Disposable {
  const before = Buffer.alloc(TERMIOS_BYTES)
  ioctl(fd, TCGETS, before)
  const raw = Buffer.from(before)
  raw.writeUInt32LE((before.readUInt32LE(IFLAG) & ~COOKED_INPUT) >>> 0, IFLAG)
  raw.writeUInt32LE((before.readUInt32LE(LFLAG) & ~COOKED_LOCAL) >>> 0, LFLAG)
  raw.writeUInt32LE(((before.readUInt32LE(CFLAG) & ~CHARACTER) | EIGHT_BITS) >>> 0, CFLAG)
  ioctl(fd, TCSETS, raw)
  return {
    [Symbol.dispose]() {
      try {
        ioctl(fd, TCSETS, before)
      } catch {
        // it has hung up: nobody sees its settings any more
      }
    },
  }
}
