/**
 * A folder that stands for the resctrl file system of a machine with two L3 caches: what the kernel has in its root,
 * and classes that an administrator has made. No machine here has the hardware.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

const SCHEMATA = '    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n'
const COUNTERS = { mbm_total_bytes: '700\n', mbm_local_bytes: '300\n', llc_occupancy: '4096\n' }

const INFO: Readonly<Record<string, string>> = {
  'info/L3/cbm_mask': 'fffff\n',
  'info/L3/min_cbm_bits': '1\n',
  'info/L3/num_closids': '16\n',
  'info/MB/bandwidth_gran': '10\n',
  'info/MB/delay_linear': '1\n',
  'info/MB/min_bandwidth': '10\n',
  'info/MB/num_closids': '8\n',
  'info/L3_MON/mon_features': `${Object.keys(COUNTERS).join('\n')}\n`,
  'info/last_cmd_status': 'ok\n',
}

/** The folder; it is gone when disposed. */
export class ResctrlTree implements Disposable {
  readonly root = mkdtempSync(join(tmpdir(), 'resctrl-'))

  /** `without` are prefixes of what this machine lacks, such as "info/MB". */
  constructor(without: readonly string[] = []) {
    for (const [name, text] of Object.entries(INFO)) {
      if (!without.some((prefix) => name.startsWith(prefix))) this.write(name, text)
    }
    this.group('.')
  }

  write(name: string, text: string): void {
    mkdirSync(dirname(join(this.root, name)), { recursive: true })
    writeFileSync(join(this.root, name), text)
  }

  read(name: string): string {
    return readFileSync(join(this.root, name), 'utf8')
  }

  /** Makes what the kernel has in a group. */
  group(name: string): void {
    this.write(join(name, 'tasks'), '')
    this.write(join(name, 'schemata'), SCHEMATA)
    mkdirSync(join(this.root, name, 'mon_groups'), { recursive: true })
    for (const node of ['mon_L3_00', 'mon_L3_01']) {
      for (const [counter, text] of Object.entries(COUNTERS)) this.write(join(name, 'mon_data', node, counter), text)
    }
  }

  /** The groups in a folder of groups: the classes in '.', and the counting groups of one in 'CLASS/mon_groups'. */
  groups(name = '.'): string[] {
    const own = ['info', 'mon_groups', 'mon_data', 'tasks', 'schemata']
    return readdirSync(join(this.root, name)).filter((entry) => !own.includes(entry))
  }

  [Symbol.dispose](): void {
    rmSync(this.root, { recursive: true })
  }
}
