/** The options of a checkpoint and of a restore. Plain data; relative paths count from the working folder. */

import type { Logger } from '../../logger.ts'
import type { CreateOptions } from '../options.ts'

/** How much of a container's cgroups CRIU saves and makes again: its own, with values; all; or none. */
export const CGROUPS_MODES = ['soft', 'full', 'strict', 'ignore'] as const
/** One of CGROUPS_MODES. */
export type CgroupsMode = (typeof CGROUPS_MODES)[number]

/** What a checkpoint and a restore have in common. Each switch is off by default. */
export interface CriuOptions {
  /** folder of the images */
  readonly imagePath: string
  /** folder of CRIU's logs and temporary files; default: that of the images */
  readonly workPath?: string
  /** with open TCP connections, which must be restored with the same address */
  readonly tcpEstablished?: boolean
  /** with unix sockets whose other end is outside */
  readonly externalUnixSockets?: boolean
  /** with a terminal that comes from outside */
  readonly shellJob?: boolean
  readonly fileLocks?: boolean
  /** default: soft */
  readonly cgroupsMode?: CgroupsMode
  /** namespaces whose content is left out; only the network's can be */
  readonly emptyNamespaces?: readonly 'network'[]
  /** frees the memory of images that are no longer needed */
  readonly autoDedup?: boolean
  /** the pages of memory come later, through a page server or from CRIU's daemon for that */
  readonly lazyPages?: boolean
}

/** The options of Container.checkpoint. */
export interface CheckpointOptions extends CriuOptions {
  /** folder of an earlier checkpoint, relative to the images: only the pages that have changed since are saved */
  readonly parentPath?: string
  /** the container goes on; else its processes have ended */
  readonly leaveRunning?: boolean
  /** saves memory only, so that a later checkpoint is short; the container goes on */
  readonly preDump?: boolean
  /** leaves out TCP connections that are being made */
  readonly tcpSkipInFlight?: boolean
  /** keeps files that were deleted while they were open, by links beside them */
  readonly linkRemap?: boolean
  /** a page server, which gets the memory */
  readonly pageServer?: { readonly address: string; readonly port: number }
  /** a borrowed descriptor, to which a NUL is written when pages can be fetched */
  readonly statusFd?: number
}

/** The options of Container.restore; those of a create have the same meaning. */
export interface RestoreOptions
  extends CriuOptions,
    Pick<
      CreateOptions,
      | 'root'
      | 'id'
      | 'bundle'
      | 'spec'
      | 'stdio'
      | 'reaper'
      | 'consoleSocket'
      | 'pidFile'
      | 'monitorCgroup'
      | 'rootless'
      | 'cgroupManager'
      | 'gates'
      | 'initPath'
      | 'signal'
    > {
  readonly logger?: Logger
  /** closes the TCP connections that the images have */
  readonly tcpClose?: boolean
  /** label for the processes, instead of that of the images: `apparmor:PROFILE` or `selinux:LABEL` */
  readonly lsmProfile?: string
  /** SELinux context for the mounts, instead of that of the images */
  readonly lsmMountContext?: string
}
