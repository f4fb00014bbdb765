/**
 * Mount destinations that begin with the path that the root file system has on the host: some tools write them so, from a time when
 * runtimes joined paths as text. They mean the part behind it, and are told so.
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

/** The paths of the root on the host, clean, the longest first: as it is, and as config.json writes it. None of a root that is the host's. */
export function hostRoots({ spec, bundle, rootfs }: HostRoot): readonly string[] {
  const { path } = spec.root
  const written = cleanPath(path.startsWith('/') ? path : `${bundle}/${path}`)
  return [...new Set([rootfs, written])].filter((root) => root !== '/').sort((a, b) => b.length - a.length)
}

/** A clean destination as the container has it. */
export function withoutHostRoot(destination: string, roots: readonly string[]): string {
  const root = roots.find((path) => isWithin(destination, path))
  return root === undefined ? destination : cleanPath(destination.slice(root.length))
}

/** A warning for each mount that is meant. */
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
