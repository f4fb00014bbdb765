/**
 * What `process` of config.json gives a program: its environment, folder, limits, mask, scheduling, personality and
 * NUMA policy.
 */
import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import { needs, notRunc } from '../support/needs.ts'
import { BY_ROOT, inModes, MODES, type OciHost } from '../support/oci.ts'

/** Writes a process document for exec -p: what the container's own first process is, changed. */
function processFile(runts: OciHost, bundle: string, change: Record<string, unknown>): string {
  const { process } = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8'))
  const path = join(runts.folder, 'process.json')
  writeFileSync(path, JSON.stringify({ ...process, ...change }))
  return path
}

const allCpus = cpus().length > 1 ? `0-${cpus().length - 1}` : '0'
const STATUS_CPUS = "sed -n 's/^Cpus_allowed_list:\\s*//p' /proc/self/status"

inModes(MODES, 'the environment', (test) => {
  test('is what the config lists, later entries win, and values keep their newlines', async ({ runts }) => {
    const bundle = runts.bundle(['env'], (spec) => {
      spec.process.env = ['A=1', 'PATH=/bin', 'B=one\ntwo', 'A=2', 'EMPTY=']
    })
    const { stdout } = await runts.ok('run', '-b', bundle, 'c')
    expect(
      stdout
        .split(/\n(?=\w+=)/)
        .map((entry) => entry.trimEnd())
        .sort(),
    ).toEqual(['A=2', 'B=one\ntwo', 'EMPTY=', 'HOME=/root', 'PATH=/bin'])
  })

  test('has one HOME: the given one, else that of the user in the container, else /', async ({ runts }) => {
    const home = async (env: string[], uid: number): Promise<string> =>
      await runts.inside('env | grep ^HOME=', (spec) => {
        spec.process.env = ['PATH=/bin', ...env]
        spec.process.user.uid = uid
      })
    expect(await home(['HOME=/override'], 0)).toBe('HOME=/override\n')
    expect(await home(['HOME='], 0)).toBe('HOME=/root\n')
    expect(await home([], 1000)).toBe('HOME=/home\n')
    expect(await home([], 12345)).toBe('HOME=/\n')
  })

  test("of an exec is the config's with its --env, and HOME is there too", async ({ runts }) => {
    runts.sleeper('c', (spec) => spec.process.env.push('A=1', 'B=2'))
    const env = (await runts.exec('--env', 'A=3', '--env', 'C=4', 'c', 'env')).trimEnd().split('\n').sort()
    expect(env).toEqual(['A=3', 'B=2', 'C=4', 'HOME=/root', 'PATH=/bin:/usr/bin'])
    const bundle = String((await runts.state('c'))['bundle'])
    for (const env of [['PATH=/bin', 'X=1'], undefined]) {
      const path = processFile(runts, bundle, { args: ['/bin/env'], env })
      expect(await runts.exec('-p', path, 'c')).toContain('HOME=/root')
    }
  })
})

inModes(MODES, 'the working folder', (test) => {
  test('is made where it is missing', async ({ runts }) => {
    expect(
      await runts.inside('pwd; stat -c %a .', (spec) => {
        spec.process.cwd = '/not/there/yet'
      }),
    ).toBe('/not/there/yet\n755\n')
  })

  test('may be one that only the user of the process can enter', async ({ runts }) => {
    const bundle = runts.bundle(['pwd'], (spec) => {
      spec.process.cwd = '/private'
      spec.process.user = { uid: 42, gid: 42 }
      spec.process.capabilities = {}
    })
    const folder = join(bundle, 'rootfs/private')
    mkdirSync(folder, { mode: 0o700 })
    const id = runts.hostId(42)
    chownSync(folder, id, id)
    expect((await runts.ok('run', '-b', bundle, 'c')).stdout).toBe('/private\n')
  })

  test('may be one that only root can enter', async ({ runts }) => {
    const bundle = runts.bundle(['pwd'], (spec) => {
      spec.process.cwd = '/root/deep'
      spec.process.user = { uid: 42, gid: 42 }
      spec.process.capabilities = {}
    })
    const folder = join(bundle, 'rootfs/root')
    mkdirSync(join(folder, 'deep'))
    chownSync(join(folder, 'deep'), runts.owner, runts.owner)
    chmodSync(folder, 0o700)
    expect((await runts.ok('run', '-b', bundle, 'c')).stdout).toBe('/root/deep\n')
  })

  test('must be absolute', async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.process.cwd = 'relative'
    })
    expect(error).toMatch(/must be an absolute path|cwd/i)
  })
})

inModes(MODES, 'the user', (test, mode) => {
  test('has its ids and groups, and an exec has them too or those of --user', async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      spec.process.user = { uid: 1000, gid: 1000, ...(runts.isRootless ? {} : { additionalGids: [100, 65_534] }) }
    })
    const groups = runts.isRootless ? '1000' : '1000 100 65534'
    expect(await runts.exec('c', 'sh', '-c', 'id -u; id -G; sed -n "s/^[UG]id:\\t//p" /proc/1/status')).toBe(
      `1000\n${groups}\n${'1000\t1000\t1000\t1000\n'.repeat(2)}`,
    )
    expect(await runts.exec('-u', '7:8', 'c', 'sh', '-c', 'id -u; id -g')).toBe('7\n8\n')
  })

  test('has its mask, 0022 where the config is silent', async ({ runts }) => {
    const mask = (umask?: number) =>
      runts.inside('umask', (spec) => {
        if (umask !== undefined) spec.process.user.umask = umask
      })
    expect(await mask(63)).toBe('0077\n')
    expect(await mask()).toBe('0022\n')
  })

  test('of an exec has the mask of the config', notRunc('1.1 leaves it at 0022 in an exec'), async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      spec.process.user.umask = 63
    })
    expect(await runts.exec('c', 'sh', '-c', 'umask')).toBe('0077\n')
  })

  const groups = mode === 'as an unprivileged user' ? notRunc('refuses groups for every user') : {}
  test('of an exec may have other groups', groups, async ({ runts }) => {
    runts.sleeper('c')
    expect(await runts.exec('-g', '100', '-g', '65534', 'c', 'id', '-G')).toBe('0 100 65534\n')
  })
})

inModes(MODES, 'resource limits', (test) => {
  test('are exactly the given ones for the first process and for an exec', async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      spec.process.rlimits = [
        { type: 'RLIMIT_NOFILE', soft: 1000, hard: 2000 },
        { type: 'RLIMIT_CORE', soft: 0, hard: 0 },
      ]
    })
    const limits = await runts.exec('c', 'grep', '-E', 'open files|core file', '/proc/1/limits')
    expect(limits).toMatch(/core file size +0 +0 /)
    expect(limits).toMatch(/open files +1000 +2000 /)
    // of open files, runc 1.1 raises the soft limit of an exec to the hard one
    expect(await runts.exec('c', 'sh', '-c', 'ulimit -c; ulimit -Hn')).toBe('0\n2000\n')
  })

  test('of an exec are the soft ones too', notRunc('1.1 raises the soft limit of open files'), async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      spec.process.rlimits = [{ type: 'RLIMIT_NOFILE', soft: 1000, hard: 2000 }]
    })
    expect(await runts.exec('c', 'sh', '-c', 'ulimit -Sn; ulimit -Hn')).toBe('1000\n2000\n')
  })

  test("may have a soft value below the hard one that is the caller's own", async ({ runts }) => {
    const hard = Number(/open files +\d+ +(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1])
    const limits = await runts.inside('ulimit -Sn; ulimit -Hn', (spec) => {
      spec.process.rlimits = [{ type: 'RLIMIT_NOFILE', soft: hard - 1, hard }]
    })
    expect(limits).toBe(`${hard - 1}\n${hard}\n`)
  })
})

inModes(MODES, 'the out-of-memory score', (test) => {
  test('is raised for the container, and left alone where the config is silent', async ({ runts }) => {
    const score = (value?: number) =>
      runts.inside('cat /proc/self/oom_score_adj', (spec) => {
        if (value !== undefined) spec.process.oomScoreAdj = value
      })
    expect(await score(500)).toBe('500\n')
    expect(await score()).toBe(readFileSync('/proc/self/oom_score_adj', 'utf8'))
  })
})

inModes(MODES, 'the personality', (test) => {
  test(
    'LINUX32 makes uname say i686, in the first process and in an exec',
    notRunc('needs runc 1.1.8: linux.personality'),
    async ({ runts }) => {
      const bundle = runts.bundle(['sh', '-c', 'uname -m; exec sleep 1000'], (spec) => {
        spec.linux.personality = { domain: 'LINUX32' }
      })
      const personality = 'cat /proc/1/personality; uname -m'
      runts.leave('run', '-d', '-b', bundle, 'c')
      expect(await runts.exec('c', 'sh', '-c', personality)).toBe('00000008\ni686\n')
      expect(
        await runts.inside('uname -m', (spec) => {
          spec.linux.personality = { domain: 'LINUX' }
        }),
      ).toBe('x86_64\n')
    },
  )

  test(
    'is set although the seccomp profile denies personality(2)',
    notRunc('needs runc 1.1.8: linux.personality'),
    async ({ runts }) => {
      const script = 'uname -m; linux64 true 2>/dev/null || echo denied'
      const machine = await runts.inside(script, (spec) => {
        spec.linux.personality = { domain: 'LINUX32' }
        spec.linux.seccomp = {
          defaultAction: 'SCMP_ACT_ALLOW',
          syscalls: [{ names: ['personality'], action: 'SCMP_ACT_ERRNO' }],
        }
      })
      expect(machine).toBe('i686\ndenied\n')
    },
  )
})

inModes(MODES, 'scheduling', (test) => {
  const reason = 'needs runc 1.2: process.scheduler, process.ioPriority'

  test(
    'policy and nice value are those of the config, and of the process document of an exec',
    notRunc(reason),
    async ({ runts }) => {
      const bundle = runts.bundle(['sh', '-c', 'probe scheduler > /tmp/first; exec sleep 1000'], (spec) => {
        spec.process.scheduler = { policy: 'SCHED_BATCH', nice: 19 }
      })
      runts.leave('run', '-d', '-b', bundle, 'c')
      const batch = /^policy 3 nice 19 priority 0 flags 0 /
      expect(await runts.exec('c', 'sh', '-c', 'until [ -s /tmp/first ]; do :; done; cat /tmp/first')).toMatch(batch)
      expect(await runts.exec('c', 'probe', 'scheduler')).toMatch(batch)
      const idle = processFile(runts, bundle, {
        args: ['probe', 'scheduler'],
        scheduler: { policy: 'SCHED_IDLE', flags: ['SCHED_FLAG_RESET_ON_FORK'] },
      })
      expect(await runts.exec('-p', idle, 'c')).toMatch(/^policy 5 nice 0 priority 0 flags 1 /)
    },
  )

  test('priority for input and output is that of the config', notRunc(reason), async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      spec.process.ioPriority = { class: 'IOPRIO_CLASS_BE', priority: 4 }
    })
    expect(await runts.exec('c', 'ionice', '-p', '1')).toMatch(/^best-effort: prio 4/)
    expect(await runts.exec('c', 'ionice')).toMatch(/^best-effort: prio 4/)
  })

  test('is refused where its parts do not fit together', notRunc(reason), async ({ runts }) => {
    const refused = (scheduler: Record<string, unknown>) =>
      runts.refused((spec) => {
        spec.process.scheduler = scheduler
      })
    expect(await refused({ nice: 1 })).toMatch(/policy/)
    expect(await refused({ policy: 'SCHED_BATCH', nice: 20 })).toMatch(/nice/)
    expect(await refused({ policy: 'SCHED_OTHER', priority: 1 })).toMatch(/priority/)
    expect(await refused({ policy: 'SCHED_OTHER', runtime: 1 })).toMatch(/runtime/)
    expect(
      await runts.refused((spec) => {
        spec.process.ioPriority = { class: 'IOPRIO_CLASS_BE', priority: 8 }
      }),
    ).toMatch(/priority/i)
  })
})

inModes(['as root'], 'scheduling by root', (test) => {
  const onOne = notRunc('needs runc 1.2: process.scheduler', 'two processors')

  test('cannot have a deadline on some of the processors only', onOne, async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.process.scheduler = { policy: 'SCHED_DEADLINE', runtime: 42_000, deadline: 1_000_000, period: 1_000_000 }
      spec.linux.resources = { cpu: { cpus: '0' } }
    })
    expect(error).toContain("process scheduler can't be used together with AllowedCPUs")
  })

  test('may have a deadline', notRunc('needs runc 1.2: process.scheduler'), async ({ runts }) => {
    const bundle = runts.bundle(['sleep', '1000'])
    runts.leave('run', '-d', '-b', bundle, 'c')
    const path = processFile(runts, bundle, {
      args: ['probe', 'scheduler'],
      scheduler: {
        policy: 'SCHED_DEADLINE',
        flags: ['SCHED_FLAG_RESET_ON_FORK'],
        runtime: 42_000,
        deadline: 1_000_000,
        period: 1_000_000,
      },
    })
    expect(await runts.exec('-p', path, 'c')).toBe(
      'policy 6 nice 0 priority 0 flags 1 runtime 42000 deadline 1000000 period 1000000\n',
    )
  })
})

inModes(BY_ROOT, 'CPU affinity', (test) => {
  test(
    'of the runtime itself is not inherited, neither by run nor by exec',
    notRunc('needs runc 1.2: affinity reset'),
    async ({ runts }) => {
      const bundle = runts.bundle(['sh', '-c', `${STATUS_CPUS} > /tmp/first; exec sleep 1000 >/dev/null 2>&1`])
      const { finished } = runts.startOn('0', 'run', '-d', '-b', bundle, 'c')
      expect(await finished).toMatchObject({ code: 0 })
      expect(await runts.exec('c', 'sh', '-c', 'until [ -s /tmp/first ]; do :; done; cat /tmp/first')).toBe(
        `${allCpus}\n`,
      )
      expect((await runts.startOn('0', 'exec', 'c', 'sh', '-c', STATUS_CPUS).finished).stdout).toBe(`${allCpus}\n`)
    },
  )

  test('is that of its cgroup, in the first process and in an exec', needs('two processors'), async ({ runts }) => {
    const bundle = runts.bundle(
      ['sh', '-c', `${STATUS_CPUS} > /tmp/first; exec sleep 1000 >/dev/null 2>&1`],
      (spec) => {
        spec.linux.resources = { cpu: { cpus: '1' } }
      },
    )
    runts.leave('run', '-d', '-b', bundle, 'c')
    expect(await runts.exec('c', 'sh', '-c', 'until [ -s /tmp/first ]; do :; done; cat /tmp/first')).toBe('1\n')
    expect(await runts.exec('c', 'sh', '-c', STATUS_CPUS)).toBe('1\n')
  })

  test(
    'of an exec ends as its process document says',
    notRunc('needs runc 1.3: process.execCPUAffinity'),
    async ({ runts }) => {
      const bundle = runts.bundle(['sleep', '1000'], (spec) => {
        spec.process.execCPUAffinity = { initial: '0', final: '1' }
      })
      runts.leave('run', '-d', '-b', bundle, 'c')
      expect(await runts.exec('c', 'sh', '-c', STATUS_CPUS)).toBe('1\n')
      const args = ['sh', '-c', STATUS_CPUS]
      for (const [execCPUAffinity, expected] of [
        [{ initial: '0', final: '0-1' }, '0-1\n'],
        [{ final: '0' }, '0\n'],
        [{ initial: '0' }, '0\n'],
        [{ initial: '1' }, '1\n'],
      ] as const) {
        const path = processFile(runts, bundle, { args, execCPUAffinity })
        expect(await runts.exec('-p', path, 'c'), JSON.stringify(execCPUAffinity)).toBe(expected)
      }
    },
  )
})

inModes(MODES, 'NUMA policy', (test) => {
  const newer = 'needs runc 1.4: linux.memoryPolicy'

  test('is that of the config, in the first process and in an exec', notRunc(newer), async ({ runts }) => {
    const policy = async (memoryPolicy: Record<string, unknown>): Promise<string> =>
      await runts.inside('probe mempolicy', (spec) => {
        spec.linux.memoryPolicy = memoryPolicy
      })
    expect(await policy({ mode: 'MPOL_INTERLEAVE', nodes: '0' })).toBe('mode 0x3 nodes 0x1\n')
    expect(await policy({ mode: 'MPOL_BIND', nodes: '0', flags: ['MPOL_F_STATIC_NODES'] })).toBe(
      'mode 0x8002 nodes 0x1\n',
    )
    expect(await policy({ mode: 'MPOL_PREFERRED', nodes: '0', flags: ['MPOL_F_RELATIVE_NODES'] })).toMatch(
      /^mode 0x4001 /,
    )
    expect(await policy({ mode: 'MPOL_DEFAULT' })).toBe('mode 0 nodes 0\n')
    runts.sleeper('c', (spec) => {
      spec.linux.memoryPolicy = { mode: 'MPOL_INTERLEAVE', nodes: '0' }
    })
    expect(await runts.exec('c', 'probe', 'mempolicy')).toBe('mode 0x3 nodes 0x1\n')
  })

  test('that makes no sense is refused', notRunc(newer), async ({ runts }) => {
    const refused = (memoryPolicy: Record<string, unknown>) =>
      runts.refused((spec) => {
        spec.linux.memoryPolicy = memoryPolicy
      })
    expect(await refused({})).toMatch(/mode/)
    expect(await refused({ mode: 'MPOL_NONE' })).toMatch(/mode/)
    expect(await refused({ mode: 'MPOL_BIND', nodes: '0', flags: ['MPOL_F_BAD'] })).toMatch(/flag/)
    expect(await refused({ mode: 'MPOL_BIND' })).toMatch(/nodes/)
    expect(await refused({ mode: 'MPOL_BIND', nodes: '0-9876543210' })).toMatch(/nodes/)
    expect(await refused({ mode: 'MPOL_BIND', nodes: '876' })).toMatch(/invalid argument|EINVAL/i)
  })
})
