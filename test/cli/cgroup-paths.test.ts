/**
 * linux.cgroupsPath as text: the form of a path never chooses the driver.
 * Without the option, a path like "slice:prefix:name" is the name of a folder. runc does the same with the same bundle.
 */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { describe, expect } from 'vitest'
import { needs } from '../support/needs.ts'
import { OCI_RUNTIME } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'

const PATHS = [
  'SLICE.slice:cri-containerd:ID',
  ':cri-containerd:ID',
  'SLICE.slice::ID',
  'SLICE:ID',
  'SLICE:a:b:ID',
  '../SLICE.slice:cri-containerd:ID',
  '/SLICE.slice:cri-containerd:ID',
] as const

/** The cgroups of a container of either runtime, which is gone afterwards. */
function cgroupsBy(program: string, runts: Runts, bundle: string, id: string): string {
  const by = (...args: string[]) => {
    const leaves = args[0] === 'run'
    const stdio = leaves ? ('ignore' as const) : ('pipe' as const)
    const { status, stdout, stderr } = spawnSync(program, ['--root', runts.root, ...args], { encoding: 'utf8', stdio })
    expect(status, `${program} ${args.join(' ')}: ${stderr}`).toBe(0)
    return stdout
  }
  by('run', '-d', '-b', bundle, id)
  try {
    const { pid } = JSON.parse(by('state', id))
    return readFileSync(`/proc/${pid}/cgroup`, 'utf8')
  } finally {
    by('delete', '-f', id)
  }
}

describe('a cgroupsPath', needs('root', 'busybox', 'the runc shim', 'our shim'), () => {
  test.for(PATHS)('%s is the folder that runc makes', (path, { runts }) => {
    const id = `${runts.name}-id`
    const bundle = runts.bundle(['sleep', '1000'], (spec) => {
      spec.linux.cgroupsPath = path.replace('ID', id).replace('SLICE', runts.name)
    })
    expect(cgroupsBy(OCI_RUNTIME, runts, bundle, id)).toBe(cgroupsBy('runc', runts, bundle, id))
  })

  test(
    'of three parts needs a systemd that runs, where the option asks for it',
    needs('no systemd'),
    async ({ runts }) => {
      const bundle = runts.bundle(['true'], (spec) => {
        spec.linux.cgroupsPath = 'a.slice:b:c'
      })
      expect(await runts.run('--systemd-cgroup', 'run', '-b', bundle, 'c')).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('systemd not running on this host, cannot use systemd cgroups manager'),
      })
    },
  )

  test('of another form is refused where the option asks for systemd', async ({ runts }) => {
    const bundle = runts.bundle(['true'], (spec) => {
      spec.linux.cgroupsPath = '/a/b'
    })
    expect(await runts.run('--systemd-cgroup', 'run', '-b', bundle, 'c')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('to be of format "slice:prefix:name" for systemd cgroups, got "/a/b" instead'),
    })
  })
})
