/** Durations as Go writes them ("5s", "1m30s", "250ms"), which runc's users type. */
import { RuntimeError } from '../index.ts'

const MS_BY_UNIT: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
}

/** The milliseconds of a duration, which may be negative. @throws InvalidArgument naming the option */
export function parseDuration(option: string, text: string): number {
  const [, sign = '', parts = ''] = /^([+-]?)(.*)$/s.exec(text) ?? []
  if (parts === '0') return 0
  if (!/^(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/.test(parts)) {
    throw new RuntimeError(
      'InvalidArgument',
      `invalid --${option} "${text}": must be a duration such as 5s, 250ms or 1m30s`,
    )
  }
  let sum = 0
  for (const [, number, unit = ''] of parts.matchAll(/([\d.]+)([a-zµμ]+)/g))
    sum += Number(number) * (MS_BY_UNIT[unit] ?? 0)
  return sign === '-' ? -sum : sum
}
