/**
 * Mount destinations that begin with the path of the root file system on the host. Some tools write them so, since
 * runtimes used to join paths as text. Such a destination means the part behind the root's path, and the runtime warns
 * about it.
 */
import type { Spec } from '../spec/types.ts'
import { cleanPath, isWithin } from './paths.ts'

/** A container's root on the host. */
export interface HostRoot {
  readonly spec: Spec
  readonly bundle: string
  /** without symlinks */
  readonly rootfs: string
}

/**
 * The clean paths of the root on the host, the longest first: the real one, and the one that config.json has. The
 * host's own "/" is left out.
 */
export function hostRoots({ spec, bundle, rootfs }: HostRoot): readonly string[] {
  const { path } = spec.root
  const written = cleanPath(path.startsWith('/') ? path : `${bundle}/${path}`)
  return [...new Set([rootfs, written])].filter((root) => root !== '/').sort((a, b) => b.length - a.length)
}

/** A clean destination as the container sees it. */
export function withoutHostRoot(destination: string, roots: readonly string[]): string {
  const root = roots.find((path) => isWithin(destination, path))
  return root === undefined ? destination : cleanPath(destination.slice(root.length))
}

/** A warning for each mount with such a destination. */
export function hostRootWarnings(root: HostRoot): readonly string[] {
  const roots = hostRoots(root)
  const warnings: string[] = []
  for (const [index, { destination }] of root.spec.mounts.entries()) {
    const clean = cleanPath(destination)
    const inside = withoutHostRoot(clean, roots)
    if (inside === clean) continue
    const message = `mount destination ${JSON.stringify(destination)} begins with the path of the root file system on the host`
    warnings.push(`${message}: taken for ${JSON.stringify(inside)} (at /mounts/${index})`)
  }
  return warnings
}
