/** What the kernel says about the Intel RDT groups of a container: their shares of cache and memory, and the use. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { SavedIntelRdt } from '../state/intel-rdt.ts'
import { type Resctrl, readTrimmed } from './resctrl.ts'

/** The shares and counters of a container's class. */
export interface IntelRdtStats {
  readonly l3CacheInfo?: { readonly cbmMask: string; readonly minCbmBits: bigint; readonly numClosids: bigint }
  readonly l3CacheSchemaRoot?: string
  readonly l3CacheSchema?: string
  readonly memBwInfo?: {
    readonly bandwidthGran: bigint
    readonly delayLinear: bigint
    readonly minBandwidth: bigint
    readonly numClosids: bigint
  }
  readonly memBwSchemaRoot?: string
  readonly memBwSchema?: string
  /** all lines of the class, as the kernel writes them */
  readonly schemata: readonly string[]
  /** bytes that went to memory, for each L3 cache */
  readonly mbmStats?: readonly { readonly totalBytes: bigint; readonly localBytes: bigint }[]
  /** bytes in the L3 cache, for each */
  readonly cmtStats?: readonly { readonly llcOccupancy: bigint }[]
}

const [TOTAL, LOCAL, OCCUPANCY] = ['mbm_total_bytes', 'mbm_local_bytes', 'llc_occupancy'] as const

/** Reads all of them. @throws node's own error */
export function readIntelRdtStats(resctrl: Resctrl, { path, monPath }: SavedIntelRdt): IntelRdtStats {
  const { root, cat, mba, counters } = resctrl
  const ofRoot = readTrimmed(join(root, 'schemata')).split('\n')
  const schemata = readTrimmed(join(path, 'schemata')).split('\n')
  const line = (lines: readonly string[], word: string) => lines.findLast((text) => text.includes(word))?.trim() ?? ''
  const info = (name: string) => readTrimmed(join(root, 'info', name))
  const bandwidth = counters.has(TOTAL) || counters.has(LOCAL)
  const nodes = bandwidth || counters.has(OCCUPANCY) ? nodesOf(join(monPath ?? path, 'mon_data')) : []
  const count = (node: string, name: string) => (counters.has(name) ? number(readTrimmed(join(node, name))) : 0n)
  return {
    ...(cat
      ? {
          l3CacheInfo: {
            cbmMask: info('L3/cbm_mask'),
            minCbmBits: number(info('L3/min_cbm_bits')),
            numClosids: number(info('L3/num_closids')),
          },
          l3CacheSchemaRoot: line(ofRoot, 'L3'),
          l3CacheSchema: line(schemata, 'L3'),
        }
      : {}),
    ...(mba
      ? {
          memBwInfo: {
            bandwidthGran: number(info('MB/bandwidth_gran')),
            delayLinear: number(info('MB/delay_linear')),
            minBandwidth: number(info('MB/min_bandwidth')),
            numClosids: number(info('MB/num_closids')),
          },
          memBwSchemaRoot: line(ofRoot, 'MB'),
          memBwSchema: line(schemata, 'MB'),
        }
      : {}),
    schemata,
    ...(bandwidth
      ? { mbmStats: nodes.map((node) => ({ totalBytes: count(node, TOTAL), localBytes: count(node, LOCAL) })) }
      : {}),
    ...(counters.has(OCCUPANCY) ? { cmtStats: nodes.map((node) => ({ llcOccupancy: count(node, OCCUPANCY) })) } : {}),
  }
}

/** The folders of a group's counters, one for each L3 cache. */
function nodesOf(folder: string): string[] {
  const entries = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory())
  return entries.map(({ name }) => join(folder, name)).sort()
}

/** A number; a counter that has no value at the moment says so in words, and counts as zero. */
function number(text: string): bigint {
  return /^\d+$/.test(text) ? BigInt(text) : 0n
}
