/** `ps`: the processes of a container, as rows of the host's own ps(1) or as a list of pids. */

import { Reaper, RuntimeError } from '../../index.ts'
import { exitText, findProgram, inheritedEnvironment, runProgram } from '../../internal.ts'
import { type Command, type Context, FORMAT_OPTION, loadContainer, outputFormat, print } from '../command.ts'

/** The most output of ps(1) that is read, more than the rows of all processes that a machine can have. */
const OUTPUT_BYTES = 256 * 1024 * 1024

/**
 * Runs the host's ps(1); its output.
 * @throws InvalidArgument with its error message
 */
async function runPs(context: Context, args: readonly string[]): Promise<string> {
  const path = findProgram('ps')
  if (path === undefined) {
    const hint = "Debian's package procps has it; --format json needs none"
    throw new RuntimeError('NotFound', `exec: "ps": executable file not found in $PATH (${hint})`)
  }
  const reaper = new Reaper(context.logger)
  reaper.start()
  const { exit, stdout, stderr } = await runProgram({
    reaper,
    path,
    argv: ['ps', ...args],
    env: inheritedEnvironment(),
    cwd: process.cwd(),
    outputBytes: OUTPUT_BYTES,
  })
  if (exit.status === 0) return stdout
  const [complaint = ''] = stderr.trim().split('\n')
  throw new RuntimeError('InvalidArgument', `cannot run ps ${args.join(' ')}: ${exitText(exit)}: ${complaint}`)
}

/**
 * The header, and the rows whose column PID is one of the pids.
 * @throws InvalidArgument when there is no such column
 */
function filterRows(text: string, pids: readonly number[]): string {
  const [header = '', ...rows] = text.split('\n').filter((line) => line !== '')
  const column = header.trim().split(/\s+/).indexOf('PID')
  if (column < 0) throw new RuntimeError('InvalidArgument', 'ps: its output has no column PID: choose other ps options')
  const wanted = new Set(pids.map(String))
  const kept = rows.filter((row) => wanted.has(row.trim().split(/\s+/)[column] ?? ''))
  return [header, ...kept].map((line) => `${line}\n`).join('')
}

/** The command `runts ps`. */
export const ps: Command = {
  spec: {
    name: 'ps',
    summary: 'Shows the processes of a container.',
    details: [
      'The table is that of ps(1) on this machine, so the pids are the host\'s. What follows the id is passed to ps, instead of "-ef"; its output must have a column PID.',
    ],
    examples: ['runts ps web', 'runts ps web -eo pid,rss,args', 'runts ps --format json web'],
    positionals: ['ID', '[PS OPTIONS]'],
    rest: true,
    options: FORMAT_OPTION,
  },
  async run(context, args) {
    const format = outputFormat('ps', args)
    const pids = loadContainer(context, args).processes()
    if (format === 'json') {
      print(`${JSON.stringify(pids)}\n`)
      return 0
    }
    const options = args.positionals.slice(1)
    print(filterRows(await runPs(context, options.length === 0 ? ['-ef'] : options), pids))
    return 0
  },
}
