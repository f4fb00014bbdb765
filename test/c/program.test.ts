/**
 * The program that a container runs: how it is found and executed, the filter and the privileges that it gets, and
 * its terminal.
 */
import { readSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Op } from '../../proto/init-plan.ts'
import { receiveFd, socketPair } from '../../runtime/sys/socket.ts'
import { needs } from '../support/needs.ts'
import { filterOf, RETURN } from './filter.ts'
import { containerPlan, credentials, mount, Rootfs, Run } from './run.ts'
import { failure, output, rootfs, sh, types, useRootfs } from './shared-rootfs.ts'

const ENOENT = 2
const EACCES = 13
const ENODEV = 19
describe('ts-init', needs('root', 'busybox', 'make', 'gcc'), () => {
  useRootfs()

  describe('the program', () => {
    test.for([
      [['/no/such'], ENOENT, 'exec: "/no/such": stat /no/such: no such file or directory'],
      [['nosuch'], ENOENT, 'exec: "nosuch": executable file not found in $PATH'],
      [['/etc'], 21, 'exec: "/etc": is a directory: permission denied'],
      [['/etc/passwd'], EACCES, 'exec: "/etc/passwd": permission denied'],
    ] as const)('that cannot be executed is named: %s', async ([args, errno, text]) => {
      expect(await failure({ args })).toMatchObject({ op: 'program', errno, text })
    })

    test('is looked up in PATH, or in the default path', async () => {
      expect(await output({ args: ['id'] })).toBe('uid=0(root) gid=0\n')
      expect(await output({ args: ['id'], env: [] })).toBe('uid=0(root) gid=0\n')
      expect(await failure({ args: ['id'], env: ['PATH=bin:'] })).toMatchObject({ errno: ENOENT })
    })

    test('whose interpreter is missing fails at execve with one sentence', async () => {
      using own = new Rootfs()
      writeFileSync(join(own.path, 'run.sh'), '#!/no/shell\n', { mode: 0o755 })
      using run = new Run(containerPlan(own, { args: ['/run.sh'] }))
      await run.ended
      expect(types(run)).toEqual(['child', 'executing', 'failed'])
      expect(run.find('failed')).toMatchObject({ errno: ENOENT, text: 'exec /run.sh: no such file or directory' })
      expect(await run.exit()).toEqual({ code: 255, signal: 0 })
    })

    test('cannot be reached through an fd of the helper', async () => {
      for (const fd of [3, 5, 6, 7, 8, 9]) {
        using run = new Run(containerPlan(rootfs, { args: [`/proc/self/fd/${fd}/bin/busybox`] }))
        await run.ended
        expect(run.find('failed')).toBeDefined()
      }
    })

    test('cannot start in a directory of the host', async () => {
      for (let fd = 3; fd < 12; fd++) {
        const plan = containerPlan(rootfs, { args: ['/bin/id'] }).map((op) =>
          op.op === 'chdir' ? { ...op, path: `/proc/self/fd/${fd}` } : op,
        )
        using run = new Run(plan)
        await run.ended
        expect(run.find('failed')?.text).toMatch(/chdir to cwd \("\/proc\/self\/fd\/\d+"\) set in config\.json failed/)
      }
    })

    test('is filtered by seccomp when the filter comes last', async () => {
      const filter = filterOf({ uname: RETURN.errno | EACCES })
      const late: Op[] = [{ op: 'seccomp', flags: 0, filter }]
      expect(await sh('busybox uname')).toBe('Linux\n')
      expect(await sh('busybox uname', { late })).toBe('\n')
    })
  })

  describe('privileges', () => {
    test('keep exactly the capabilities that were given', async () => {
      const plan = containerPlan(rootfs, {
        args: ['/bin/sh', '-c', 'busybox grep -E "^Cap(Prm|Eff|Bnd|Amb)" /proc/self/status'],
        uid: 1000,
      }).map((op) =>
        op.op === 'credentials' ? { ...credentials(1000, 0x21n), inheritable: 0x20n, ambient: 0x20n } : op,
      )
      using run = new Run(plan)
      const text = await run.stdout
      // a shell of another uid keeps what is ambient over execve, no more
      expect(text).toBe(
        'CapPrm:\t0000000000000020\nCapEff:\t0000000000000020\nCapBnd:\t0000000000000021\nCapAmb:\t0000000000000020\n',
      )
    })

    test('that do not exist here are a warning', async () => {
      const plan = containerPlan(rootfs, { args: ['/bin/id'] }).map((op) =>
        op.op === 'credentials' ? credentials(0, 1n << 62n) : op,
      )
      using run = new Run(plan)
      await run.ended
      expect(run.find('failed')).toBeUndefined()
      expect(run.find('log')?.text).toBe('capabilities 0x4000000000000000 cannot be granted')
    })
  })

  describe('a terminal', () => {
    test('is allocated in the root, sent on the console socket and bound on /dev/console', async () => {
      const { ours, theirs } = socketPair()
      const inside: Op[] = [{ op: 'terminal', width: 100, height: 30, uid: 0, console: 1, bareNewlines: 0 }]
      const script = 'busybox tty; busybox stty size; echo hello > /dev/console; busybox stat -c %t /dev/console'
      const plan = containerPlan(rootfs, { args: ['/bin/sh', '-c', script], inside }).filter(
        ({ op }) => op !== 'stdio_owner',
      )
      using run = new Run(plan, theirs.fd)
      theirs.close()
      await run.ended
      expect(run.find('failed')).toBeUndefined()
      expect(types(run)).toEqual(['child', 'console', 'executing'])
      const master = receiveFd(ours.fd)
      ours.close()
      if (master === undefined) throw new Error('no master')
      await run.exit()
      const bytes = Buffer.alloc(4096)
      let text = ''
      try {
        for (let size = 1; size > 0; ) {
          size = readSync(master.fd, bytes)
          text += bytes.toString('utf8', 0, size)
        }
      } catch {
        // EIO: the last slave is closed
      }
      master.close()
      expect(text).toBe('/dev/pts/0\r\n30 100\r\nhello\r\n88\r\n')
    })

    test('is not taken from a multiplexer outside of a devpts, for which the kernel would look beside it', async () => {
      const { ours, theirs } = socketPair()
      const node = { op: 'device', path: '/dev/pts/ptmx', mode: 0o20666, major: 5, minor: 2, uid: 0, gid: 0 } as const
      const plan = containerPlan(rootfs, {
        args: ['/bin/true'],
        outside: [
          mount({ source: 'tmpfs', target: '/dev/pts', fstype: 'tmpfs' }),
          mount({ source: 'devpts', target: '/dev/pts/pts', fstype: 'devpts', options: ['ptmxmode=0666'] }),
          node,
        ],
        inside: [{ op: 'terminal', width: 0, height: 0, uid: 0, console: 0, bareNewlines: 0 }],
      })
      using run = new Run(plan, theirs.fd)
      theirs.close()
      await run.ended
      expect(receiveFd(ours.fd)).toBeUndefined()
      ours.close()
      expect(run.find('failed')).toMatchObject({ errno: ENODEV, text: 'open "/dev/pts/ptmx"' })
    })
  })
})
