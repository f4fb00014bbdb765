/** The counters of network interfaces, as the kernel writes them. */
import { expect, test } from 'vitest'
import { parseInterfaces, readInterfaces } from '../../../runtime/host/interfaces.ts'

const HEADINGS = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
`

test('come by interface, with the columns that have a name', () => {
  const text = `${HEADINGS}    lo:     120       2    0    0    0     0          0         0      120       2    0    0    0     0       0          0
eth0.10@x:18446744073709551615 9 8 7 6 5 4 3 2 1 11 12 13 14 15 16
`
  expect(parseInterfaces(text)).toEqual([
    {
      ...{ name: 'lo', rxBytes: 120n, rxPackets: 2n, rxErrors: 0n, rxDropped: 0n },
      ...{ txBytes: 120n, txPackets: 2n, txErrors: 0n, txDropped: 0n },
    },
    {
      ...{ name: 'eth0.10@x', rxBytes: 18446744073709551615n, rxPackets: 9n, rxErrors: 8n, rxDropped: 7n },
      ...{ txBytes: 2n, txPackets: 1n, txErrors: 11n, txDropped: 12n },
    },
  ])
  expect(parseInterfaces(HEADINGS)).toEqual([])
})

test('of this process include the loopback, and those of no process are none', () => {
  expect(readInterfaces(process.pid).map(({ name }) => name)).toContain('lo')
  expect(readInterfaces(0x3fffff)).toEqual([])
})
