/** Which kernel parameters a container may set, and the one path that is both checked and written. */
import { describe, expect, test } from 'vitest'
import { checkSysctl, sysctlPath } from '../../../runtime/spec/sysctl.ts'

describe('sysctlPath()', () => {
  test.each([
    ['kernel.shmmax', 'kernel/shmmax'],
    ['net.ipv4.ip_forward', 'net/ipv4/ip_forward'],
    ['net/ipv4/ip_forward', 'net/ipv4/ip_forward'],
    ['net/ipv4/conf/eno2.100/rp_filter', 'net/ipv4/conf/eno2.100/rp_filter'],
    ['net.ipv4.conf.eno2/100.rp_filter', 'net/ipv4/conf/eno2.100/rp_filter'],
    ['single', 'single'],
  ])('%s is %s', (key, path) => {
    expect(sysctlPath(key)).toBe(path)
  })
})

const ALL = ['ipc', 'network', 'uts', 'user', 'mount', 'pid']

describe('checkSysctl()', () => {
  test.each([
    ['kernel.msgmax', 'ipc'],
    ['kernel.sem', 'ipc'],
    ['kernel.shm_rmid_forced', 'ipc'],
    ['fs.mqueue.msg_max', 'ipc'],
    ['net.ipv4.ping_group_range', 'network'],
    ['net/core/somaxconn', 'network'],
    ['kernel.domainname', 'uts'],
    ['user.max_user_namespaces', 'user'],
  ])('%s needs the %s namespace', (key, namespace) => {
    expect(checkSysctl(key, new Set([namespace]))).toEqual({ path: sysctlPath(key) })
    expect(checkSysctl(key, new Set(ALL.filter((other) => other !== namespace)))).toHaveProperty('refused')
  })

  test.each([
    'kernel.hostname',
    'kernel.core_pattern',
    'kernel.shmmax.x',
    'vm.overcommit_memory',
    'fs.file-max',
    'fs.mqueue',
    'network.x',
    'net',
    'net.../kernel/core_pattern',
    'net/../kernel/core_pattern',
    'net/./ipv4',
    'net//ipv4',
    'net..ipv4',
    '/net/ipv4/ip_forward',
    '.net.ipv4',
    'net.ipv4.',
    '',
  ])('%j is refused whatever the namespaces', (key) => {
    expect(checkSysctl(key, new Set(ALL))).toHaveProperty('refused')
  })
})
