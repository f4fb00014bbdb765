/** `exec`: another process in a running container, from the command line or from a process.json. */

import { resolve } from 'node:path'
import { type Capabilities, type OciProcess, parseProcess, Reaper, RuntimeError, stringifyJson } from '../../index.ts'
import { HIGHEST_ID, SIGKILL } from '../../internal.ts'
import { type Command, loadContainer, PROCESS_OPTIONS, readUserFile } from '../command.ts'
import { preserved } from '../fds.ts'
import type { ParsedArgs } from '../flags.ts'
import { Foreground, ownWindow, SignalRelay } from '../foreground.ts'
import { chooseStreams, ownerOf } from './create.ts'

function invalid(message: string): RuntimeError {
  return new RuntimeError('InvalidArgument', `exec: ${message}`)
}

/** Accepts digits only: other texts that some parser takes for a number have let users run as another user. */
function parseId(text: string): number | undefined {
  const id = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
  return id <= HIGHEST_ID ? id : undefined
}

/** Parses `<uid>[:<gid>]`; without a group the template's stays. */
function parseUser(text: string): { uid: number; gid?: number } {
  const [first = '', second, ...more] = text.split(':')
  const uid = parseId(first)
  const gid = second === undefined ? undefined : parseId(second)
  if (uid === undefined || more.length > 0 || (second !== undefined && gid === undefined)) {
    throw invalid(`invalid --user "${text}": must be <uid>[:<gid>] with numbers up to ${HIGHEST_ID}`)
  }
  return { uid, ...(gid === undefined ? {} : { gid }) }
}

function parseGids(texts: readonly string[]): number[] {
  return texts.map((text) => {
    const gid = parseId(text)
    if (gid === undefined) throw invalid(`invalid --additional-gids "${text}": must be a number up to ${HIGHEST_ID}`)
    return gid
  })
}

/**
 * Adds capabilities to those of a process. The inheritable set stays as in the container's config. Otherwise files with
 * inheritable capabilities would give them back after they were dropped (CVE-2022-24769). A capability can be ambient
 * only if it is inheritable (capabilities(7)).
 */
function addCapabilities(given: Capabilities | undefined, names: readonly string[]): Capabilities {
  const sets: Capabilities = given ?? { bounding: [], effective: [], inheritable: [], permitted: [], ambient: [] }
  const add = (set: readonly string[], more: readonly string[]): string[] => [...new Set([...set, ...more])]
  return {
    bounding: add(sets.bounding, names),
    effective: add(sets.effective, names),
    permitted: add(sets.permitted, names),
    inheritable: sets.inheritable,
    ambient: add(
      sets.ambient,
      names.filter((name) => sets.inheritable.includes(name)),
    ),
  }
}

/**
 * The sub-cgroups of `[controller,…:]path` arguments, by controller; '' is the key of one for all.
 * @throws InvalidArgument
 */
function parseSubCgroups(texts: readonly string[]): Record<string, string> {
  const paths: Record<string, string> = {}
  for (const text of texts) {
    const colon = text.indexOf(':')
    if (colon < 0) {
      if (texts.length > 1) throw invalid(`invalid --cgroup "${text}": missing <controller>: prefix beside others`)
      return { '': text }
    }
    for (const controller of text.slice(0, colon).split(',')) {
      if (controller === '') throw invalid(`invalid --cgroup "${text}": empty <controller> prefix`)
      if (Object.hasOwn(paths, controller)) throw invalid(`invalid --cgroup "${text}": duplicate "${controller}"`)
      paths[controller] = text.slice(colon + 1)
    }
  }
  return paths
}

/**
 * Makes the process to run from the one of config.json. The command line is checked first, whether the container exists
 * or not.
 */
function readProcess(args: ParsedArgs): (template: OciProcess) => OciProcess {
  const file = args.text('process')
  if (file !== undefined) {
    const whole = parseProcess(readUserFile(file), JSON.stringify(file))
    return () => whole
  }
  const command = args.positionals.slice(1)
  if (command.length === 0) throw invalid('missing argument <COMMAND>')
  const user = args.text('user')
  const ids = user ? parseUser(user) : {}
  const gids = parseGids(args.texts('additional-gids'))
  const caps = args.texts('cap')
  const apparmor = args.text('apparmor')
  const label = args.text('process-label')
  return (template) => {
    const changed = {
      ...template,
      args: command,
      // only this command line decides, whatever terminal the container has
      terminal: args.flag('tty'),
      cwd: args.text('cwd') || template.cwd,
      env: [...template.env, ...args.texts('env')],
      user: { ...template.user, ...ids, additionalGids: [...template.user.additionalGids, ...gids] },
      ...(caps.length > 0 ? { capabilities: addCapabilities(template.capabilities, caps) } : {}),
      ...(apparmor ? { apparmorProfile: apparmor } : {}),
      ...(label ? { selinuxLabel: label } : {}),
      ...(args.text('no-new-privs') === undefined ? {} : { noNewPrivileges: args.flag('no-new-privs') }),
    }
    // validated, so that a bad --cwd or --env is refused like one in a file
    return parseProcess(stringifyJson(changed))
  }
}

/** The command `runts exec`. */
export const exec: Command = {
  spec: {
    name: 'exec',
    summary:
      "Runs a command in a running container. The exit status is the command's own, 255 when it could not be run.",
    details: [
      "The process is like the container's first: the user, environment, working directory, capabilities and limits of config.json, changed by the options. Options stand before the id: what follows it belongs to the command. With --process a file holds the whole process as JSON, in the form of config.json's `process`, and only the options about streams, descriptors and cgroups count besides.",
    ],
    examples: [
      'runts exec web ps',
      'runts exec -t web sh',
      'runts exec --user 1000:1000 --cwd /srv -e LANG=C web ls -l',
      'runts exec --cap CAP_NET_ADMIN web ip link',
    ],
    positionals: ['ID', '[COMMAND]'],
    rest: true,
    options: {
      ...PROCESS_OPTIONS,
      cwd: { type: 'string', value: 'DIRECTORY', doc: 'working directory in the container' },
      env: {
        type: 'string',
        short: 'e',
        multiple: true,
        value: 'NAME=VALUE',
        doc: 'set an environment variable; may be repeated',
      },
      tty: { type: 'boolean', short: 't', doc: 'allocate a terminal' },
      user: {
        type: 'string',
        short: 'u',
        value: 'UID[:GID]',
        doc: 'user and group by number: there is nobody to ask for names',
      },
      'additional-gids': {
        type: 'string',
        short: 'g',
        multiple: true,
        value: 'GID',
        doc: 'a further group by number; may be repeated',
      },
      process: {
        type: 'string',
        short: 'p',
        value: 'FILE',
        doc: 'JSON of the process instead of options and command; "-" is standard input',
      },
      detach: { type: 'boolean', short: 'd', doc: 'return when the command runs' },
      'process-label': { type: 'string', value: 'LABEL', doc: 'SELinux label of the process' },
      apparmor: { type: 'string', value: 'PROFILE', doc: 'AppArmor profile of the process' },
      'no-new-privs': { type: 'boolean', doc: 'set no_new_privs' },
      cap: {
        type: 'string',
        short: 'c',
        multiple: true,
        value: 'CAP_NAME',
        doc: 'add a capability to the bounding, effective and permitted sets; may be repeated',
      },
      cgroup: {
        type: 'string',
        multiple: true,
        value: '[CONTROLLER,...:]PATH',
        doc: "run it in this existing cgroup below the container's own, on cgroup v1 for these controllers; may be repeated",
      },
      'ignore-paused': { type: 'boolean', doc: 'join a paused container too: the command runs when that is resumed' },
    },
  },
  async run(context, args) {
    const processFrom = readProcess(args)
    const subCgroups = parseSubCgroups(args.texts('cgroup'))
    const extraFds = preserved(args)
    const container = loadContainer(context, args)
    const detached = args.flag('detach')
    const asked = processFrom(container.spec.process)
    // the program runs before this command gets its terminal, so the size is passed along
    const size = detached ? undefined : ownWindow()
    const target = size === undefined ? asked : { ...asked, consoleSize: size }
    const pidFile = args.text('pid-file')
    const pidfdSocket = args.text('pidfd-socket')
    const owner = ownerOf(container.spec, target.user)
    const consoleAsked = args.text('console-socket')
    const streamsAsked = { terminal: target.terminal, consoleSocket: consoleAsked, detached, owner, folder: '.' }
    using streams = chooseStreams(streamsAsked, context.logger)
    const { stdio, consoleSocket } = streams
    const reaper = new Reaper(context.logger)
    reaper.start({ detached })
    using signals = detached ? undefined : new SignalRelay()
    try {
      const running = await container.exec({
        process: target,
        stdio,
        reaper,
        ignorePaused: args.flag('ignore-paused'),
        extraFds,
        subCgroups,
        gates: context.gates,
        containerLogger: context.containerLogger,
        ...(consoleSocket === undefined ? {} : { consoleSocket }),
        ...(pidFile ? { pidFile } : {}),
        ...(pidfdSocket === undefined ? {} : { pidfdSocket: resolve(pidfdSocket) }),
      })
      signals?.attach(running)
      if (detached) return 0
      try {
        using front = new Foreground(running, streams, context.logger)
        return await front.ended()
      } catch (error) {
        // its streams are connected to nothing
        if (running.alive) running.signal(SIGKILL)
        throw error
      }
    } catch (error) {
      reaper.reclaim()
      throw error
    }
  },
}
