/**
 * Stands in for the shim where only the keeper is tested: a worker without a will of its own. It connects to the test,
 * tells every notice of the keeper as a line of JSON, and does what the test writes, a line of JSON each.
 */
import { openSync, readFileSync, readlinkSync, readSync, writeSync } from 'node:fs'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { FIRST_CONNECTION_KEY, STATE_OFFSET, WORKER_FDS } from '../../proto/keeper.ts'
import { KeeperLink } from '../../runtime/keeper/link.ts'
import { KeeperProcesses } from '../../runtime/keeper/processes.ts'
import { sendPacket } from '../../runtime/sys/socket.ts'

const control = connect(process.env['KEEPER_TEST'] ?? '')
const link = new KeeperLink()
const tell = (what: object): boolean =>
  control.write(`${JSON.stringify(what, (_, value) => (typeof value === 'bigint' ? Number(value) : value))}\n`)
const processes = new KeeperProcesses(link, {
  nextTag: BigInt(process.env['KEEPER_TEST_TAG'] ?? Date.now()),
  onExit: () => {},
})
const kept = new Map<number, number>()

/** What a test may ask for, each with what it needs. */
const COMMANDS = {
  keep: ({ key, events, path }: { key: number; events: number; path: string }) =>
    link.send('keep', { key, events }, [openSync(path, 'r+')]),
  watch: (request: { key: number; events: number }) => link.send('keep', request),
  drop: (request: { key: number }) => link.send('drop', request),
  acknowledge: ({ number }: { number: number }) => link.send('acknowledge', { number: BigInt(number) }),
  status: ({ flags, wakeInMs, signals = 0 }: { flags: number; wakeInMs?: number; signals?: number }) => {
    const wakeAt = wakeInMs === undefined ? 0n : process.hrtime.bigint() + BigInt(wakeInMs) * 1_000_000n
    link.send('status', { flags, wakeAt, signals: BigInt(signals) })
  },
  spawn: ({ argv, env = [], cwd, program }: { argv: string[]; env?: string[]; cwd?: string; program?: string }) => {
    const nothing = openSync('/dev/null', 'r+')
    const fds = [0, 1, 2].map((to) => ({ from: nothing, to }))
    const external = cwd === undefined ? {} : { external: { cwd } }
    try {
      const path = program === undefined ? (argv[0] ?? '') : `/proc/self/fd/${openSync(program, 'r')}`
      tell({ spawned: processes.spawn({ path, argv, env, fds, ...external }).pid })
    } catch (error) {
      tell({ failed: String(error) })
    }
  },
  raw: ({ hex, fds = 0 }: { hex: string; fds?: number }) =>
    sendPacket(
      WORKER_FDS.KEEPER,
      Buffer.from(hex, 'hex'),
      Array.from({ length: fds }, () => openSync('/dev/null', 'r')),
    ),
  receive: ({ key }: { key: number }) => {
    const bytes = Buffer.alloc(100)
    tell({ received: bytes.toString('utf8', 0, readSync(kept.get(key) ?? -1, bytes)) })
  },
  answer: ({ key, text }: { key: number; text: string }) => writeSync(kept.get(key) ?? -1, text),
  save: ({ text }: { text: string }) => writeSync(WORKER_FDS.STATE, text, STATE_OFFSET),
  restore: (_: object) => {
    const bytes = Buffer.alloc(STATE_OFFSET + 100)
    const size = readSync(WORKER_FDS.STATE, bytes, 0, bytes.length, 0)
    tell({
      magic: bytes.toString('latin1', 0, 4),
      keeper: bytes.readInt32LE(8),
      saved: bytes.toString('utf8', STATE_OFFSET, size),
    })
  },
  facts: (_: object) => {
    const status = readFileSync('/proc/self/status', 'utf8')
    const stat = readFileSync('/proc/self/stat', 'utf8').split(' ')
    tell({
      parent: Number(stat[3]),
      group: Number(stat[4]),
      blocked: /SigBlk:\s*(\w+)/.exec(status)?.[1],
      score: Number(readFileSync('/proc/self/oom_score_adj', 'utf8')),
      log: readlinkSync('/proc/self/fd/2'),
    })
  },
  die: (_: object) => process.kill(process.pid, 'SIGKILL'),
} as const

/** A line from the test to the worker. */
export type Command = {
  [Name in keyof typeof COMMANDS]: { readonly do: Name } & Parameters<(typeof COMMANDS)[Name]>[0]
}[keyof typeof COMMANDS]

control.on('connect', () => {
  tell({ worker: process.pid })
  link.listen((delivery) => {
    const { fd, ...notice } = delivery
    if (delivery.notice === 'kept' && fd !== undefined) kept.set(delivery.key, fd.fd)
    const isConnection = delivery.notice === 'kept' && delivery.key >= FIRST_CONNECTION_KEY
    tell({
      ...notice,
      ...(fd === undefined ? {} : { file: isConnection ? 'socket' : readlinkSync(`/proc/self/fd/${fd.fd}`) }),
    })
    if (delivery.notice === 'process') processes.take(delivery)
  })
})
createInterface({ input: control }).on('line', (line) => {
  const command: Command = JSON.parse(line)
  Reflect.apply(COMMANDS[command.do], undefined, [command])
})
control.on('close', () => process.kill(process.pid, 'SIGKILL'))
