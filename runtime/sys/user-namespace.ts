/** What an id map says about its user namespace (user_namespaces(7)). */

/** Whether the text of a /proc/PID/uid_map is that of the initial user namespace, which maps every id to itself. */
export function isInitialIdMap(text: string): boolean {
  return /^\s*0\s+0\s+4294967295\s*$/.test(text)
}
