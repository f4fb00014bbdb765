/** The commands that act on a container that is there: start, kill, delete, pause, resume. */
import { Container, RuntimeError } from '../../index.ts'
import { type Command, parseSignal } from '../command.ts'

/** runts start */
export const start: Command = {
  spec: { name: 'start', summary: 'Starts the program of a created container.', positionals: ['id'], options: {} },
  async run(context, args) {
    await Container.load(context.root, args.positionals[0] ?? '', context.logger).start()
    return 0
  },
}

/** runts kill */
export const kill: Command = {
  spec: {
    name: 'kill',
    summary: "Sends a signal (default TERM) to the container's first process.",
    positionals: ['id', '[signal]'],
    options: { all: { type: 'boolean', short: 'a', doc: 'signal every process of the container' } },
  },
  async run(context, args) {
    const signal = parseSignal(args.positionals[1] ?? 'TERM')
    const container = Container.load(context.root, args.positionals[0] ?? '', context.logger)
    if (args.flag('all')) await container.signalAll(signal)
    else if (container.status() === 'stopped') throw new RuntimeError('FailedPrecondition', 'container not running')
    else await container.signal(signal)
    return 0
  },
}

/** runts delete */
export const remove: Command = {
  spec: {
    name: 'delete',
    summary: 'Removes a stopped container: its cgroup and its state.',
    positionals: ['id'],
    options: { force: { type: 'boolean', short: 'f', doc: 'kill it first; one that does not exist is fine' } },
  },
  async run(context, args) {
    const id = args.positionals[0] ?? ''
    const force = args.flag('force')
    let container: Container
    try {
      container = Container.load(context.root, id, context.logger)
    } catch (error) {
      if (!(error instanceof RuntimeError) || error.code !== 'NotFound') throw error
      // a create that was interrupted left a folder without a state
      Container.discard(context.root, id)
      if (force) return 0
      throw error
    }
    await container.destroy({ force })
    return 0
  },
}

/** runts pause */
export const pause: Command = {
  spec: { name: 'pause', summary: 'Freezes every process of a container.', positionals: ['id'], options: {} },
  async run(context, args) {
    await Container.load(context.root, args.positionals[0] ?? '', context.logger).pause()
    return 0
  },
}

/** runts resume */
export const resume: Command = {
  spec: { name: 'resume', summary: 'Thaws a paused container.', positionals: ['id'], options: {} },
  async run(context, args) {
    await Container.load(context.root, args.positionals[0] ?? '', context.logger).resume()
    return 0
  },
}
