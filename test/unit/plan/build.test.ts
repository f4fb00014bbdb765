/** What a spec becomes: whole plans as text, and then one feature at a time. */
import { describe, expect, test } from 'vitest'
import { OPS } from '../../../proto/init-plan.ts'
import { RuntimeError } from '../../../runtime/errors.ts'
import { describePlan } from '../../../runtime/plan/describe.ts'
import { addUserNamespace, type Document } from '../spec/fixture.ts'
import { createPlan, described, execPlan, FILTER, HOST_V1, HOST_V2, opNames } from './support.ts'

const setNamespaces =
  (...types: readonly string[]) =>
  (spec: Document): void => {
    spec.linux.namespaces = types.map((type) => ({ type }))
  }
const chrooted = (spec: Document): void => {
  setNamespaces('pid')(spec)
  spec.mounts = []
  spec.linux.maskedPaths = []
  spec.linux.readonlyPaths = []
}
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
    ['root_propagation', 'rootfs'],
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
    ['rlimit', 'seccomp'],
    ['seccomp', 'credentials'],
    ['chdir', 'credentials'],
    ['credentials', 'program'],
    ['program', 'ready'],
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

  test('with no_new_privs it is loaded last of all that can fail', () => {
    expect(tail(createPlan(undefined, { seccomp: FILTER }))).toEqual([
      'chdir',
      'program',
      'seccomp',
      'ready',
      'await_start',
      'wait_cgroup',
      'exec',
    ])
  })

  test('without it is loaded while the capability for it is there', () => {
    const names = opNames(createPlan((spec) => (spec.process.noNewPrivileges = false), { seccomp: FILTER }))
    expect(names).not.toContain('no_new_privs')
    expect(names.indexOf('seccomp')).toBeLessThan(names.indexOf('credentials'))
  })

  test('a container without profile loads none', () => {
    expect(opNames(createPlan())).not.toContain('seccomp')
  })
})

describe('namespaces', () => {
  test('those with a path are opened in order, then joined together, then the rest is made', () => {
    const ops = createPlan((spec) => {
      spec.linux.namespaces[4].path = '/proc/9/ns/net'
      spec.linux.namespaces[1].path = '/proc/9/ns/ipc'
    })
    expect(described(ops, 'open_ns', 'join', 'clone')).toEqual([
      'open_ns path="/proc/9/ns/ipc" type=ipc',
      'open_ns path="/proc/9/ns/net" type=network',
      'join',
      'clone flags=mount|uts|pid',
    ])
    expect(opNames(ops)).not.toContain('loopback_up')
  })

  test('the host’s own network is left alone', () => {
    const ops = createPlan(setNamespaces('pid', 'mount'))
    expect(opNames(ops)).not.toContain('loopback_up')
    expect(described(ops, 'clone')).toEqual(['clone flags=mount|pid'])
  })

  test('a new user namespace brings its maps, root, and limits raised outside', () => {
    const ops = createPlan(addUserNamespace)
    expect(described(ops, 'clone', 'session', 'unshare', 'raise_rlimit', 'rlimit')).toEqual([
      'raise_rlimit resource=nofile hard=1024',
      'clone flags=user|pid uidMap="0 100000 65536\\n" gidMap="0 200000 65536\\n"',
      'session becomeRoot=1',
      'unshare flags=mount|uts|ipc|network',
      'rlimit resource=nofile soft=1024 hard=1024',
    ])
  })

  test('a joined user namespace keeps the maps that it has', () => {
    const ops = createPlan((spec) => {
      addUserNamespace(spec)
      spec.linux.namespaces.at(-1).path = '/proc/9/ns/user'
    })
    expect(described(ops, 'open_ns', 'clone', 'session')).toEqual([
      'open_ns path="/proc/9/ns/user" type=user',
      'clone flags=mount|uts|ipc|pid|network',
      'session becomeRoot=1',
    ])
  })

  test('a new cgroup namespace is made as late as possible, in the final cgroup', () => {
    const names = opNames(createPlan((spec) => spec.linux.namespaces.push({ type: 'cgroup' })))
    const wait = names.indexOf('wait_cgroup')
    expect(names[wait + 1]).toBe('unshare')
    expect(names[wait - 1]).toBe('mask_path')
    expect(names.indexOf('wait_cgroup', wait + 1)).toBe(-1)
  })

  test('before the mounts when one of them shows it', () => {
    const names = opNames(
      createPlan((spec) => {
        spec.linux.namespaces.push({ type: 'cgroup' })
        spec.mounts.push({ destination: '/sys/fs/cgroup', type: 'cgroup' })
      }),
    )
    expect(names.indexOf('unshare')).toBe(names.indexOf('rootfs') + 2)
  })

  test('no cgroup, no waiting', () => {
    expect(opNames(createPlan(undefined, { cgroup: { kind: 'none' } }))).not.toContain('wait_cgroup')
  })

  test.each<[string, string, (user: Document) => void]>([
    ['/process/user/uid', 'cannot setuid to unmapped uid 65536 in user namespace', (user) => (user.uid = 65536)],
    ['/process/user/gid', 'cannot setgid to unmapped gid 70000 in user namespace', (user) => (user.gid = 70000)],
    ['/process/user/additionalGids/1', 'unmapped gid 99999', (user) => (user.additionalGids = [1, 99999])],
  ])('an unmapped id is refused at %s', (pointer, message, change) => {
    const error = refusal(() =>
      createPlan((spec) => {
        addUserNamespace(spec)
        change(spec.process.user)
      }),
    )
    expect(error.message).toContain(message)
    expect(error.detail).toEqual({ source: 'spec', pointer })
  })
})

describe('the root', () => {
  test.each([
    [undefined, ['root_propagation flags=rslave']],
    ['private', ['root_propagation flags=private']],
    ['rslave', ['root_propagation flags=rslave']],
    ['shared', ['root_propagation flags=shared', 'root_propagation flags=shared']],
    ['runbindable', ['root_propagation flags=runbindable', 'root_propagation flags=runbindable']],
  ])('rootfsPropagation %s', (word, expected) => {
    const ops = createPlan((spec) => (spec.linux.rootfsPropagation = word))
    expect(described(ops, 'root_propagation')).toEqual(expected)
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

  test.each<[string, (spec: Document) => void]>([
    ['/mounts/0', (spec) => (spec.mounts = [{ destination: '/proc', type: 'proc' }])],
    ['/root/readonly', (spec) => (spec.root.readonly = true)],
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

describe('the process', () => {
  const withProcess = (change: (process: Document) => void) => createPlan((spec) => change(spec.process))

  test('a variable that is given twice counts once, as it was given last', () => {
    const ops = withProcess((process) => (process.env = ['A=1', 'B=x=y', 'A=2', 'C=', 'B=z\nz']))
    expect(described(ops, 'program')).toEqual(['program args=["sh", "-c", "echo hello"] env=["A=2", "C=", "B=z\\nz"]'])
  })

  test('a user other than root owns its streams', () => {
    expect(
      described(
        withProcess((process) => (process.user.uid = 7)),
        'stdio_owner',
      ),
    ).toEqual(['stdio_owner uid=7'])
    expect(described(createPlan(), 'stdio_owner')).toEqual([])
  })

  test('a terminal replaces the streams', () => {
    const ops = withProcess((process) => Object.assign(process, { terminal: true, user: { uid: 7, gid: 7 } }))
    expect(described(ops, 'terminal', 'stdio_owner', 'reopen_null')).toEqual(['terminal uid=7 console=1'])
  })

  test('the working directory is made, and entered before and after the change of user', () => {
    const ops = withProcess((process) => (process.cwd = '/srv/www'))
    expect(described(ops, 'make_cwd', 'chdir')).toEqual([
      'make_cwd path="/srv/www"',
      'chdir path="/srv/www" tolerant=1',
      'chdir path="/srv/www"',
    ])
  })

  test.each([
    [undefined, 'umask mask=022'],
    [0, 'umask mask=00'],
    [0o77, 'umask mask=077'],
  ])('umask %s', (umask, expected) => {
    expect(
      described(
        withProcess((process) => (process.user.umask = umask)),
        'umask',
      ),
    ).toEqual([expected])
  })

  test('no capabilities in the spec are none at all', () => {
    const ops = withProcess((process) => delete process.capabilities)
    expect(described(ops, 'credentials')).toEqual([
      'credentials uid=0 gid=0 groups=[0, 10] flags=set_caps|set_groups bounding=0',
    ])
  })

  test('ambient capabilities are those that are permitted and inheritable too', () => {
    const ops = withProcess((process) => {
      process.capabilities = {
        permitted: ['CAP_KILL', 'CAP_CHOWN'],
        inheritable: ['CAP_KILL', 'CAP_SYSLOG'],
        ambient: ['CAP_KILL', 'CAP_CHOWN', 'CAP_SYSLOG'],
      }
    })
    expect(described(ops, 'credentials')[0]).toContain('permitted=chown|kill inheritable=kill|syslog ambient=kill')
  })

  test('capabilities that the kernel does not know are left out', () => {
    const change = (spec: Document) => (spec.process.capabilities = { bounding: ['CAP_KILL', 'CAP_BPF'] })
    const ops = createPlan(change, { host: { ...HOST_V1, lastCap: 37 } })
    expect(described(ops, 'credentials')[0]).toContain('bounding=kill')
    expect(described(ops, 'credentials')[0]).not.toContain('bpf')
  })

  test('the limit of open files that the runtime was started with is restored, unless the document has one', () => {
    const host = { ...HOST_V1, fileLimit: { soft: 1024n, hard: 4096n } }
    const without = createPlan((spec) => (spec.process.rlimits = [{ type: 'RLIMIT_CORE', soft: 0, hard: 1 }]), { host })
    expect(described(without, 'raise_rlimit', 'rlimit')).toEqual([
      'rlimit resource=nofile soft=1024 hard=4096',
      'rlimit resource=core soft=0 hard=1',
    ])
    const own = createPlan((spec) => (spec.process.rlimits = [{ type: 'RLIMIT_NOFILE', soft: 7, hard: 8 }]), { host })
    expect(described(own, 'rlimit')).toEqual(['rlimit resource=nofile soft=7 hard=8'])
  })

  test('hooks before the pivot have the limit of open files of the caller, below whatever hard one the document has', () => {
    const host = { ...HOST_V1, fileLimit: { soft: 1024n, hard: 4096n } }
    const hooked = (hard: number) =>
      createPlan(
        (spec) => {
          spec.process.rlimits = [{ type: 'RLIMIT_NOFILE', soft: 7, hard }]
          spec.hooks = { createContainer: [{ path: '/bin/hook' }] }
        },
        { host },
      )
    expect(described(hooked(8), 'rlimit', 'hook')).toEqual([
      'rlimit resource=nofile soft=1024 hard=4096',
      expect.stringContaining('hook'),
      'rlimit resource=nofile soft=7 hard=8',
    ])
    expect(described(hooked(9999), 'rlimit')[0]).toBe('rlimit resource=nofile soft=1024 hard=9999')
  })

  test('unlimited is 2^64-1', () => {
    const ops = withProcess((process) => {
      process.rlimits = [{ type: 'RLIMIT_CORE', soft: 0, hard: 1 }]
    })
    expect(described(ops, 'rlimit')).toEqual(['rlimit resource=core soft=0 hard=1'])
  })

  test('an AppArmor profile is ignored where the host has no AppArmor', () => {
    const change = (spec: Document) => (spec.process.apparmorProfile = 'docker-default')
    expect(described(createPlan(change), 'apparmor')).toEqual([])
    const host = { ...HOST_V1, apparmor: true }
    expect(described(createPlan(change, { host }), 'apparmor')).toEqual(['apparmor profile="docker-default"'])
  })

  test('an SELinux label is refused where the host has no SELinux', () => {
    const change = (spec: Document) => (spec.process.selinuxLabel = 'system_u:system_r:container_t:s0')
    expect(refusal(() => createPlan(change)).message).toBe(
      'selinux label is specified in config, but selinux is disabled or not supported (at /process/selinuxLabel)',
    )
    const host = { ...HOST_V1, selinux: true }
    expect(described(createPlan(change, { host }), 'selinux')).toHaveLength(1)
  })
})

describe('hidden paths', () => {
  test('each is hidden once, under its clean name', () => {
    const ops = createPlan((spec) => {
      spec.linux.maskedPaths = ['/proc/keys', '/proc//keys', '/proc/./acpi/', '/proc/keys']
      spec.linux.readonlyPaths = ['/proc/sys', '/proc/sys/']
    })
    expect(described(ops, 'mask_path', 'readonly_path')).toEqual([
      'readonly_path path="/proc/sys"',
      'mask_path path="/proc/keys"',
      'mask_path path="/proc/acpi"',
    ])
  })
})

describe('buildExecPlan()', () => {
  test('takes from the container what its own document leaves out', () => {
    const ops = execPlan({ user: { uid: 3, gid: 3 } }, (spec) => {
      Object.assign(spec.process, { oomScoreAdj: -7 })
      spec.process.user.umask = 0o27
    })
    expect(described(ops, 'oom_score_adj', 'umask', 'rlimit')).toEqual([
      'oom_score_adj value=-7',
      'umask mask=027',
      'rlimit resource=nofile soft=1024 hard=1024',
    ])
    expect(described(ops, 'credentials')[0]).toMatch(
      /^credentials uid=3 gid=3 flags=set_caps\|set_groups bounding=chown/,
    )
  })

  test('its own document wins', () => {
    const ops = execPlan(
      { oomScoreAdj: 5, rlimits: [{ type: 'RLIMIT_CORE', soft: 1, hard: 2 }], capabilities: {} },
      (spec) => (spec.process.oomScoreAdj = -7),
    )
    expect(described(ops, 'oom_score_adj', 'rlimit', 'credentials')).toEqual([
      'oom_score_adj value=5',
      'rlimit resource=core soft=1 hard=2',
      'credentials uid=0 gid=0 flags=set_caps|set_groups bounding=0',
    ])
  })

  test('enters the root of a container without a mount namespace, which joining does not', () => {
    const names = opNames(execPlan({}, chrooted))
    expect(names.slice(names.indexOf('session'), names.indexOf('keyring'))).toEqual(['session', 'rootfs', 'pivot'])
    expect(described(execPlan({}, chrooted), 'rootfs', 'pivot')).toEqual([
      'rootfs path="/run/bundle/rootfs"',
      'pivot mode=chroot',
    ])
    expect(opNames(execPlan({}))).not.toContain('pivot')
  })

  test('opens the null device of the container, unless a terminal replaces its stdio', () => {
    expect(opNames(execPlan({}))).toContain('reopen_null')
    expect(opNames(execPlan({ terminal: true }))).not.toContain('reopen_null')
  })

  test('becomes root only in another user namespace', () => {
    const session = (namespaces: number) =>
      described(execPlan({}, undefined, { init: { pid: 1, startTime: 1n, namespaces } }), 'session', 'raise_rlimit')
    expect(session(0x20000000)).toEqual(['session'])
    expect(session(0x30000000)).toEqual(['raise_rlimit resource=nofile hard=1024', 'session becomeRoot=1'])
  })

  test('refuses a user that the container has not mapped, at its own pointer', () => {
    const error = refusal(() => execPlan({ user: { uid: 70000, gid: 0 } }, addUserNamespace))
    expect(error.detail).toEqual({ source: 'spec', pointer: '/user/uid' })
  })
})

function refusal(action: () => unknown): RuntimeError {
  try {
    action()
  } catch (error) {
    if (error instanceof RuntimeError) return error
    throw error
  }
  throw new Error('nothing was refused')
}
