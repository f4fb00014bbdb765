/**
 * Root file systems whose ids the shim maps. containerd 2.x asks for that with uidmap= and gidmap= if a container has a
 * user namespace. The files of the image then belong to the host's root outside, and to the container's root inside.
 */
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { type BareShim, startBareShim } from '../support/bare-shim.ts'
import { startCommand } from '../support/command.ts'
import { type Containers, expect, test } from '../support/containerd.ts'
import { needs } from '../support/needs.ts'
import { rootfsFolder, type SpecChange } from '../support/spec.ts'

const MAPS = ['uidmap=0:100000:65536', 'gidmap=0:100000:65536']
const mapping = [{ containerID: 0, hostID: 100000, size: 65536 }]

/** A container in a user namespace, with its root in the bundle. */
const mapped: SpecChange = (spec) => {
  spec.root = { path: 'rootfs' }
  spec.linux.namespaces.push({ type: 'user' })
  spec.linux.uidMappings = mapping
  spec.linux.gidMappings = mapping
}

/** Layers and work folders of an overlay, owned as the snapshotter leaves them. */
async function overlay(ct: Containers, extraLayers = 0): Promise<{ options: string[]; upper: string }> {
  const [upper, work] = [join(ct.folder, 'upper'), join(ct.folder, 'work')]
  const layers = Array.from({ length: extraLayers }, (_, i) => join(ct.folder, `a-layer-with-a-long-name-${i}`))
  for (const [i, layer] of layers.entries()) {
    mkdirSync(layer)
    writeFileSync(join(layer, `layer-${i}`), '')
  }
  for (const folder of [upper, work]) mkdirSync(folder)
  await startCommand('chown', ['100000:100000', upper]).finished
  const lowers = [...layers, rootfsFolder(ct.folder)].join(':')
  return { options: [...MAPS, `lowerdir=${lowers}`, `upperdir=${upper}`, `workdir=${work}`], upper }
}

/** Runs the shim's container to its end with what it wrote in a file. */
async function output(ct: Containers, shim: BareShim, rootfs: { type: string; source: string; options: string[] }) {
  const log = join(ct.folder, 'out')
  const { id, bundle, task } = shim
  await task.create({ id, bundle, rootfs: [rootfs], stdout: `file://${log}` })
  await task.start({ id })
  const { exitStatus } = await task.wait({ id })
  await task.delete({ id })
  await task.shutdown({ id })
  shim.close()
  expect(await shim.delete()).toMatchObject({ code: 0, stderr: '' })
  return { exitStatus, text: readFileSync(log, 'utf8') }
}

describe('a root file system with uidmap and gidmap', needs('root', 'containerd', 'busybox', 'our shim'), () => {
  test('that is an overlay shows its lower layers mapped, and writes as the mapped user', async ({ ct }) => {
    const script = 'stat -c %u:%g /bin/busybox; id -u; touch /new; stat -c %u /new; ls / | grep -c layer-'
    const shim = await startBareShim(ct, ['sh', '-c', script], mapped)
    const { options, upper } = await overlay(ct, 90)
    // too many layers for one page of options, too
    const result = await output(ct, shim, { type: 'overlay', source: 'overlay', options })
    expect(result).toEqual({ exitStatus: 0, text: '0:0\n0\n0\n90\n' })
    expect(statSync(join(upper, 'new'))).toMatchObject({ uid: 100000, gid: 100000 })
    expect(statSync(join(rootfsFolder(ct.folder), 'bin/busybox')).uid).toBe(0)
  })

  test('that is a read-only bind shows its files mapped', async ({ ct }) => {
    const script = 'stat -c %u:%g /bin/busybox; touch /new 2>&1'
    const shim = await startBareShim(ct, ['sh', '-c', script], mapped)
    const rootfs = { type: 'bind', source: rootfsFolder(ct.folder), options: ['rbind', 'ro', ...MAPS] }
    const { text } = await output(ct, shim, rootfs)
    expect(text).toMatch(/^0:0\ntouch: \/new: Read-only file system\n$/)
  })

  test('is refused when the maps make no sense or cannot be had, and leaves nothing', async ({ ct }) => {
    const shim = await startBareShim(ct, ['true'], mapped)
    const { id, bundle, task } = shim
    const bind = (source: string, ...options: string[]) =>
      task.create({ id, bundle, rootfs: [{ type: 'bind', source, options: ['bind', ...options] }] })
    const source = rootfsFolder(ct.folder)
    await expect(bind(source, MAPS[0]!)).rejects.toThrow('one of uidmap and gidmap is missing')
    await expect(bind(source, 'uidmap=0:1', MAPS[1]!)).rejects.toThrow('uidmap "0:1" is not CONTAINER:HOST:SIZE')
    await expect(bind('/proc', ...MAPS)).rejects.toThrow('cannot map the ids of')
    await expect(bind(source, 'uidmap=0:0:5,2:7:5', MAPS[1]!)).rejects.toThrow('EINVAL')
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(bundle)
    await task.shutdown({ id })
    shim.close()
    expect(await shim.delete()).toMatchObject({ code: 0, stderr: '' })
  })
})
