/**
 * Mounts of a container without a mount namespace: they are among the caller's mounts, below the container's root.
 * Its delete removes them and nothing else, whatever is shared. All in a mount namespace that stands for the host.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect } from 'vitest'
import { buildFailing } from '../support/kill-points.ts'
import { needs, notRunc } from '../support/needs.ts'
import { inModes, type OciHost } from '../support/oci.ts'
import { FAILING_RUNTS } from '../support/places.ts'
import { SharedHost } from '../support/shared-host.ts'
import type { SpecChange } from '../support/spec.ts'

const left = notRunc('leaves its mounts behind')

/** The default mounts and a volume with a mount of the host below it and one of the container's on it. */
function bundleOf(runts: OciHost, host: SharedHost, command: readonly string[], change?: SpecChange): string {
  const volume = join(runts.folder, 'volume')
  host.mount(volume)
  host.mount(join(volume, 'below'))
  host.run('mkdir', join(volume, 'own'))
  const bundle = runts.bundle(command, (spec) => {
    spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'mount')
    spec.linux.maskedPaths = []
    spec.linux.readonlyPaths = []
    spec.mounts.push(
      { destination: '/volume', source: volume, type: 'bind', options: ['rbind'] },
      { destination: '/volume/own', source: 'tmpfs', type: 'tmpfs', options: ['mode=755'] },
    )
    change?.(spec)
  })
  // the root has a mount of the host below it as well
  host.mount(join(bundle, 'rootfs/hosts'))
  host.mount(join(bundle, 'rootfs/hosts/below'))
  return bundle
}

/** A second mount namespace, which gets whatever is mounted on the host. */
async function slaveOf(host: SharedHost): Promise<SharedHost> {
  return await SharedHost.start(host.command('unshare', '--mount', '--propagation', 'slave'))
}

inModes(['as root'], 'mounts without a mount namespace', (test) => {
  test('are there for the container and its execs, and gone from everywhere with it', left, async ({ runts }) => {
    using host = await SharedHost.start()
    const bundle = bundleOf(runts, host, ['sleep', '1000'])
    const before = host.table(runts.folder)
    using other = await slaveOf(host)
    const elsewhere = other.table(runts.folder)
    const pid = await host.leave(runts, 'run', '-d', '-b', bundle, 'c')
    const script = `awk '{ print $5 }' /proc/self/mountinfo | grep -vxF / ; cat /proc/1/comm; ls /volume/below /hosts/below`
    const [program, ...args] = host.command(...runts.commandOf('exec', 'c', 'sh', '-c', script))
    const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' })
    expect(stderr).toBe('')
    for (const place of ['/proc', '/dev', '/volume', '/volume/below', '/volume/own', '/hosts/below', 'sleep', 'mark']) {
      expect(stdout.split('\n')).toContain(place)
    }
    expect(host.sees(join(bundle, 'rootfs/proc/uptime'))).toBe(true)
    // what a mount of the host's own is, has not changed
    expect(host.sees(join(runts.folder, 'volume/own/theirs'))).toBe(false)
    spawnSync('touch', [join(`/proc/${pid}/root/volume/own/theirs`)])
    expect(host.sees(join(runts.folder, 'volume/own/theirs'))).toBe(false)
    host.run(...runts.commandOf('delete', '--force', 'c'))
    expect(host.table(runts.folder)).toEqual(before)
    expect(host.sees(join(runts.folder, 'volume/below/mark'))).toBe(true)
    expect(other.table(runts.folder)).toEqual(elsewhere)
  })

  test('are gone behind delete --force of a container whose state is garbage', left, async ({ runts }) => {
    using host = await SharedHost.start()
    const bundle = bundleOf(runts, host, ['sleep', '1000'])
    const before = host.table(runts.folder)
    await host.leave(runts, 'run', '-d', '-b', bundle, 'c')
    writeFileSync(join(runts.root, 'c/state.json'), 'garbage')
    host.run(...runts.commandOf('delete', '--force', 'c'))
    expect(host.table(runts.folder)).toEqual(before)
  })

  test(
    'leave the root of the host as writable as it was where the container has it read-only',
    left,
    async ({ runts }) => {
      using host = await SharedHost.start()
      const bundle = bundleOf(runts, host, ['sh', '-c', 'touch /x 2>&1; touch /tmp/y && echo fine'], (spec) => {
        spec.root!.readonly = true
        spec.mounts.push({ destination: '/tmp', source: 'tmpfs', type: 'tmpfs', options: ['mode=1777'] })
      })
      const before = host.table(runts.folder)
      expect(host.run(...runts.commandOf('run', '-b', bundle, 'c'))).toBe('touch: /x: Read-only file system\nfine\n')
      expect(host.table(runts.folder)).toEqual(before)
      writeFileSync(join(bundle, 'rootfs/x'), '')
    },
  )

  test('are gone when the create fails, early or late', left, async ({ runts }) => {
    for (const change of [
      (spec) => (spec.process.args = ['/no/such/program']),
      (spec) => spec.mounts.push({ destination: '/z', source: '/no/such', type: 'bind', options: ['bind'] }),
      (spec) => (spec.hooks = { createRuntime: [{ path: '/bin/false' }] }),
    ] satisfies SpecChange[]) {
      using host = await SharedHost.start()
      const bundle = bundleOf(runts, host, ['true'], change)
      const before = host.table(runts.folder)
      const [program, ...args] = host.command(...runts.commandOf('create', '-b', bundle, 'c'))
      expect(spawnSync(program, args, { stdio: 'ignore' }).status).toBe(1)
      expect(host.table(runts.folder)).toEqual(before)
    }
  })

  test('of one container stay when another one on the same root is deleted', left, async ({ runts }) => {
    using host = await SharedHost.start()
    const bundle = bundleOf(runts, host, ['sleep', '1000'])
    const before = host.table(runts.folder)
    await host.leave(runts, 'run', '-d', '-b', bundle, 'c')
    const alone = host.table(runts.folder)
    const [second] = runts.variants(bundle, `/${runts.name}/1`, [`/${runts.name}/2`])
    const config = join(second!, 'config.json')
    host.run('sed', '-i', `s|"rootfs"|"${bundle}/rootfs"|`, config)
    const [program, ...args] = host.command(...runts.commandOf('create', '-b', second!, 'd'))
    expect(spawnSync(program, args, { stdio: ['ignore', 'ignore', 'inherit'] }).status).toBe(0)
    host.run(...runts.commandOf('delete', '--force', 'd'))
    expect(host.table(runts.folder)).toEqual(alone)
    host.run(...runts.commandOf('delete', '--force', 'c'))
    expect(host.table(runts.folder)).toEqual(before)
  })
})

inModes(['as root'], 'kill -9 of a create without a mount namespace', (test) => {
  beforeAll(buildFailing, 120_000)

  for (const place of ['create:child', 'create:ready', 'create:saved', 'create:done']) {
    test(`at ${place} leaves no mount behind delete --force`, needs('our shim', 'gcc', 'make'), async ({ runts }) => {
      using host = await SharedHost.start()
      const bundle = bundleOf(runts, host, ['sleep', '1000'])
      const before = host.table(runts.folder)
      const [, ...args] = runts.commandOf('create', '-b', bundle, 'c')
      const [program, ...rest] = host.command('env', `RUNTS_FAIL_AT=${place}`, FAILING_RUNTS, ...args)
      spawnSync(program, rest, { stdio: 'ignore' })
      host.run(...runts.commandOf('delete', '--force', 'c'))
      expect(host.table(runts.folder)).toEqual(before)
      expect(existsSync(join(runts.root, 'c'))).toBe(false)
      mkdirSync(runts.root, { recursive: true })
    })
  }
})
