/** What a spec becomes: whole plans as text, the order of their operations, and the root that they lead to. */
import { describe, expect, test } from 'vitest'
import { CREDENTIALS, OPS } from '../../../proto/init-plan.ts'
import { describePlan } from '../../../runtime/plan/describe.ts'
import { addUserNamespace, type Document } from '../spec/fixture.ts'
import { chrooted, createPlan, described, execPlan, FILTER, HOST_V2, opNames, refusal } from './support.ts'

/** Everything at once, as far as one spec can hold it. */
const rich = (spec: Document): void => {
  addUserNamespace(spec)
  spec.linux.namespaces.push({ type: 'cgroup' })
  Object.assign(spec, { hostname: 'box', domainname: 'lan' })
  Object.assign(spec.root, { readonly: true })
  Object.assign(spec.process, {
    terminal: true,
    consoleSize: { height: 24, width: 80 },
    oomScoreAdj: 100,
    cwd: '/home/me',
    user: { uid: 1000, gid: 1000, umask: 0o77, additionalGids: [10, 20] },
    noNewPrivileges: false,
  })
  spec.mounts.push(
    { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['nosuid', 'ro'] },
    { destination: '/data', source: 'data', options: ['rbind', 'ro', 'rslave'] },
    { destination: '/cache', type: 'tmpfs', options: ['ro', 'tmpcopyup'] },
  )
  Object.assign(spec.linux, {
    rootfsPropagation: 'rshared',
    sysctl: { 'net.ipv4.ip_unprivileged_port_start': '0', 'kernel.shmmax': '1000' },
    devices: [
      { path: '/dev/fuse', type: 'c', major: 10, minor: 229 },
      { path: '/dev/null', type: 'c', major: 1, minor: 3, fileMode: 0o600 },
      { path: '/dev/ptmx', type: 'c', major: 5, minor: 2 },
      { path: '/run/pipe', type: 'p', fileMode: 0o640, uid: 1, gid: 2 },
    ],
    personality: { domain: 'LINUX32' },
    timeOffsets: { monotonic: { secs: 3600 }, boottime: { secs: -1, nanosecs: 5 } },
    netDevices: { eth1: { name: 'lan0' } },
    memoryPolicy: { mode: 'MPOL_INTERLEAVE', nodes: '0' },
  })
  spec.linux.namespaces.push({ type: 'time' })
  Object.assign(spec.process, {
    scheduler: { policy: 'SCHED_BATCH', nice: 5 },
    ioPriority: { class: 'IOPRIO_CLASS_BE', priority: 7 },
  })
  spec.hooks = {
    createRuntime: [{ path: '/opt/hook' }],
    createContainer: [{ path: '/opt/hook', args: ['hook', 'container'], timeout: 10 }],
    startContainer: [{ path: '/bin/hook' }],
  }
}

describe('whole plans', () => {
  test('the default container', async () => {
    await expect(describePlan(createPlan(undefined, { seccomp: FILTER }))).toMatchFileSnapshot('plans/default.txt')
  })

  test('a container with everything, cgroup v1', async () => {
    await expect(describePlan(createPlan(rich, { seccomp: FILTER }))).toMatchFileSnapshot('plans/rich-v1.txt')
  })

  test('a container with everything, cgroup v2', async () => {
    const input = {
      seccomp: FILTER,
      host: HOST_V2,
      cgroup: { kind: 'dir', path: '/sys/fs/cgroup/default/box' },
    } as const
    await expect(describePlan(createPlan(rich, input))).toMatchFileSnapshot('plans/rich-v2.txt')
  })

  test('a container without a mount namespace', async () => {
    await expect(describePlan(createPlan(chrooted))).toMatchFileSnapshot('plans/chroot.txt')
  })

  test('an exec', async () => {
    await expect(describePlan(execPlan({}, undefined, { seccomp: FILTER }))).toMatchFileSnapshot('plans/exec.txt')
  })

  test('an exec with everything', async () => {
    const process = {
      terminal: true,
      consoleSize: { height: 24, width: 80 },
      cwd: '/tmp',
      user: { uid: 5, gid: 6, additionalGids: [7] },
      env: ['A=1', 'B=2', 'A=3'],
      noNewPrivileges: true,
      capabilities: { bounding: ['CAP_KILL'] },
    }
    const input = { seccomp: FILTER, init: { pid: 7, startTime: 1n, namespaces: 0x7e020080 } }
    await expect(describePlan(execPlan(process, rich, input))).toMatchFileSnapshot('plans/exec-rich.txt')
  })
})

describe('order', () => {
  const plans = [
    ['default', createPlan(undefined, { seccomp: FILTER })],
    ['rich', createPlan(rich, { seccomp: FILTER })],
    ['chroot', createPlan(chrooted)],
    ['exec', execPlan({}, undefined, { seccomp: FILTER })],
    ['exec in a rich container', execPlan({}, rich, { seccomp: FILTER })],
  ] as const

  test.each(plans)('%s: host operations, one clone, container operations, exec last', (_, ops) => {
    const clone = ops.findIndex(({ op }) => op === 'clone')
    expect(ops.slice(0, clone + 1).every(({ op }) => OPS[op].stage === 'host')).toBe(true)
    expect(ops.slice(clone + 1).every(({ op }) => OPS[op].stage === 'container')).toBe(true)
    expect(ops.filter(({ op }) => op === 'clone' || op === 'exec').length).toBe(2)
    expect(ops.at(-1)?.op).toBe('exec')
  })

  test.each(plans)('%s: whoever joins a cgroup also waits for it, once', (_, ops) => {
    expect(opNames(ops).filter((name) => name === 'wait_cgroup')).toHaveLength(1)
  })

  test.each<[first: string, then: string]>([
    ['open_fifo', 'clone'],
    ['session', 'keyring'],
    ['propagation', 'rootfs'],
    ['rootfs', 'mount'],
    ['mount', 'device'],
    ['symlink', 'pivot'],
    ['pivot', 'make_cwd'],
    ['make_cwd', 'terminal'],
    ['terminal', 'readonly_mount'],
    ['readonly_mount', 'umask'],
    ['umask', 'hostname'],
    ['sysctl', 'readonly_path'],
    ['readonly_path', 'mask_path'],
    ['mask_path', 'rlimit'],
    ['rlimit', 'credentials'],
    ['chdir', 'credentials'],
    ['credentials', 'program'],
    ['program', 'seccomp'],
    ['seccomp', 'ready'],
    ['ready', 'await_start'],
    ['await_start', 'exec'],
  ])('%s comes before %s', (first, then) => {
    const names: string[] = opNames(createPlan(rich, { seccomp: FILTER }))
    expect(names.indexOf(first)).toBeGreaterThanOrEqual(0)
    expect(names.indexOf(first)).toBeLessThan(names.indexOf(then))
  })
})

describe('seccomp', () => {
  const tail = (ops: ReturnType<typeof createPlan>) => opNames(ops).slice(opNames(ops).indexOf('program') - 1)

  test.each([true, false])('is loaded last of all that can fail (no_new_privs: %s)', (noNewPrivileges) => {
    const plan = createPlan((spec) => (spec.process.noNewPrivileges = noNewPrivileges), { seccomp: FILTER })
    expect(tail(plan)).toEqual(['chdir', 'program', 'seccomp', 'ready', 'await_start', 'wait_cgroup', 'exec'])
  })

  test('without no_new_privs the capability for it is lent until then', () => {
    const plan = createPlan((spec) => (spec.process.noNewPrivileges = false), { seccomp: FILTER })
    expect(opNames(plan)).not.toContain('no_new_privs')
    const lends = (ops: typeof plan) =>
      ops.some((op) => op.op === 'credentials' && (op.flags & CREDENTIALS.LEND_ADMIN) !== 0)
    expect(lends(plan)).toBe(true)
    expect(lends(createPlan(undefined, { seccomp: FILTER }))).toBe(false)
    expect(lends(createPlan((spec) => (spec.process.noNewPrivileges = false)))).toBe(false)
  })

  test('a container without profile loads none', () => {
    expect(opNames(createPlan())).not.toContain('seccomp')
  })
})

describe('the root', () => {
  test.each<[string | undefined, string, string[]]>([
    [undefined, 'private', ['rslave']],
    ['private', 'private', ['private']],
    ['slave', 'slave', ['slave']],
    ['rslave', 'slave', ['rslave']],
    ['shared', 'private', ['shared', 'shared']],
    ['runbindable', 'private', ['rprivate', 'runbindable']],
  ])('rootfsPropagation %s', (word, how, flags) => {
    const ops = createPlan((spec) => (spec.linux.rootfsPropagation = word))
    expect(described(ops, 'propagation')).toEqual(flags.map((word) => `propagation path="/" flags=${word}`))
    expect(described(ops, 'rootfs')).toEqual([expect.stringContaining(` how=${how}`)])
  })

  test('rootfsPropagation rshared goes not over what a mount asks for, where that can still be reached', () => {
    const ops = createPlan((spec) => {
      spec.linux.rootfsPropagation = 'rshared'
      for (const destination of ['/a', '/b', '/b']) {
        spec.mounts.push({ destination, source: '/s', options: ['rbind', 'rprivate', 'slave'] })
      }
    })
    expect(described(ops, 'propagation').slice(2)).toEqual([
      'propagation path="/a" flags=rprivate',
      'propagation path="/a" flags=slave',
      'propagation path="/b" flags=rprivate',
      'propagation path="/b" flags=slave',
    ])
  })

  test('without pivot_root it is moved', () => {
    expect(described(createPlan(undefined, { noPivot: true }), 'pivot')).toEqual(['pivot mode=move'])
  })

  test.each(['private', 'rprivate'])('which cannot be with %s', (word) => {
    const error = refusal(() => createPlan((spec) => (spec.linux.rootfsPropagation = word), { noPivot: true }))
    expect(error.detail).toEqual({ source: 'spec', pointer: '/linux/rootfsPropagation' })
  })

  test('read-only comes after everything that writes below it', () => {
    const ops = createPlan((spec) => {
      spec.root.readonly = true
      spec.process.cwd = '/srv'
    })
    expect(described(ops, 'readonly_mount')).toEqual(['readonly_mount path="/"'])
    expect(opNames(ops).indexOf('readonly_mount')).toBeGreaterThan(opNames(ops).indexOf('make_cwd'))
  })

  test.each<[string, string | undefined, (spec: Document) => void]>([
    ['without mounts', undefined, () => {}],
    ['with a mount', 'callers', (spec) => (spec.mounts = [{ destination: '/x', source: '/y', options: ['bind'] }])],
    ['that is read-only', 'callers', (spec) => (spec.root.readonly = true)],
  ])('of a container without a mount namespace %s', (_, how, change) => {
    const ops = createPlan((spec) => {
      chrooted(spec)
      change(spec)
    })
    const ending = how === undefined ? '' : ` how=${how}`
    expect(described(ops, 'rootfs')).toEqual([`rootfs path="/run/bundle/rootfs"${ending}`])
    expect(described(ops, 'propagation')).toEqual([])
    for (const mount of described(ops, 'mount')) expect(mount).toContain('propagation=rslave')
  })

  test.each<[string, (spec: Document) => void]>([
    ['/linux/rootfsPropagation', (spec) => (spec.linux.rootfsPropagation = 'slave')],
    ['/linux/namespaces', addUserNamespace],
  ])('without a mount namespace %s is refused', (pointer, change) => {
    const error = refusal(() =>
      createPlan((spec) => {
        chrooted(spec)
        change(spec)
      }),
    )
    expect(error.message).toContain('needs a mount namespace')
    expect(error.detail).toEqual({ source: 'spec', pointer })
  })
})

describe('hidden paths', () => {
  test('each is hidden once, under its clean name', () => {
    const ops = createPlan((spec) => {
      spec.linux.maskedPaths = ['/proc/keys', 'proc//keys', '/proc/./acpi/', '', '/proc/keys']
      spec.linux.readonlyPaths = ['/proc/sys', '/proc/sys/']
    })
    expect(described(ops, 'mask_path', 'readonly_path')).toEqual([
      'readonly_path path="/proc/sys"',
      'mask_path path="/proc/keys"',
      'mask_path path="/proc/acpi"',
    ])
  })
})
