/** Durations in the form of Go. */
import { expect, test } from 'vitest'
import { parseDuration } from '../../../runtime/cli/duration.ts'

test.each([
  ['5s', 5000],
  ['250ms', 250],
  ['1m30s', 90_000],
  ['1.5h', 5_400_000],
  ['.5s', 500],
  ['1h1m1s1ms', 3_661_001],
  ['100us', 0.1],
  ['100µs', 0.1],
  ['0', 0],
  ['0s', 0],
  ['+2s', 2000],
  ['-1s', -1000],
])('%s is %d milliseconds', (text, ms) => {
  expect(parseDuration('interval', text)).toBeCloseTo(ms, 9)
})

test.each(['', '5', 's', '5 s', '1d', '5sec', '1,5s', '.s', '5s!', '--1s', 'infinity'])('%j is refused', (text) => {
  expect(() => parseDuration('interval', text)).toThrow(`invalid --interval "${text}": must be a duration`)
})
