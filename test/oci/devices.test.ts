/**
 * Device nodes of a container: the default ones, those of the config, and what the device cgroup lets it do with
 * them.
 */
import { expect } from 'vitest'
import { notRunc } from '../support/needs.ts'
import { inModes, MODES, RUNTIME_NAME } from '../support/oci.ts'

const describeNodes = (...names: string[]): string =>
  names.map((name) => `stat -c '%n %F %t:%T %a' /dev/${name}`).join('; ')

inModes(MODES, 'device nodes', (test) => {
  test('that everybody expects are there, and so are the links', async ({ runts }) => {
    const out = await runts.inside(`${describeNodes('null', 'zero', 'full', 'random', 'urandom', 'tty')}
      for l in ptmx fd stdin stdout stderr; do readlink /dev/$l; done; echo x > /dev/null && head -c 2 /dev/zero | wc -c`)
    const node = (name: string, number: string): string => `/dev/${name} character special file ${number} 666`
    expect(out.trimEnd().split('\n')).toEqual([
      node('null', '1:3'),
      node('zero', '1:5'),
      node('full', '1:7'),
      node('random', '1:8'),
      node('urandom', '1:9'),
      node('tty', '5:0'),
      'pts/ptmx',
      '/proc/self/fd',
      '/proc/self/fd/0',
      '/proc/self/fd/1',
      '/proc/self/fd/2',
      '2',
    ])
  })

  test('that the config lists again are accepted', async ({ runts }) => {
    const out = await runts.inside(`${describeNodes('tty')}; readlink /dev/ptmx; stat -c %u:%g /dev/tty`, (spec) => {
      spec.linux.devices = [
        { path: '/dev/tty', type: 'c', major: 5, minor: 0, fileMode: 0o666, uid: 0, gid: 0 },
        { path: '/dev/ptmx', type: 'c', major: 5, minor: 2, fileMode: 0o666, uid: 0, gid: 0 },
      ]
    })
    // what comes from the host belongs to a user whom the namespace does not know
    const owner = runts.isMapped ? '65534:65534' : '0:0'
    expect(out).toBe(`/dev/tty character special file 5:0 666\npts/ptmx\n${owner}\n`)
  })

  test('are not made where the config brings a /dev of its own', async ({ runts }) => {
    const out = await runts.inside(
      'ls -d /dev/stdin /dev/core 2>/dev/null | wc -l; [ -c /dev/null ] && echo null',
      (spec) => {
        spec.mounts = spec.mounts.filter(({ destination }) => !destination.startsWith('/dev'))
        spec.mounts.push({ destination: '/dev', source: '/dev', type: 'bind', options: ['rbind'] })
      },
    )
    expect(out).toMatch(/null\n$/)
  })

  test('with an impossible type are refused', async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.linux.devices = [{ path: '/dev/x', type: 'q', major: 1, minor: 3 }]
    })
    expect(error).toMatch(/type/)
  })
})

inModes(['as root'], 'device nodes of the config', (test) => {
  test('have number, mode and owner, in folders that are made', async ({ runts }) => {
    const out = await runts.inside(
      `${describeNodes('a/b/zero', 'block', 'pipe')}; stat -c %u:%g /dev/a/b/zero`,
      (spec) => {
        spec.linux.devices = [
          { path: '/dev/a/b/zero', type: 'c', major: 1, minor: 5, fileMode: 0o640, uid: 10, gid: 20 },
          { path: '/dev/block', type: 'b', major: 7, minor: 9 },
          { path: '/dev/pipe', type: 'p', fileMode: 0o600 },
        ]
      },
    )
    expect(out).toBe(
      '/dev/a/b/zero character special file 1:5 640\n/dev/block block special file 7:9 666\n/dev/pipe fifo 0:0 600\n10:20\n',
    )
  })

  test('may have a path that is relative to the root, with a warning', async ({ runts }) => {
    const bundle = runts.bundle(['sh', '-c', describeNodes('zero', 'x')], (spec) => {
      spec.linux.devices = [{ path: 'dev/x', type: 'c', major: 1, minor: 5 }]
    })
    const { code, stdout, stderr } = await runts.run('run', '-b', bundle, 'c')
    expect({ code, stdout }, stderr).toMatchObject({ code: 0, stdout: expect.stringContaining('/dev/x character') })
    if (RUNTIME_NAME !== 'runc') expect(stderr).toMatch(/warn.*dev\/x.*\/linux\/devices\/0/)
  })

  test('that exist as something else are refused', notRunc('keeps what is there'), async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.mounts.push({ destination: '/dev/x', source: '/etc/hostname', type: 'bind', options: ['bind'] })
      spec.linux.devices = [{ path: '/dev/x', type: 'c', major: 1, minor: 3 }]
    })
    expect(error).toContain('/dev/x')
  })
})

/** A device that anybody may open as far as its file goes: what is left to deny it is the cgroup. */
const FUSE = { path: '/dev/fuse', type: 'c', major: 10, minor: 229, fileMode: 0o666 }

// in a user namespace the nodes are the host's, and none that everybody may open is denied by default
inModes(['as root'], 'the device cgroup', (test) => {
  test('denies what no rule allows, and lets everybody have the default devices', async ({ runts }) => {
    const script = 'head -c 0 /dev/fuse 2>&1; head -c 1 /dev/zero | wc -c; true >/dev/null && echo null'
    const out = await runts.inside(script, (spec) => {
      spec.linux.devices = [FUSE]
      spec.linux.resources = { devices: [{ allow: false, access: 'rwm' }] }
    })
    expect(out).toBe('head: /dev/fuse: Operation not permitted\n1\nnull\n')
  })

  test('allows what a rule allows, and only that', async ({ runts }) => {
    const script = `head -c 0 /dev/fuse && echo read; (echo x > /dev/fuse) 2>&1
      mknod /tmp/b b 7 9 && echo made; (head -c 0 /tmp/b) 2>&1; true`
    const out = await runts.inside(script, (spec) => {
      spec.linux.devices = [FUSE]
      spec.linux.resources = {
        devices: [
          { allow: false, access: 'rwm' },
          { allow: true, type: 'c', major: 10, minor: 229, access: 'r' },
        ],
      }
    })
    const denied = 'Operation not permitted\n'
    // every node may be made, none but the listed ones opened
    expect(out).toBe(`read\nsh: can't create /dev/fuse: ${denied}made\nhead: /tmp/b: ${denied}`)
  })
})
