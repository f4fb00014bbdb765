/** Where the tests find what the build and the global setup made, and which runtime they are to test. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'

/** The repository. */
export const ROOT = join(import.meta.dirname, '../..')
/** What the tests make for themselves and keep between runs. */
export const TEST_BUILD = join(ROOT, 'build/test')
/** The static multi-call program of payload.c. */
export const PAYLOAD = join(TEST_BUILD, 'payload')
/** The static multi-call program of attack.c: what a hostile container does. */
export const ATTACK = join(TEST_BUILD, 'attack')
/** The static multi-call program of probe.c. */
export const PROBE = join(TEST_BUILD, 'probe')
/** The program of bare.c, which makes next to no system call. */
export const BARE = join(TEST_BUILD, 'bare')
/** The archive that each private containerd imports. */
export const IMAGE_ARCHIVE = join(TEST_BUILD, 'image.tar')
/** The image's name in containerd. */
export const IMAGE = 'test.local/busybox:1'
/** The machine's static busybox. */
export const BUSYBOX = existsSync('/bin/busybox') ? '/bin/busybox' : '/usr/bin/busybox'
/** The programs under test. */
export const BIN = join(ROOT, 'build/bin')
/** The bundles and ts-init, which those programs are made of. */
export const LIB = join(ROOT, 'build/lib/containerd-shim-ts')
/** The runtime that kills itself where RUNTS_FAIL_AT says; made by the test that uses it. */
export const FAILING_RUNTS = join(ROOT, 'build/failpoints/bin/runts')
/** The shim of the same build. */
export const FAILING_SHIM = join(ROOT, 'build/failpoints/bin/containerd-shim-ts-v2')
/** Whether shims are made by a keeper: RUNTS_KEEPER=1, which reaches the launcher by the environment of each daemon. */
export const KEEPER_WISH: Readonly<Record<string, string>> =
  process.env['RUNTS_KEEPER'] === undefined ? {} : { RUNTS_KEEPER: process.env['RUNTS_KEEPER'] }
/**
 * The release of containerd that tests use: one of scripts/containerds ("1.7", "2"), or empty for the machine's own.
 */
export const CONTAINERD_RELEASE = process.env['CONTAINERD'] ?? ''
/** Where the programs of a release are; empty when they are on the PATH. */
export function releaseBin(release: string): string {
  return release === '' ? '' : join(ROOT, 'build/containerd', release)
}
/** Where scripts/containerds puts dockerd and docker. */
export const DOCKER_BIN = join(ROOT, 'build/docker')
/** The nerdctl that scripts/nerdctl builds. */
export const NERDCTL = join(ROOT, 'build/nerdctl/nerdctl')
/** The crictl that scripts/crictl builds. */
export const CRICTL = join(ROOT, 'build/crictl/crictl')
/** The kubelet that scripts/kubelet builds. */
export const KUBELET = join(ROOT, 'build/kubelet/kubelet')
/** The daemon of the release under test. */
export const CONTAINERD = join(releaseBin(CONTAINERD_RELEASE), 'containerd')
/** The runtime under test. With another one the tests test themselves: if runc fails a test, suspect the test. */
export const RUNTIME = process.env['RUNTIME'] ?? 'io.containerd.ts.v2'
/** The OCI command line under test: ours, or the one that RUNTIME=runc or OCI_RUNTIME=/path names. */
export const OCI_RUNTIME = process.env['OCI_RUNTIME'] ?? (RUNTIME === 'runc' ? 'runc' : join(BIN, 'runts'))
/** Whether that is ours. Only tests of differences that are on purpose may ask. */
export const IS_OURS = !RUNTIME.includes('runc')
