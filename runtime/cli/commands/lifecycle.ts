/** The commands that act on an existing container: start, kill, delete, pause, resume. */
import { deleteContainer, RuntimeError } from '../../index.ts'
import { type Command, loadContainer, parseSignal } from '../command.ts'
import { startDetached } from '../notify.ts'

/** The command `runts start`. */
export const start: Command = {
  spec: {
    name: 'start',
    summary: 'Starts the program of a created container.',
    details: [
      'Returns when the program has been executed. A container is started once. If NOTIFY_SOCKET was set at create and is set now (sd_notify(3)), it returns when the program says that it is ready, and passes that on with the pid to watch.',
    ],
    positionals: ['ID'],
    options: {},
  },
  async run(context, args) {
    await startDetached(context, loadContainer(context, args))
    return 0
  },
}

/** The command `runts kill`. */
export const kill: Command = {
  spec: {
    name: 'kill',
    summary: "Sends a signal (default TERM) to the container's first process.",
    details: [
      'The signal is a number or a name, with or without SIG, in any case: 9, KILL, sigkill, RTMIN+3. KILL ends every process of the container, whichever pid namespace they are in.',
    ],
    examples: ['runts kill web', 'runts kill web KILL'],
    positionals: ['ID', '[SIGNAL]'],
    options: {
      all: {
        type: 'boolean',
        short: 'a',
        doc: 'signal every process of the container; none left to signal is no failure',
      },
    },
  },
  async run(context, args) {
    const signal = parseSignal(args.positionals[1] ?? 'TERM')
    const container = loadContainer(context, args)
    if (args.flag('all')) {
      await container.signalAll(signal)
      return 0
    }
    try {
      await container.signal(signal)
    } catch (error) {
      if (!(error instanceof RuntimeError) || error.code !== 'NotFound') throw error
      throw new RuntimeError('FailedPrecondition', 'container not running', { cause: error })
    }
    return 0
  },
}

/** The command `runts delete`. */
export const remove: Command = {
  spec: {
    name: 'delete',
    summary: 'Removes a stopped container: its cgroup and its state.',
    details: ['A container that was created and never started is removed too. The bundle stays as it is.'],
    examples: ['runts delete web', 'runts delete --force web'],
    positionals: ['ID'],
    options: {
      force: {
        type: 'boolean',
        short: 'f',
        doc: 'kill it first (KILL); one that does not exist is fine, and one whose state is damaged is removed with all of it that can be found',
      },
    },
  },
  async run(context, args) {
    await deleteContainer(context.root, args.positionals[0] ?? '', {
      force: args.flag('force'),
      logger: context.logger,
    })
    return 0
  },
}

/** The command `runts pause`. */
export const pause: Command = {
  spec: {
    name: 'pause',
    summary: 'Freezes every process of a container.',
    details: ['They get no processor time until `runts resume`; a signal other than KILL waits for that too.'],
    positionals: ['ID'],
    options: {},
  },
  async run(context, args) {
    await loadContainer(context, args).pause()
    return 0
  },
}

/** The command `runts resume`. */
export const resume: Command = {
  spec: {
    name: 'resume',
    summary: 'Thaws a paused container.',
    positionals: ['ID'],
    options: {},
  },
  async run(context, args) {
    await loadContainer(context, args).resume()
    return 0
  },
}
