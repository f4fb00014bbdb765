/** `exec`: a further process in a running container, from the command line or from a process.json. */
import { resolve } from 'node:path'
import { Container, type OciProcess, parseProcess, Reaper, RuntimeError, stringifyJson } from '../../index.ts'
import { type Command, readUserFile, writePidFile } from '../command.ts'
import type { ParsedArgs } from '../flags.ts'
import { chooseStdio } from './create.ts'
import { foreground, SignalRelay } from './run.ts'

const MAX_ID = 0xfffffffe

function parseUser(text: string): { uid: number; gid: number } {
  const match = /^(\d{1,10})(?::(\d{1,10}))?$/.exec(text)
  const uid = Number(match?.[1])
  const gid = Number(match?.[2] ?? 0)
  if (match === null || uid > MAX_ID || gid > MAX_ID) {
    throw new RuntimeError(
      'InvalidArgument',
      `exec: invalid --user "${text}": must be <uid>[:<gid>] with numbers up to ${MAX_ID}`,
    )
  }
  return { uid, gid }
}

/** The process to run: config.json's process as template, changed by the options. */
function processOf(container: Container, args: ParsedArgs): OciProcess {
  const file = args.text('process')
  const command = args.positionals.slice(1)
  if (file !== undefined) return parseProcess(readUserFile(file))
  const template = container.spec.process
  if (command.length === 0) throw new RuntimeError('InvalidArgument', 'exec: missing argument <command>')
  const user = args.text('user')
  const changed = {
    ...template,
    args: command,
    terminal: args.flag('tty'),
    cwd: args.text('cwd') ?? template.cwd,
    env: [...template.env, ...args.texts('env')],
    user: user === undefined ? template.user : { ...template.user, ...parseUser(user) },
    ...(args.flag('no-new-privs') ? { noNewPrivileges: true } : {}),
  }
  // through the validator, so that a bad --cwd or --env is refused like one in a file
  return parseProcess(stringifyJson(changed))
}

/** runts exec */
export const exec: Command = {
  spec: {
    name: 'exec',
    summary:
      "Runs a command in a running container; the exit status is the command's own, 255 when it could not be run.",
    positionals: ['id', '[command]'],
    rest: true,
    options: {
      'console-socket': { type: 'string', value: 'PATH', doc: 'unix socket that receives the master of the terminal' },
      cwd: { type: 'string', value: 'DIR', doc: 'working directory in the container' },
      env: {
        type: 'string',
        short: 'e',
        multiple: true,
        value: 'NAME=VALUE',
        doc: 'set an environment variable; may be repeated',
      },
      tty: { type: 'boolean', short: 't', doc: 'allocate a terminal' },
      user: { type: 'string', short: 'u', value: 'UID[:GID]', doc: 'numeric user and group' },
      process: { type: 'string', short: 'p', value: 'FILE', doc: 'JSON of the process instead of options and command' },
      detach: { type: 'boolean', short: 'd', doc: 'return when the command runs' },
      'pid-file': { type: 'string', value: 'FILE', doc: 'write the pid of the command here' },
      'no-new-privs': { type: 'boolean', doc: 'set no_new_privs' },
      'ignore-paused': { type: 'boolean', doc: 'join a paused container' },
    },
  },
  async run(context, args) {
    const container = Container.load(context.root, args.positionals[0] ?? '', context.logger)
    const target = processOf(container, args)
    const detached = args.flag('detach')
    const pidFile = args.text('pid-file')
    const { stdio, socket } = chooseStdio(target.terminal === true, args.text('console-socket'), detached)
    const reaper = new Reaper(context.logger)
    reaper.start()
    using signals = detached ? undefined : new SignalRelay()
    try {
      const running = await container.exec({ process: target, stdio, reaper, ignorePaused: args.flag('ignore-paused') })
      signals?.attach(running)
      if (pidFile !== undefined) writePidFile(resolve(pidFile), running.pid)
      return detached ? 0 : await foreground(running)
    } finally {
      socket?.close()
    }
  },
}
