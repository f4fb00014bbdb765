/**
 * The environment for programs that are not part of the runtime: that of this process's caller. What starts Node (the
 * launcher, or the script of `runts`) hides variables that would change Node, by a prefix to their names, and adds some
 * for the runtime. Invariant: a program inherits every variable of the caller under its own name, and none of the
 * runtime's.
 */

import { VARIABLES } from '../../proto/launch.ts'

/** Variables that were added for the runtime. */
const OURS: readonly string[] = [VARIABLES.SOFT_NOFILE]

/** The environment to be inherited, as execve(2) takes it. */
export function inheritedEnvironment(): readonly string[] {
  return Object.entries(process.env).flatMap(([name, value]) => {
    if (OURS.includes(name)) return []
    return [`${name.startsWith(VARIABLES.OUTER) ? name.slice(VARIABLES.OUTER.length) : name}=${value}`]
  })
}
