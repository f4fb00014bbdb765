/**
 * A seccomp profile to the BPF program that ts-init loads. libseccomp compiles it and enosys.ts completes it. The
 * result is kept in memory and on disk under a hash of everything it depends on: the profile, the library's version and
 * the architecture. Invariant: a profile that cannot be compiled completely is an error; no container starts with a
 * weaker filter than it asked for.
 */
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { RuntimeError, specError } from '../errors.ts'
import { SECCOMP_ARCHITECTURES, TOKEN_X32 } from '../spec/seccomp.ts'
import type { LinuxSeccomp, SeccompArg } from '../spec/types.ts'
import {
  type ArgumentTest,
  COMPARE,
  nativeArchitecture,
  resolveSyscall,
  resolveSyscallOn,
  SeccompContext,
  seccompVersion,
} from '../sys/libseccomp.ts'
import { AUDIT_ARCH_X86_64 } from '../sys/linux.ts'
import { type CompiledFilter, readCached, sha256, writeCached } from './cache.ts'
import { type KnownSyscalls, patchEnosys } from './enosys.ts'
import { actionCode, conditionSets, filterFlags, needsEnosys, usesNotify } from './rules.ts'

/** Must change when this code compiles the same profile to another program. */
const COMPILER_VERSION = 2
/** From more rules on, the program searches them as a tree. */
const TREE_ABOVE_RULES = 32
/** How many rules are added in one turn of the event loop. */
const RULES_AT_ONCE = 32
const MAX_IN_MEMORY = 16

const compiled = new Map<string, CompiledFilter>()

/** Options of compileSeccomp. */
export interface CompileOptions {
  /**
   * a directory of the runtime's own for compiled profiles, made with mode 0700; by default they are kept in memory
   * only
   */
  readonly cacheDir?: string
  /**
   * called with the names of system calls that the library does not know, which get no rule; only when a profile is
   * compiled anew
   */
  readonly onUnknown?: (names: readonly string[]) => void
}

/**
 * The filter of a profile.
 * @throws InvalidArgument; Unimplemented when libseccomp is missing
 */
export function compileSeccomp(profile: LinuxSeccomp, options: CompileOptions = {}): CompiledFilter {
  const steps = filterOf(profile, options)
  for (let step = steps.next(); ; ) {
    if (step.done === true) return step.value
    let program: Uint8Array | undefined
    try {
      program = step.value?.export()
    } catch (error) {
      // the filter under construction is the generator's to release
      step = steps.throw(error)
      continue
    }
    step = steps.next(program)
  }
}

/**
 * Like compileSeccomp, in several turns of the event loop: compiling an uncached profile takes tens of milliseconds.
 */
export async function compileSeccompInTurns(
  profile: LinuxSeccomp,
  options: CompileOptions = {},
): Promise<CompiledFilter> {
  const steps = filterOf(profile, options)
  for (let step = steps.next(); ; ) {
    if (step.done === true) return step.value
    let program: Uint8Array | undefined
    try {
      program = await step.value?.exportAside()
    } catch (error) {
      // the filter under construction is the generator's to release
      step = steps.throw(error)
      continue
    }
    await nextTurn()
    step = steps.next(program)
  }
}

/** Steps between which other code may run; a step that yields a context wants its program. */
type Steps<T> = Generator<SeccompContext | undefined, T, Uint8Array | undefined>

function* filterOf(profile: LinuxSeccomp, options: CompileOptions): Steps<CompiledFilter> {
  yield undefined
  // opens the library, if this is its first use
  seccompVersion()
  yield undefined
  const key = cacheKey(profile)
  const path = options.cacheDir === undefined ? undefined : join(options.cacheDir, key)
  let filter = compiled.get(key) ?? (path === undefined ? undefined : readCached(path))
  if (filter === undefined) {
    filter = { flags: filterFlags(profile), filter: yield* compile(profile, options.onUnknown) }
    if (path !== undefined) writeCached(path, filter)
  }
  remember(key, filter)
  return filter
}

/** Keeps a filter in memory, the newest last; drops the oldest when there are too many. */
function remember(key: string, filter: CompiledFilter): void {
  compiled.delete(key)
  compiled.set(key, filter)
  if (compiled.size <= MAX_IN_MEMORY) return
  for (const oldest of compiled.keys()) {
    compiled.delete(oldest)
    return
  }
}

/** The file name of a profile's filter. */
export function cacheKey({ defaultAction, defaultErrnoRet, architectures, flags, syscalls }: LinuxSeccomp): string {
  const canonical = JSON.stringify([
    COMPILER_VERSION,
    seccompVersion(),
    nativeArchitecture(),
    [defaultAction, defaultErrnoRet ?? null, architectures, flags ?? null],
    syscalls.map(({ names, action, errnoRet, args }) => [
      names,
      action,
      errnoRet ?? null,
      args.map(({ index, value, valueTwo, op }) => [index, value.toString(), valueTwo.toString(), op]),
    ]),
  ])
  return sha256().update(canonical).digest('hex')
}

function* compile(profile: LinuxSeccomp, onUnknown: CompileOptions['onUnknown']): Steps<Uint8Array> {
  if (usesNotify(profile)) requireNotify()
  const defaultAction = actionCode(profile.defaultAction, profile.defaultErrnoRet)
  using context = new SeccompContext(defaultAction)
  const architectures = new Set([nativeArchitecture()])
  for (const name of profile.architectures) {
    const token = SECCOMP_ARCHITECTURES.get(name)
    if (token === undefined) throw specError('/linux/seccomp/architectures', `unknown seccomp architecture "${name}"`)
    context.addArchitecture(token, name)
    architectures.add(token)
  }
  const unknown = new Set<string>()
  let rules = 0
  for (const { names, action, errnoRet, args } of profile.syscalls) {
    const code = actionCode(action, errnoRet)
    // the library refuses a rule with the default action
    if (code === defaultAction) continue
    const sets = conditionSets(args).map((set) => set.map(argumentTest))
    for (const name of names) {
      const syscall = resolveSyscall(name)
      // unknown to this library: a newer call, which enosys.ts covers, or one of another architecture
      if (syscall === undefined) {
        unknown.add(name)
        continue
      }
      for (const tests of sets) {
        context.addRule({ name, syscall, action: code, tests })
        if (++rules % RULES_AT_ONCE === 0) yield undefined
      }
    }
  }
  if (unknown.size > 0) onUnknown?.([...unknown])
  if (rules > TREE_ABOVE_RULES) context.useBinaryTree()
  yield undefined
  const program = yield context
  if (program === undefined) throw new Error('a compiled profile was not exported')
  if (!needsEnosys(profile)) return patch(program, [])
  const named = new Set(profile.syscalls.flatMap(({ names }) => names))
  return patch(program, knownSyscalls([...architectures], [...named]))
}

/**
 * Older libraries do not know the action.
 * @throws Unimplemented
 */
function requireNotify(): void {
  const [major = 0, minor = 0] = seccompVersion().split('.').map(Number)
  if (major > 2 || (major === 2 && minor >= 5)) return
  const message = `seccomp notify unsupported: libseccomp ${seccompVersion()} is installed, 2.5.0 or later is needed`
  throw new RuntimeError('Unimplemented', message, { detail: { source: 'spec', pointer: '/linux/seccomp' } })
}

function patch(program: Uint8Array, known: readonly KnownSyscalls[]): Uint8Array {
  try {
    return patchEnosys(program, known)
  } catch (error) {
    if (error instanceof RangeError) throw specError('/linux/seccomp', error.message)
    throw error
  }
}

function argumentTest({ index, value, valueTwo, op }: SeccompArg): ArgumentTest {
  return { index, operator: COMPARE[op], a: value, b: valueTwo }
}

function knownSyscalls(architectures: readonly number[], names: readonly string[]): KnownSyscalls[] {
  const known: KnownSyscalls[] = []
  const lastX32 = architectures.includes(TOKEN_X32) ? lastNumber(TOKEN_X32, names) : undefined
  for (const architecture of architectures) {
    if (architecture === TOKEN_X32) continue
    const last = lastNumber(architecture, names)
    if (last === undefined) continue
    const withX32 = architecture === AUDIT_ARCH_X86_64 && lastX32 !== undefined
    known.push({ auditArch: architecture, last, ...(withX32 ? { lastX32 } : {}) })
  }
  return known
}

function lastNumber(architecture: number, names: readonly string[]): number | undefined {
  let last: number | undefined
  for (const name of names) {
    const number = resolveSyscallOn(architecture, name)
    if (number !== undefined && (last === undefined || number > last)) last = number
  }
  return last
}
