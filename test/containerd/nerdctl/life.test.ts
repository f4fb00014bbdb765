/** A container's life under nerdctl: what is done to one that runs, how it ends, and what comes after its end. */
import { describe } from 'vitest'
import { until } from '../../support/command.ts'
import { needs } from '../../support/needs.ts'
import { expect, NERDCTL_NEEDS, test } from '../../support/nerdctl.ts'

const MEMORY = 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'
const sh = (script: string): string[] => ['sh', '-c', script]
/** Says when it is ready for what comes, and then does it. */
const trap = (traps: string): string[] => sh(`${traps}; echo ready; while :; do sleep 0.05; done`)

describe('a container of nerdctl', needs(...NERDCTL_NEEDS), () => {
  test('ends in its own way at `stop`, and is killed when it does not', async ({ nerd }) => {
    const polite = await nerd.detached([], trap('trap "exit 7" TERM'))
    const deaf = await nerd.detached(['--stop-signal', 'INT'], trap('trap "" TERM; trap "echo heard" INT'))
    await nerd.untilLogged(polite, /ready/)
    await nerd.untilLogged(deaf, /ready/)
    await nerd.ok('stop', '-t', '60', polite)
    await nerd.ok('stop', '-t', '1', deaf)
    expect(await nerd.inspect(polite, '{{.State.Status}} {{.State.ExitCode}}')).toBe('exited 7')
    expect(await nerd.inspect(deaf, '{{.State.Status}} {{.State.ExitCode}}')).toBe('exited 137')
    expect(await nerd.untilLogged(deaf, /heard/)).toBe('ready\nheard\n')
  })

  test('takes any signal from `kill`, and `wait` tells how it ended', async ({ nerd }) => {
    const name = await nerd.detached([], trap('trap "echo heard" USR1'))
    await nerd.untilLogged(name, /ready/)
    await nerd.ok('kill', '-s', 'USR1', name)
    await nerd.untilLogged(name, /heard/)
    const waiting = nerd.ok('wait', name)
    await nerd.ok('kill', name)
    expect(await waiting).toContain('137')
    expect(await nerd.ok('wait', name)).toContain('137')
  })

  test('is frozen by `pause`, and goes on after `unpause`', async ({ nerd }) => {
    const name = await nerd.detached()
    await nerd.ok('pause', name)
    expect(await nerd.inspect(name, '{{.State.Status}} {{.State.Paused}}')).toBe('paused true')
    expect(await nerd.ok('ps', '-a', '--format', '{{.Names}}: {{.Status}}')).toContain(`${name}: Paused`)
    await nerd.ok('unpause', name)
    expect(await nerd.ok('exec', name, 'echo', 'again')).toBe('again\n')
  })

  test('gets other limits by `update` while it runs', needs('memory controller'), async ({ nerd }) => {
    const name = await nerd.detached(['--memory', '64m'])
    await nerd.ok('update', '--memory', '96m', '--memory-swap', '96m', '--cpus', '0.25', '--pids-limit', '50', name)
    expect(await nerd.ok('exec', name, 'sh', '-c', MEMORY)).toBe(`${96 * 1024 * 1024}\n`)
    expect(await nerd.inspect(name, '{{.HostConfig.Memory}}')).toBe(String(96 * 1024 * 1024))
  })

  test(
    'shows its processes in `top`, its use in `stats`, its state in `inspect`',
    needs('memory controller'),
    async ({ nerd }) => {
      const name = await nerd.detached(['--memory', '64m'], sh('sleep 1001 & exec sleep 1002'))
      await until('both processes', async () => /sleep 1001/.test(await nerd.ok('top', name)))
      expect(await nerd.ok('top', name)).toContain('sleep 1002')
      expect(await nerd.ok('stats', '--no-stream', '--format', '{{.Name}} {{.MemUsage}} {{.PIDs}}', name)).toMatch(
        new RegExp(`^${name} \\S+iB / 64MiB 2\\n$`),
      )
      const [status, pid, started] = (
        await nerd.inspect(name, '{{.State.Status}} {{.State.Pid}} {{.State.StartedAt}}')
      ).split(' ')
      expect(status).toBe('running')
      expect((await nerd.host.run('cat', `/proc/${pid}/cmdline`)).stdout).toBe('sleep\u00001002\0')
      expect(Number.isNaN(Date.parse(started!))).toBe(false)
    },
  )

  test('can be started again, and keeps its files and its log', async ({ nerd }) => {
    const name = await nerd.detached([], sh('echo run >>/runs; wc -l </runs; exec sleep 1000'))
    await nerd.untilLogged(name, /^1\n$/)
    await nerd.ok('kill', name)
    await nerd.untilStatus(name, 'exited')
    await nerd.ok('start', name)
    await nerd.untilLogged(name, /^1\n2\n$/)
    const short = await nerd.detached([], sh('echo words; exit 3'))
    await nerd.untilStatus(short, 'exited')
    expect(await nerd.run('start', '-a', short)).toMatchObject({ stdout: 'words\n' })
    expect(await nerd.inspect(short, '{{.State.ExitCode}}')).toBe('3')
  })

  test('has a new process after `restart`', async ({ nerd }) => {
    const name = await nerd.detached()
    const pid = await nerd.inspect(name, '{{.State.Pid}}')
    await nerd.ok('restart', '-t', '0', name)
    expect(await nerd.inspect(name, '{{.State.Status}}')).toBe('running')
    expect(await nerd.inspect(name, '{{.State.Pid}}')).not.toBe(pid)
  })

  test('is started again as its restart policy says', async ({ nerd, skip }) => {
    // 1.6 can only start again always, whatever was stopped
    if (!nerd.daemon.isAtLeast(1, 7)) skip('restart policies')
    // given once they run: of one that `nerdctl run` is still starting, the daemon's loop may make the task first,
    // with any runtime
    const policed = async (policy: string, script: string): Promise<string> => {
      const name = await nerd.detached([], sh(script))
      await nerd.ok('update', '--restart', policy, name)
      // what `nerdctl run --restart` tells the loop besides, and update does not: where the output goes
      const id = await nerd.inspect(name, '{{.Id}}')
      const { Labels: labels } = JSON.parse((await nerd.daemon.ctr(['container', 'info', id])).stdout)
      const log = labels['nerdctl/log-uri']
      expect(log).toMatch(/^binary:/)
      const labelled = await nerd.daemon.ctr(['container', 'label', id, `containerd.io/restart.loguri=${log}`])
      expect(labelled, labelled.stderr).toMatchObject({ code: 0 })
      return name
    }
    const failing = await policed('on-failure:2', 'echo run; until [ -e /end ]; do sleep 0.05; done; exit 4')
    const kept = await policed('unless-stopped', 'rm -f /end; echo run; until [ -e /end ]; do sleep 0.05; done')
    await nerd.untilLogged(kept, /run\n/)
    for (const name of [failing, kept]) await nerd.ok('exec', name, 'touch', '/end')
    await nerd.untilLogged(kept, /run\nrun\n/)
    await nerd.untilStatus(kept, 'running')
    const ended = '{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}'
    await until('the second restart', async () => (await nerd.inspect(failing, ended)) === '2 exited 4')
    await nerd.ok('stop', '-t', '0', kept)
    await nerd.untilStatus(kept, 'exited')
  })

  test('that runs is removed by force only', async ({ nerd }) => {
    const name = await nerd.detached()
    expect(await nerd.run('rm', name)).toMatchObject({ code: 1 })
    expect(await nerd.inspect(name, '{{.State.Status}}')).toBe('running')
    await nerd.ok('rm', '-f', name)
    expect((await nerd.run('inspect', name)).code).not.toBe(0)
  })

  test('whose shim was killed has ended, and can be started again', async ({ nerd }) => {
    const name = await nerd.detached()
    const pid = await nerd.inspect(name, '{{.State.Pid}}')
    process.kill(await nerd.shimPid(name), 'SIGKILL')
    await until('its end', async () => (await nerd.host.run('test', '-e', `/proc/${pid}`)).code !== 0)
    await until('it to start', async () => (await nerd.run('start', name)).code === 0)
    expect(await nerd.ok('exec', name, 'echo', 'again')).toBe('again\n')
  })
})
