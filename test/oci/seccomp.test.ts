/**
 * Seccomp profiles: what a filtered call answers in the first process, in an exec and in a hook, and which profiles
 * are refused.
 */
import { expect } from 'vitest'
import { notRunc } from '../support/needs.ts'
import { inModes, MODES } from '../support/oci.ts'

const ALLOW = 'SCMP_ACT_ALLOW'
const ERRNO = 'SCMP_ACT_ERRNO'
/** Numbers on x86_64; `beyond` is one that no kernel has yet. */
const NUMBERS = { mkdir: 83, getcwd: 79, setns: 308, beyond: 999, statx: 332 }

const rules = (...syscalls: { names: string[]; action: string; errnoRet?: number; args?: unknown[] }[]) => ({
  defaultAction: ALLOW,
  syscalls,
})

inModes(MODES, 'seccomp', (test) => {
  test('answers a denied call with EPERM or with the errno of its rule, also in an exec', async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      spec.linux.seccomp = rules(
        { names: ['mkdir', 'mkdirat'], action: ERRNO },
        { names: ['getcwd'], action: ERRNO, errnoRet: 100 },
        { names: ['no_such_call'], action: ERRNO },
      )
    })
    const probe = `probe syscall ${NUMBERS.mkdir} 0 0; probe syscall ${NUMBERS.getcwd} 0 0; grep Seccomp: /proc/self/status`
    expect(await runts.exec('c', 'sh', '-c', probe)).toBe('Operation not permitted\nNetwork is down\nSeccomp:\t2\n')
    expect(await runts.exec('c', 'grep', 'Seccomp:', '/proc/1/status')).toBe('Seccomp:\t2\n')
  })

  test('decides by arguments', async ({ runts }) => {
    // a signal number as argument: 0 asks only whether the process exists
    const out = await runts.inside('probe syscall 62 1 0; probe syscall 62 1 28', (spec) => {
      spec.linux.seccomp = rules({
        names: ['kill'],
        action: ERRNO,
        errnoRet: 38,
        args: [{ index: 1, value: 28, op: 'SCMP_CMP_EQ' }],
      })
    })
    // the C library's words for ENOSYS (38), here and below
    expect(out).toBe('ok 0\nFunction not implemented\n')
  })

  test('answers calls that the profile has never heard of with ENOSYS, and listed ones as it says', async ({
    runts,
  }) => {
    const change = (more: Record<string, unknown>) => (spec: { linux: { seccomp?: Record<string, unknown> } }) => {
      const denied = ['getcwd', 'statx']
      spec.linux.seccomp = {
        ...more,
        architectures: ['SCMP_ARCH_X86_64'],
        syscalls: [
          { names: ALL_OLD_CALLS.filter((name) => !denied.includes(name)), action: ALLOW },
          { names: denied, action: ERRNO, errnoRet: 1 },
        ],
      }
    }
    const probe = `probe syscall ${NUMBERS.beyond}; probe syscall ${NUMBERS.getcwd}; probe syscall ${NUMBERS.setns} -1 0`
    const out = await runts.inside(probe, change({ defaultAction: ERRNO }))
    expect(out).toBe('Function not implemented\nOperation not permitted\nOperation not permitted\n')
    // setns is older than the newest listed call, so that it gets the profile's default
    const other = await runts.inside(probe, change({ defaultAction: ERRNO, defaultErrnoRet: 6 }))
    expect(other).toBe('Function not implemented\nOperation not permitted\nNo such device or address\n')
  })

  test('kills with SIGSYS', async ({ runts }) => {
    const out = await runts.inside(
      `sh -c 'probe syscall ${NUMBERS.mkdir} 0 0; exit $?' 2>/dev/null; echo $?`,
      (spec) => {
        spec.linux.seccomp = rules({ names: ['mkdir'], action: 'SCMP_ACT_KILL_PROCESS' })
      },
    )
    expect(out).toBe('159\n')
  })

  test('filters startContainer hooks, and not those of the host', async ({ runts }) => {
    const bundle = runts.bundle(['cat', '/tmp/said'], (spec) => {
      spec.linux.seccomp = rules({ names: ['mkdir', 'mkdirat'], action: ERRNO })
      spec.hooks = {
        createRuntime: [{ path: '/bin/sh', args: ['sh', '-c', `mkdir ${runts.folder}/made`] }],
        startContainer: [{ path: '/bin/sh', args: ['sh', '-c', 'mkdir /tmp/x || echo denied > /tmp/said'] }],
      }
    })
    expect((await runts.run('run', '-b', bundle, 'c')).stdout).toBe('denied\n')
  })

  test('may say the same thing twice, and what it has never heard of', async ({ runts }) => {
    const out = await runts.inside(`probe syscall ${NUMBERS.mkdir} 0 0`, (spec) => {
      const denied = { names: ['mkdir', 'no_such_call', 'mkdir'], action: ERRNO, errnoRet: 100 }
      // a rule that says what the default does is one too many as well
      spec.linux.seccomp = rules(denied, denied, { names: ['getpid'], action: ALLOW })
    })
    expect(out).toBe('Network is down\n')
  })

  test('is loaded with and without new privileges', async ({ runts }) => {
    for (const noNewPrivileges of [true, false]) {
      const out = await runts.inside(`probe syscall ${NUMBERS.mkdir} 0 0`, (spec) => {
        spec.process.noNewPrivileges = noNewPrivileges
        spec.linux.seccomp = rules({ names: ['mkdir'], action: ERRNO })
      })
      expect(out, `noNewPrivileges ${noNewPrivileges}`).toBe('Operation not permitted\n')
    }
  })

  test('takes the flags of the kernel, and several architectures', notRunc('1.1 takes no flags'), async ({ runts }) => {
    const out = await runts.inside(`probe syscall ${NUMBERS.mkdir} 0 0`, (spec) => {
      spec.linux.seccomp = {
        ...rules({ names: ['mkdir'], action: ERRNO }),
        architectures: ['SCMP_ARCH_X86', 'SCMP_ARCH_X32', 'SCMP_ARCH_X86_64'],
        flags: ['SECCOMP_FILTER_FLAG_LOG', 'SECCOMP_FILTER_FLAG_SPEC_ALLOW'],
      }
    })
    expect(out).toBe('Operation not permitted\n')
  })

  test('refuses a profile with an unknown action, operator, architecture or flag', async ({ runts }) => {
    const refused = (seccomp: Record<string, unknown>) =>
      runts.refused((spec) => {
        spec.linux.seccomp = seccomp
      })
    const args = [{ index: 0, value: 1, op: 'SCMP_CMP_LIKE' }]
    expect(await refused(rules({ names: ['mkdir'], action: 'SCMP_ACT_FORGET' }))).toContain('SCMP_ACT_FORGET')
    expect(await refused(rules({ names: ['mkdir'], action: ERRNO, args }))).toContain('SCMP_CMP_LIKE')
    expect(
      await refused({ ...rules({ names: ['mkdir'], action: ERRNO }), architectures: ['SCMP_ARCH_Z80'] }),
    ).toContain('SCMP_ARCH_Z80')
  })

  test(
    'needs no call of a profile but those that README lists, whoever the process is',
    notRunc('needs more'),
    async ({ runts }) => {
      for (const noNewPrivileges of [false, true]) {
        for (const uid of [0, 1000]) {
          const bundle = runts.bundle(['bare'], (spec) => {
            spec.process.noNewPrivileges = noNewPrivileges
            spec.process.user = { uid, gid: uid, additionalGids: [uid, 7] }
            spec.linux.seccomp = {
              defaultAction: 'SCMP_ACT_KILL_PROCESS',
              syscalls: [{ names: [...PROMISED, 'exit_group'], action: ALLOW }],
            }
          })
          const what = `uid ${uid}, noNewPrivileges ${noNewPrivileges}`
          expect(await runts.run('run', '-b', bundle, 'c'), what).toMatchObject({
            code: 0,
            stdout: 'ran\n',
            stderr: '',
          })
          runts.leave('create', '-b', bundle, 'c')
          expect(await runts.run('exec', 'c', 'bare'), what).toMatchObject({ code: 0, stdout: 'ran\n', stderr: '' })
          await runts.ok('start', 'c')
          await runts.untilStatus('c', 'stopped')
          await runts.ok('delete', 'c')
        }
      }
    },
  )

  test('starts a process whose profile refuses to let go of a capability: it is gone with its program', async ({
    runts,
  }) => {
    const out = await runts.inside("grep '^Cap[PEIA]' /proc/self/status", (spec) => {
      spec.process.noNewPrivileges = false
      spec.process.capabilities = {}
      spec.linux.seccomp = rules({ names: ['capset'], action: ERRNO, errnoRet: 0 })
    })
    expect(out.match(/\S{16}/g)).toEqual(Array(4).fill('0'.repeat(16)))
  })

  test('refuses a flag that it does not know', notRunc('1.1 ignores flags'), async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.linux.seccomp = { ...rules({ names: ['mkdir'], action: ERRNO }), flags: ['SECCOMP_FILTER_FLAG_NO'] }
    })
    expect(error).toContain('SECCOMP_FILTER_FLAG_NO')
  })
})

/** README, "Seccomp". */
const PROMISED = ['capset', 'close', 'execve', 'read', 'write']

/** What busybox and the runtimes need, and no call newer than statx. */
const ALL_OLD_CALLS = (
  'accept accept4 access alarm arch_prctl bind brk capget capset chdir chmod chown clock_getres clock_gettime clone close connect ' +
  'dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 execve execveat exit exit_group faccessat ' +
  'fadvise64 fchdir fchmod fchmodat fchown fchownat fcntl fdatasync flock fork fstat fstatfs fsync ftruncate futex getcwd getdents ' +
  'getdents64 getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit ' +
  'getsid getsockname getsockopt gettid gettimeofday getuid getxattr ioctl kill lchown link linkat listen lseek lstat madvise mkdir ' +
  'mkdirat mknod mmap mount mprotect mremap munmap nanosleep newfstatat open openat pause pipe pipe2 poll ppoll prctl pread64 prlimit64 ' +
  'pwrite64 read readlink readlinkat readv recvfrom recvmsg rename renameat rmdir rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend ' +
  'rt_sigtimedwait sched_getaffinity sched_yield seccomp select sendmsg sendto set_robust_list set_tid_address setgid setgroups setpgid ' +
  'setresgid setresuid setsid setuid sigaltstack socket socketpair stat statfs statx symlink sysinfo tgkill umask uname unlink unlinkat ' +
  'utimensat vfork wait4 waitid write writev'
).split(' ')
