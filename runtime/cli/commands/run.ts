/**
 * `run`: create and start in one command. In the foreground it relays signals and streams, and ends with the
 * container's exit status.
 */
import { type Command, CREATE_OPTIONS } from '../command.ts'
import { destroyEnded, Foreground, SignalRelay } from '../foreground.ts'
import { startDetached, startInFront } from '../notify.ts'
import { createContainer } from './create.ts'

/** The command `runts run`. */
export const run: Command = {
  spec: {
    name: 'run',
    summary: "Creates and starts a container. In the foreground the exit status is the container's own.",
    details: [
      'In the foreground every signal that can be caught is passed on to the program, what it reads and writes goes through pipes, or through a terminal of its own if config.json says so, from and to the streams of the command, and the container is removed when the program has ended. With --detach the container stays until `runts delete`, and its streams are as `runts create` makes them.',
    ],
    examples: ['runts run -b /containers/job job1', 'runts run --detach -b /containers/web web && runts list'],
    positionals: ['ID'],
    options: {
      ...CREATE_OPTIONS,
      detach: { type: 'boolean', short: 'd', doc: 'return when the program runs; the container stays' },
      keep: { type: 'boolean', doc: 'keep the stopped container: its state and its cgroup' },
      'no-subreaper': {
        type: 'boolean',
        doc: 'do not become the parent of processes that the container orphans outside its pid namespace',
      },
    },
  },
  async run(context, args) {
    const detached = args.flag('detach')
    using signals = detached ? undefined : new SignalRelay()
    const making = { detached, subreaper: !args.flag('no-subreaper') }
    const { container, reaper, streams: chosen } = await createContainer(context, args, making)
    using streams = chosen
    let status: number
    try {
      using front = detached ? undefined : new Foreground(container.init, streams, context.logger)
      signals?.attach(container.init)
      await (detached ? startDetached : startInFront)(context, container)
      if (front === undefined) return 0
      status = await front.ended()
    } catch (error) {
      await container.abandon()
      reaper.reclaim()
      throw error
    }
    if (!args.flag('keep')) await destroyEnded(container)
    return status
  },
}
