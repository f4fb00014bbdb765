/** Paths in proc_pid_mountinfo(5), where a blank, tab, newline or backslash stands as an octal number ("\040"). */

/** Writes a path as the file has it. */
export function escapeMountPath(path: string): string {
  return path.replace(/[ \t\n\\]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`)
}

/** Reads a path of the file. */
export function unescapeMountPath(text: string): string {
  // most paths have nothing escaped, and a host may have thousands of mounts
  if (!text.includes('\\')) return text
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
}
