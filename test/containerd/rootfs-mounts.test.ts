/**
 * Root file systems that are neither a folder nor an overlay of the kernel's: an image file through a loop device,
 * and a file system that a program serves. containerd before 2.2 leaves both to the shim, as some snapshotters of
 * others do today.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { startBareShim } from '../support/bare-shim.ts'
import { until } from '../support/command.ts'
import { type Containers, expect, test } from '../support/containerd.ts'
import { needs } from '../support/needs.ts'
import { rootfsFolder } from '../support/spec.ts'

interface Rootfs {
  readonly type: string
  readonly source: string
  readonly target?: string
  readonly options: string[]
}

/** An ext4 image with the test's root in it. */
function image(ct: Containers, name = 'root.img'): string {
  const path = join(ct.folder, name)
  writeFileSync(path, '')
  truncateSync(path, 64 * 1024 * 1024)
  execFileSync('mkfs.ext4', ['-q', '-d', rootfsFolder(ct.folder), path])
  return path
}

/** The loop devices over files of the test, as what the kernel says of them. */
function loops(ct: Containers): { name: string; readonly: string; autoclear: string }[] {
  return readdirSync('/sys/block').flatMap((name) => {
    const fact = (file: string): string => readFileSync(`/sys/block/${name}/${file}`, 'utf8').trim()
    try {
      if (!fact('loop/backing_file').startsWith(ct.folder)) return []
      return [{ name, readonly: fact('ro'), autoclear: fact('loop/autoclear') }]
    } catch {
      // no loop device, or one that nobody uses
      return []
    }
  })
}

/** Runs a container on mounts to its end; `during` looks at the host between Create and Start. */
async function run(ct: Containers, script: string, rootfs: Rootfs[], during?: () => void) {
  const out = join(ct.folder, `out${readdirSync(ct.folder).length}`)
  const shim = await startBareShim(ct, ['sh', '-c', script], (spec) => {
    spec.root = { path: 'rootfs' }
  })
  const { id, bundle, task } = shim
  try {
    await task.create({ id, bundle, rootfs, stdout: `file://${out}`, stderr: `file://${out}` })
    during?.()
    await task.start({ id })
    const { exitStatus } = await task.wait({ id })
    await task.delete({ id })
    return { exitStatus, text: readFileSync(out, 'utf8') }
  } finally {
    await task.shutdown({ id })
    shim.close()
    expect(await shim.delete()).toMatchObject({ code: 0, stderr: '' })
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(bundle)
  }
}

const NEEDS = ['root', 'containerd', 'busybox', 'our shim'] as const

describe('a root file system in a file', needs(...NEEDS, 'loop devices'), () => {
  test('is mounted through a loop device, which is free again after Delete, and written to', async ({ ct }) => {
    const source = image(ct)
    const script = 'echo kept >/new; cat /new; grep " / / " /proc/self/mountinfo | grep -o "ext4 /dev/loop"'
    const result = await run(ct, script, [{ type: 'ext4', source, options: ['loop'] }], () =>
      expect(loops(ct)).toEqual([{ name: expect.any(String), readonly: '0', autoclear: '1' }]),
    )
    expect(result).toEqual({ exitStatus: 0, text: 'kept\next4 /dev/loop\n' })
    await until('the device to be free', () => loops(ct).length === 0)
    const again = await run(ct, 'cat /new', [{ type: 'ext4', source, options: ['loop', 'direct-io', 'noatime'] }])
    expect(again.text).toBe('kept\n')
  })

  test('that is asked for read-only is opened so, down to the device', async ({ ct }) => {
    const source = image(ct)
    const before = statSync(source).mtimeMs
    const result = await run(ct, 'touch /new', [{ type: 'ext4', source, options: ['loop', 'ro'] }], () =>
      expect(loops(ct)).toEqual([{ name: expect.any(String), readonly: '1', autoclear: '1' }]),
    )
    expect(result.text).toContain('Read-only file system')
    expect(statSync(source).mtimeMs).toBe(before)
  })

  test('may hold the place of another one, further down in the list', async ({ ct }) => {
    const source = image(ct)
    const inner = image(ct, 'inner.img')
    const mounts = [
      { type: 'ext4', source, options: ['loop'] },
      { type: 'ext4', source: inner, target: 'mnt', options: ['loop', 'ro'] },
    ]
    const result = await run(ct, 'ls /mnt/bin/busybox; grep -c "ext4 /dev/loop" /proc/self/mountinfo', mounts)
    expect(result.text).toBe('/mnt/bin/busybox\n2\n')
  })

  test('that cannot be mounted leaves no device, and the message names the file', async ({ ct }) => {
    const missing = join(ct.folder, 'none.img')
    const options = ['loop']
    await expect(run(ct, 'true', [{ type: 'ext4', source: missing, options }])).rejects.toThrow(
      `cannot open "${missing}": ENOENT`,
    )
    const garbage = join(ct.folder, 'garbage.img')
    writeFileSync(garbage, Buffer.alloc(1024 * 1024, 1))
    await expect(run(ct, 'true', [{ type: 'ext4', source: garbage, options }])).rejects.toThrow(
      /cannot mount "\/dev\/loop\d+" on ".*rootfs".*EINVAL/,
    )
    await expect(run(ct, 'true', [{ type: 'ext4', source: ct.folder, options: ['loop', 'ro'] }])).rejects.toThrow(
      `cannot attach "${ct.folder}"`,
    )
    await until('the devices to be free', () => loops(ct).length === 0)
  })
})

describe('a root file system that a program serves', needs(...NEEDS, 'fuse-overlayfs'), () => {
  test('is mounted by mount.fuse3 and ends with the container', async ({ ct }) => {
    const [upper, work] = [join(ct.folder, 'upper'), join(ct.folder, 'work')]
    for (const folder of [upper, work]) mkdirSync(folder)
    const options = [`lowerdir=${rootfsFolder(ct.folder)}`, `upperdir=${upper}`, `workdir=${work}`, 'rprivate']
    const script = 'echo kept >/new; cat /new; grep -o "fuse.fuse-overlayfs" /proc/self/mountinfo'
    const result = await run(ct, script, [{ type: 'fuse3.fuse-overlayfs', source: 'overlay', options }])
    expect(result).toEqual({ exitStatus: 0, text: 'kept\nfuse.fuse-overlayfs\n' })
    expect(readFileSync(join(upper, 'new'), 'utf8')).toBe('kept\n')
  })

  test('that refuses is quoted', async ({ ct }) => {
    const options = ['lowerdir=/no/such/layer']
    const mount = { type: 'fuse3.fuse-overlayfs', source: 'overlay', options }
    await expect(run(ct, 'true', [mount])).rejects.toThrow(/mount\.fuse3" failed: exit status \d+: .*\/no\/such\/layer/)
    await expect(run(ct, 'true', [{ ...mount, type: 'fuse3.no-such-program' }])).rejects.toThrow('no-such-program')
  })
})
