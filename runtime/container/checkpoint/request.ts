/**
 * What the requests for a dump and for a restore share: folders, switches, and the configuration file. The error of a
 * request that has failed has the end of CRIU's log. Invariant: the descriptors of a request are closed with it.
 */
import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  rmdirSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { CriuCgroupMode, type CriuResponse } from 'ttrpc-ts/criu'
import { messageOf, RuntimeError } from '../../errors.ts'
import type { Spec } from '../../spec/types.ts'
import { makeDirectories } from '../../sys/directory.ts'
import { reasonOf } from '../../sys/errno.ts'
import { OwnedFd } from '../../sys/fd.ts'
import { NAMESPACES } from '../../sys/linux.ts'
import { unmountTree } from '../../sys/mount.ts'
import { removeFile } from '../../sys/remove.ts'
import { type CriuAsk, configFile } from './criu.ts'
import { CGROUPS_MODES, type CgroupsMode, type CriuOptions } from './options.ts'

/** Everything that CRIU tells of; the runtime itself shows only the end. */
const LOG_LEVEL = 4
/** How much of the end of a log is looked at, and how many of its errors are told. */
const LOG_BYTES = 65536
const MOST_LOG_BYTES = 2 ** 20
const LOG_ERRORS = 3
/** How a line tells of a failure: some have no word for it at their beginning. */
const FAILURE = /\bError\b|can(no|')t\b|\bunable to\b/i
/** What CRIU complains of and goes on after: its limit of open files, and sizes of pages that the host lacks. */
const HARMLESS = /RLIMIT_NOFILE|Hugetlb size/

/** CRIU's names of folders that it makes for a while: with all cgroups, and on the host for a container's mounts. */
const YARD = /^\.criu\.cgyard\.\w{6}$/
const MOUNT_ROOT = /\/tmp\/\.criu\.mntns\.\w{6}/

/** The options of CRIU that a request has. */
export type CriuRequestOptions = NonNullable<CriuAsk['opts']>

const MODES: Readonly<Record<CgroupsMode, number>> = {
  soft: CriuCgroupMode.SOFT,
  full: CriuCgroupMode.FULL,
  strict: CriuCgroupMode.STRICT,
  ignore: CriuCgroupMode.IGNORE,
}

/** The folders of a request, opened. */
export class Folders implements Disposable {
  /** absolute */
  readonly imagePath: string
  /** absolute; where CRIU's log is */
  readonly logPath: string
  readonly #open = new DisposableStack()
  readonly #images: OwnedFd
  readonly #inWork: ReadonlySet<string>
  readonly #inImages: ReadonlySet<string>
  readonly #work: OwnedFd

  /** Opens the folders, and makes those that `make` allows. @throws what making or opening them met */
  constructor({ imagePath, workPath }: CriuOptions, log: string, { make }: { readonly make: boolean }) {
    this.imagePath = resolve(imagePath)
    const work = workPath ? resolve(workPath) : this.imagePath
    this.logPath = join(work, log)
    if (make) makeFolder(this.imagePath)
    if (make || work !== this.imagePath) makeFolder(work)
    using folders = new DisposableStack()
    this.#images = folders.use(openFolder(this.imagePath))
    this.#work = folders.use(openFolder(work))
    this.#inWork = new Set(readdirSync(work))
    this.#inImages = new Set(readdirSync(this.imagePath))
    this.#open = folders.move()
  }

  /**
   * Removes what a CRIU that was killed has left: its view of all cgroups in the work folder, and with `images` the
   * files that it has begun. Logs stay, since the error names one. Nothing is removed that was there before, and no
   * folder with its content: below it may be the cgroups of the host.
   */
  async removeLeftovers({ images }: { readonly images: boolean }): Promise<void> {
    const work = dirname(this.logPath)
    for (const name of newNames(work, this.#inWork).filter((name) => YARD.test(name))) {
      await unmountTree(join(work, name))
      rmdirSync(join(work, name))
    }
    const begun = images ? newNames(this.imagePath, this.#inImages) : []
    for (const name of begun) if (!name.endsWith('.log')) removeFile(join(this.imagePath, name))
    const root = MOUNT_ROOT.exec(endOfLog(this.logPath, MOST_LOG_BYTES))?.[0]
    if (root !== undefined && existsSync(root)) rmdirSync(root)
  }

  /**
   * Lets a group of the host search the folder of the images until this is disposed, if it cannot yet. In a user
   * namespace CRIU has only the rights of the container's root. Its images are readable, and this folder hides them.
   */
  letGroupSearch(gid: number): void {
    const { fd } = this.#images
    const { mode, gid: before } = fstatSync(fd)
    const bits = mode & 0o7777
    if ((bits & 0o001) !== 0 || (before === gid && (bits & 0o010) !== 0)) return
    this.#open.defer(() => {
      fchownSync(fd, -1, before)
      fchmodSync(fd, bits)
    })
    fchownSync(fd, -1, gid)
    fchmodSync(fd, (bits & ~0o070) | 0o010)
  }

  /** The folders as CRIU takes them: by numbers in this process, at which it looks through /proc. */
  get descriptors(): Pick<CriuRequestOptions, 'imagesDirFd' | 'workDirFd'> {
    return { imagesDirFd: this.#images.fd, workDirFd: this.#work.fd }
  }

  [Symbol.dispose](): void {
    this.#open.dispose()
  }
}

function newNames(folder: string, before: ReadonlySet<string>): readonly string[] {
  return readdirSync(folder).filter((name) => !before.has(name))
}

function makeFolder(path: string): void {
  try {
    makeDirectories(path, 0o700)
  } catch (error) {
    throw new RuntimeError('InvalidArgument', `cannot make the folder "${path}": ${reasonOf(error)}`, { cause: error })
  }
}

function openFolder(path: string): OwnedFd {
  try {
    return new OwnedFd(openSync(path, constants.O_RDONLY | constants.O_DIRECTORY))
  } catch (error) {
    throw new RuntimeError('InvalidArgument', `cannot open the folder "${path}": ${reasonOf(error)}`, { cause: error })
  }
}

/** What both kinds of requests say in the same way. */
export function commonOptions(options: CriuOptions, log: string, spec: Spec): CriuRequestOptions {
  const { cgroupsMode = 'soft', emptyNamespaces = [] } = options
  if (!CGROUPS_MODES.includes(cgroupsMode)) {
    throw new RuntimeError(
      'InvalidArgument',
      `invalid cgroups mode "${cgroupsMode}": must be ${CGROUPS_MODES.join(', ')}`,
    )
  }
  const config = configFile(spec.annotations)
  return {
    logLevel: LOG_LEVEL,
    logFile: log,
    notifyScripts: true,
    orphanPtsMaster: true,
    manageCgroups: true,
    manageCgroupsMode: MODES[cgroupsMode],
    tcpEstablished: options.tcpEstablished === true,
    extUnixSk: options.externalUnixSockets === true,
    shellJob: options.shellJob === true,
    fileLocks: options.fileLocks === true,
    autoDedup: options.autoDedup === true,
    lazyPages: options.lazyPages === true,
    emptyNs: emptyNamespaces.reduce((flags, name) => flags | flagOf(name), 0),
    ...(config === undefined ? {} : { configFile: config }),
  }
}

function flagOf(type: string): number {
  return NAMESPACES.find((namespace) => namespace.type === type)?.flag ?? 0
}

/** The namespaces that CRIU leaves alone: their owners are outside. */
export const OUTSIDE_NAMESPACES = ['network', 'pid'] as const

/** CRIU's name of a kind of namespace. */
export function namespaceName(type: string): string {
  return NAMESPACES.find((namespace) => namespace.type === type)?.file ?? type
}

/** The key, known to runc too, by which a restore names the namespace that stands for one from outside. */
export function outsideKey(type: string): string {
  const name = namespaceName(type)
  return `extRoot${name.slice(0, 1).toUpperCase()}${name.slice(1)}NS`
}

/** The error of a request that has failed: what CRIU says, and the last errors of its log. */
export function criuFailure(what: string, reason: unknown, logPath: string): RuntimeError {
  const why = messageOf(reason)
  const said = reason instanceof Error && typeof reason.cause === 'string' ? reason.cause : ''
  const errors = lastErrors(logPath) || said
  const told = errors === '' ? '' : `: ${errors}`
  return new RuntimeError('Internal', `${what}: ${why}${told} (all of it in ${logPath})`, { cause: reason })
}

/** Does work whose errors begin with the same words. @throws what the work throws, with these words */
export async function saying<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof RuntimeError) || error.message.startsWith(what)) throw error
    throw new RuntimeError(error.code, `${what}: ${error.message}`, { cause: error, detail: error.detail })
  }
}

/** Refuses a container whose mounts are among those of the host. @throws Unimplemented */
export function requireOwnMounts({ linux }: Spec): void {
  if (linux.namespaces.some(({ type }) => type === 'mount')) return
  throw new RuntimeError('Unimplemented', 'it has no mount namespace of its own')
}

/** What a response without success says. */
export function refusalOf({ crErrno, crErrmsg }: CriuResponse): RuntimeError {
  // its message is the first error of the log, whether that matters or not
  const message = `criu failed${crErrno === 0 ? '' : ` with errno ${crErrno}`}`
  return new RuntimeError('Internal', message, { cause: crErrmsg.trim() })
}

/** The last errors of a log of CRIU, or its last line; empty for one that cannot be read. */
function lastErrors(path: string): string {
  try {
    const lines = endOfLog(path, LOG_BYTES)
      .split('\n')
      .filter((line) => line.trim() !== '')
    const errors = lines.filter((line) => FAILURE.test(line) && !HARMLESS.test(line)).slice(-LOG_ERRORS)
    return (errors.length > 0 ? errors : lines.slice(-1)).map(withoutTime).join('; ')
  } catch {
    // there is none when CRIU has not begun
    return ''
  }
}

function withoutTime(line: string): string {
  return line.replace(/^\(\d+\.\d+\)\s*/, '').trim()
}

/** The end of a log; empty without one. */
function endOfLog(path: string, bytes: number): string {
  if (!existsSync(path)) return ''
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const { size } = fstatSync(fd)
    const buffer = Buffer.alloc(Math.min(size, bytes))
    return buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, size - buffer.length)).toString('utf8')
  } finally {
    closeSync(fd)
  }
}
