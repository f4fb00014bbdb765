/**
 * `update` with runc's options for single limits. What counts is the kernel's files: after the same words a container
 * of each runtime has the same values in them.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { isCgroup2, needs } from '../support/needs.ts'
import { OCI_RUNTIME } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'

const SLEEP = ['sleep', '1000'] as const
const MIB = 1024 * 1024

/** The files that `update` writes, by controller; v2 has them in one folder. */
const FILES: Readonly<Record<string, readonly string[]>> = isCgroup2()
  ? {
      '': [
        ...['cpu.max', 'cpu.max.burst', 'cpu.weight', 'cpu.idle', 'cpuset.cpus', 'cpuset.mems'],
        ...['memory.max', 'memory.swap.max', 'memory.low', 'pids.max', 'io.weight', 'io.bfq.weight'],
      ],
    }
  : {
      memory: ['limit_in_bytes', 'memsw.limit_in_bytes', 'soft_limit_in_bytes'].map((name) => `memory.${name}`),
      cpu: [
        ...['shares', 'cfs_period_us', 'cfs_quota_us', 'cfs_burst_us', 'idle', 'rt_period_us', 'rt_runtime_us'],
      ].map((name) => `cpu.${name}`),
      cpuset: ['cpuset.cpus', 'cpuset.mems'],
      pids: ['pids.max'],
      blkio: ['blkio.weight', 'blkio.bfq.weight'],
    }

/** The values in the files of a process's cgroups; a file that this kernel lacks is left out. */
function valuesOf(pid: number): Record<string, string> {
  const lines = readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('\n')
  const values: Record<string, string> = {}
  for (const [controller, files] of Object.entries(FILES)) {
    const path = lines
      .map((line) => line.split(':'))
      .find(([, names = '']) => names.split(',').includes(controller))?.[2]
    for (const file of files) {
      const name = join('/sys/fs/cgroup', controller, path ?? '', file)
      if (existsSync(name)) values[file] = readFileSync(name, 'utf8').trim()
    }
  }
  return values
}

/** A container of one runtime, to be updated. */
class Updated {
  readonly #program: string
  readonly #runts: Runts
  readonly #id: string
  readonly pid: number

  constructor(program: string, runts: Runts, limits: object) {
    this.#program = program
    this.#runts = runts
    this.#id = `${runts.name}-${program.replaceAll('/', '-')}`
    const bundle = runts.bundle(SLEEP, (spec) => {
      spec.linux.cgroupsPath = `/${runts.name}/${this.#id}`
      Object.assign(spec.linux.resources ?? {}, limits)
    })
    this.#call('ignore', 'run', '-d', '-b', bundle, this.#id)
    this.pid = JSON.parse(this.#call('pipe', 'state', this.#id).stdout).pid
  }

  #call(stdio: 'ignore' | 'pipe', ...args: string[]) {
    return spawnSync(this.#program, ['--root', this.#runts.root, ...args], { encoding: 'utf8', stdio })
  }

  /** Runs `update`; the outcome. */
  update(...options: string[]): { status: number | null; stderr: string } {
    const { status, stderr } = this.#call('pipe', 'update', ...options, this.#id)
    return { status, stderr }
  }

  delete(): void {
    this.#call('pipe', 'delete', '-f', this.#id)
  }
}

/** The options that the runc of this machine has. */
const RUNC_HELP = spawnSync('runc', ['update', '--help'], { encoding: 'utf8' }).stdout ?? ''
const runcKnows = (words: readonly string[]): boolean =>
  words.every((word) => !word.startsWith('--') || RUNC_HELP.includes(`${word} `))

/** runc 1.1 forgets on v2 what was said about memory and swap together. */
const RUNC_FORGETS =
  isCgroup2() && / 1\.[01]\./.test(spawnSync('runc', ['--version'], { encoding: 'utf8' }).stdout ?? '')

/** Updates, one after the other on the same container. */
const STEPS: readonly (readonly string[])[] = [
  ...(RUNC_FORGETS ? [] : [['--memory', '64m']]),
  ['--memory-swap', '128MiB', '--memory', '64MB'],
  ...(RUNC_FORGETS ? [] : [['--memory', '32m']]),
  ['--memory-reservation', '16m'],
  ['--memory', '1.5g', '--memory-swap', '2g'],
  ['--memory', '-1'],
  ['--memory', '100000k', '--memory-swap', '-1'],
  ['--cpu-period', '50000'],
  ['--cpu-quota', '25000'],
  ['--cpu-period', '200000', '--cpu-quota', '100000'],
  ['--cpu-quota', '-1'],
  ['--cpuset-cpus', '0'],
  ['--cpuset-cpus', '0-1', '--cpuset-mems', '0'],
  ['--pids-limit', '100'],
  ['--pids-limit', '-1'],
  ['--blkio-weight', '500'],
  ['--cpu-idle', '1'],
  ['--cpu-idle', '0'],
  ['--cpu-burst', '10000', '--cpu-period', '100000', '--cpu-quota', '20000'],
  ['--kernel-memory', '10m'],
  ['--memory', '', '--pids-limit', '7'],
  // runc 1.1 writes another weight for shares on v2 than later ones do
  ...(isCgroup2()
    ? []
    : [
        ['--cpu-share', '512'],
        ['--cpu-share', '2'],
      ]),
]

/** Documents and words that both runtimes refuse. */
const REFUSED: readonly (readonly [option: string, value: string, said: string])[] = [
  ['--memory', 'much', 'invalid value for memory: "much"'],
  ['--memory', '5kk', 'invalid value for memory'],
  ['--memory', '-5', 'invalid value for memory'],
  ['--memory-swap', '1x', 'invalid value for memory-swap'],
  ['--cpu-period', '-1', 'invalid value for cpu-period'],
  ['--cpu-quota', '1.5', 'invalid value for cpu-quota'],
  ['--cpu-share', '0x', 'invalid value for cpu-share'],
  ['--cpuset-cpus', 'none', 'cannot set cpuset cpus "none"'],
  ['--pids-limit', 'many', 'invalid value for pids-limit'],
  ['--cpu-quota', '10', 'cannot set cpu quota'],
]

describe('after the same update', needs('root', 'busybox', 'memory controller', 'the runc shim', 'our shim'), () => {
  test('the limits in the kernel are those that runc sets', ({ runts }) => {
    const limits = { memory: { limit: 48 * MIB, swap: 96 * MIB }, pids: { limit: 50 } }
    const ours = new Updated(OCI_RUNTIME, runts, limits)
    const runcs = new Updated('runc', runts, limits)
    try {
      expect(valuesOf(ours.pid)).toEqual(valuesOf(runcs.pid))
      for (const step of STEPS.filter(runcKnows)) {
        const words = step.join(' ')
        const [mine, theirs] = [ours.update(...step), runcs.update(...step)]
        expect(mine.status, `${words}: ${mine.stderr}; runc: ${theirs.stderr}`).toBe(theirs.status)
        expect(valuesOf(ours.pid), words).toEqual(valuesOf(runcs.pid))
      }
    } finally {
      ours.delete()
      runcs.delete()
    }
  })

  test.for(REFUSED)(
    '%s %s is refused by both, here in words that name the option',
    ([option, value, said], { runts }) => {
      const ours = new Updated(OCI_RUNTIME, runts, {})
      const runcs = new Updated('runc', runts, {})
      try {
        const before = valuesOf(ours.pid)
        expect(runcs.update(option, value).status).not.toBe(0)
        expect(ours.update(option, value)).toMatchObject({ status: 1, stderr: expect.stringContaining(said) })
        expect(valuesOf(ours.pid)).toEqual(before)
      } finally {
        ours.delete()
        runcs.delete()
      }
    },
  )
})

describe('runts update', needs('root', 'busybox', 'memory controller', 'our shim'), () => {
  test('says by name which limits of kernel memory it ignores, and sets the rest', ({ runts }) => {
    const container = new Updated(OCI_RUNTIME, runts, {})
    try {
      const { status, stderr } = container.update(
        '--kernel-memory',
        '1m',
        '--kernel-memory-tcp',
        '-1',
        '--memory',
        '16m',
      )
      expect({ status, lines: stderr.match(/ignored a kernel memory limit/g)?.length }).toEqual({ status: 0, lines: 2 })
      const file = isCgroup2() ? 'memory.max' : 'memory.limit_in_bytes'
      expect(valuesOf(container.pid)[file]).toBe(String(16 * MIB))
    } finally {
      container.delete()
    }
  })

  test('keeps the period of a CPU limit, whatever else was updated since', ({ runts }) => {
    const container = new Updated(OCI_RUNTIME, runts, {})
    try {
      for (const options of ['--cpu-period 200000 --cpu-quota 100000', '--pids-limit 9', '--cpu-quota 50000']) {
        expect(container.update(...options.split(' '))).toEqual({ status: 0, stderr: '' })
      }
      const values = valuesOf(container.pid)
      const found = isCgroup2() ? values['cpu.max'] : `${values['cpu.cfs_quota_us']} ${values['cpu.cfs_period_us']}`
      expect(found).toBe('50000 200000')
    } finally {
      container.delete()
    }
  })

  test('changes nothing without an option, and ignores those for single limits beside a document', ({ runts }) => {
    const container = new Updated(OCI_RUNTIME, runts, { pids: { limit: 50 } })
    try {
      const before = valuesOf(container.pid)
      expect(container.update()).toEqual({ status: 0, stderr: '' })
      expect(valuesOf(container.pid)['pids.max']).toBe('50')
      const document = join(runts.folder, 'limits.json')
      writeFileSync(document, '{"pids":{"limit":51}}')
      expect(container.update('-r', document, '--pids-limit', '7', '--memory', '16m')).toEqual({
        status: 0,
        stderr: '',
      })
      expect(valuesOf(container.pid)).toEqual({ ...before, 'pids.max': '51' })
    } finally {
      container.delete()
    }
  })

  test('refuses limits of Intel RDT where that is not enabled, in the words of runc', ({ runts }) => {
    const container = new Updated(OCI_RUNTIME, runts, {})
    try {
      expect(container.update('--l3-cache-schema', 'L3:0=f')).toEqual({
        status: 1,
        stderr: 'runts: error: Intel RDT/CAT: l3 cache schema is not enabled\n',
      })
      expect(container.update('--mem-bw-schema', 'MB:0=50')).toEqual({
        status: 1,
        stderr: 'runts: error: Intel RDT/MBA: memory bandwidth schema is not enabled\n',
      })
    } finally {
      container.delete()
    }
  })
})
