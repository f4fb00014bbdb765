/**
 * The document of `events`, from the files of a cgroup to the text. Names, order and what is left out are those of
 * runc 1.5 (types/events.go there).
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { readStatsV1 } from '../../../runtime/cgroup/stats-v1.ts'
import { readStatsV2 } from '../../../runtime/cgroup/stats-v2.ts'
import { readCounters } from '../../../runtime/events/counters.ts'
import { statsDocument } from '../../../runtime/events/document.ts'
import { stringifyJson } from '../../../runtime/spec/stringify.ts'

/** A folder with files, which is gone after the test. */
function folder(files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), 'events-'))
  onTestFinished(() => rmSync(root, { recursive: true }))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true })
    writeFileSync(join(root, name), text)
  }
  return root
}

/** The text for the files of one v2 folder. */
function v2(files: Readonly<Record<string, string>>): string {
  const dir = folder(files)
  const counters = readCounters({ paths: { '': dir } }, readStatsV2(dir))
  return stringifyJson(statsDocument(counters, []))
}

/** The text for the files of v1 hierarchies. */
function v1(files: Readonly<Record<string, string>>): string {
  const dir = folder(files)
  const names = ['memory', 'cpu', 'cpuacct', 'cpuset', 'pids', 'blkio', 'hugetlb', 'rdma']
  const paths = Object.fromEntries(names.map((name) => [name, join(dir, name)]))
  return stringifyJson(statsDocument(readCounters({ paths }, readStatsV1(paths)), []))
}

const CPUSET =
  '"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0}'
const REST = '"hugetlb":{},"intel_rdt":{},"network_interfaces":null'

describe('of cgroup v2', () => {
  test('the text is that of runc, key for key', () => {
    const psi = 'some avg10=0.00 avg60=1.50 avg300=12.34 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n'
    const text = v2({
      'cpu.stat': [
        ...['usage_usec 1500', 'user_usec 1000', 'system_usec 500', 'nr_periods 4', 'nr_throttled 2'],
        ...['throttled_usec 30', 'nr_bursts 1', 'burst_usec 7', ''],
      ].join('\n'),
      'cpu.pressure': psi,
      'memory.current': '4096\n',
      'memory.max': '8192\n',
      'memory.peak': '5000\n',
      'memory.swap.current': '100\n',
      'memory.swap.max': '1000\n',
      'memory.stat': 'anon 12\nfile 34\nzswap 1\nactive_anon 5\n',
      'pids.current': '3\n',
      'pids.max': 'max\n',
      'io.stat': '8:0 rbytes=1 wbytes=0 rios=2 wios=3 dbytes=0 dios=0\n7:1 \n',
      'io.pressure': '',
      'hugetlb.2MB.current': '0\n',
      'hugetlb.2MB.rsvd.current': '2097152\n',
      'hugetlb.2MB.events': 'max 5\n',
      'hugetlb.1GB.current': '0\n',
      'hugetlb.1GB.events': 'max 0\n',
    })
    expect(text).toBe(
      `{"cpu":{"usage":{"total":1500000,"kernel":500000,"user":1000000},"throttling":{"periods":4,"throttledPeriods":2,"throttledTime":30000},"psi":{"some":{"avg10":0,"avg60":1.5,"avg300":12.34,"total":99}}},${CPUSET},"memory":{"cache":34,"usage":{"limit":8192,"usage":4096,"max":5000,"failcnt":0},"swap":{"limit":9192,"usage":4196,"failcnt":0},"raw":{"active_anon":5,"anon":12,"file":34,"zswap":1}},"pids":{"current":3},"blkio":{"ioServiceBytesRecursive":[{"major":8,"op":"Read","value":1},{"major":8,"op":"Write"},{"major":7,"minor":1,"op":"Read"},{"major":7,"minor":1,"op":"Write"}],"ioServicedRecursive":[{"major":8,"op":"Read","value":2},{"major":8,"op":"Write","value":3},{"major":7,"minor":1,"op":"Read"},{"major":7,"minor":1,"op":"Write"}]},"hugetlb":{"1GB":{"failcnt":0},"2MB":{"usage":2097152,"failcnt":5}},"intel_rdt":{},"network_interfaces":null}`,
    )
  })

  test('without limits and without controllers it has what is left', () => {
    expect(v2({ 'memory.current': '1\n', 'memory.max': 'max\n', 'memory.swap.max': 'max\n' })).toContain(
      '"memory":{"usage":{"limit":18446744073709551615,"usage":1,"failcnt":0},"swap":{"limit":18446744073709551615,"usage":1,"failcnt":0}}',
    )
    expect(v2({})).toBe(`{"cpu":{},${CPUSET},"memory":{},"pids":{},"blkio":{},${REST}}`)
  })

  test('RDMA, which runc leaves out, is the last key where there is some', () => {
    const text = v2({
      'rdma.current': 'mlx4_0 hca_handle=2 hca_object=3\n',
      'rdma.max': 'mlx4_0 hca_handle=max hca_object=7\n',
    })
    expect(text).toContain(
      ',"network_interfaces":null,"rdma":{"current":[{"device":"mlx4_0","hca_handles":2,"hca_objects":3}],"limit":[{"device":"mlx4_0","hca_handles":4294967295,"hca_objects":7}]}}',
    )
  })
})

test('of cgroup v1 the text is that of runc, key for key', () => {
  const text = v1({
    'cpuacct/cpuacct.usage': '700\n',
    'cpuacct/cpuacct.usage_percpu': '300 400 \n',
    'cpuacct/cpuacct.usage_all': 'cpu user system\n0 100 200\n1 0 400\n',
    'cpuacct/cpuacct.stat': 'user 3\nsystem 4\n',
    'cpu/cpu.stat': 'nr_periods 0\nnr_throttled 0\nthrottled_time 0\n',
    'cpuset/cpuset.cpus': '0-1,3\n',
    'cpuset/cpuset.mems': '0\n',
    'cpuset/cpuset.sched_load_balance': '1\n',
    'cpuset/cpuset.sched_relax_domain_level': '-1\n',
    'memory/memory.stat': 'cache 9\nrss 8\n',
    'memory/memory.usage_in_bytes': '17\n',
    'memory/memory.limit_in_bytes': '100\n',
    'memory/memory.max_usage_in_bytes': '20\n',
    'memory/memory.failcnt': '2\n',
    'memory/memory.kmem.usage_in_bytes': '5\n',
    'pids/pids.current': '1\n',
    'pids/pids.max': '10\n',
    'blkio/blkio.throttle.io_service_bytes_recursive': '8:0 Read 5\n8:0 Total 5\nTotal 5\n',
    'hugetlb/hugetlb.2MB.usage_in_bytes': '1\n',
    'hugetlb/hugetlb.2MB.max_usage_in_bytes': '2\n',
    'hugetlb/hugetlb.2MB.failcnt': '3\n',
    'hugetlb/hugetlb.2MB.rsvd.usage_in_bytes': '4\n',
    'hugetlb/hugetlb.2MB.rsvd.max_usage_in_bytes': '5\n',
    'hugetlb/hugetlb.2MB.rsvd.failcnt': '6\n',
  })
  expect(text).toBe(
    '{"cpu":{"usage":{"total":700,"percpu":[300,400],"percpu_kernel":[200,400],"percpu_user":[100,0],"kernel":40000000,"user":30000000}},"cpuset":{"cpus":[0,1,3],"cpu_exclusive":0,"mems":[0],"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":1,"sched_relax_domain_level":-1},"memory":{"cache":9,"usage":{"limit":100,"usage":17,"max":20,"failcnt":2},"kernel":{"limit":0,"usage":5,"failcnt":0},"raw":{"cache":9,"rss":8}},"pids":{"current":1,"limit":10},"blkio":{"ioServiceBytesRecursive":[{"major":8,"op":"Read","value":5},{"major":8,"op":"Total","value":5}]},"hugetlb":{"2MB":{"usage":4,"max":5,"failcnt":6}},"intel_rdt":{},"network_interfaces":null}',
  )
})
