/**
 * The host's side of a command in the foreground: a shell that calls runts, with a terminal or without one, and the
 * descriptors that a process has open.
 */
import { readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { type Command, type Finished, type StartOptions, startCommand } from '../support/command.ts'
import { BIN, PAYLOAD } from '../support/places.ts'
import type { Runts } from '../support/runts.ts'

/** A shell of the host in the test's folder, where `runts` is the one under test. */
function shellArgs(runts: Runts, script: string): string[] {
  return ['bash', '-c', `cd ${runts.folder}; runts() { ${join(BIN, 'runts')} --root ${runts.root} "$@"; }; ${script}`]
}

/** Runs such a shell to its end. */
export function shell(runts: Runts, script: string, options: StartOptions = {}): Promise<Finished> {
  const [program = '', ...args] = shellArgs(runts, script)
  return startCommand(program, args, options).finished
}

/** The same on a terminal as a person has it. */
export function onTerminal(runts: Runts, script: string): Command {
  return startCommand(PAYLOAD, ['terminal', '24', '80', '--', ...shellArgs(runts, script)], { input: 'open' })
}

/** The program of a container that only has to be there. */
export const SLEEP = ['sleep', '1000']

/** A container that runs, as root unless told otherwise. */
export function running(runts: Runts, uid = 0): void {
  const bundle = runts.bundle(SLEEP, (spec) => {
    spec.process.user = { uid, gid: uid }
  })
  runts.leave('run', '-d', '-b', bundle, 'c')
}

/** What the descriptors of a process refer to. */
export function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
}

/** The host pid of a container's init. */
export async function pidOf(runts: Runts, id: string): Promise<number> {
  return Number((await runts.state(id))['pid'])
}

/** The pids of the processes in a container, as the host knows them. */
export async function pidsOf(runts: Runts, id: string): Promise<number[]> {
  return JSON.parse((await runts.ok('ps', '-f', 'json', id)).stdout)
}
