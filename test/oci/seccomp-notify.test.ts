/**
 * Seccomp's NOTIFY action: the listener reaches the agent with the state, the agent decides, and what happens without
 * one.
 */
import { join } from 'node:path'
import { expect, onTestFinished } from 'vitest'
import { type Command, startCommand } from '../support/command.ts'
import { notRunc } from '../support/needs.ts'
import { inModes, MODES, type OciHost } from '../support/oci.ts'
import { PROBE } from '../support/places.ts'

const MKDIR = 83
/** ENOTTY, which no file system gives for mkdir */
const ANSWER = 25

/** Starts an agent that answers every call with an errno (0: lets it go on). */
async function agent(runts: OciHost, answer: number): Promise<{ socket: string; command: Command }> {
  const socket = join(runts.folder, 'agent.sock')
  const command = startCommand(PROBE, ['agent', socket, String(answer)])
  onTestFinished(async () => {
    command.kill('SIGKILL')
    await command.finished
  })
  await command.untilOutput('listening')
  return { socket, command }
}

const notify = (listenerPath: string | undefined, names: string[], more: Record<string, unknown> = {}) => ({
  defaultAction: 'SCMP_ACT_ALLOW',
  ...(listenerPath === undefined ? {} : { listenerPath }),
  syscalls: [{ names, action: 'SCMP_ACT_NOTIFY' }],
  ...more,
})

/** The state documents that the agent printed. */
const documents = (command: Command): { state: Record<string, unknown> }[] =>
  command.stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))

inModes(MODES, 'seccomp notifications', (test, mode) => {
  const rootless = mode === 'as an unprivileged user' ? notRunc('1.1 may not take the listener of an exec') : {}
  test('of run and exec reach the agent, with and without new privileges', rootless, async ({ runts }) => {
    const { socket, command } = await agent(runts, ANSWER)
    for (const noNewPrivileges of [true, false]) {
      const id = `nnp-${noNewPrivileges}`
      const bundle = runts.bundle(['sh', '-c', `probe syscall ${MKDIR} 0 0 > /tmp/first; exec sleep 1000`], (spec) => {
        spec.process.noNewPrivileges = noNewPrivileges
        spec.linux.seccomp = notify(socket, ['mkdir'], { listenerMetadata: 'of the test' })
      })
      runts.leave('run', '-d', '-b', bundle, id)
      expect(await runts.exec(id, 'sh', '-c', 'until [ -s /tmp/first ]; do :; done; cat /tmp/first')).toBe(
        'Not a tty\n',
      )
      expect(await runts.exec(id, 'probe', 'syscall', String(MKDIR), '0', '0')).toBe('Not a tty\n')
    }
    const seen = documents(command)
    expect(seen).toHaveLength(6)
    expect(seen[0]).toMatchObject({
      ociVersion: expect.any(String),
      fds: ['seccompFd'],
      pid: expect.any(Number),
      metadata: 'of the test',
      state: { id: 'nnp-true', status: 'creating' },
    })
    expect(seen[1]).toMatchObject({ state: { id: 'nnp-true', status: 'running' } })
  })

  test('of an exec before the start reach the agent', rootless, async ({ runts }) => {
    const { socket, command } = await agent(runts, ANSWER)
    for (const noNewPrivileges of [true, false]) {
      const id = `nnp-${noNewPrivileges}`
      const bundle = runts.bundle(['sleep', '1000'], (spec) => {
        spec.process.noNewPrivileges = noNewPrivileges
        spec.linux.seccomp = notify(socket, ['mkdir'])
      })
      runts.leave('create', '-b', bundle, id)
      expect(await runts.exec(id, 'probe', 'syscall', String(MKDIR), '0', '0')).toBe('Not a tty\n')
      await runts.ok('start', id)
    }
    expect(documents(command)).toHaveLength(4)
  })

  test('of the calls that the runtime itself still makes do not hang it', async ({ runts }) => {
    const { socket } = await agent(runts, 0)
    const names = ['read', 'close', 'openat', 'execve', 'chdir', 'setuid', 'setgid', 'capset', 'fstat', 'mkdir']
    const out = await runts.inside('echo through', (spec) => {
      spec.linux.seccomp = notify(socket, names)
    })
    expect(out).toBe('through\n')
  })

  test('are answered with ENOSYS when the agent is gone', async ({ runts }) => {
    const { socket, command } = await agent(runts, ANSWER)
    const bundle = runts.bundle(['sleep', '1000'], (spec) => {
      spec.linux.seccomp = notify(socket, ['mkdir'])
    })
    runts.leave('create', '-b', bundle, 'c')
    const listening = runts.start(
      [
        'run',
        '-b',
        runts.bundle(['sh', '-c', 'read x; probe syscall 83 0 0'], (spec) => {
          spec.linux.seccomp = notify(socket, ['mkdir'])
        }),
        'd',
      ],
      { input: 'open' },
    )
    await command.untilOutput('"d"')
    command.kill('SIGKILL')
    await command.finished
    listening.write('\n')
    listening.endInput()
    // the C library's words for ENOSYS, which the kernel answers where no agent listens any more (seccomp_unotify(2))
    expect((await listening.finished).stdout).toBe('Function not implemented\n')
  })

  test('of a startContainer hook are answered by the agent', async ({ runts }) => {
    const { socket } = await agent(runts, ANSWER)
    const out = await runts.inside('cat /tmp/said', (spec) => {
      spec.linux.seccomp = notify(socket, ['mkdir'])
      spec.hooks = {
        startContainer: [
          { path: '/bin/sh', args: ['sh', '-c', `probe syscall ${MKDIR} 0 0 > /tmp/said`], env: ['PATH=/bin'] },
        ],
      }
    })
    expect(out).toBe('Not a tty\n')
  })
})

inModes(MODES, 'seccomp notifications that cannot work', (test) => {
  const refused = (runts: OciHost, seccomp: Record<string, unknown>) =>
    runts.refused((spec) => {
      spec.linux.seccomp = seccomp
    })

  test('for want of an agent fail create', async ({ runts }) => {
    for (const path of [join(runts.folder, 'nobody.sock'), '@abstract-nobody']) {
      expect(await refused(runts, notify(path, ['mkdir']))).toContain('failed to connect with seccomp agent')
    }
    expect(await refused(runts, notify(undefined, ['mkdir']))).toMatch(/listenerPath/)
  })

  test('for the write call, or as the default, are refused', async ({ runts }) => {
    const { socket } = await agent(runts, ANSWER)
    expect(await refused(runts, notify(socket, ['write']))).toContain(
      'SCMP_ACT_NOTIFY cannot be used for the write syscall',
    )
    expect(await refused(runts, { ...notify(socket, ['mkdir']), defaultAction: 'SCMP_ACT_NOTIFY' })).toContain(
      'SCMP_ACT_NOTIFY cannot be used as default action',
    )
  })

  test('are not tried where no rule asks for them', async ({ runts }) => {
    const out = await runts.inside('echo ran', (spec) => {
      spec.linux.seccomp = {
        defaultAction: 'SCMP_ACT_ALLOW',
        listenerPath: '/no/such/socket',
        syscalls: [{ names: ['mkdir'], action: 'SCMP_ACT_ERRNO' }],
      }
    })
    expect(out).toBe('ran\n')
  })

  test(
    'may be waited for in a way that signals do not break',
    notRunc('needs runc 1.2: WAIT_KILLABLE_RECV'),
    async ({ runts }) => {
      const { socket, command } = await agent(runts, ANSWER)
      const out = await runts.inside(`probe syscall ${MKDIR} 0 0`, (spec) => {
        spec.linux.seccomp = notify(socket, ['mkdir'], { flags: ['SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV'] })
      })
      expect(out).toBe('Not a tty\n')
      command.kill()
      await command.finished
    },
  )
})
