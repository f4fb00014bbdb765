/**
 * How fast a container's output reaches the `ctr` that reads it. The writer takes the time, from its first write to
 * its last. So the start of a container does not count. What the fifos still hold at the end is little beside the
 * whole.
 */
import { spawn } from 'node:child_process'
import type { Daemon } from '../support/daemon.ts'
import { IMAGE } from '../support/places.ts'

const MIB = 1024 * 1024

/** Who writes, in which pieces, and how much. */
export interface StreamCase {
  readonly name: string
  readonly exec: boolean
  readonly blockBytes: number
  readonly bytes: number
}

/** What is measured of each runtime. */
export const STREAM_CASES: readonly StreamCase[] = [
  { name: 'stdout of a container, 64 KiB writes', exec: false, blockBytes: 65_536, bytes: 1024 * MIB },
  { name: 'stdout of a container, 4 KiB writes', exec: false, blockBytes: 4096, bytes: 256 * MIB },
  { name: 'stdout of an exec, 64 KiB writes', exec: true, blockBytes: 65_536, bytes: 512 * MIB },
  { name: 'stdout of an exec, 4 KiB writes', exec: true, blockBytes: 4096, bytes: 128 * MIB },
]

/** Runs ctr with its output thrown away by the kernel; answers what the container said on stderr. */
function runQuietly(daemon: Daemon, args: readonly string[]): Promise<string> {
  const child = spawn('ctr', daemon.ctrArgs(args), { stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
  })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => {
      if (code === 0) resolve(stderr)
      else reject(new Error(`ctr ${args.join(' ')}: status ${code}: ${stderr}`))
    })
  })
}

/** MiB per second of one run. An exec needs a running container `stream-RUNTIME`. */
export async function streamRate(
  daemon: Daemon,
  { exec, blockBytes, bytes }: StreamCase,
  { runtime, name, round }: { runtime: string; name: string; round: number },
): Promise<number> {
  const command = ['payload', 'pour', String(bytes), String(blockBytes)]
  const report = await runQuietly(
    daemon,
    exec
      ? ['task', 'exec', '--exec-id', `s${blockBytes}-${round}`, `stream-${name}`, ...command]
      : ['run', '--rm', '--runtime', runtime, IMAGE, `stream-${name}-${blockBytes}-${round}`, ...command],
  )
  const nanoseconds = Number(report)
  if (!(nanoseconds > 0)) throw new Error(`cannot read the time: ${report}`)
  return (bytes / MIB / nanoseconds) * 1e9
}
