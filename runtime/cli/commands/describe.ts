/** The commands that describe: `features` prints what the runtime supports, `plan` what it would do. */
import { resolve } from 'node:path'
import { describeBundle, loadSpec, features as runtimeFeatures } from '../../index.ts'
import { type Command, print } from '../command.ts'

/** The command `runts features`. */
export const features: Command = {
  spec: {
    name: 'features',
    summary: 'Prints what this runtime supports, as the OCI features document.',
    positionals: [],
    options: {},
  },
  async run({ gates }) {
    print(`${JSON.stringify(runtimeFeatures(gates), null, 2)}\n`)
    return 0
  },
}

/** The command `runts plan`. */
export const plan: Command = {
  spec: {
    name: 'plan',
    summary: 'Prints the numbered operations that ts-init would execute to create the container of a bundle.',
    details: [
      'Nothing is done. Errors of a create name the number of the operation that failed, which is a line of this text.',
    ],
    examples: ['runts plan /containers/web | less'],
    positionals: ['[BUNDLE]'],
    options: {},
  },
  async run(_, args) {
    const bundle = resolve(args.positionals[0] ?? '.')
    print(describeBundle(bundle, loadSpec(bundle)))
    return 0
  },
}
