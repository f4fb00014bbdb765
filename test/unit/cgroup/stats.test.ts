/** The counters of both versions, read from trees with the text that kernels write. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { CgroupV1Metrics, CgroupV2Metrics } from '../../../proto/ttrpc-ts/gen/index.ts'
import { U64_MAX } from '../../../runtime/cgroup/stats.ts'
import { readStatsV1 } from '../../../runtime/cgroup/stats-v1.ts'
import { readStatsV2 } from '../../../runtime/cgroup/stats-v2.ts'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'cgroup-stats-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

function put(files: Readonly<Record<string, string>>): void {
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(join(dir, file, '..'), { recursive: true })
    writeFileSync(join(dir, file), text)
  }
}

describe('v1', () => {
  const paths = () =>
    Object.fromEntries(
      ['cpu', 'cpuacct', 'memory', 'pids', 'blkio', 'hugetlb', 'rdma'].map((name) => [name, join(dir, name)]),
    )

  test('every counter has its place', () => {
    put({
      'cpu/cpu.stat': 'nr_periods 5\nnr_throttled 2\nthrottled_time 18446744073709551615\n',
      'cpuacct/cpuacct.usage': '123456789012345678\n',
      'cpuacct/cpuacct.stat': 'user 7\nsystem 3\n',
      'cpuacct/cpuacct.usage_percpu': '11 22 \n',
      'memory/memory.stat': [
        'cache 1',
        'rss 2',
        'rss_huge 3',
        'shmem 99',
        'mapped_file 4',
        'pgpgin 7',
        'pgmajfault 10',
        'unevictable 15',
        'hierarchical_memory_limit 9223372036854771712',
        'hierarchical_memsw_limit 17',
        'total_cache 18',
        'total_rss_huge 20',
        'total_pgpgout 25',
        'total_inactive_file 30',
        '',
      ].join('\n'),
      'memory/memory.usage_in_bytes': '34\n',
      'memory/memory.limit_in_bytes': '9223372036854771712\n',
      'memory/memory.max_usage_in_bytes': '35\n',
      'memory/memory.failcnt': '36\n',
      'memory/memory.memsw.usage_in_bytes': '37\n',
      'memory/memory.kmem.failcnt': '38\n',
      'memory/memory.kmem.tcp.limit_in_bytes': '39\n',
      'memory/memory.oom_control': 'oom_kill_disable 1\nunder_oom 0\noom_kill 4\n',
      'pids/pids.current': '8\n',
      'pids/pids.max': 'max\n',
      'hugetlb/hugetlb.2MB.usage_in_bytes': '1\n',
      'hugetlb/hugetlb.2MB.max_usage_in_bytes': '2\n',
      'hugetlb/hugetlb.2MB.failcnt': '3\n',
      'hugetlb/hugetlb.2MB.rsvd.usage_in_bytes': '9\n',
      'rdma/rdma.current': 'mlx5_0 hca_handle=2 hca_object=3\n',
      'rdma/rdma.max': 'mlx5_0 hca_handle=4 hca_object=max\n',
    })
    const stats = readStatsV1(paths())
    expect(stats.cpu).toEqual({
      usage: { total: 123456789012345678n, user: 70_000_000n, kernel: 30_000_000n, perCpu: [11n, 22n] },
      throttling: { periods: 5n, throttledPeriods: 2n, throttledTime: U64_MAX },
    })
    expect(stats.memory).toMatchObject({
      cache: 1n,
      rssHuge: 3n,
      mappedFile: 4n,
      pgPgIn: 7n,
      pgMajFault: 10n,
      unevictable: 15n,
      dirty: 0n,
      hierarchicalMemoryLimit: 9223372036854771712n,
      hierarchicalSwapLimit: 17n,
      totalCache: 18n,
      totalRssHuge: 20n,
      totalPgPgOut: 25n,
      totalInactiveFile: 30n,
      usage: { limit: 9223372036854771712n, usage: 34n, max: 35n, failcnt: 36n },
      swap: { limit: 0n, usage: 37n, max: 0n, failcnt: 0n },
      kernel: { failcnt: 38n },
      kernelTcp: { limit: 39n },
    })
    expect(stats.memoryOomControl).toEqual({ oomKillDisable: 1n, underOom: 0n, oomKill: 4n })
    expect(stats.pids).toEqual({ current: 8n, limit: 0n })
    expect(stats.hugetlb).toEqual([{ pagesize: '2MB', usage: 1n, max: 2n, failcnt: 3n }])
    expect(stats.rdma).toEqual({
      current: [{ device: 'mlx5_0', hcaHandles: 2, hcaObjects: 3 }],
      limit: [{ device: 'mlx5_0', hcaHandles: 4, hcaObjects: 4294967295 }],
    })
  })

  test('block I/O comes from whoever counted it, without the sum', () => {
    put({
      'blkio/blkio.bfq.io_serviced_recursive': 'Total 0\n',
      'blkio/blkio.throttle.io_serviced_recursive': '254:0 Read 5\n254:0 Write 6\n254:0 Total 11\nTotal 11\n',
      'blkio/blkio.bfq.io_service_bytes_recursive': '254:0 Read 512\nTotal 512\n',
      'blkio/blkio.throttle.io_service_bytes_recursive': '254:0 Read 1024\nTotal 1024\n',
      'blkio/blkio.sectors_recursive': '254:0 12\n',
    })
    const { blkio } = readStatsV1(paths())
    expect(blkio.ioServicedRecursive.map(({ op, major, minor, value }) => [op, major, minor, value])).toEqual([
      ['Read', 254n, 0n, 5n],
      ['Write', 254n, 0n, 6n],
      ['Total', 254n, 0n, 11n],
    ])
    expect(blkio.ioServiceBytesRecursive).toMatchObject([{ op: 'Read', value: 512n }])
    expect(blkio.sectorsRecursive).toMatchObject([{ op: '', value: 12n }])
    expect(blkio.ioTimeRecursive).toEqual([])
  })

  test('a removed cgroup counts as zero and can be encoded', () => {
    const { version, ...metrics } = readStatsV1(paths())
    expect(version).toBe(1)
    expect(metrics.memory.usage.usage).toBe(0n)
    expect(CgroupV1Metrics.decode(CgroupV1Metrics.encode(metrics)).memory?.usage?.usage).toBe(0n)
  })
})

describe('v2', () => {
  test('every counter has its place', () => {
    put({
      'cpu.stat':
        'usage_usec 100\nuser_usec 60\nsystem_usec 40\nnr_periods 1\nnr_throttled 2\nthrottled_usec 3\nnr_bursts 4\nburst_usec 5\n',
      'cpu.pressure':
        'some avg10=1.50 avg60=0.25 avg300=0.01 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n',
      'memory.stat': 'anon 1\nfile 2\nkernel_stack 3\npgfault 18\nworkingset_refault_anon 39\nthp_collapse_alloc 31\n',
      'memory.current': '32\n',
      'memory.max': 'max\n',
      'memory.swap.current': '34\n',
      'memory.swap.max': '0\n',
      'memory.peak': '36\n',
      'memory.events': 'low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n',
      'io.stat': '254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n\n',
      'pids.current': '8\n',
      'pids.max': '100\n',
      'hugetlb.1GB.current': '1\n',
      'hugetlb.1GB.max': 'max\n',
      'hugetlb.1GB.events': 'max 9\n',
      'hugetlb.1GB.rsvd.current': '5\n',
    })
    expect(readStatsV2(dir)).toMatchObject({
      version: 2,
      cpu: {
        usageUsec: 100n,
        userUsec: 60n,
        systemUsec: 40n,
        nrPeriods: 1n,
        nrThrottled: 2n,
        throttledUsec: 3n,
        nrBursts: 4n,
        burstUsec: 5n,
        psi: { some: { avg10: 1.5, avg60: 0.25, avg300: 0.01, total: 77n }, full: { avg10: 0, total: 0n } },
      },
      memory: {
        anon: 1n,
        file: 2n,
        kernelStack: 3n,
        pgfault: 18n,
        workingsetRefaultAnon: 39n,
        thpCollapseAlloc: 31n,
        usage: 32n,
        usageLimit: U64_MAX,
        swapUsage: 34n,
        swapLimit: 0n,
        maxUsage: 36n,
        swapMaxUsage: 0n,
        psi: undefined,
      },
      memoryEvents: { low: 1n, high: 2n, max: 3n, oom: 4n, oomKill: 5n, oomGroupKill: 6n },
      io: { usage: [{ major: 254n, minor: 0n, rbytes: 1n, wbytes: 2n, rios: 3n, wios: 4n }], psi: undefined },
      pids: { current: 8n, limit: 100n },
      hugetlb: [{ pagesize: '1GB', current: 1n, max: U64_MAX, failcnt: 9n }],
    })
  })

  test('without the pids controller processes are counted, and all can be encoded', () => {
    put({ 'cgroup.procs': '11\n12\n', 'sub/cgroup.procs': '13\n0\n' })
    const { version, ...metrics } = readStatsV2(dir)
    expect(version).toBe(2)
    expect(CgroupV2Metrics.decode(CgroupV2Metrics.encode(metrics)).pids?.current).toBe(3n)
  })
})
