/**
 * Handing fds over by a unix socket: a pidfd that names the right process, and an agent's document however long it
 * is.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { connectPeers, sendPidfd } from '../../../runtime/peers/handover.ts'
import { getpid } from '../../../runtime/sys/libc.ts'
import { receiveMessage, sendFd, socketPair } from '../../../runtime/sys/socket.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'handover-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

test('a pidfd arrives with one message and names the process', () => {
  const { ours, theirs } = socketPair()
  sendPidfd(ours, getpid(), 'standard')
  const received = receiveMessage(theirs.fd, 64)
  using pidfd = received?.fd
  const info = readFileSync(`/proc/self/fdinfo/${pidfd?.fd}`, 'utf8')
  expect(received?.data.toString()).toBe('standard')
  expect(info).toMatch(new RegExp(`^Pid:\\s+${getpid()}$`, 'm'))
  expect(ours.fd, 'the connection is closed after its message').toBe(-1)
  theirs.close()
})

test('what the socket does not take at once is left to the caller', () => {
  const { ours, theirs } = socketPair()
  const sent = sendFd(ours.fd, Buffer.alloc(1 << 22), 0)
  expect(sent).toBeGreaterThan(0)
  expect(sent).toBeLessThan(1 << 22)
  ours.close()
  theirs.close()
})

/** A process without a terminal, whose filter has a listener for the agent at `path`. */
const stdio = { kind: 'fds', stdin: 0, stdout: 1, stderr: 2 } as const
const filterOf = (path: string) => ({
  profile: { defaultAction: 'SCMP_ACT_ALLOW', architectures: [], listenerPath: path, syscalls: [] } as const,
  flags: 8,
  bundle: '/',
})
const noFilter = { profile: undefined, flags: undefined, bundle: '/' }

test('a socket without a listener is an error that names the socket and what it is for', () => {
  const path = join(dir, 'none')
  expect(() => connectPeers({ stdio, pidfdSocket: path }, noFilter)).toThrow(
    `cannot use the pidfd socket "${path}": cannot connect to "${path}": ENOENT`,
  )
  expect(() => connectPeers({ stdio }, filterOf(path))).toThrow(`failed to connect with seccomp agent "${path}"`)
  using peers = connectPeers({ stdio }, { ...filterOf(path), flags: 0 })
  expect(peers.agent, 'a filter without a listener needs no agent').toBeUndefined()
})

test('a name that is too long for a file is refused', () => {
  const pidfdSocket = `/${'x'.repeat(300)}`
  expect(() => connectPeers({ stdio, pidfdSocket }, noFilter)).toThrow('ENAMETOOLONG')
})

test('connections are made before anything is sent, and closed when they are disposed of', async () => {
  const path = join(dir, 's')
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(path, resolve))
  {
    using peers = connectPeers({ stdio, pidfdSocket: path }, filterOf(path))
    expect([peers.agent?.fd, peers.pidfdSocket?.fd]).toEqual([expect.any(Number), expect.any(Number)])
    expect(peers.pidfdSocket?.fd).toBeGreaterThan(2)
  }
  await new Promise((resolve) => server.close(resolve).unref())
}, 5000)

test('when one peer cannot be reached, none stays connected', async () => {
  const path = join(dir, 's')
  const accepted = Promise.withResolvers<Socket>()
  const server = createServer((socket) => accepted.resolve(socket.resume()))
  await new Promise<void>((resolve) => server.listen(path, resolve))
  expect(() => connectPeers({ stdio, pidfdSocket: join(dir, 'none') }, filterOf(path))).toThrow('pidfd socket')
  const agentSide = await accepted.promise
  await new Promise((resolve) => agentSide.once('close', resolve))
  await new Promise((resolve) => server.close(resolve))
}, 5000)
