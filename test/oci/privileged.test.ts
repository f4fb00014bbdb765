/**
 * What takes CAP_SYS_RESOURCE, which a machine that is a container itself may lack: limits above the caller's own, a
 * lower out-of-memory score.
 */
import { readFileSync } from 'node:fs'
import { expect } from 'vitest'
import { needs, notRunc } from '../support/needs.ts'
import { BY_ROOT, inModes, MODES } from '../support/oci.ts'

inModes(BY_ROOT, 'resource limits of root', (test) => {
  test("may be above the caller's hard limit, for an exec too", needs('CAP_SYS_RESOURCE'), async ({ runts }) => {
    const hard = Number(/open files +\d+ +(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1])
    runts.sleeper('c', (spec) => {
      spec.process.rlimits = [{ type: 'RLIMIT_NOFILE', soft: hard, hard: hard + 1 }]
    })
    expect(await runts.exec('c', 'grep', 'open files', '/proc/1/limits')).toMatch(new RegExp(` ${hard} +${hard + 1} `))
    expect(await runts.exec('c', 'sh', '-c', 'ulimit -Hn')).toBe(`${hard + 1}\n`)
  })

  test('may let the container be killed last when memory is short', needs('CAP_SYS_RESOURCE'), async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      spec.process.oomScoreAdj = -500
    })
    expect(await runts.exec('c', 'cat', '/proc/1/oom_score_adj', '/proc/self/oom_score_adj')).toBe('-500\n-500\n')
  })
})

inModes(MODES, 'without that privilege', (test, mode) => {
  const unprivileged =
    mode === 'as an unprivileged user' ? {} : notRunc('says it in other words', 'no CAP_SYS_RESOURCE')
  test('a limit above the hard one is refused by name', unprivileged, async ({ runts }) => {
    const hard = Number(/open files +\d+ +(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1])
    const error = await runts.refused((spec) => {
      spec.process.rlimits = [{ type: 'RLIMIT_NOFILE', soft: 1, hard: hard + 1 }]
    })
    expect(error).toMatch(/rlimit|RLIMIT_NOFILE/i)
    expect(error).toMatch(/EPERM|operation not permitted/i)
  })
})
