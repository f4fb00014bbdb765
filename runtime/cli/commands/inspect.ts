/** The commands that only look at containers: state and list. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Container, RuntimeError } from '../../index.ts'
import { isThere } from '../../internal.ts'
import { type Command, complain, FORMAT_OPTION, loadContainer, outputFormat, print } from '../command.ts'

/** The command `runts state`. */
export const state: Command = {
  spec: {
    name: 'state',
    summary: 'Prints the state of a container as JSON.',
    details: [
      'The document is that of the OCI specification (ociVersion, id, status, pid, bundle, annotations), with rootfs, created and owner besides. The status is created, running, paused or stopped; a stopped container has pid 0.',
    ],
    positionals: ['ID'],
    options: {},
  },
  async run(context, args) {
    print(`${JSON.stringify(loadContainer(context, args).ociState(), null, 2)}\n`)
    return 0
  },
}

/** Makes left-aligned columns as runc does, three blanks apart and at least twelve wide. */
function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 12, cell.length + 3)
  const lines = rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(''))
  return lines.map((line) => `${line.trimEnd()}\n`).join('')
}

/** The command `runts list`. */
export const list: Command = {
  spec: {
    name: 'list',
    summary: 'Lists the containers below the root.',
    details: [
      'A container whose state cannot be read is named on standard error, with what removes it, and left out; one that is being created or deleted at this moment is left out silently.',
    ],
    examples: ['runts list', 'runts --root /run/other list --format json', 'runts list -q'],
    positionals: [],
    options: { ...FORMAT_OPTION, quiet: { type: 'boolean', short: 'q', doc: 'ids only' } },
  },
  async run(context, args) {
    const format = outputFormat('list', args)
    // the default folder may not exist before the first container, but one that the user names must
    if (context.rootGiven && !existsSync(context.root)) {
      throw new RuntimeError('NotFound', `cannot list "${context.root}": no such directory`)
    }
    const ids = Container.list(context.root)
    if (args.flag('quiet')) {
      print(
        ids
          .filter((id) => isThere(context.root, id))
          .map((id) => `${id}\n`)
          .join(''),
      )
      return 0
    }
    const states: ReturnType<Container['ociState']>[] = []
    for (const id of ids) {
      try {
        states.push(Container.load(context.root, id, context.logger).ociState())
      } catch (error) {
        const unmade = error instanceof RuntimeError && error.code === 'Unavailable'
        const gone = unmade || !existsSync(join(context.root, id))
        if (gone) context.logger.debug({ id }, 'left out a container that has no state')
        else
          complain(
            new RuntimeError('Internal', `load container ${id}: ${error instanceof Error ? error.message : error}`),
            context.logger,
          )
      }
    }
    if (format === 'json') print(`${JSON.stringify(states)}\n`)
    else {
      const rows = states.map((s) => [s.id, String(s.pid), s.status, s.bundle, s.created, s.owner])
      print(table([['ID', 'PID', 'STATUS', 'BUNDLE', 'CREATED', 'OWNER'], ...rows]))
    }
    return 0
  },
}
