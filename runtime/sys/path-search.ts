/**
 * The one search for a program of the host by its name. Invariant: the result is an absolute path. An empty or relative
 * entry of PATH would mean the working directory, which any user may control, while the callers mostly run as root.
 */
import { accessSync, constants, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/** What execvp(3) searches when there is no PATH. */
const DEFAULT_FOLDERS = ['/usr/bin', '/bin']

/** The folders to search, in order: the absolute entries of PATH. */
export function searchFolders(): string[] {
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder.startsWith('/'))
  return folders.length > 0 ? folders : DEFAULT_FOLDERS
}

/** The path of the first executable file of that name. */
export function findProgram(name: string, folders: readonly string[] = searchFolders()): string | undefined {
  return folders.map((folder) => join(folder, name)).find(isExecutable)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    // missing or not executable here: the next folder may have it
    return false
  }
}
