/**
 * Checks of a spec that need a look at the namespaces which it joins by path. They are made at create only: a spec that
 * is read back from a container's state is not checked again, since what it joined may be gone.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { specError } from '../errors.ts'
import { reasonOf } from '../sys/errno.ts'
import { pointerTo } from './fields.ts'
import type { IdMapping, Linux, NamespaceType, Spec } from './types.ts'

/** The id maps of a user namespace. */
export type IdMaps = Pick<Linux, 'uidMappings' | 'gidMappings'>

/** A namespace to be joined, and the JSON pointer of its path. */
export interface JoinedNamespace {
  readonly path: string
  readonly at: string
}

/**
 * Checked specs, with the namespaces that were looked at, so that a spec that is loaded and then created is checked
 * once.
 */
const resolved = new WeakMap<Linux, string>()

/**
 * Checks a spec against the namespaces that it joins, and fills in the id maps of a joined user namespace in which a
 * process lives.
 * @throws InvalidArgument
 */
export function resolveOnHost(spec: Spec): Spec {
  const user = joined(spec.linux, 'user')
  return resolve(spec, user === undefined ? undefined : mapsIn(user))
}

/**
 * Like resolveOnHost, for a create; skipped if it was done and the paths still name the same namespaces. A joined user
 * namespace may have no process, since managers of pods make it before the pod's first process. `mapsOfEmpty` then
 * finds its maps.
 * @throws InvalidArgument, and errors of `mapsOfEmpty`
 */
export async function resolveForCreate(
  spec: Spec,
  mapsOfEmpty: (namespace: JoinedNamespace) => Promise<IdMaps>,
): Promise<Spec> {
  if (resolved.get(spec.linux) === lookedAt(spec.linux)) return spec
  const user = joined(spec.linux, 'user')
  return resolve(spec, user === undefined ? undefined : (mapsIn(user) ?? (await mapsOfEmpty(user))))
}

function resolve(spec: Spec, maps: IdMaps | undefined): Spec {
  const looked = lookedAt(spec.linux)
  refuseHostNetwork(spec.linux)
  const linux = withJoinedMappings(spec.linux, maps)
  if (maps !== undefined || joined(linux, 'user') === undefined) resolved.set(linux, looked)
  return linux === spec.linux ? spec : { ...spec, linux }
}

/**
 * The identities of the namespaces on which the checks depend.
 * @throws InvalidArgument for a path that does not exist
 */
function lookedAt(linux: Linux): string {
  const namespaces = [joined(linux, 'user'), needsOwnNetwork(linux) ? joined(linux, 'network') : undefined]
  return namespaces.map((one) => (one === undefined ? '' : identity(one.path, one.at))).join()
}

/**
 * The id maps of a process's user namespace, by the process's folder in /proc.
 * @throws InvalidArgument naming the JSON pointer
 */
export function readIdMaps(folder: string, at: string): IdMaps {
  return { uidMappings: readMap(`${folder}/uid_map`, at), gidMappings: readMap(`${folder}/gid_map`, at) }
}

function joined({ namespaces }: Linux, type: NamespaceType): JoinedNamespace | undefined {
  const index = namespaces.findIndex((namespace) => namespace.type === type)
  const path = namespaces[index]?.path
  return path === undefined ? undefined : { path, at: `/linux/namespaces/${index}/path` }
}

/** The device and inode of a namespace, which identify it. */
function identity(path: string, at: string): string {
  try {
    const { dev, ino } = statSync(path)
    return `${dev}:${ino}`
  } catch (error) {
    throw specError(at, `namespace path: cannot look at "${path}": ${reasonOf(error)}`)
  }
}

/**
 * Refuses to join the host's own network namespace with kernel parameters or devices of the network, which would be the
 * host's.
 */
function refuseHostNetwork(linux: Linux): void {
  const network = joined(linux, 'network')
  if (network === undefined || !needsOwnNetwork(linux)) return
  if (identity(network.path, network.at) !== identity('/proc/self/ns/net', network.at)) return
  if (Object.keys(linux.netDevices).length > 0) {
    throw specError('/linux/netDevices', 'unable to move network devices without a private NET namespace')
  }
  const key = networkParameter(linux) ?? ''
  throw specError(pointerTo('/linux/sysctl', key), `sysctl "${key}" is not allowed in host network namespace`)
}

function needsOwnNetwork(linux: Linux): boolean {
  return networkParameter(linux) !== undefined || Object.keys(linux.netDevices).length > 0
}

function networkParameter({ sysctl }: Linux): string | undefined {
  return Object.keys(sysctl).find((name) => /^net[./]/.test(name))
}

/**
 * Fills in the maps of a joined user namespace. A spec may repeat them, as managers of pods do, but must not differ.
 */
function withJoinedMappings(linux: Linux, maps: IdMaps | undefined): Linux {
  if (maps === undefined) return linux
  if (linux.uidMappings.length === 0 && linux.gidMappings.length === 0) return { ...linux, ...maps }
  for (const key of ['uidMappings', 'gidMappings'] as const) {
    if (sameMap(linux[key], maps[key])) continue
    const message = 'user namespaces enabled, but both namespace path and non-matching mapping specified'
    throw specError(`/linux/${key}`, message)
  }
  return linux
}

function mapsIn(user: JoinedNamespace): IdMaps | undefined {
  for (;;) {
    const process = processIn(user)
    if (process === undefined) return undefined
    const maps = readIdMaps(process, user.at)
    // the process may have ended, and another one in another namespace may have its number
    if (isIn(process, identity(user.path, user.at))) return maps
  }
}

/** The folder in /proc of a process in a user namespace: the maps can be read only through a process. */
function processIn({ path, at }: JoinedNamespace): string | undefined {
  const wanted = identity(path, at)
  const named = /^(\/proc\/(?:\d+|self|thread-self))\/ns\/user$/.exec(path)?.[1]
  if (named !== undefined) return named
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map((pid) => `/proc/${pid}`).find((folder) => isIn(folder, wanted))
}

/** Whether the process of a folder in /proc is in the user namespace. */
function isIn(folder: string, wanted: string): boolean {
  try {
    const { dev, ino } = statSync(`${folder}/ns/user`)
    return `${dev}:${ino}` === wanted
  } catch {
    // it has ended, or may not be looked at
    return false
  }
}

function readMap(path: string, at: string): readonly IdMapping[] {
  let text: string
  try {
    text = readFileSync(path, 'latin1')
  } catch (error) {
    throw specError(at, `cannot read the id map "${path}" of the user namespace: ${reasonOf(error)}`)
  }
  return text
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter((numbers) => numbers.length === 3)
    .map(([containerID = 0, hostID = 0, size = 0]) => ({ containerID, hostID, size }))
}

function sameMap(a: readonly IdMapping[], b: readonly IdMapping[]): boolean {
  const canonical = (mappings: readonly IdMapping[]) =>
    [...mappings]
      .sort((x, y) => x.containerID - y.containerID)
      .map(({ containerID, hostID, size }) => `${containerID} ${hostID} ${size}`)
      .join('\n')
  return canonical(a) === canonical(b)
}
