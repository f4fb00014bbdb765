/** `events`: the counters of a container every few seconds, and what the kernel says about its memory, as JSON. */
import { RuntimeError } from '../../index.ts'
import { loadEvents } from '../../internal.ts'
import { type Command, complain, loadContainer, print } from '../command.ts'
import { parseDuration } from '../duration.ts'

/** The command `runts events`. */
export const events: Command = {
  spec: {
    name: 'events',
    summary: 'Prints the counters of a container every few seconds, and when its memory runs out.',
    details: [
      'Each line is a JSON object with "type" (stats, oom), "id", and for stats "data", in the form of runc. The command ends when the container has stopped. A line of the type memory-pressure comes only with --memory-pressure.',
    ],
    examples: [
      'runts events --stats web',
      'runts events --interval 1s web | jq .data.memory.usage',
      'runts events --memory-pressure medium web',
    ],
    positionals: ['ID'],
    options: {
      interval: { type: 'string', value: 'DURATION', doc: 'time between two lines of counters (default 5s)' },
      stats: { type: 'boolean', doc: 'print the counters once, and end' },
      'memory-pressure': {
        type: 'string',
        value: 'low|medium|critical',
        doc: 'tell too when the kernel reports pressure of this level or a higher one; on cgroup v2 that is when processes waited for memory for a tenth of the time, for 40 per cent, or all of them for 40 per cent',
      },
    },
  },
  async run(context, args) {
    const container = loadContainer(context, args)
    const intervalMs = parseDuration('interval', args.text('interval') ?? '5s')
    const asked = args.text('memory-pressure')
    const { followEvents, statsLine, PRESSURE_LEVELS } = await loadEvents()
    const pressure = PRESSURE_LEVELS.find((level) => level === asked)
    if (asked !== undefined && pressure === undefined) {
      throw invalid(`events: invalid --memory-pressure "${asked}": must be low, medium or critical`)
    }
    if (intervalMs <= 0) throw invalid('duration interval must be greater than 0')
    if (container.status() === 'stopped') {
      throw new RuntimeError('FailedPrecondition', `container with id ${container.id} is not running`)
    }
    if (args.flag('stats')) {
      print(await statsLine(container))
      return 0
    }
    const onError = (error: unknown) => complain(error, context.logger)
    for await (const line of followEvents(container, { intervalMs, pressure, onError })) {
      // the reader has seen enough
      if (!print(line)) return 0
    }
    return 0
  },
}

function invalid(message: string): RuntimeError {
  return new RuntimeError('InvalidArgument', message)
}
