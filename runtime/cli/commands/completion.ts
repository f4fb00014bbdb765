/**
 * `completion`: a script for a shell that completes commands, options, their values and container ids, made from the
 * command tables.
 */
import { RuntimeError } from '../../index.ts'
import { type Command, print } from '../command.ts'
import type { CommandLine, Shell } from '../completion/words.ts'
import { allOptions, type CommandSpec } from '../flags.ts'
import { GLOBAL_OPTIONS } from '../globals.ts'

/** The makers of the scripts, each loaded when it is asked for. */
const MAKERS: Readonly<Record<Shell, () => Promise<(line: CommandLine) => string>>> = {
  async bash() {
    const { bashScript } = await import('../completion/bash.ts')
    return bashScript
  },
  async zsh() {
    const { zshScript } = await import('../completion/zsh.ts')
    return zshScript
  },
  async fish() {
    const { fishScript } = await import('../completion/fish.ts')
    return fishScript
  },
}

/** The command `runts completion`; `commands` are those that it completes, itself included. */
export function completionCommand(commands: () => readonly CommandSpec[]): Command {
  return {
    spec: {
      name: 'completion',
      summary: 'Prints a script for bash, zsh or fish that completes the command line.',
      examples: [
        'source <(runts completion bash)',
        'runts completion bash > /usr/share/bash-completion/completions/runts',
        'runts completion zsh > /usr/local/share/zsh/site-functions/_runts',
        'runts completion fish > ~/.config/fish/completions/runts.fish',
      ],
      positionals: ['SHELL'],
      options: {},
    },
    async run(_, args) {
      const [shell = ''] = args.positionals
      if (!Object.hasOwn(MAKERS, shell)) {
        throw new RuntimeError('Unimplemented', `completion: no script for "${shell}": only for bash, zsh and fish`)
      }
      const make = await MAKERS[shell as Shell]()
      const whole = commands().map((spec) => ({ ...spec, options: allOptions(spec.options) }))
      print(make({ globals: GLOBAL_OPTIONS, commands: whole }))
      return 0
    },
  }
}
