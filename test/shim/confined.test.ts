/**
 * The streams of processes that a security module confines: its policy speaks of files, and the client's fifos are
 * files of the host.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, onTestFinished } from 'vitest'
import { makeFifos, reader, writer } from '../support/client-streams.ts'
import { startCommand } from '../support/command.ts'
import { expect, test } from '../support/fake.ts'
import { needs } from '../support/needs.ts'

const NAME = 'shim-test-writes-nothing'
const PROFILE = `profile ${NAME} flags=(attach_disconnected) {
  file, capability, signal, network, ptrace,
  deny /** w,
}
`

describe('an AppArmor profile that denies every write to a file', needs('root', 'busybox', 'apparmor'), () => {
  test('leaves a container and its execs their streams', async ({ fake, shim }) => {
    const file = join(fake.folder, 'profile')
    writeFileSync(file, PROFILE)
    expect(await startCommand('apparmor_parser', ['-r', '-W', file]).finished).toMatchObject({ code: 0 })
    onTestFinished(async () => void (await startCommand('apparmor_parser', ['-R', file]).finished))
    const script = 'cat; echo x 2>/dev/null >/tmp/x || echo denied; echo err >&2'
    const task = shim.task(['sh', '-c', `${script}; exec sleep 1000`], (spec) => {
      spec.process.apparmorProfile = NAME
    })
    for (const id of ['', 'e']) {
      const fifos = makeFifos(fake.folder)
      const [out, err, input] = [reader(fifos.stdout), reader(fifos.stderr), writer(fifos.stdin)]
      if (id === '') await task.create(fifos)
      else await task.exec(id, ['sh', '-c', script], fifos)
      await task.start(id)
      input.write('in\n')
      input.endInput()
      await input.finished
      await task.closeStdin(id)
      await out.untilOutput('in\ndenied\n')
      await err.untilOutput('err\n')
    }
    await task.remove()
  })
})
