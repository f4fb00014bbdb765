/**
 * A seccomp profile to the BPF program that ts-init loads. libseccomp compiles it, enosys.ts completes it, and the result is kept in
 * memory and on disk under a hash of all that it depends on: the profile, the library's version and the machine. Invariant: a profile
 * that cannot be compiled whole is an error; no container starts with less of a filter than was asked for.
 */
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { RuntimeError, specError } from '../errors.ts'
import { SECCOMP_ARCHITECTURES } from '../spec/seccomp.ts'
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
import { type CompiledFilter, readCached, sha256, writeCached } from './cache.ts'
import { type KnownSyscalls, patchEnosys } from './enosys.ts'
import { actionCode, conditionSets, filterFlags, needsEnosys, usesNotify } from './rules.ts'

/** Changes whenever the same profile would compile to something else by our own doing. */
const COMPILER_VERSION = 2
/** Above this many rules the tests are ordered as a tree. */
const TREE_ABOVE_RULES = 32
/** How many rules the library is given in one turn of the event loop. */
const RULES_AT_ONCE = 32
const MAX_IN_MEMORY = 16

const TOKEN_X86_64 = 0xc000003e
const TOKEN_X32 = 0x4000003e

const compiled = new Map<string, CompiledFilter>()

/** Where to keep compiled profiles. */
export interface CompileOptions {
  /** a directory of the runtime's own, made with mode 0700; left out: memory only */
  readonly cacheDir?: string
  /** told the system calls that the library does not know, for which there is no rule therefore; only when a profile is compiled anew */
  readonly onUnknown?: (names: readonly string[]) => void
}

/** The filter of a profile. @throws InvalidArgument, Unimplemented when libseccomp is missing */
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

/** The same, while others have their turns of the event loop: what is not in a cache takes tens of milliseconds. */
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

/** Steps between which others may have a turn: one that yields a context wants its program. */
type Steps<T> = Generator<SeccompContext | undefined, T, Uint8Array | undefined>

function* filterOf(profile: LinuxSeccomp, options: CompileOptions): Steps<CompiledFilter> {
  yield undefined
  // the first use opens the library
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

/** Newest last; the oldest goes when there are too many. */
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
    // the library takes no rule that says what holds without it
    if (code === defaultAction) continue
    const sets = conditionSets(args).map((set) => set.map(argumentTest))
    for (const name of names) {
      const syscall = resolveSyscall(name)
      // unknown to this library: newer than it, or of no architecture of ours; enosys.ts covers the former
      if (syscall === undefined) {
        unknown.add(name)
        continue
      }
      for (const tests of sets) {
        context.addRule(name, syscall, code, tests)
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

/** Older libraries take the action for an unknown one. @throws Unimplemented */
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
    const withX32 = architecture === TOKEN_X86_64 && lastX32 !== undefined
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
