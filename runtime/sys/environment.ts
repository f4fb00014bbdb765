/**
 * The environment that programs of somebody else inherit: the one that this process was started with. Whoever starts Node for us keeps
 * variables out of its way that would change how it starts, under another name, and adds some for us alone. Invariant: what is inherited
 * has every variable of the caller's under its own name, and none of ours.
 */

/** What a variable of the caller's that would change Node is called meanwhile: this and its name. */
const KEPT = 'RUNTS_OUTER_'
/** Variables that are for us alone. */
const OURS: readonly string[] = ['RUNTS_SOFT_NOFILE']

/** The environment to be inherited, as execve(2) takes it. */
export function inheritedEnvironment(): readonly string[] {
  return Object.entries(process.env).flatMap(([name, value]) => {
    if (OURS.includes(name)) return []
    return [`${name.startsWith(KEPT) ? name.slice(KEPT.length) : name}=${value}`]
  })
}
