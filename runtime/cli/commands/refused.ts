/** The commands of runc that this version lacks: each has a help text, and refuses to run. */
import { RuntimeError } from '../../index.ts'
import { type Command, print } from '../command.ts'
import type { CommandSpec } from '../flags.ts'
import { commandHelp } from '../help.ts'

function refused(name: string, purpose: string, instead: string): Command {
  const spec: CommandSpec = {
    name,
    summary: `Not supported by this version. With runc it ${purpose}.`,
    details: [instead],
    // runc's options for it are not parsed
    positionals: ['[ARGUMENTS]'],
    rest: true,
    options: {},
  }
  return {
    spec,
    async run(_, { positionals }) {
      if (!positionals.some((word) => /^--?h(elp)?$/.test(word))) {
        throw new RuntimeError(
          'Unimplemented',
          `${name}: not supported by this version (runts ${name} --help says more)`,
        )
      }
      print(commandHelp(spec))
      return 0
    },
  }
}

const NO_CRIU =
  'A container ends with its processes here: stop the program in order, keep its data in a volume, and run it again from its bundle.'

/** All refused commands. */
export const REFUSED: readonly Command[] = [
  refused('checkpoint', 'saves the processes of a container as files, by CRIU', NO_CRIU),
  refused('restore', 'makes a container from what checkpoint has saved', NO_CRIU),
]
