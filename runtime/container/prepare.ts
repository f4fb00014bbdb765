/**
 * The inputs of a plan that come from the host or the caller: the root on the host, the exec fifo, the compiled seccomp
 * profile, the terminal, the keyring. What the spec asks for and the host lacks is refused with the field's pointer.
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

/** The plan of a bundle's container as plain text, as create would execute it without a cgroup. */
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

/** Name of the session keyring that a container's processes get; null keeps the caller's. */
export function keyringName(options: { readonly noNewKeyring?: boolean }, id: string): string | null {
  return options.noNewKeyring === true ? null : `_ses.${id}`
}

/**
 * The root file system on the host, without symlinks, since it is compared with mount points, which have none.
 * @throws InvalidArgument unless it is a directory
 */
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

/** Makes the exec fifo; returns its path. Only the runtime's user may open it; init does so before it drops rights. */
export function makeFifo(root: string, id: string): string {
  // absolute: the helper works in /
  const path = resolve(fifoPath(root, id))
  mkfifo(path, 0o600)
  // the umask has masked the mode of mkfifo(3)
  chmodSync(path, 0o600)
  return path
}

/** Compiled profiles, for this boot (/run is a tmpfs). A rootless runtime keeps them beside its containers. */
const SECCOMP_CACHE = '/run/runts/.seccomp'

/** The compiled seccomp profile of a spec that has one; `root` is the folder that holds the state of containers. */
function seccompOf(
  spec: Spec,
  logger: Logger = silentLogger,
  root?: string,
): { flags: number; filter: Uint8Array } | undefined {
  const profile = spec.linux.seccomp
  return profile === undefined ? undefined : compileSeccomp(profile, compileOptions(logger, root))
}

/** As seccompOf, giving other work its turns of the event loop. */
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

/** Has the terminal's master sent to the console socket, if there is one. */
export function withConsole(stdio: Stdio, socket: OwnedFd | undefined): Stdio {
  return socket === undefined || stdio.kind !== 'terminal' ? stdio : { ...stdio, socket: socket.fd }
}

/** The logger for the messages of the init helper. */
export function helperLogger(
  { containerLogger, logLevel }: { readonly containerLogger?: Logger; readonly logLevel?: LogLevel },
  logger: Logger,
): Logger {
  const chosen = containerLogger ?? logger
  return logLevel === undefined ? chosen : atLevel(chosen, logLevel)
}

/** Gives a terminal the size in the process's document, unless the caller gave one. */
export function withSize(stdio: Stdio, process: OciProcess): Stdio {
  const { consoleSize } = process
  if (stdio.kind !== 'terminal' || stdio.width !== undefined || consoleSize === undefined) return stdio
  return { ...stdio, width: consoleSize.width, height: consoleSize.height }
}

/** Whether the caller asks for a terminal that leaves newlines as they are. */
export function hasBareNewlines(stdio: Stdio): boolean {
  return stdio.kind === 'terminal' && stdio.bareNewlines === true
}
