/**
 * Makes the V8 code cache of a bundle by running it: `code-cache.ts LIB NAME` runs LIB/NAME.js the way bundle-loader.cjs does, in a child
 * that is given some work, so that the functions of a start are in the cache and not only the outermost ones. The cache holds for one
 * exact Node; bundle-loader.cjs does without it when V8 refuses it.
 */
import { spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createClient, TtrpcClient, TtrpcServer } from 'ttrpc-ts'
import { EventsService, TaskService } from 'ttrpc-ts/containerd'
import { declare, mkfifo } from '../runtime/sys/libc.ts'
import { nodeFlags } from './node-flags.ts'

/** In the child: run the server, and on a line of standard input write the cache. It leaves by SIGKILL: the bundle owns its exits. */
const SERVER = `
  const { writeFileSync } = require('node:fs')
  const [loader, out] = process.argv.splice(1, 2)
  process.argv.splice(1, 0, loader)
  const bundle = require(loader)
  bundle.run()
  process.stdin.once('data', () => {
    writeFileSync(out, bundle.script.createCachedData())
    process.kill(process.pid, 'SIGKILL')
  })
`

/**
 * In the child: run the program once per command line of a container's life, each in the same process, so that one cache holds what all
 * of them compile. A program ends by _exit(2), which koffi calls for it: in its place the next one is started.
 */
const PROGRAM = `
  const { writeFileSync } = require('node:fs')
  const [loader, out, commands] = process.argv.slice(1)
  const left = JSON.parse(commands)
  const bundle = require(loader)
  const next = () => {
    process.removeAllListeners('SIGCHLD')
    const args = left.shift()
    if (args !== undefined) {
      process.argv = [process.argv[0], loader, ...args]
      return bundle.run(load)
    }
    writeFileSync(out, bundle.script.createCachedData())
    process.kill(process.pid, 'SIGKILL')
  }
  const load = (name) => {
    const native = require(name)
    if (!name.endsWith('/koffi.node')) return native
    const exits = (library) => ({ func: (text) => (/_exit/.test(text) ? () => setImmediate(next) : library.func(text)) })
    return { ...native, load: (path) => (path === null ? exits(native.load(path)) : native.load(path)) }
  }
  // an _exit that returns is a fault, which the program has not been written for
  process.on('unhandledRejection', () => {})
  next()
`

/** A container of the common kind. Its program is our own static helper, which ends at once because it is given no plan. */
const SPEC = {
  ociVersion: '1.0.2',
  root: { path: 'rootfs' },
  process: {
    user: { uid: 0, gid: 0 },
    args: ['/ts-init'],
    env: ['PATH=/bin'],
    cwd: '/',
    capabilities: { bounding: ['CAP_KILL'], effective: ['CAP_KILL'], permitted: ['CAP_KILL'] },
    rlimits: [{ type: 'RLIMIT_CORE', soft: 0, hard: 0 }],
    noNewPrivileges: true,
  },
  mounts: [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    { destination: '/run', type: 'bind', source: '/run', options: ['rbind', 'ro'] },
  ],
  linux: {
    namespaces: ['pid', 'ipc', 'uts', 'mount', 'network'].map((type) => ({ type })),
    maskedPaths: ['/proc/kcore', '/proc/acpi'],
    readonlyPaths: ['/proc/sys'],
    resources: {
      devices: [
        { allow: false, access: 'rwm' },
        { allow: true, type: 'c', major: 1, minor: 3, access: 'rwm' },
      ],
    },
  },
}

function bundle(dir: string, lib: string): string {
  mkdirSync(join(dir, 'rootfs'))
  copyFileSync(join(lib, 'ts-init'), join(dir, 'rootfs/ts-init'))
  writeFileSync(join(dir, 'config.json'), JSON.stringify(SPEC))
  return dir
}

/** Two ids, and with them cgroups, that no other build on this machine uses. */
function ids(dir: string): [string, string] {
  return [`${basename(dir)}-1`, `${basename(dir)}-2`]
}

/**
 * A container's life, twice, since a function is only worth keeping when it has run: created, joined by an exec, started, deleted. As
 * another user than root, or where containers cannot be made, it ends at the first failure, and the cache holds less.
 */
async function warmShim(socket: string, dir: string): Promise<void> {
  const client = new TtrpcClient({ path: socket })
  const task = createClient(TaskService, client)
  const exec = Buffer.from(JSON.stringify(SPEC.process))
  try {
    for (const id of ids(dir)) {
      const stdio = { stdin: join(dir, `${id}-in`), stdout: join(dir, `${id}-out`), stderr: join(dir, `${id}-err`) }
      for (const path of Object.values(stdio)) mkfifo(path, 0o600)
      await task.create({ id, bundle: dir, ...stdio })
      await task.connect({ id })
      await task.exec({ id, execId: 'e', ...stdio, spec: { typeUrl: '', value: exec } })
      await task.state({ id, execId: 'e' })
      const execEnd = task.wait({ id, execId: 'e' })
      await task.start({ id, execId: 'e' })
      await execEnd
      await task.delete({ id, execId: 'e' })
      const end = task.wait({ id })
      await task.start({ id })
      await end
      await task.state({ id })
      await task.delete({ id })
    }
  } catch (error) {
    process.stderr.write(`code-cache: the warm-up ended early: ${error instanceof Error ? error.message : error}\n`)
  } finally {
    for (const id of ids(dir)) await task.delete({ id }).catch(() => undefined)
    client.close()
  }
}

/** The command lines of a container's life, for `runts`; one that fails here leaves less in the cache. */
function life(dir: string): string[][] {
  const log = join(dir, 'log')
  const [first, second] = ids(dir)
  const commands = [
    ['run', '-b', dir, first],
    ['create', '-b', dir, '--pid-file', join(dir, 'pid'), second],
    ['state', second],
    ['exec', second, '/ts-init'],
    ['start', second],
    ['list'],
    ['kill', second, 'KILL'],
    ['delete', '--force', second],
    ['plan', dir],
  ]
  return commands.map((command) => ['--root', join(dir, 'root'), '--log', log, '--log-format', 'json', ...command])
}

const socket = declare('int socket(int domain, int type, int protocol)')
const bind = declare('int bind(int fd, void *address, unsigned int length)')
const listen = declare('int listen(int fd, int backlog)')

/** A listening unix socket that this process never accepts from, as a Node server would. */
function listenUnix(path: string): number {
  const address = Buffer.alloc(110)
  address.writeUInt16LE(1, 0)
  address.write(path, 2)
  const fd = socket(1, 1, 0)
  if (fd < 0 || bind(fd, address, address.length) < 0 || listen(fd, 8) < 0) throw new Error(`cannot listen on ${path}`)
  return fd
}

const [lib = '', name = ''] = process.argv.slice(2)
const work = mkdtempSync(join(tmpdir(), 'code-cache-'))
const out = join(lib, `${name}.v8cache`)
try {
  const path = join(work, 's')
  const fd = listenUnix(path)
  const events = new TtrpcServer()
  const eventsPath = join(work, 'events')
  events.register(EventsService, { forward: () => ({}) })
  await events.listen({ path: eventsPath })
  bundle(work, lib)
  const names = ['-namespace', 'code-cache', '-id', 'code-cache', '-address', join(work, 'none'), '-bundle', work]
  const isServer = name === 'shim'
  const args = isServer ? [...names, '-ttrpc', eventsPath, '-socket', path, 'serve'] : [JSON.stringify(life(work))]
  const child = spawn(
    process.execPath,
    [...nodeFlags(), '-e', isServer ? SERVER : PROGRAM, join(lib, `${name}.cjs`), `${out}.tmp`, ...args],
    {
      // what goes wrong in a warm-up is no failure: a program of no plan, a host where containers cannot be made
      stdio: ['pipe', 'ignore', isServer ? 'inherit' : 'ignore', fd],
      env: { CONTAINERD_SHIM_TS_ROOT: join(work, 'state') },
    },
  )
  const ended = new Promise((resolve) => child.once('exit', resolve))
  // a bundle that hangs must not hang the build
  const watchdog = setTimeout(() => child.kill('SIGKILL'), 20_000)
  if (isServer) await warmShim(path, work)
  child.stdin?.write('write\n')
  await ended
  clearTimeout(watchdog)
  await events.close()
  renameSync(`${out}.tmp`, out)
} finally {
  rmSync(work, { recursive: true, force: true })
}
