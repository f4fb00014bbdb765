/**
 * One entry of `mounts`, parsed: where it goes, what its options mean, and whether it may go there. The planners of all
 * kinds of mounts share it. Invariant: no mount covers the container's / or lies inside its /proc, except on the few
 * files that tools such as lxcfs emulate.
 */
import type { CgroupJoin } from '../cgroup/cgroup.ts'
import { specError } from '../errors.ts'
import type { HostFacts } from '../host/facts.ts'
import { type MountOptions, parseMountOptions, singleOptions } from '../spec/mount-options.ts'
import type { Mount } from '../spec/types.ts'
import { withoutHostRoot } from './host-root.ts'
import type { NamespacePlan } from './namespaces.ts'
import { cleanPath, isWithin } from './paths.ts'

/** The input of a container's mounts. */
export interface MountInput {
  readonly mounts: readonly Mount[]
  readonly bundle: string
  /** paths of the root on the host (host-root.ts) */
  readonly hostRoots: readonly string[]
  readonly namespaces: NamespacePlan
  readonly cgroup: CgroupJoin
  readonly host: HostFacts
  readonly mountLabel: string | undefined
}

/** One mount, parsed. */
export interface MountEntry {
  readonly mount: Mount
  /** clean and absolute */
  readonly destination: string
  readonly options: MountOptions
  /** JSON pointer of the entry */
  readonly origin: string
}

/** Files below /proc that programs such as lxcfs cover with their own view. */
const EMULATED_PROC_FILES: ReadonlySet<string> = new Set([
  '/proc/cpuinfo',
  '/proc/diskstats',
  '/proc/meminfo',
  '/proc/stat',
  '/proc/swaps',
  '/proc/uptime',
  '/proc/loadavg',
  '/proc/slabinfo',
  '/proc/sys/kernel/ns_last_pid',
  '/proc/sys/crypto/fips_enabled',
])

/**
 * Parses one entry and checks where it goes.
 * @throws InvalidArgument
 */
export function understandMount(mount: Mount, origin: string, roots: readonly string[]): MountEntry {
  const destination = withoutHostRoot(cleanPath(mount.destination), roots)
  if (destination === '/') {
    throw specError(`${origin}/destination`, `cannot mount on "${mount.destination}": it is on the top of rootfs`)
  }
  const entry = { mount, destination, options: parseMountOptions(mount.options), origin }
  refuseInsideProc(entry)
  return entry
}

/** True when the entry shows an existing tree. */
export function isBind({ mount, options }: MountEntry): boolean {
  return options.bind !== 'no' || mount.type === 'bind'
}

function refuseInsideProc(entry: MountEntry): void {
  const { mount, destination, origin } = entry
  if (!isWithin(destination, '/proc') || EMULATED_PROC_FILES.has(destination)) return
  if (destination !== '/proc') {
    throw specError(`${origin}/destination`, `"${destination}" cannot be mounted because it is inside /proc`)
  }
  const isProc = isBind(entry) ? cleanPath(mount.source ?? '') === '/proc' : mount.type === 'proc'
  if (!isProc) throw specError(`${origin}/destination`, `only the proc file system can be mounted on "${destination}"`)
}

/** The longest name or value that fsconfig(2) takes, in bytes. */
const OPTION_BYTES = 255
const text = new TextEncoder()

/**
 * The options of a new file system, one by one as fsconfig(2) takes them: the words of the entry and the SELinux
 * context.
 * @throws InvalidArgument for one that is too long
 */
export function fileSystemOptions(
  fstype: string,
  words: readonly string[],
  { mountLabel, origin }: Pick<MountInput, 'mountLabel'> & Pick<MountEntry, 'origin'>,
): string[] {
  const options = singleOptions([...words, ...labelOption(fstype, mountLabel)])
  const fitting = fstype === 'overlay' ? options.flatMap(splitLayers) : options
  for (const option of fitting) {
    const longest = Math.max(...option.split(/=(.*)/s, 2).map((part) => text.encode(part).length))
    if (longest <= OPTION_BYTES) continue
    const shown = option.length > 40 ? `${option.slice(0, 40)}…` : option
    throw specError(
      `${origin}/options`,
      `the mount option "${shown}" is longer than the kernel takes (${OPTION_BYTES} bytes)`,
    )
  }
  return fitting
}

/**
 * Splits overlay layers that are too long for one option (Linux 6.5 or newer). A list with an escaped or a double colon
 * cannot be split.
 */
function splitLayers(option: string): string | string[] {
  const layers = /^lowerdir=([^\\]+)$/s.exec(option)?.[1]
  if (layers === undefined || layers.includes('::') || text.encode(layers).length <= OPTION_BYTES) return option
  return layers.split(':').map((layer) => `lowerdir+=${layer}`)
}

/** The SELinux context of a new file system; proc and sysfs have labels of their own, mqueue takes none. */
function labelOption(fstype: string, mountLabel: string | undefined): readonly string[] {
  if (mountLabel === undefined || fstype === 'proc' || fstype === 'sysfs' || fstype === 'mqueue') return []
  return [`context="${mountLabel}"`]
}
