/** What the state of a container keeps of the options that made or restored it: later commands need them. */
import { readlinkSync } from 'node:fs'
import { resolve } from 'node:path'
import { defined } from '../spec/fields.ts'
import type { MadeHow } from '../state/store.ts'
import { getpid } from '../sys/libc.ts'
import { processStat } from '../sys/pids.ts'
import { namesOff } from './gates.ts'
import type { CreateOptions } from './options.ts'

type Making = Pick<CreateOptions, 'consoleSocket' | 'pidFile' | 'monitorCgroup' | 'gates' | 'stdio'>

/** How the container is made, for its state. Relative paths count from the current working directory. */
export function madeHow({ consoleSocket, pidFile, monitorCgroup, gates, stdio }: Making): MadeHow {
  const pid = getpid()
  const startTime = processStat(pid)?.startTime
  return defined({
    monitor: startTime === undefined ? undefined : { pid, startTime },
    consoleSocket: consoleSocket === undefined ? undefined : resolve(consoleSocket),
    pidFile: pidFile === undefined ? undefined : resolve(pidFile),
    monitorCgroup,
    featuresOff: namesOff(gates),
    streams:
      stdio.kind === 'fds'
        ? [stdio.stdin, stdio.stdout, stdio.stderr].map((fd) => readlinkSync(`/proc/self/fd/${fd}`))
        : undefined,
  })
}
