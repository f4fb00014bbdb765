/**
 * Runtime options: what the Any in a Create request says about how to run the container. Four forms arrive, depending
 * on the client and the runtime's name: nothing, containerd.runc.v1.Options, the legacy
 * containerd.linux.runc.CreateOptions, and runtimeoptions.v1.Options with TOML inside.
 *
 * A form of an unknown type is ignored with a warning, because clients send options of other runtimes. A known option
 * that the shim cannot honour is refused. `shim_cgroup` is not read here: the launcher has joined that cgroup before it
 * started this process.
 */
import { type MessageType, typeNameOf } from 'ttrpc-ts'
import { type Any, LegacyCreateOptions, RuncOptions, RuntimeOptions } from 'ttrpc-ts/containerd'
import { RuntimeError } from '../runtime/index.ts'
import { messageOf, readRegularFile } from '../runtime/internal.ts'
import { readToml, type TomlValue } from './options-toml.ts'

/** The options that have an effect in this shim. */
export interface ShimOptions {
  /** move the root with MS_MOVE and chroot instead of pivot_root */
  readonly noPivotRoot: boolean
  /** stay in the caller's session keyring */
  readonly noNewKeyring: boolean
  /** owner of the streams, in ids of the host; 0 means the process's own user and group */
  readonly ioUid: number
  readonly ioGid: number
  /** folder for the state of all containers, one subfolder per containerd namespace; empty means the default */
  readonly root: string
  /** systemd makes the cgroups, which the spec then names as slice:prefix:name */
  readonly systemdCgroup: boolean
  /**
   * whether a read-only rbind mount makes all mounts below it read-only too. dockerd asks for that in the spec, but
   * only of runtimes that it knows.
   */
  readonly recursiveReadOnly: boolean
  /** folder of CRIU's log and temporary files when a container is restored; empty means its bundle */
  readonly criuWorkPath: string
  /** what a restore may bring back; only the older form of the options can say it */
  readonly criu: RestoreSwitches
}

/** What of a checkpoint is restored besides processes. */
export interface RestoreSwitches {
  readonly openTcp: boolean
  readonly externalUnixSockets: boolean
  readonly terminal: boolean
  readonly fileLocks: boolean
  readonly emptyNamespaces: readonly string[]
  readonly cgroupsMode: string
}

/** The options, and the warnings to log. */
export interface ParsedOptions {
  readonly options: ShimOptions
  readonly warnings: readonly string[]
}

/** All options that are read, in one shape for all forms. */
interface RawOptions {
  noPivotRoot: boolean
  noNewKeyring: boolean
  ioUid: number
  ioGid: number
  binaryName: string
  root: string
  systemdCgroup: boolean
  recursiveReadOnly: boolean
  criuWorkPath: string
  criu: RestoreSwitches
}

/** A key and its value, and the words for the document that they are from. */
interface ConfigEntry {
  readonly key: string
  readonly value: TomlValue
  readonly where: string
}

const NONE: Readonly<RawOptions> = {
  noPivotRoot: false,
  noNewKeyring: false,
  ioUid: 0,
  ioGid: 0,
  binaryName: '',
  root: '',
  systemdCgroup: false,
  recursiveReadOnly: false,
  criuWorkPath: '',
  criu: {
    openTcp: false,
    externalUnixSockets: false,
    terminal: false,
    fileLocks: false,
    emptyNamespaces: [],
    cgroupsMode: '',
  },
}

/** The largest configuration file that is read. Real ones are far smaller, but the path may name any file. */
const MAX_CONFIG_BYTES = 1024 * 1024
/** The highest user or group id. The number above it is (uid_t)-1, which stands for "no id". */
const MAX_ID = 4_294_967_294n

/** Values of `binary_name` that are accepted. They all mean the built-in runtime. */
const OWN_BINARIES: readonly string[] = ['', 'runc', 'runts']

/**
 * Reads the options of a Create request.
 * @throws InvalidArgument; Unimplemented for an option that cannot be honoured; an error with the code of the errno
 * when the configuration file cannot be read
 */
export async function parseOptions(any: Any | undefined): Promise<ParsedOptions> {
  const warnings: string[] = []
  const raw = await rawOptions(any, warnings)
  if (!OWN_BINARIES.includes(raw.binaryName)) {
    throw new RuntimeError(
      'InvalidArgument',
      `cannot use the runtime binary "${raw.binaryName}": this shim has its own runtime`,
    )
  }
  for (const [name, path] of [
    ['root', raw.root],
    ['criu_work_path', raw.criuWorkPath],
  ] as const) {
    if (path === '' || path.startsWith('/')) continue
    throw new RuntimeError('InvalidArgument', `the option ${name} is not an absolute path: "${path}"`)
  }
  const { binaryName, ...options } = raw
  return { options, warnings }
}

async function rawOptions(any: Any | undefined, warnings: string[]): Promise<Readonly<RawOptions>> {
  if (any === undefined || any.typeUrl === '') return NONE
  switch (typeNameOf(any)) {
    case RuncOptions.typeName:
      return { ...NONE, ...pickRunc(decode(RuncOptions, any)) }
    case LegacyCreateOptions.typeName:
      return { ...NONE, ...pickLegacy(decode(LegacyCreateOptions, any)) }
    case RuntimeOptions.typeName:
      return fromConfig(decode(RuntimeOptions, any), warnings)
    default:
      warnings.push(`ignoring runtime options of the unknown type "${any.typeUrl}"`)
      return NONE
  }
}

function decode<T extends object>(type: MessageType<T>, { value }: Any): T {
  try {
    return type.decode(value)
  } catch (error) {
    throw new RuntimeError('InvalidArgument', `cannot decode ${type.typeName}: ${messageOf(error)}`, { cause: error })
  }
}

function pickRunc(options: RuncOptions): Partial<RawOptions> {
  const { noPivotRoot, noNewKeyring, ioUid, ioGid, binaryName, root, systemdCgroup, criuWorkPath } = options
  return { noPivotRoot, noNewKeyring, ioUid, ioGid, binaryName, root, systemdCgroup, criuWorkPath }
}

function pickLegacy(options: LegacyCreateOptions): Partial<RawOptions> {
  const { noPivotRoot, noNewKeyring, ioUid, ioGid, criuWorkPath } = options
  const { openTcp, externalUnixSockets, terminal, fileLocks, emptyNamespaces, cgroupsMode } = options
  const criu = { openTcp, externalUnixSockets, terminal, fileLocks, emptyNamespaces, cgroupsMode }
  return { noPivotRoot, noNewKeyring, ioUid, ioGid, criuWorkPath, criu }
}

async function fromConfig({ configPath, configBody }: RuntimeOptions, warnings: string[]): Promise<RawOptions> {
  const inline = configPath === ''
  const where = inline ? 'the runtime options' : `the runtime options "${configPath}"`
  const raw: RawOptions = { ...NONE }
  const bytes = inline ? configBody : readRegularFile(configPath, MAX_CONFIG_BYTES, where)
  if (bytes.length === 0) return raw
  for (const [key, value] of Object.entries(await readToml(bytes, where))) {
    if (!setOption(raw, { key, value, where })) warnings.push(`ignoring the key "${key}" of ${where}`)
  }
  return raw
}

/**
 * Sets the option that a key names, in containerd's spelling; false for an unknown key.
 * @throws InvalidArgument for a value of the wrong type; Unimplemented for ShimCgroup
 */
function setOption(raw: RawOptions, { key, value, where }: ConfigEntry): boolean {
  const expected = (what: string): RuntimeError =>
    new RuntimeError('InvalidArgument', `cannot use the key "${key}" of ${where}: expected ${what}`)
  const flag = (): boolean => {
    if (typeof value !== 'boolean') throw expected('true or false')
    return value
  }
  const id = (): number => {
    if (typeof value !== 'bigint' || value < 0n || value > MAX_ID) throw expected(`a whole number from 0 to ${MAX_ID}`)
    return Number(value)
  }
  const text = (): string => {
    if (typeof value !== 'string' || value.includes('\0')) throw expected('a string without NUL')
    return value
  }
  switch (key) {
    case 'NoPivotRoot':
      raw.noPivotRoot = flag()
      return true
    case 'NoNewKeyring':
      raw.noNewKeyring = flag()
      return true
    case 'RecursiveReadOnly':
      raw.recursiveReadOnly = flag()
      return true
    case 'SystemdCgroup':
      raw.systemdCgroup = flag()
      return true
    case 'IoUid':
      raw.ioUid = id()
      return true
    case 'IoGid':
      raw.ioGid = id()
      return true
    case 'BinaryName':
      raw.binaryName = text()
      return true
    case 'Root':
      raw.root = text()
      return true
    case 'CriuWorkPath':
      raw.criuWorkPath = text()
      return true
    case 'ShimCgroup':
      if (text() === '') return true
      throw new RuntimeError(
        'Unimplemented',
        `the key "ShimCgroup" is not supported in a configuration file: "${text()}"`,
      )
    default:
      return false
  }
}
