/**
 * `update`: new resource limits for an existing container, from a document in the form of config.json's
 * `linux.resources`.
 */
import { parseResources } from '../../index.ts'
import { type Command, loadContainer, readUserFile } from '../command.ts'

/** The command `runts update`. */
export const update: Command = {
  spec: {
    name: 'update',
    summary: 'Changes the resource limits of a container.',
    details: [
      "The limits are JSON, as config.json has them in linux.resources; what the document leaves out stays as it is, device rules too. They hold at once, and are not kept in the bundle. runc's options for single limits (--memory, --cpu-quota, …) are not supported by this version.",
    ],
    examples: [
      'runts update -r limits.json web',
      `echo '{"memory":{"limit":67108864},"pids":{"limit":100}}' | runts update -r - web`,
    ],
    positionals: ['ID'],
    options: {
      resources: {
        type: 'string',
        short: 'r',
        value: 'FILE',
        required: true,
        doc: 'JSON of the limits; "-" is standard input; required',
      },
    },
  },
  async run(context, args) {
    const container = loadContainer(context, args)
    await container.set(parseResources(readUserFile(args.text('resources') ?? '-')))
    return 0
  },
}
