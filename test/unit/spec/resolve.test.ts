/**
 * What a spec means on this host, and what is said about it in a log: joined namespaces, and requests that are left
 * out.
 */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { describe, expect, test, vi } from 'vitest'
import { parseSpec } from '../../../runtime/spec/load.ts'
import { resolveForCreate, resolveOnHost } from '../../../runtime/spec/resolve.ts'
import type { Spec } from '../../../runtime/spec/types.ts'
import { specWarnings } from '../../../runtime/spec/warnings.ts'
import { startCommand } from '../../support/command.ts'
import { type Document, refusal, specText } from './fixture.ts'

const join = (type: string, path: string, linux: Document = {}) => {
  return (spec: Document) => {
    spec.linux.namespaces = spec.linux.namespaces.filter((namespace: Document) => namespace.type !== type)
    spec.linux.namespaces.push({ type, path })
    Object.assign(spec.linux, linux)
  }
}
const read = (change: (spec: Document) => void): Spec => parseSpec(specText(change), 'test')
const refused = (change: (spec: Document) => void) => refusal('', () => resolveOnHost(read(change)))

/** How often the code under test went through all processes. */
const scans = vi.hoisted(() => ({ count: 0 }))
vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>()
  const readdirSync = (...args: Parameters<typeof fs.readdirSync>) => {
    if (args[0] === '/proc') scans.count++
    return fs.readdirSync(...args)
  }
  return { ...fs, readdirSync }
})

/** A user namespace in which nobody lives, as long as it is held. */
async function emptyUserNamespace(): Promise<Disposable & { path: string }> {
  const child = startCommand('unshare', ['--user', 'sh', '-c', 'echo in it; read line'], { input: 'open' })
  await child.untilOutput('in it')
  const fd = openSync(`/proc/${child.pid}/ns/user`, 'r')
  child.kill('SIGKILL')
  await child.finished
  return { path: `/proc/self/fd/${fd}`, [Symbol.dispose]: () => closeSync(fd) }
}

/** This process's own map, as a spec would write it. */
const ownMap = (name: string) =>
  readFileSync(`/proc/self/${name}`, 'latin1')
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .map(([containerID, hostID, size]) => ({ containerID, hostID, size }))

describe('resolveOnHost()', () => {
  test('leaves a spec alone that joins nothing', () => {
    const spec = read(() => {})
    expect(resolveOnHost(spec)).toBe(spec)
  })

  test('refuses network parameters for a joined namespace that is our own', () => {
    const error = refused(join('network', '/proc/self/ns/net', { sysctl: { 'net.ipv4.ip_forward': '1' } }))
    expect(error.message).toContain('not allowed in host network namespace')
    expect(error.detail).toEqual({ source: 'spec', pointer: '/linux/sysctl/net.ipv4.ip_forward' })
  })

  test('refuses network devices for it, too', () => {
    const error = refused(join('network', '/proc/self/ns/net', { netDevices: { eth0: {} } }))
    expect(error.message).toContain('without a private NET namespace')
    expect(error.detail).toEqual({ source: 'spec', pointer: '/linux/netDevices' })
  })

  test('takes the maps of a joined user namespace from there', () => {
    const { linux } = resolveOnHost(read(join('user', '/proc/self/ns/user')))
    // of another pid namespace's name for us, or of a process that happens to live in it
    expect(linux).toMatchObject({ uidMappings: ownMap('uid_map'), gidMappings: ownMap('gid_map') })
  })

  test('finds the maps of a user namespace that is named by another file', () => {
    const { linux } = resolveOnHost(read(join('user', '/proc/self/task/../ns/user')))
    expect(linux.uidMappings).toEqual(ownMap('uid_map'))
  })

  test('accepts maps that repeat those of the joined namespace, and no others', () => {
    const mappings = [{ containerID: 0, hostID: 5, size: 7 }]
    const same = { uidMappings: ownMap('uid_map'), gidMappings: ownMap('gid_map') }
    expect(() => resolveOnHost(read(join('user', '/proc/self/ns/user', same)))).not.toThrow()
    const error = refused(join('user', '/proc/self/ns/user', { uidMappings: mappings, gidMappings: mappings }))
    expect(error.message).toContain('both namespace path and non-matching mapping specified')
    expect(error.detail).toEqual({ source: 'spec', pointer: '/linux/uidMappings' })
  })

  test.each(['user', 'network'])('names a %s namespace that does not exist', (type) => {
    const error = refused(join(type, '/proc/0/ns/x', { sysctl: { 'net.ipv4.ip_forward': '1' } }))
    expect(error.message).toContain('namespace path: cannot look at "/proc/0/ns/x": ENOENT')
    expect(error.detail).toMatchObject({ pointer: expect.stringMatching(/^\/linux\/namespaces\/\d\/path$/) })
  })
})

describe('resolveForCreate()', () => {
  const maps = {
    uidMappings: [{ containerID: 0, hostID: 5, size: 7 }],
    gidMappings: [{ containerID: 0, hostID: 9, size: 7 }],
  }
  const noMaps = () => Promise.reject(new Error('nobody should be asked for the maps'))

  test('takes the maps of an empty user namespace from whoever can look into it', async () => {
    using namespace = await emptyUserNamespace()
    const { path } = namespace
    const asked: string[] = []
    const look = async ({ path: at }: { path: string }) => {
      asked.push(at)
      return maps
    }
    const loaded = resolveOnHost(read(join('user', path)))
    expect(loaded.linux.uidMappings).toEqual([])
    expect((await resolveForCreate(loaded, look)).linux).toMatchObject(maps)
    const other = read(join('user', path, { ...maps, uidMappings: [] }))
    await expect(resolveForCreate(other, look)).rejects.toThrow('namespace path and non-matching mapping specified')
    expect(asked).toEqual([path, path])
  })

  test('does not look again at what was looked at when it was loaded', async () => {
    const spec = resolveOnHost(read(join('user', '/proc/self/task/../ns/user')))
    const changed = { ...spec, hostname: 'another' }
    scans.count = 0
    expect(await resolveForCreate(spec, noMaps)).toBe(spec)
    expect(await resolveForCreate(changed, noMaps)).toBe(changed)
    expect(scans.count).toBe(0)
  })

  test('looks once at what was not loaded', async () => {
    scans.count = 0
    const { linux } = await resolveForCreate(read(join('user', '/proc/self/task/../ns/user')), noMaps)
    expect(linux.uidMappings).toEqual(ownMap('uid_map'))
    expect(scans.count).toBe(1)
  })

  test('looks again when a path names another namespace by now', async () => {
    const folder = mkdtempSync(`${tmpdir()}/namespaces-`)
    const path = `${folder}/user`
    symlinkSync('/proc/self/task/../ns/user', path)
    const spec = resolveOnHost(read(join('user', path)))
    using namespace = await emptyUserNamespace()
    rmSync(path)
    symlinkSync(namespace.path, path)
    await expect(resolveForCreate(spec, async () => maps)).rejects.toThrow('non-matching mapping specified')
    rmSync(path)
    await expect(resolveForCreate(spec, noMaps)).rejects.toThrow('namespace path: cannot look at')
    rmSync(folder, { recursive: true })
  })
})

describe('specWarnings()', () => {
  test('nothing to say about the base document', () => {
    expect(
      specWarnings(
        read(() => {}),
        40,
      ),
    ).toEqual([])
  })

  test('capabilities that nobody knows, or the kernel does not, once each', () => {
    const warnings = specWarnings(
      read((spec) => {
        spec.process.capabilities = { bounding: ['CAP_FLY', 'CAP_BPF'], permitted: ['CAP_FLY'], ambient: ['CAP_FLY'] }
      }),
      38,
    )
    expect(warnings).toEqual(['ignoring unknown or unavailable capabilities: CAP_FLY, CAP_BPF'])
  })

  test('capabilities whose names are of no form, readable in one line', () => {
    const permitted = ['KILL', 'cap_kill', 'CAP_X1', '', 'CAP_\nKILL', 'constructor']
    const warnings = specWarnings(
      read((spec) => (spec.process.capabilities = { permitted })),
      40,
    )
    expect(warnings).toEqual([
      'ignoring unknown or unavailable capabilities: KILL, cap_kill, CAP_X1, "", "CAP_\\nKILL", constructor',
    ])
  })

  test('ambient capabilities that cannot be', () => {
    const capabilities = {
      permitted: ['CAP_CHOWN', 'CAP_KILL'],
      inheritable: ['CAP_CHOWN'],
      ambient: ['CAP_CHOWN', 'CAP_KILL'],
    }
    expect(
      specWarnings(
        read((spec) => (spec.process.capabilities = capabilities)),
        40,
      ),
    ).toEqual(['ignoring ambient capabilities that are not both permitted and inheritable: CAP_KILL'])
  })

  test('flags of a personality, and paths that are not absolute', () => {
    const warnings = specWarnings(
      read((spec) => {
        spec.linux.personality = { domain: 'LINUX', flags: ['A', 'B'] }
        spec.mounts.push({ destination: 'data', source: '/x', options: ['bind'] })
        spec.linux.devices = [{ type: 'p', path: 'dev/pipe' }]
        spec.linux.maskedPaths = ['/a', 'b', '']
        spec.linux.readonlyPaths = ['../c']
      }),
      40,
    )
    expect(warnings).toEqual([
      'mount destination "data" is not absolute: taken from / (at /mounts/7)',
      'device "dev/pipe" is not absolute: taken from / (at /linux/devices/0)',
      'masked path "b" is not absolute: taken from / (at /linux/maskedPaths/1)',
      'masked path "" is not absolute: left out (at /linux/maskedPaths/2)',
      'read-only path "../c" is not absolute: taken from / (at /linux/readonlyPaths/0)',
      'personality flags are ignored: A, B (at /linux/personality/flags)',
    ])
  })
})
