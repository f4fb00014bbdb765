/** The commands that only look: state, list, features, plan. */
import { resolve } from 'node:path'
import { Container, describeBundle, loadSpec, RuntimeError, features as runtimeFeatures } from '../../index.ts'
import { type Command, print } from '../command.ts'

function ociState(container: Container): Record<string, unknown> {
  const status = container.status()
  return {
    ociVersion: container.spec.ociVersion,
    id: container.id,
    pid: status === 'stopped' ? 0 : container.init.pid,
    status,
    bundle: container.bundle,
    rootfs: container.rootfs,
    created: container.created,
    ...(container.spec.annotations === undefined ? {} : { annotations: container.spec.annotations }),
    owner: '',
  }
}

/** runts state */
export const state: Command = {
  spec: { name: 'state', summary: 'Prints the state of a container as JSON.', positionals: ['id'], options: {} },
  async run(context, args) {
    const container = Container.load(context.root, args.positionals[0] ?? '', context.logger)
    print(`${JSON.stringify(ociState(container), null, 2)}\n`)
    return 0
  },
}

/** Left-aligned columns, three blanks apart and at least twelve wide, as runc prints them. */
function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 12, cell.length + 3)
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i] ?? 0))
          .join('')
          .trimEnd()}\n`,
    )
    .join('')
}

/** runts list */
export const list: Command = {
  spec: {
    name: 'list',
    summary: 'Lists the containers below the root.',
    positionals: [],
    options: {
      format: { type: 'string', short: 'f', value: 'table|json', doc: 'output format (default table)' },
      quiet: { type: 'boolean', short: 'q', doc: 'ids only' },
    },
  },
  async run(context, args) {
    const format = args.text('format') ?? 'table'
    if (format !== 'table' && format !== 'json') {
      throw new RuntimeError('InvalidArgument', `list: invalid --format "${format}": must be table or json`)
    }
    const states: Record<string, unknown>[] = []
    for (const id of Container.list(context.root)) {
      try {
        states.push(ociState(Container.load(context.root, id, context.logger)))
      } catch (error) {
        // another command may be deleting it, or a create is under way: it is not there for us
        context.logger.debug({ id, reason: String(error) }, 'skipped a container')
      }
    }
    if (args.flag('quiet')) print(states.map((s) => `${s['id']}\n`).join(''))
    else if (format === 'json') print(`${JSON.stringify(states)}\n`)
    else {
      const rows = states.map((s) =>
        [s['id'], s['pid'], s['status'], s['bundle'], s['created'], s['owner'] || 'root'].map(String),
      )
      print(table([['ID', 'PID', 'STATUS', 'BUNDLE', 'CREATED', 'OWNER'], ...rows]))
    }
    return 0
  },
}

/** runts features */
export const features: Command = {
  spec: {
    name: 'features',
    summary: 'Prints what this runtime supports, as the OCI features document.',
    positionals: [],
    options: {},
  },
  async run() {
    print(`${JSON.stringify(runtimeFeatures(), null, 2)}\n`)
    return 0
  },
}

/** runts plan */
export const plan: Command = {
  spec: {
    name: 'plan',
    summary: 'Prints the numbered operations that ts-init would execute to create the container of a bundle.',
    positionals: ['[bundle]'],
    options: {},
  },
  async run(_, args) {
    const bundle = resolve(args.positionals[0] ?? '.')
    print(describeBundle(bundle, loadSpec(bundle)))
    return 0
  },
}
