/**
 * Handing fds over by a unix socket: a pidfd that names the right process, and an agent's document however long it
 * is.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { connectAgent, connectPidfdSocket, sendPidfd } from '../../../runtime/peers/handover.ts'
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

test('nobody listening is an error that names the socket and what it is for', () => {
  const path = join(dir, 'none')
  expect(() => connectPidfdSocket(path)).toThrow(
    `cannot use the pidfd socket "${path}": cannot connect to "${path}": ENOENT`,
  )
  const profile = { defaultAction: 'SCMP_ACT_ALLOW', architectures: [], listenerPath: path, syscalls: [] } as const
  expect(() => connectAgent(profile, 8, '/')).toThrow(`failed to connect with seccomp agent "${path}"`)
  expect(connectAgent(profile, 0, '/'), 'a filter without a listener needs no agent').toBeUndefined()
})

test('a name that is too long for a file is refused', () => {
  expect(() => connectPidfdSocket(`/${'x'.repeat(300)}`)).toThrow('ENAMETOOLONG')
})

test('a connection is made before anything is sent', async () => {
  const path = join(dir, 's')
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(path, resolve))
  using socket = connectPidfdSocket(path)
  expect(socket.fd).toBeGreaterThan(2)
  await new Promise((resolve) => server.close(resolve).unref())
}, 5000)
