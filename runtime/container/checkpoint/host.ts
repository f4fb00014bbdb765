/**
 * What checkpoints use of the rest of the runtime. The build makes a file of its own of this folder, which a program
 * reads before its first checkpoint only. It hands these names to it, so that there is one reaper in the process.
 * Invariant: no other file of this folder imports code from outside it, except for CRIU's messages.
 */
export { refuseAborted } from '../../abort.ts'
export { Cgroup } from '../../cgroup/cgroup.ts'
export { cgroupError, writeText } from '../../cgroup/files.ts'
export { joinMonitorCgroup } from '../../cgroup/monitor.ts'
export { messageOf, RuntimeError, specError } from '../../errors.ts'
export { failpoint } from '../../failpoint.ts'
export { hostFacts } from '../../host/facts.ts'
export { cgroupOwner, hostGid } from '../../host/ids.ts'
export { mapsOfUserNamespace } from '../../init/joined-maps.ts'
export { lookAtProcess } from '../../init/temporary-process.ts'
export { silentLogger } from '../../logger.ts'
export { connectConsole } from '../../peers/handover.ts'
export { runHooks } from '../../peers/run-hooks.ts'
export { planDevices } from '../../plan/devices.ts'
export { hostRoots } from '../../plan/host-root.ts'
export { planMounts } from '../../plan/mounts.ts'
export { planNamespaces } from '../../plan/namespaces.ts'
export { cleanPath, isWithin } from '../../plan/paths.ts'
export { defined } from '../../spec/fields.ts'
export { resolveForCreate } from '../../spec/resolve.ts'
export { ociState } from '../../state/oci-state.ts'
export { removeRootMount } from '../../state/root-mount.ts'
export { keepSpec, removeRestorePoint, removeState, restorePoint, saveState } from '../../state/store.ts'
export { findCriu } from '../../sys/criu-path.ts'
export { makeDirectories } from '../../sys/directory.ts'
export { inheritedEnvironment } from '../../sys/environment.ts'
export { errnoCode, errnoOf, errnoWords, reasonOf } from '../../sys/errno.ts'
export { OwnedFd, openNull } from '../../sys/fd.ts'
export { getpid, mount, umount2 } from '../../sys/libc.ts'
export {
  ECONNRESET,
  ENOENT,
  MNT_DETACH,
  MS_BIND,
  MS_PRIVATE,
  MS_REC,
  NAMESPACES,
  SIGKILL,
  SOCK_SEQPACKET,
  UMOUNT_NOFOLLOW,
} from '../../sys/linux.ts'
export { unmountTree } from '../../sys/mount.ts'
export { unescapeMountPath } from '../../sys/mountinfo.ts'
export { openChild, pollReadable, processStat } from '../../sys/pids.ts'
export { type ProcessMaker, Reaper } from '../../sys/reaper.ts'
export { removeFile } from '../../sys/remove.ts'
export { receivePacket, sendFd, socketPair } from '../../sys/socket.ts'
export { exitText } from '../../sys/words.ts'
export { Claim } from '../claim.ts'
export { gateSpec, namesOff } from '../gates.ts'
export { makeCgroup, unitFor } from '../make-cgroup.ts'
export { rootfsPath } from '../prepare.ts'
