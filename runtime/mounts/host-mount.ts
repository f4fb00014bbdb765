/**
 * Mounts one entry in fstab terms on the host. Two options are of this runtime alone: uidmap=CONTAINER:HOST:SIZE[,…]
 * and gidmap=…, which say how the ids of the files appear. mount_setattr(2) takes the maps from a user namespace, and
 * only a process can make one. So a temporary process is started, its maps are written, and it is ended.
 */
import { constants, openSync, writeFileSync } from 'node:fs'
import { RuntimeError } from '../errors.ts'
import { lookAtProcess, type TemporaryProcessOptions } from '../init/temporary-process.ts'
import { CLONE_FLAGS, mapText } from '../plan/namespaces.ts'
import type { IdMapping } from '../spec/types.ts'
import { OwnedFd } from '../sys/fd.ts'
import { mountMapped } from '../sys/mapped-mount.ts'
import { type FsMount, mountFs } from '../sys/mount.ts'
import { isMountedByProgram, mountByProgram } from './mount-program.ts'

const ID_LIMIT = 2 ** 32

/** What starts and logs the temporary process or the mount program. */
export type MountHelpers = TemporaryProcessOptions

/**
 * Mounts one entry, with mapped ids where its options say so. When it throws, nothing is mounted.
 * @throws InvalidArgument for a bad option; what the mount met
 */
export async function mountEntry(entry: FsMount, helpers: MountHelpers): Promise<void> {
  const uid = mapsOf(entry, 'uidmap')
  const gid = mapsOf(entry, 'gidmap')
  if (uid.length === 0 && gid.length === 0)
    return isMountedByProgram(entry) ? mountByProgram(entry, helpers.reaper) : mountFs(entry)
  if (uid.length === 0 || gid.length === 0) {
    throw new RuntimeError('InvalidArgument', `cannot mount on "${entry.target}": one of uidmap and gidmap is missing`)
  }
  const options = entry.options.filter((option) => !/^[ug]idmap=/.test(option))
  using userns = await openUserNamespace(uid, gid, helpers)
  await mountMapped({ ...entry, options }, userns.fd)
}

function mapsOf({ options, target }: FsMount, name: 'uidmap' | 'gidmap'): IdMapping[] {
  const texts = options
    .filter((option) => option.startsWith(`${name}=`))
    .flatMap((option) => option.slice(name.length + 1).split(','))
  return texts.map((text) => {
    const [containerID = -1, hostID = -1, size = -1] = /^\d+:\d+:\d+$/.test(text) ? text.split(':').map(Number) : []
    if (size < 1 || containerID + size > ID_LIMIT || hostID + size > ID_LIMIT) {
      throw new RuntimeError(
        'InvalidArgument',
        `cannot mount on "${target}": ${name} "${text}" is not CONTAINER:HOST:SIZE`,
      )
    }
    return { containerID, hostID, size }
  })
}

/** Makes a user namespace with these maps and without a process; the caller owns the fd. */
async function openUserNamespace(
  uid: readonly IdMapping[],
  gid: readonly IdMapping[],
  helpers: TemporaryProcessOptions,
): Promise<OwnedFd> {
  return await lookAtProcess(
    {
      ops: [{ op: 'clone', flags: CLONE_FLAGS.user, uidMap: '', gidMap: '', runtimeMaps: 1 }],
      stop: 'onIdMaps',
      look: (pid) => {
        writeFileSync(`/proc/${pid}/uid_map`, mapText(uid))
        writeFileSync(`/proc/${pid}/gid_map`, mapText(gid))
        return new OwnedFd(openSync(`/proc/${pid}/ns/user`, constants.O_RDONLY))
      },
    },
    helpers,
  )
}
