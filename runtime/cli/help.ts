/** Help texts, made from the tables of the parser. Invariant: the help shows what the parser accepts. */
import { allOptions, type CommandSpec, type Options } from './flags.ts'

const INDENT = '  '
const MAX_COLUMN = 34
const LINE = 110

/** Fills words into lines; from the second on, lines are indented by `indent` blanks. */
function fill(text: string, indent: number): string {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > LINE - indent) {
      lines.push(line)
      line = ''
    }
    line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line].join(`\n${' '.repeat(indent)}`)
}

function optionRows(options: Options): string[] {
  const rows = Object.entries(options).map(([name, { type, short, value, doc }]) => {
    const long = `--${name}${type === 'boolean' ? '' : ` ${value ?? 'VALUE'}`}`
    return [short === undefined ? `    ${long}` : `-${short}, ${long}`, doc] as const
  })
  const width = Math.min(MAX_COLUMN, Math.max(...rows.map(([left]) => left.length)))
  const column = INDENT.length + width + 2
  return rows.map(([left, doc]) => {
    const gap = left.length > width ? `\n${' '.repeat(column)}` : ' '.repeat(width + 2 - left.length)
    return `${INDENT}${left}${gap}${fill(doc, column)}`
  })
}

/** Help text of one command. */
export function commandHelp(spec: CommandSpec): string {
  const words = spec.positionals.map((name) => (name.startsWith('[') ? name : `<${name}>`))
  const usage = ['runts', spec.name, '[options]', ...words].join(' ')
  return [
    `usage: ${usage}${spec.rest === true ? '...' : ''}`,
    '',
    fill(spec.summary, 0),
    ...(spec.details ?? []).flatMap((paragraph) => ['', fill(paragraph, 0)]),
    '',
    'Options:',
    ...optionRows(allOptions(spec.options)),
    ...(spec.examples === undefined ? [] : ['', 'Examples:', ...spec.examples.map((line) => `${INDENT}${line}`)]),
    '',
  ].join('\n')
}

/** Help text of the program. */
export function programHelp(commands: readonly CommandSpec[], globals: Options): string {
  const width = Math.max(...commands.map(({ name }) => name.length))
  const row = ({ name, summary }: CommandSpec): string =>
    `${INDENT}${name.padEnd(width)}${INDENT}${fill(summary, width + 2 * INDENT.length)}`
  return [
    'usage: runts [global options] COMMAND [options] [arguments]',
    '',
    'Runs containers from OCI bundles: folders with a config.json and a root file system. The command line is that of runc.',
    '',
    'Commands (runts COMMAND --help explains each):',
    ...commands.map(row),
    '',
    'Global options, before the command:',
    ...optionRows(globals),
    '',
    'Examples:',
    `${INDENT}mkdir -p b/rootfs && tar -C b/rootfs -xf ROOT.tar && runts spec -b b`,
    `${INDENT}runts run -b b c1                  # in the foreground, with its terminal`,
    `${INDENT}runts create -b b c1 && runts start c1 && runts exec c1 ps && runts delete -f c1`,
    '',
    'Options take one dash or two, and their value as the next word or after "=". Exit status: 0, 1 for a failure; run and',
    "exec in the foreground give the program's own, or 128 and the signal that killed it; exec gives 255 for a failure.",
    '',
  ].join('\n')
}
