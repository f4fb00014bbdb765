/** Where CRIU is on this host. Apart from what talks to it, since `features` tells whether it is there. */
import { findProgram, searchFolders } from './path-search.ts'

/** Where packages install it, though the PATH of a user may lack these folders. */
const MORE_FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/sbin'] as const

/** The path of CRIU; undefined on a host without it. */
export function findCriu(): string | undefined {
  return findProgram('criu', [...searchFolders(), ...MORE_FOLDERS])
}
