/**
 * The `config` of a state.json in runc's format. With it, runc can list, signal and delete this runtime's containers,
 * and this runtime can do the same with runc's. It holds only what those commands need, and what `runc exec` gives to a
 * process that it adds. The rest is in config.json. Invariant: fields of another program's file are checked before they
 * are used, and a field of the wrong type counts as absent.
 */

import type { CgroupUnit } from '../cgroup/request.ts'
import type { Hook, IdMapping, IntelRdt, NamespaceType, Spec } from '../spec/types.ts'
import { NAMESPACES, PERSONALITIES } from '../sys/linux.ts'
import { runcSeccomp } from './runc-seccomp.ts'

const NANOS_PER_SECOND = 1_000_000_000
const BUNDLE_LABEL = 'bundle='

/** runc's names of the namespaces. */
const NAMESPACE_NAMES = new Map<NamespaceType, string>(NAMESPACES.map(({ type, name }) => [type, name]))

/** What runc's config has besides the spec. */
export interface RuncWhere {
  readonly bundle: string
  readonly rootfs: string
  readonly rootless: boolean
  /** the unit of systemd that the cgroup is, with its slice */
  readonly unit?: { readonly name: string; readonly slice: string } | undefined
}

/** Converts a spec to runc's config. */
export function runcConfig(spec: Spec, { bundle, rootfs, rootless, unit }: RuncWhere): Record<string, unknown> {
  const { linux } = spec
  const { oomScoreAdj, user } = spec.process
  const { umask } = user
  return {
    rootfs,
    readonlyfs: spec.root.readonly,
    hostname: spec.hostname ?? '',
    namespaces: linux.namespaces.map(({ type, path }) => ({ type: NAMESPACE_NAMES.get(type), path: path ?? '' })),
    // runc takes a cgroup that has no field of its limits for no cgroup: hence the empty `devices`
    cgroups: {
      ...(unit === undefined ? { path: linux.cgroupsPath ?? '', scope_prefix: '' } : runcUnit(unit)),
      devices: [],
    },
    uid_mappings: runcMappings(linux.uidMappings),
    gid_mappings: runcMappings(linux.gidMappings),
    Hooks: { poststop: spec.hooks.poststop.map(runcHook) },
    // what `runc exec` gives to a process that it adds: the bundle may have changed since
    ...(linux.seccomp === undefined ? {} : { seccomp: runcSeccomp(linux.seccomp) }),
    ...(umask === undefined ? {} : { umask }),
    ...(oomScoreAdj === undefined ? {} : { oom_score_adj: oomScoreAdj }),
    ...(linux.personality === undefined ? {} : { personality: { domain: PERSONALITIES[linux.personality.domain] } }),
    ...(linux.intelRdt === undefined ? {} : { intel_rdt: runcIntelRdt(linux.intelRdt) }),
    version: spec.ociVersion,
    labels: [...Object.entries(spec.annotations).map(([key, value]) => `${key}=${value}`), `${BUNDLE_LABEL}${bundle}`],
    rootless_euid: rootless,
    rootless_cgroups: rootless,
  }
}

/** runc joins prefix and name by "-". */
function runcUnit({ name, slice }: { readonly name: string; readonly slice: string }): Record<string, unknown> {
  const [, prefix = '', stem = ''] = /^([^-]*)-(.*)\.scope$/.exec(name) ?? []
  return { path: '', name: stem === '' ? name : stem, parent: slice, scope_prefix: prefix, systemd: true }
}

function runcIntelRdt({ closID, schemata, l3CacheSchema, memBwSchema, enableMonitoring }: IntelRdt): object {
  return { closID, schemata, l3_cache_schema: l3CacheSchema, memBwSchema, enableMonitoring }
}

function runcMappings(mappings: readonly IdMapping[]): Record<string, number>[] {
  return mappings.map(({ containerID, hostID, size }) => ({ container_id: containerID, host_id: hostID, size }))
}

function runcHook({ path, args, env, timeout }: Hook): Record<string, unknown> {
  const limit = timeout === undefined ? {} : { timeout: timeout * NANOS_PER_SECOND }
  // null makes the hook inherit runc's environment
  return { path, args, env: env ?? null, dir: '', ...limit }
}

/** The facts about a container in runc's config. */
export interface RuncFacts {
  readonly bundle: string
  readonly rootfs: string
  /** the unit of systemd that its cgroup is */
  readonly unit: CgroupUnit | undefined
  /** text of a config.json that is enough to look at the container, to signal and to delete it, but not for exec */
  readonly document: string
}

type Fields = Readonly<Record<string, unknown>>

function fields(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {}
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** Reads runc's config. */
export function readRuncConfig(value: unknown): RuncFacts {
  const config = fields(value)
  const labels = list(config['labels']).map(text)
  const rootfs = text(config['rootfs'])
  const cgroupsPath = text(fields(config['cgroups'])['path'])
  const document = {
    ociVersion: text(config['version']),
    root: { path: rootfs },
    // never executed: the parser refuses a document without a program
    process: { args: ['unknown'], cwd: '/' },
    annotations: Object.fromEntries(
      labels.filter((label) => !label.startsWith(BUNDLE_LABEL)).map((label) => label.split(/=(.*)/s, 2)),
    ),
    hooks: { poststop: list(fields(config['Hooks'])['poststop']).map(ociHook) },
    linux: {
      namespaces: list(config['namespaces']).flatMap(ociNamespace),
      uidMappings: list(config['uid_mappings']).map(ociMapping),
      gidMappings: list(config['gid_mappings']).map(ociMapping),
      ...(cgroupsPath === '' ? {} : { cgroupsPath }),
    },
  }
  return {
    bundle: labels.find((label) => label.startsWith(BUNDLE_LABEL))?.slice(BUNDLE_LABEL.length) ?? '',
    rootfs,
    unit: unitOf(fields(config['cgroups'])),
    document: JSON.stringify(document),
  }
}

/** The unit that a runc with the systemd driver has made. The keys' case differs between its versions. */
function unitOf(cgroups: Fields): CgroupUnit | undefined {
  if (cgroups['systemd'] !== true && cgroups['Systemd'] !== true) return undefined
  const [name, prefix] = [text(cgroups['name']), text(cgroups['scope_prefix'])]
  const user = cgroups['rootless'] === true || cgroups['Rootless'] === true
  return { name: name.endsWith('.slice') ? name : `${prefix}-${name}.scope`, user }
}

function ociNamespace(value: unknown): readonly Record<string, unknown>[] {
  const { type, path } = fields(value)
  const known = NAMESPACES.find(({ name }) => name === type)
  if (known === undefined) return []
  return [{ type: known.type, ...(text(path) === '' ? {} : { path }) }]
}

function ociMapping(value: unknown): Record<string, unknown> {
  const { container_id: containerID, host_id: hostID, size } = fields(value)
  return { containerID, hostID, size }
}

function ociHook(value: unknown): Record<string, unknown> {
  const { path, args, env, timeout } = fields(value)
  const limit = typeof timeout === 'number' ? { timeout: Math.ceil(timeout / NANOS_PER_SECOND) } : {}
  const own = Array.isArray(env) ? { env } : {}
  return { path, args: list(args), ...own, ...limit }
}
