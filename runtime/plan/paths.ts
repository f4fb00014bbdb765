/** Paths as text. This file never looks at a file system: inside the container only ts-init resolves paths. */

/**
 * An absolute path without empty, "." and ".." parts. A relative path is taken from the root, and ".." cannot rise
 * above it.
 */
export function cleanPath(path: string): string {
  const parts: string[] = []
  for (const part of path.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  return `/${parts.join('/')}`
}

/** True when `path` is `ancestor` or lies below it; both are clean. */
export function isWithin(path: string, ancestor: string): boolean {
  return ancestor === '/' || path === ancestor || path.startsWith(`${ancestor}/`)
}

/** The path and all paths above it but "/", the longest first; it is clean. */
export function withAncestors(path: string): string[] {
  const paths: string[] = []
  for (let end = path.length; end > 0; end = path.lastIndexOf('/', end - 1)) paths.push(path.slice(0, end))
  return paths
}

/** The last part of a path. */
export function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

/** The path without its last part. */
export function parentPath(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf('/'), 1))
}
