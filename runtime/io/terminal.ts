/**
 * Operations on terminals: the pty of a container, whose master this process holds, and the caller's own terminal,
 * whose settings are restored.
 */

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

/** input flags: IGNBRK BRKINT PARMRK ISTRIP INLCR IGNCR ICRNL IXON (termios(3), cfmakeraw) */
const COOKED_INPUT = 0o1 | 0o2 | 0o10 | 0o40 | 0o100 | 0o200 | 0o400 | 0o2000
/** local flags: ECHO ECHONL ICANON ISIG IEXTEN */
const COOKED_LOCAL = 0o10 | 0o100 | 0o2 | 0o1 | 0o100000
/** control flags: CSIZE and PARENB are cleared, CS8 is set */
const [CHARACTER, EIGHT_BITS] = [0o60 | 0o400, 0o60]

/** The size of a terminal in character cells. */
export interface TerminalSize {
  readonly width: number
  readonly height: number
}

/**
 * Opens the other side of a terminal (ioctl_tty(2) TIOCGPTPEER), which does not become the controlling terminal. While
 * it is open the terminal does not hang up, so a process may close its terminal and open it again.
 */
export function openPeer(master: number): OwnedFd {
  return new OwnedFd(ioctlNumber(master, TIOCGPTPEER, constants.O_RDWR | constants.O_NOCTTY | O_CLOEXEC))
}

/**
 * The size of the terminal behind a borrowed fd.
 * @throws RuntimeError when it is not a terminal
 */
export function terminalSize(fd: number): TerminalSize {
  const winsize = Buffer.alloc(8)
  ioctl(fd, TIOCGWINSZ, winsize)
  return { height: winsize.readUInt16LE(0), width: winsize.readUInt16LE(2) }
}

/**
 * Sets the size in character cells (ioctl_tty(2)). Values are taken modulo 2^16, like the kernel's fields; zeros are
 * set too.
 */
export function resizeTerminal(fd: number, size: TerminalSize): void {
  const winsize = Buffer.alloc(8)
  winsize.writeUInt16LE(size.height & 0xffff, 0)
  winsize.writeUInt16LE(size.width & 0xffff, 2)
  ioctl(fd, TIOCSWINSZ, winsize)
}

/**
 * Lets a terminal pass every key unchanged, until disposed: no echo, no line editing, no signals. Output is treated as
 * before, so other programs that write to it keep their carriage returns. The fd is borrowed until then.
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
        // it has hung up: its settings no longer matter
      }
    },
  }
}
