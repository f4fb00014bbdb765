/**
 * The one search for a program of the host by its name. Invariant: it answers an absolute path. An empty or relative entry of PATH would
 * mean the working directory, which may be anybody's, while those who call this are mostly root.
 */
import { accessSync, constants, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/** What execvp(3) takes where there is no PATH. */
const DEFAULT_FOLDERS = ['/usr/bin', '/bin']

/** The folders that are searched, in their order. */
export function searchFolders(): string[] {
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder.startsWith('/'))
  return folders.length > 0 ? folders : DEFAULT_FOLDERS
}

/** The first file of that name which we may execute. */
export function findProgram(name: string, folders: readonly string[] = searchFolders()): string | undefined {
  return folders.map((folder) => join(folder, name)).find(isExecutable)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    // not there, or not for us: the next folder may have it
    return false
  }
}
