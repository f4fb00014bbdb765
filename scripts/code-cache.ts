/**
 * Makes the V8 code cache of a bundle by running it: `code-cache.ts LIB NAME` runs LIB/NAME.js as bundle-loader.cjs
 * does. V8 puts into a cache the functions that have run. So the bundle runs in a child process and does the work of
 * a container's life. The cache is valid for one exact Node. Where V8 refuses it, bundle-loader.cjs compiles the
 * bundle.
 */
import { spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createClient, TtrpcClient, TtrpcServer } from 'ttrpc-ts'
import { EventsService, TaskService } from 'ttrpc-ts/containerd'
import { NODE_FLAGS } from '../proto/launch.ts'
import { declare, mkfifo } from '../runtime/sys/libc.ts'

/**
 * In the child: runs the server, and writes the cache at the first input. SIGKILL ends it, since the bundle handles
 * its own exits.
 */
const SERVER = `
  const { writeFileSync } = require('node:fs')
  const { join } = require('node:path')
  const [loader, out] = process.argv.splice(1, 2)
  process.argv.splice(1, 0, loader)
  const bundle = require(loader)
  bundle.run()
  process.stdin.once('data', () => {
    for (const [file, script] of bundle.scripts) writeFileSync(join(out, file.replace(/js$/, 'v8cache.tmp')), script.createCachedData())
    process.kill(process.pid, 'SIGKILL')
  })
`

/**
 * In the child: runs the command once per command line of a container's life, all in one process, so that one cache
 * serves all. A command ends by _exit(2), which it calls through koffi. Here that call starts the next command
 * instead.
 */
const PROGRAM = `
  const { writeFileSync } = require('node:fs')
  const { join } = require('node:path')
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
    for (const [file, script] of bundle.scripts) writeFileSync(join(out, file.replace(/js$/, 'v8cache.tmp')), script.createCachedData())
    process.kill(process.pid, 'SIGKILL')
  }
  const load = (name) => {
    const native = require(name)
    if (!name.endsWith('/koffi.node')) return native
    const exits = (library) => ({ func: (text) => (/_exit/.test(text) ? () => setImmediate(next) : library.func(text)) })
    return { ...native, load: (path) => (path === null ? exits(native.load(path)) : native.load(path)) }
  }
  // the command does not expect an _exit that returns: what fails after it is ignored
  process.on('unhandledRejection', () => {})
  next()
`

/** A common container. Its program is ts-init itself, which is static and ends at once, since it gets no plan. */
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
 * Makes the calls of two containers' lives: create, exec, start, delete. Only functions that run get into the cache.
 * Without root, or where the host cannot make containers, this ends at the first failure, and the cache holds less.
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

/** The command lines of a container's life, for `runts`. One that fails leaves less in the cache. */
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

/** A listening unix socket. A server of Node would accept connections here; this socket is for the child alone. */
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
    [...NODE_FLAGS, '-e', isServer ? SERVER : PROGRAM, join(lib, `${name}.cjs`), lib, ...args],
    {
      // errors of a warm-up are expected, and not shown: ts-init has no plan, and some hosts cannot make containers
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
  // the main file's comes last: the build looks at its time
  const made = readdirSync(lib).filter((file) => file.startsWith(name) && file.endsWith('.v8cache.tmp'))
  for (const file of made.sort((a, b) => b.length - a.length))
    renameSync(join(lib, file), join(lib, file.slice(0, -'.tmp'.length)))
} finally {
  rmSync(work, { recursive: true, force: true })
}
