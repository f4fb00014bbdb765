/**
 * The process in a plan, one feature at a time: that of a container, and that of an exec, which takes from the
 * container what it leaves out.
 */
import { describe, expect, test } from 'vitest'
import { addUserNamespace, type Document } from '../spec/fixture.ts'
import { chrooted, createPlan, described, execPlan, HOST_V1, opNames, refusal } from './support.ts'

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
