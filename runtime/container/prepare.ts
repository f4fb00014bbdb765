/**
 * What a container's processes need before there is a plan for them: the root on the host, the exec fifo, the compiled seccomp profile,
 * the size of the terminal. Each refuses what the spec asks for in vain, naming the field.
 */
import { chmodSync, realpathSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { RuntimeError, specError } from '../errors.ts'
import { hostFacts } from '../host/facts.ts'
import type { Stdio } from '../init/spawn.ts'
import { atLevel, type Logger, type LogLevel, silentLogger } from '../logger.ts'
import { buildCreatePlan } from '../plan/build.ts'
import { describePlan } from '../plan/describe.ts'
import { type CompileOptions, compileSeccomp, compileSeccompInTurns } from '../seccomp/compile.ts'
import type { OciProcess, Spec } from '../spec/types.ts'
import { fifoPath } from '../state/store.ts'
import { reasonOf } from '../sys/errno.ts'
import type { OwnedFd } from '../sys/fd.ts'
import { mkfifo } from '../sys/libc.ts'

/** The plan of a bundle's container in plain text, as create would execute it outside any cgroup. */
export function describeBundle(bundle: string, spec: Spec): string {
  const seccomp = seccompOf(spec)
  return describePlan(
    buildCreatePlan({
      id: 'ID',
      spec,
      bundle,
      rootfs: rootfsPath(spec, bundle),
      cgroup: { kind: 'none' },
      fifo: 'exec.fifo',
      noPivot: false,
      keyring: keyringName({}, 'ID'),
      extraFds: 0,
      host: hostFacts(),
      ...(seccomp === undefined ? {} : { seccomp }),
    }),
  )
}

/** Name of the session keyring that a container's processes get, or null to keep the caller's. */
export function keyringName(options: { readonly noNewKeyring?: boolean }, id: string): string | null {
  return options.noNewKeyring === true ? null : `_ses.${id}`
}

/** The root file system on the host, without symlinks: what is compared with mount points must be spelt as those are. @throws InvalidArgument unless it is a directory */
export function rootfsPath(spec: Spec, bundle: string): string {
  const path = resolve(bundle, spec.root.path)
  try {
    const real = realpathSync(path)
    if (statSync(real).isDirectory()) return real
    throw specError('/root/path', `cannot use the root file system "${path}": it is not a directory`)
  } catch (error) {
    if (error instanceof RuntimeError) throw error
    throw specError('/root/path', `cannot use the root file system "${path}": ${reasonOf(error)}`)
  }
}

/** Makes the exec fifo, which is ours alone: init has it open since it had our rights; its path. */
export function makeFifo(root: string, id: string): string {
  // absolute: the helper works in /
  const path = resolve(fifoPath(root, id))
  mkfifo(path, 0o600)
  // what the umask took
  chmodSync(path, 0o600)
  return path
}

/** Compiled profiles of this boot: /run is a tmpfs that goes with it. Who may not write there keeps them beside his containers. */
const SECCOMP_CACHE = '/run/runts/.seccomp'

/** The compiled seccomp profile of a spec that has one; `root` is where the state of containers is kept. */
export function seccompOf(
  spec: Spec,
  logger: Logger = silentLogger,
  root?: string,
): { flags: number; filter: Uint8Array } | undefined {
  const profile = spec.linux.seccomp
  return profile === undefined ? undefined : compileSeccomp(profile, compileOptions(logger, root))
}

/** The same, while others have their turns of the event loop. */
export async function seccompInTurns(
  spec: Spec,
  logger: Logger,
  root: string,
): Promise<{ flags: number; filter: Uint8Array } | undefined> {
  const profile = spec.linux.seccomp
  return profile === undefined ? undefined : compileSeccompInTurns(profile, compileOptions(logger, root))
}

function compileOptions(logger: Logger, root: string | undefined): CompileOptions {
  const own = root === undefined ? undefined : join(root, '.seccomp')
  const cacheDir = hostFacts().rootless ? own : SECCOMP_CACHE
  return {
    ...(cacheDir === undefined ? {} : { cacheDir }),
    onUnknown: (names) => logger.debug({ names: names.join(' ') }, 'ignored unknown system calls of the profile'),
  }
}

/** Sends the terminal's master there, if it is to be somebody else's. */
export function withConsole(stdio: Stdio, socket: OwnedFd | undefined): Stdio {
  return socket === undefined || stdio.kind !== 'terminal' ? stdio : { ...stdio, socket: socket.fd }
}

/** The logger for what the container side says. */
export function containerSide(
  { containerLogger, logLevel }: { readonly containerLogger?: Logger; readonly logLevel?: LogLevel },
  logger: Logger,
): Logger {
  const chosen = containerLogger ?? logger
  return logLevel === undefined ? chosen : atLevel(chosen, logLevel)
}

/** Gives a terminal the size that the process asks for, unless the caller has said one. */
export function sized(stdio: Stdio, process: OciProcess): Stdio {
  const { consoleSize } = process
  if (stdio.kind !== 'terminal' || stdio.width !== undefined || consoleSize === undefined) return stdio
  return { ...stdio, width: consoleSize.width, height: consoleSize.height }
}

/** Whether the terminal that the caller asks for leaves newlines alone. */
export function hasBareNewlines(stdio: Stdio): boolean {
  return stdio.kind === 'terminal' && stdio.bareNewlines === true
}
