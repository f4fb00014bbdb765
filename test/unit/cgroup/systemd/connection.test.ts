/** The manager as a client sees it: jobs, and a systemd that hangs, denies, hangs up and comes back. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { type ConnectOptions, Systemd } from '../../../../runtime/cgroup/systemd/connection.ts'
import type { BusAddress } from '../../../../runtime/sys/sd-bus.ts'
import { type FakeAnswer, type FakeCall, FakeSystemd } from '../../../support/fake-systemd.ts'
import { needs } from '../../../support/needs.ts'

const JOB = '/org/freedesktop/systemd1/job/7'
const UNIT = 'runts-web.scope'
const NOTHING: FakeAnswer = { reply: [] }
const refused = (name: string, message = 'no'): FakeAnswer => ({ error: name, message })
const NO_SUCH_UNIT = refused('org.freedesktop.systemd1.NoSuchUnit')
const EXISTS = refused('org.freedesktop.systemd1.UnitExists', 'Unit was already loaded.')

function socketPath(): string {
  const folder = mkdtempSync(join(tmpdir(), 'bus-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  return join(folder, 's')
}

async function fake(answer: (call: FakeCall) => FakeAnswer, accepts = true): Promise<FakeSystemd> {
  const peer = await FakeSystemd.at(socketPath(), answer, accepts)
  onTestFinished(() => peer[Symbol.asyncDispose]())
  return peer
}

function client(addresses: readonly BusAddress[], more: Partial<ConnectOptions> = {}): Systemd {
  const systemd = new Systemd({ user: false, what: `create systemd unit "${UNIT}"`, addresses, boundMs: 2000, ...more })
  onTestFinished(() => systemd[Symbol.dispose]())
  return systemd
}

/** Answers a start or a stop with a job, and tells of its end at once. */
function job(peer: () => FakeSystemd, result = 'done'): FakeAnswer {
  return { reply: [['o', JOB]], after: () => peer().jobRemoved(JOB, UNIT, result) }
}

const NEEDS = needs('libsystemd')

describe('a unit', NEEDS, () => {
  test('is started when its job is done, and other jobs do not count', async () => {
    const peer = await fake(() => ({
      reply: [['o', JOB]],
      after() {
        peer.jobRemoved(`${JOB}7`, 'other.service', 'failed')
        peer.jobRemoved(JOB, UNIT)
      },
    }))
    await client([peer.address]).start(UNIT, [{ name: 'PIDs', signature: 'au', data: [7n] }], () => false)
    expect(peer.calls).toEqual(['StartTransientUnit'])
  })

  test('whose job fails is forgotten, with the result in the error', async () => {
    const peer: FakeSystemd = await fake(({ member }) =>
      member === 'StartTransientUnit' ? job(() => peer, 'timeout') : NOTHING,
    )
    await expect(client([peer.address]).start(UNIT, [], () => false)).rejects.toThrow(
      `cannot create systemd unit "${UNIT}": systemd's job for unit "${UNIT}" ended as "timeout"`,
    )
    expect(peer.calls).toEqual(['StartTransientUnit', 'ResetFailedUnit'])
  })

  test('that has failed before is forgotten and started again', async () => {
    let starts = 0
    const peer: FakeSystemd = await fake(({ member }) => {
      if (member !== 'StartTransientUnit') return NOTHING
      return starts++ === 0 ? EXISTS : job(() => peer)
    })
    await client([peer.address]).start(UNIT, [], () => false)
    expect(peer.calls).toEqual(['StartTransientUnit', 'ResetFailedUnit', 'StartTransientUnit'])
  })

  test('that lives is left alone, and the error names it and its state', async () => {
    const peer = await fake(({ member }) => {
      if (member === 'StartTransientUnit') return EXISTS
      if (member === 'GetUnit') return { reply: [['o', '/unit']] }
      return member === 'Get' ? { reply: [['v', 'active']] } : NOTHING
    })
    const error = await client([peer.address])
      .start(UNIT, [], () => false)
      .catch((reason: unknown) => reason)
    expect(error).toMatchObject({
      code: 'FailedPrecondition',
      message: `cannot create systemd unit "${UNIT}": a systemd unit of that name exists already (active); \`systemctl stop ${UNIT}\` ends it`,
    })
    expect(peer.calls).not.toContain('StopUnit')
  })

  test('is stopped, and forgotten if it has failed', async () => {
    const peer: FakeSystemd = await fake(({ member }) => (member === 'StopUnit' ? job(() => peer) : NOTHING))
    await client([peer.address]).stop(UNIT)
    expect(peer.calls).toEqual(['StopUnit', 'ResetFailedUnit'])
  })

  test('that has gone already is no error', async () => {
    const peer = await fake(() => NO_SUCH_UNIT)
    await client([peer.address]).stop(UNIT)
    expect(peer.calls).toEqual(['StopUnit', 'ResetFailedUnit'])
  })

  test.for([
    ['257.7-1~deb13u1', 257],
    ['v249.11-0ubuntu3', 249],
    ['systemd 239 (239-82.el8)', 239],
  ] as const)('may depend on the version: %s', async ([text, version]) => {
    const peer = await fake(() => ({ reply: [['v', text]] }))
    expect(await client([peer.address]).version()).toBe(version)
  })
})

describe('a systemd that', NEEDS, () => {
  test('does not answer ends the call in time, with its place', async () => {
    const peer = await fake(() => 'silence')
    const error = await client([peer.address], { boundMs: 200 })
      .start(UNIT, [], () => false)
      .catch((reason: unknown) => reason)
    const where = peer.address.address.replace('unix:path=', '')
    expect(error).toMatchObject({
      code: 'DeadlineExceeded',
      message: `cannot create systemd unit "${UNIT}": systemd did not answer within 0.2 s at ${where}`,
    })
  })

  test('never ends a job ends the wait in time', async () => {
    const peer = await fake(() => ({ reply: [['o', JOB]] }))
    const start = client([peer.address], { boundMs: 200 }).start(UNIT, [], () => false)
    await expect(start).rejects.toThrow('did not answer within 0.2 s')
  })

  test('hangs gives way to an abort', async () => {
    const abort = new AbortController()
    const peer = await fake(() => {
      abort.abort(new Error('given up'))
      return 'silence'
    })
    const start = client([peer.address], { boundMs: 60_000, signal: abort.signal }).start(UNIT, [], () => false)
    await expect(start).rejects.toThrow('given up')
  })

  test('denies is told in its own words', async () => {
    const peer = await fake(() => refused('org.freedesktop.DBus.Error.AccessDenied', 'Permission denied'))
    const error = await client([peer.address])
      .start(UNIT, [], () => false)
      .catch((reason: unknown) => reason)
    expect(error).toMatchObject({
      code: 'PermissionDenied',
      message: `cannot create systemd unit "${UNIT}": systemd refuses it: Permission denied`,
    })
  })

  test('rejects the greeting denies it', async () => {
    const peer = await fake(() => NOTHING, false)
    await expect(client([peer.address]).version()).rejects.toMatchObject({ code: 'PermissionDenied' })
    expect(peer.calls).toEqual([])
  })

  test('is not there is named, and the next address is tried', async () => {
    const missing: BusAddress = { address: `unix:path=${socketPath()}`, direct: true }
    await expect(client([missing]).version()).rejects.toMatchObject({
      code: 'Unavailable',
      message: expect.stringMatching(/: cannot connect to systemd at \S+\/s: ENOENT: .*; is it running\?$/),
    })
    const peer = await fake(() => ({ reply: [['v', '257']] }))
    expect(await client([missing, peer.address]).version()).toBe(257)
  })

  test('hangs up is asked again', async () => {
    let calls = 0
    const peer = await fake(() => (calls++ < 2 ? 'hang up' : { reply: [['v', '257']] }))
    expect(await client([peer.address]).version()).toBe(257)
    expect(peer.calls).toEqual(['Get', 'Get', 'Get'])
  })

  test('hangs up each time ends the call in time', async () => {
    const peer = await fake(() => 'hang up')
    const version = client([peer.address], { boundMs: 300 }).version()
    await expect(version).rejects.toMatchObject({
      message: expect.stringMatching(/^cannot create systemd unit "[^"]+": systemd /),
    })
  })

  test('restarts after it has taken the job is asked for the unit', async () => {
    let states = 0
    const peer = await fake(({ member }) => {
      if (member === 'StartTransientUnit') return { reply: [['o', JOB]], after: () => peer.hangUp() }
      if (member === 'GetUnit') return { reply: [['o', '/unit']] }
      return { reply: [['v', states++ === 0 ? 'activating' : 'active']] }
    })
    await client([peer.address]).start(UNIT, [], () => false)
    expect(peer.calls.filter((member) => member === 'StartTransientUnit')).toHaveLength(1)
  })

  test('restarts before it has answered finds its own unit, and not another one', async () => {
    let starts = 0
    const peer = await fake(() => (starts++ === 0 ? 'hang up' : EXISTS))
    await client([peer.address]).start(UNIT, [], () => starts > 0)
    expect(peer.calls).toEqual(['StartTransientUnit', 'StartTransientUnit'])
  })
})
