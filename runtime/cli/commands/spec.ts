/** `spec`: writes a config.json to start from. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { exampleSpec, RuntimeError } from '../../index.ts'
import { EEXIST, errnoOf, hostFacts, reasonOf } from '../../internal.ts'
import type { Command } from '../command.ts'

/** The command `runts spec`. */
export const spec: Command = {
  spec: {
    name: 'spec',
    summary: 'Writes an example config.json into a bundle.',
    details: [
      'It runs sh, with a terminal, in the read-only root file system "rootfs" of the bundle; what to change for another program is process.args. An existing config.json is never overwritten. With --rootless it is for the user who calls: in a user namespace that maps this user to root.',
    ],
    examples: ['mkdir -p b/rootfs && tar -C b/rootfs -xf ROOT.tar && runts spec -b b && runts run -b b c1'],
    positionals: [],
    options: {
      bundle: { type: 'string', short: 'b', value: 'DIR', doc: 'the bundle (default: the working directory)' },
      rootless: { type: 'boolean', doc: 'for a user who is not root' },
    },
  },
  async run(_, args) {
    const path = join(args.text('bundle') || '.', 'config.json')
    const rootless = args.flag('rootless')
      ? { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 }
      : undefined
    const example = exampleSpec({ cgroup2: hostFacts().cgroup2, ...(rootless === undefined ? {} : { rootless }) })
    try {
      writeFileSync(path, `${JSON.stringify(example, null, '\t')}\n`, { flag: 'wx', mode: 0o666 })
    } catch (error) {
      const reason =
        errnoOf(error) === EEXIST ? 'file exists, and spec does not overwrite it: remove it first' : reasonOf(error)
      throw new RuntimeError('InvalidArgument', `cannot write "${path}": ${reason}`, { cause: error })
    }
    return 0
  },
}
