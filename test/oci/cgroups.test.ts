/** The control groups that a container sees, is put into and is refused; what it may not limit is another suite's. */
import { chownSync, mkdirSync, readdirSync, rmdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { startCommand } from '../support/command.ts'
import { isCgroup2, needs, notRunc } from '../support/needs.ts'
import { BY_ROOT, inModes, type OciHost } from '../support/oci.ts'
import type { TestSpec } from '../support/spec.ts'

const cgroupMount = (...options: string[]) => ({
  destination: '/sys/fs/cgroup',
  source: 'cgroup',
  type: 'cgroup',
  options: ['nosuid', 'noexec', 'nodev', ...options],
})

/** Where processes are put and frozen, and what the container is called there. */
const OWN = isCgroup2() ? '/sys/fs/cgroup' : '/sys/fs/cgroup/freezer'

/** Shell: the cgroups of a container as it sees them. */
const PLACES = isCgroup2() ? '.' : '*/'

function named(runts: OciHost, change?: (spec: TestSpec) => void) {
  return (spec: TestSpec): void => {
    spec.linux.cgroupsPath = `/${runts.name}/own`
    change?.(spec)
  }
}

inModes(BY_ROOT, 'cgroups', (test) => {
  test('show the container its own as the root where it has a cgroup namespace', async ({ runts }) => {
    const out = await runts.inside(
      'grep -v -E ":/$" /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/freezer/cgroup.procs 2>/dev/null | grep -c "^1$"',
      (spec) => {
        spec.linux.namespaces.push({ type: 'cgroup' })
        spec.mounts.push(cgroupMount('ro'))
      },
    )
    expect(out).toBe('1\n')
  })

  test('are shown and, mounted read-only, not to be changed', async ({ runts }) => {
    const out = await runts.inside(
      `cd /sys/fs/cgroup; for d in ${PLACES}; do mkdir $d/x 2>/dev/null && echo made; done; ls | wc -l`,
      (spec) => {
        spec.mounts.push(cgroupMount('ro'))
      },
    )
    expect(out).not.toContain('made')
    expect(Number(out)).toBeGreaterThan(3)
  })

  test(
    'with processes of others in them, or frozen, are refused',
    notRunc('1.1 takes them with a warning'),
    async ({ runts }) => {
      const folder = join(OWN, runts.name, 'own')
      mkdirSync(folder, { recursive: true })
      const other = startCommand('sleep', ['1000'])
      writeFileSync(join(folder, 'cgroup.procs'), String(other.pid))
      expect(await runts.refused(named(runts))).toContain('cgroup is not empty')
      other.kill('SIGKILL')
      await other.finished
      const [file, frozen, thawed] = isCgroup2() ? ['cgroup.freeze', '1', '0'] : ['freezer.state', 'FROZEN', 'THAWED']
      writeFileSync(join(folder, file), frozen)
      expect(await runts.refused(named(runts))).toContain('cgroup unexpectedly frozen')
      writeFileSync(join(folder, file), thawed)
      rmdirSync(folder)
    },
  )

  test('are the same for an exec, in every hierarchy', async ({ runts }) => {
    runts.sleeper('c', named(runts))
    const shown = (await runts.exec('c', 'sh', '-c', 'sort /proc/1/cgroup; echo; sort /proc/self/cgroup')).split('\n\n')
    expect(shown[0]).toContain(`/${runts.name}/own`)
    expect(shown[1]?.trimEnd()).toBe(shown[0])
  })

  test('of v1 know nothing of the files of v2', needs('cgroup1'), async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.linux.resources = { unified: { 'memory.max': 'max' } }
    })
    expect(error).toMatch(/invalid configuration/i)
  })

  test('that the first process moved itself into are where an exec goes too', needs('cgroup2'), async ({ runts }) => {
    runts.sleeper('c', named(runts))
    const { pid } = await runts.state('c')
    const below = join(OWN, runts.name, 'own/below')
    mkdirSync(below)
    writeFileSync(join(below, 'cgroup.procs'), String(pid))
    // with a controller for what is below, the folder itself takes no process any more
    writeFileSync(join(OWN, 'cgroup.subtree_control'), '+pids')
    writeFileSync(join(OWN, runts.name, 'cgroup.subtree_control'), '+pids')
    writeFileSync(join(OWN, runts.name, 'own/cgroup.subtree_control'), '+pids')
    expect(await runts.exec('c', 'cat', '/proc/self/cgroup')).toMatch(/\/own\/below\n$/)
    mkdirSync(join(OWN, runts.name, 'own/other'))
    expect(await runts.exec('--cgroup', 'other', 'c', 'cat', '/proc/self/cgroup')).toMatch(/\/own\/other\n$/)
    expect(await runts.run('exec', '--cgroup', '/', 'c', 'true')).toMatchObject({ code: 255 })
  })
})

inModes(['in a user namespace'], 'the cgroup of v2', (test) => {
  test(
    'belongs to root of the container exactly where that may write it and sees nothing above',
    needs('cgroup2'),
    async ({ runts }) => {
      const ownerWith = async (namespace: boolean, ...options: string[]): Promise<number> => {
        runts.sleeper(
          'c',
          named(runts, (spec) => {
            if (namespace) spec.linux.namespaces.push({ type: 'cgroup' })
            spec.mounts.push(cgroupMount(...options))
          }),
        )
        const { uid } = statSync(join(OWN, runts.name, 'own'))
        await runts.ok('delete', '-f', 'c')
        return uid
      }
      expect(await ownerWith(true, 'rw')).toBe(runts.owner)
      expect(await ownerWith(true, 'ro')).toBe(0)
      expect(await ownerWith(false, 'rw')).toBe(0)
    },
  )
})

/** Removes a cgroup and what a container has made below it. */
function removeCgroups(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory()) removeCgroups(join(folder, entry.name))
  rmdirSync(folder)
}

inModes(['as an unprivileged user'], 'the cgroup file system', (test) => {
  test(
    'mounted writable gives the container nothing of what is delegated to its user (CVE-2023-25809)',
    notRunc('1.1 lets it write there'),
    async ({ runts }) => {
      const tree = isCgroup2() ? '/sys/fs/cgroup' : '/sys/fs/cgroup/unified'
      const [delegated, other] = [join(tree, runts.name), join(tree, runts.name, 'other')]
      mkdirSync(other, { recursive: true })
      for (const path of [delegated, other, `${other}/cgroup.procs`]) chownSync(path, runts.owner, runts.owner)
      const script = `cd /sys/fs/cgroup || exit 1
        for d in $(find . -type d); do mkdir $d/made 2>/dev/null && echo "made $d"; done
        for f in $(find . -name cgroup.procs); do { echo $$ > $f; } 2>/dev/null && echo "moved to $f"; done; echo done`
      const bundle = runts.bundle(['sh', '-c', script], (spec) => spec.mounts.push(cgroupMount()))
      // the same tree, whole, where a host of version 2 has it
      const whole = isCgroup2() ? 'true' : 'mount -t cgroup2 none /sys/fs/cgroup'
      const shell = ['--mount', 'sh', '-c', `${whole} && exec "$@"`, 'sh']
      const { finished } = startCommand('unshare', [...shell, ...runts.commandOf('run', '-b', bundle, 'c')])
      const { code, stdout, stderr } = await finished
      removeCgroups(delegated)
      expect({ code, stdout }, stderr).toEqual({ code: 0, stdout: 'done\n' })
    },
  )
})
