/**
 * Which descriptors of this process the container's program gets beside the three standard ones. First come those of
 * socket activation (LISTEN_FDS, sd_listen_fds(3)), then as many as `--preserve-fds` says. Invariant: the caller gave
 * every one of them; what Node opened for itself never leaves this process.
 */
import { fstatSync, readlinkSync } from 'node:fs'
import { type OciProcess, RuntimeError } from '../index.ts'
import { getpid } from '../internal.ts'
import type { ParsedArgs } from './flags.ts'

const FIRST = 3
/** The most descriptors that ts-init accepts, far above usual numbers. */
const MAX = 256

/**
 * The first file that Node opens gets the lowest free number. Among the preserved descriptors it shows that the caller
 * left a gap.
 */
const NODES_FIRST = 'anon_inode:[eventpoll]'

/** How many descriptors socket activation passed; LISTEN_PID must name this process. */
function listenCount(env: NodeJS.ProcessEnv): number {
  const { LISTEN_FDS: count = '', LISTEN_PID: pid = '' } = env
  return /^\d{1,3}$/.test(count) && pid === String(getpid()) ? Number(count) : 0
}

function checkFd(fd: number, what: string): number {
  const missing = (why: string): RuntimeError =>
    new RuntimeError('InvalidArgument', `cannot pass on fd ${fd} (${what}): ${why}`)
  try {
    fstatSync(fd)
  } catch {
    throw missing('it is not open')
  }
  if (readlinkSync(`/proc/self/fd/${fd}`) === NODES_FIRST) throw missing('it was not open when runts was started')
  return fd
}

/**
 * The descriptors for a container's init, and the environment variables that describe them.
 * @throws InvalidArgument for one that is not open
 */
export function initFds(args: ParsedArgs): { fds: number[]; env: string[] } {
  const listen = listenCount(process.env)
  const fds = preserved(args, listen)
  if (listen === 0) return { fds, env: [] }
  const sockets = Array.from({ length: listen }, (_, i) => checkFd(FIRST + i, `LISTEN_FDS is ${listen}`))
  return { fds: [...sockets, ...fds], env: [`LISTEN_FDS=${listen}`, 'LISTEN_PID=1'] }
}

/**
 * The descriptors that `--preserve-fds` asks for; those of socket activation come before them.
 * @throws InvalidArgument for one that is not open
 */
export function preserved(args: ParsedArgs, listen = 0): number[] {
  const count = args.count('preserve-fds') ?? 0
  if (count + listen > MAX) {
    throw new RuntimeError('InvalidArgument', `invalid --preserve-fds "${count}": more than ${MAX} descriptors`)
  }
  return Array.from({ length: count }, (_, i) => checkFd(FIRST + listen + i, `--preserve-fds ${count}`))
}

/** A process with further environment variables. */
export function withEnv(target: OciProcess, env: readonly string[]): OciProcess {
  return env.length === 0 ? target : { ...target, env: [...target.env, ...env] }
}
