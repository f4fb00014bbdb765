/**
 * Runtime options: what Create's Any says about how to run the container. Four forms arrive, depending on client and runtime name:
 * nothing, containerd.runc.v1.Options, the legacy containerd.linux.runc.CreateOptions, and runtimeoptions.v1.Options with TOML inside.
 * An unknown form is ignored with a warning (clients send what they like); an option that we know and cannot honour is refused.
 * `shim_cgroup` is not read here: the launcher has obeyed it before it started us.
 */
import { readFileSync, statSync } from 'node:fs'
import { type MessageType, typeNameOf } from 'ttrpc-ts'
import { type Any, LegacyCreateOptions, RuncOptions, RuntimeOptions } from 'ttrpc-ts/containerd'
import { errnoName, errnoOf, RuntimeError } from '../runtime/index.ts'
import { messageOf } from './status.ts'

/** The options that mean something to this shim. */
export interface ShimOptions {
  /** move the root with MS_MOVE and chroot instead of pivot_root */
  readonly noPivotRoot: boolean
  /** stay in the caller's session keyring */
  readonly noNewKeyring: boolean
  /** owner of the streams on the host; 0 means the process's own user */
  readonly ioUid: number
  readonly ioGid: number
  /** folder of all namespaces' state; empty means the default */
  readonly root: string
}

/** The options and what should be logged about them. */
export interface ParsedOptions {
  readonly options: ShimOptions
  readonly warnings: readonly string[]
}

/** Every option in one shape, whatever form it came in. */
interface RawOptions {
  noPivotRoot: boolean
  noNewKeyring: boolean
  ioUid: number
  ioGid: number
  binaryName: string
  root: string
  systemdCgroup: boolean
}

const NONE: Readonly<RawOptions> = {
  noPivotRoot: false,
  noNewKeyring: false,
  ioUid: 0,
  ioGid: 0,
  binaryName: '',
  root: '',
  systemdCgroup: false,
}

/** Binary names that mean "the usual runtime": ours is built in. */
const OWN_BINARIES: readonly string[] = ['', 'runc', 'runts']

/** Reads the options of a Create request. @throws InvalidArgument, Unimplemented for an option that cannot be honoured */
export function parseOptions(any: Any | undefined): ParsedOptions {
  const warnings: string[] = []
  const raw = rawOptions(any, warnings)
  if (!OWN_BINARIES.includes(raw.binaryName)) {
    throw new RuntimeError(
      'InvalidArgument',
      `cannot use the runtime binary "${raw.binaryName}": this shim has its own runtime`,
    )
  }
  if (raw.systemdCgroup) throw new RuntimeError('Unimplemented', 'the option systemd_cgroup is not supported')
  if (raw.root !== '' && !raw.root.startsWith('/')) {
    throw new RuntimeError('InvalidArgument', `the option root is not an absolute path: "${raw.root}"`)
  }
  const { noPivotRoot, noNewKeyring, ioUid, ioGid, root } = raw
  return { options: { noPivotRoot, noNewKeyring, ioUid, ioGid, root }, warnings }
}

function rawOptions(any: Any | undefined, warnings: string[]): Readonly<RawOptions> {
  if (any === undefined || any.typeUrl === '') return NONE
  switch (typeNameOf(any)) {
    case RuncOptions.typeName:
      return decode(RuncOptions, any)
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

function pickLegacy({ noPivotRoot, noNewKeyring, ioUid, ioGid }: LegacyCreateOptions): Partial<RawOptions> {
  return { noPivotRoot, noNewKeyring, ioUid, ioGid }
}

function fromConfig({ configPath, configBody }: RuntimeOptions, warnings: string[]): Readonly<RawOptions> {
  const inline = configPath === ''
  const where = inline ? 'the runtime options' : `"${configPath}"`
  const text = inline ? Buffer.from(configBody).toString('utf8') : readConfig(configPath)
  const raw: RawOptions = { ...NONE }
  for (const { key, value, line } of readFlatToml(text, where)) {
    if (!setOption(raw, key, value)) warnings.push(`ignoring the key "${key}" of ${where}, line ${line}`)
  }
  return raw
}

function readConfig(path: string): string {
  try {
    // a device or a fifo might never end
    if (!statSync(path).isFile()) throw new RuntimeError('InvalidArgument', `the runtime options "${path}" are no file`)
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (error instanceof RuntimeError) throw error
    throw new RuntimeError(
      'InvalidArgument',
      `cannot read the runtime options "${path}": ${errnoName(errnoOf(error))}`,
      { cause: error },
    )
  }
}

/** Sets what the key names (containerd's spelling); false when the key is none of ours or its value has another type. */
function setOption(raw: RawOptions, key: string, value: string | number | boolean): boolean {
  if (typeof value === 'boolean') {
    if (key === 'NoPivotRoot') raw.noPivotRoot = value
    else if (key === 'NoNewKeyring') raw.noNewKeyring = value
    else if (key === 'SystemdCgroup') raw.systemdCgroup = value
    else return false
  } else if (typeof value === 'number') {
    if (key === 'IoUid') raw.ioUid = value
    else if (key === 'IoGid') raw.ioGid = value
    else return false
  } else if (key === 'ShimCgroup') {
    if (value !== '')
      throw new RuntimeError(
        'Unimplemented',
        `the key "ShimCgroup" is not supported in a configuration file: "${value}"`,
      )
  } else if (key === 'BinaryName') raw.binaryName = value
  else if (key === 'Root') raw.root = value
  else return false
  return true
}

interface TomlEntry {
  readonly key: string
  readonly value: string | number | boolean
  readonly line: number
}

/**
 * The flat TOML that an options table becomes: `key = value` with strings, whole numbers and booleans. Anything else (tables, arrays,
 * multi-line strings) cannot be an option and is refused with its line, so that nothing is misread in silence.
 */
function readFlatToml(text: string, where: string): TomlEntry[] {
  const entries: TomlEntry[] = []
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.trim()
    if (line === '' || line.startsWith('#')) continue
    const match =
      /^(?<key>[A-Za-z0-9_-]+)\s*=\s*(?:(?<basic>"(?:[^"\\]|\\.)*")|'(?<literal>[^']*)'|(?<bool>true|false)|(?<int>\d+))\s*(?:#.*)?$/.exec(
        line,
      )
    const { key, basic, literal, bool, int } = match?.groups ?? {}
    if (key === undefined) {
      throw new RuntimeError(
        'InvalidArgument',
        `cannot read ${where}, line ${index + 1}: only "key = value" with a string, a whole number or a boolean is supported`,
      )
    }
    const value =
      bool !== undefined
        ? bool === 'true'
        : int !== undefined
          ? Number(int)
          : (literal ?? unquote(basic ?? '', where, index + 1))
    entries.push({ key, value, line: index + 1 })
  }
  return entries
}

function unquote(text: string, where: string, line: number): string {
  try {
    // a one-line basic string of TOML has JSON's escapes, but for the eight-digit \U
    return String(JSON.parse(text))
  } catch (error) {
    throw new RuntimeError('InvalidArgument', `cannot read ${where}, line ${line}: the string has an unknown escape`, {
      cause: error,
    })
  }
}
