/**
 * The counters of network interfaces, from a process's view of its network namespace (proc_pid_net(5)). No namespace is
 * joined: the file of another process shows that process's namespace.
 */
import { readFileSync } from 'node:fs'
import { errnoOf } from '../sys/errno.ts'
import { EINVAL, ENOENT, ESRCH } from '../sys/linux.ts'

/** What one interface has received and sent since it was made. */
export interface InterfaceStats {
  readonly name: string
  readonly rxBytes: bigint
  readonly rxPackets: bigint
  readonly rxErrors: bigint
  readonly rxDropped: bigint
  readonly txBytes: bigint
  readonly txPackets: bigint
  readonly txErrors: bigint
  readonly txDropped: bigint
}

/** The interfaces that a process sees; none when it has gone. */
export function readInterfaces(pid: number): InterfaceStats[] {
  try {
    return parseInterfaces(readFileSync(`/proc/${pid}/net/dev`, 'utf8'))
  } catch (error) {
    // a zombie has no network namespace any more
    if ([ENOENT, ESRCH, EINVAL].includes(errnoOf(error))) return []
    throw error
  }
}

/** Parses /proc/PID/net/dev: two lines of headings, then "name: 8 numbers of what came, 8 of what went". */
export function parseInterfaces(text: string): InterfaceStats[] {
  return text.split('\n').flatMap((line) => {
    // a name may have a colon (an alias), and the first number may follow its colon without a blank
    const match = /^\s*(\S+):\s*(\d+(?:\s+\d+){15,})\s*$/.exec(line)
    if (match === null) return []
    const [, name = '', numbers = ''] = match
    const [rxBytes = 0n, rxPackets = 0n, rxErrors = 0n, rxDropped = 0n, ...more] = numbers.split(/\s+/).map(BigInt)
    const [txBytes = 0n, txPackets = 0n, txErrors = 0n, txDropped = 0n] = more.slice(4)
    return [{ name, rxBytes, rxPackets, rxErrors, rxDropped, txBytes, txPackets, txErrors, txDropped }]
  })
}
