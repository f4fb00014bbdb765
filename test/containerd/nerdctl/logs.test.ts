/**
 * The log of a container: nerdctl is its own `binary://` log program, and has to see everything. It leaves at the end
 * of a container, whatever it has still to read, so containers here run on until their log was looked at.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { until } from '../../support/command.ts'
import { needs } from '../../support/needs.ts'
import { expect, NERDCTL_NEEDS, test } from '../../support/nerdctl.ts'

const LINES = 20_000
const COUNTING = [
  'sh',
  '-c',
  'i=0; while :; do i=$((i+1)); echo line $i; echo $i >/shared/new; mv /shared/new /shared/count; sleep 0.05; done',
]
const linesOf = (text: string): string[] => text.split('\n').filter((line) => line !== '')

describe('`nerdctl logs`', needs(...NERDCTL_NEEDS), () => {
  test('tells what was on which stream, when, and the last of it', async ({ nerd }) => {
    const name = await nerd.detached([], ['sh', '-c', 'echo oops >&2; echo one; echo two; exec sleep 1000'])
    await nerd.untilLogged(name, /two/)
    await until('the other stream', async () => (await nerd.run('logs', name)).stderr !== '')
    expect(await nerd.run('logs', name)).toMatchObject({ stdout: 'one\ntwo\n', stderr: 'oops\n' })
    expect(await nerd.ok('logs', '-t', name)).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z one\n/)
    expect(linesOf(await nerd.ok('logs', '-n', '1', name)).length).toBeLessThan(2)
  })

  test('has every line of a container that says much', async ({ nerd }) => {
    const name = await nerd.detached([], ['sh', '-c', `seq 1 ${LINES}; exec sleep 1000`])
    const log = await nerd.untilLogged(name, new RegExp(`^${LINES}$`, 'm'))
    expect(linesOf(log)).toEqual(Array.from({ length: LINES }, (_, i) => String(i + 1)))
  })

  test(
    'right after a run in the foreground are what it showed, as with runc',
    needs('our shim', 'the runc shim'),
    async ({ nerd }) => {
      // the end waits until all was logged: at the end of a container nerdctl's log program leaves what it has not
      // read yet
      const script = `seq 1 ${LINES}; echo oops >&2; until [ -e /shared/$0 ]; do sleep 0.05; done; exit 4`
      const session = async (runtime: string) => {
        const name = nerd.name()
        const args = nerd.runArgs(['--name', name, '-v', `${nerd.folder}:/shared`], ['sh', '-c', script, name])
        const run = nerd.start(args.map((word) => (word === nerd.runtime ? runtime : word)))
        await nerd.untilLogged(name, new RegExp(`^${LINES}$`, 'm'))
        await until('the other stream', async () => (await nerd.run('logs', name)).stderr !== '')
        writeFileSync(join(nerd.folder, name), '')
        const shown = await run.finished
        const { code, stdout, stderr } = await nerd.run('logs', name)
        const ended = await nerd.inspect(name, '{{.State.Status}} {{.State.ExitCode}}')
        const removed = (await nerd.run('rm', name)).code
        return { shown: [shown.code, shown.stdout, shown.stderr], logs: [code, stdout, stderr], ended, removed }
      }
      const ours = await session(nerd.runtime)
      const all = Array.from({ length: LINES }, (_, i) => `${i + 1}\n`).join('')
      expect(ours).toEqual({ shown: [4, all, 'oops\n'], logs: [0, all, 'oops\n'], ended: 'exited 4', removed: 0 })
      expect(ours).toEqual(await session('io.containerd.runc.v2'))
    },
  )

  test('-f follows until the end, beside a client that is attached', async ({ nerd }) => {
    const name = nerd.name()
    const run = nerd.start(nerd.runArgs(['-i', '--name', name], ['sh', '-c', 'while read l; do echo "<$l>"; done']), {
      input: 'open',
    })
    run.write('first\n')
    await run.untilOutput('<first>')
    const follow = nerd.start(['logs', '-f', name])
    await follow.untilOutput('<first>')
    run.write('second\n')
    await follow.untilOutput('<second>')
    run.endInput()
    expect(await run.finished).toMatchObject({ code: 0, stdout: '<first>\n<second>\n' })
    expect(await follow.finished).toMatchObject({ code: 0, stdout: '<first>\n<second>\n' })
  })

  test('has what was said before the daemon was killed, and the container goes on', async ({ nerd }) => {
    // without a log from there on: nerdctl's log program leaves with its daemon
    const name = await nerd.detached(['-v', `${nerd.folder}:/shared`], COUNTING)
    await nerd.untilLogged(name, /line 3\n/)
    await nerd.daemon.kill()
    await nerd.daemon.start()
    const lines = linesOf(await nerd.ok('logs', name))
    expect(lines).toEqual(lines.map((_, i) => `line ${i + 1}`))
    const count = (): number => Number(readFileSync(join(nerd.folder, 'count'), 'utf8'))
    const last = count()
    await until('it to go on', () => count() > last + 3)
    expect(await nerd.ok('exec', name, 'echo', 'here')).toBe('here\n')
    await nerd.ok('restart', '-t', '0', name)
    await nerd.untilLogged(name, /line 1\n.*line 1\n/s)
  })

  test('has what a terminal showed', async ({ nerd }) => {
    const name = await nerd.detached(['-t'], ['sh', '-c', 'tty; payload both 0 words; exec sleep 1000'])
    const log = await nerd.untilLogged(name, /err:words/)
    expect(log.replaceAll('\r', '')).toBe('/dev/pts/0\nout:words\nerr:words\n')
  })

  test('of a container without one says so, and the container is none the worse', async ({ nerd }) => {
    const name = await nerd.detached(['--log-driver', 'none'], ['sh', '-c', 'echo words; exit 6'])
    await nerd.untilStatus(name, 'exited')
    expect(await nerd.inspect(name, '{{.State.ExitCode}}')).toBe('6')
    await until('an answer', async () => (await nerd.run('logs', name)).stdout === '')
  })
})
