/**
 * `update`: new resource limits for an existing container, from options for single limits, or from a document in the
 * form of config.json's `linux.resources`.
 */
import { parseResources } from '../../index.ts'
import { type Command, loadContainer, readUserFile } from '../command.ts'
import { LIMIT_OPTIONS, limitsOf } from '../limit-options.ts'

/** The command `runts update`. */
export const update: Command = {
  spec: {
    name: 'update',
    summary: 'Changes the resource limits of a container.',
    details: [
      'Limits that are not named stay as they are, device rules too. They hold at once, and are not kept in the bundle. With --resources the limits are JSON, as config.json has them in linux.resources; the options for single limits are then ignored.',
    ],
    examples: [
      'runts update --memory 512m --pids-limit 100 web',
      'runts update --cpu-period 100000 --cpu-quota 50000 --cpuset-cpus 0-1 web',
      'runts update -r limits.json web',
      `echo '{"memory":{"limit":67108864},"pids":{"limit":100}}' | runts update -r - web`,
    ],
    positionals: ['ID'],
    options: {
      resources: { type: 'string', short: 'r', value: 'FILE', doc: 'JSON of the limits; "-" is standard input' },
      ...LIMIT_OPTIONS,
      'l3-cache-schema': { type: 'string', value: 'SCHEMA', doc: 'Intel RDT: the part of the L3 cache' },
      'mem-bw-schema': { type: 'string', value: 'SCHEMA', doc: 'Intel RDT: the bandwidth of memory' },
    },
  },
  async run(context, args) {
    const container = loadContainer(context, args)
    const file = args.text('resources')
    const limits = file ? parseResources(readUserFile(file)) : limitsOf(args)
    const l3CacheSchema = args.text('l3-cache-schema')
    const memBwSchema = args.text('mem-bw-schema')
    await container.set(limits, {
      ...(l3CacheSchema ? { l3CacheSchema } : {}),
      ...(memBwSchema ? { memBwSchema } : {}),
    })
    return 0
  },
}
