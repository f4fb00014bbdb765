/**
 * The id maps of a user namespace that a container joins and that may have no process. A pod manager makes one, keeps a
 * bind mount of it, and starts the pod's processes later. The kernel shows the maps only through a process in the
 * namespace. So a temporary process joins it, in the same way as the container will.
 */
import { SYNC_POINTS } from '../../proto/init-plan.ts'
import { CLONE_FLAGS } from '../plan/namespaces.ts'
import { type IdMaps, type JoinedNamespace, readIdMaps } from '../spec/resolve.ts'
import { lookAtProcess, type TemporaryProcessOptions } from './temporary-process.ts'

/** Reads the maps of the user namespace at a path. @throws what joining it met */
export async function mapsOfUserNamespace(
  { path, at }: JoinedNamespace,
  helpers: TemporaryProcessOptions,
): Promise<IdMaps> {
  return await lookAtProcess(
    {
      ops: [
        { op: 'open_ns', path, type: CLONE_FLAGS.user, origin: at },
        { op: 'join', origin: at },
        { op: 'clone', flags: 0n, uidMap: '', gidMap: '', runtimeMaps: 0, origin: at },
        { op: 'sync', point: SYNC_POINTS.RUNTIME_HOOKS, origin: at },
      ],
      stop: 'onRuntimeHooks',
      look: (pid) => readIdMaps(`/proc/${pid}`, at),
    },
    helpers,
  )
}
