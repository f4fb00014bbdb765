/** The log's text form, and what happens to lines that cannot be written. */
import { describe, expect, test } from 'vitest'
import { createLogger, formatLine } from '../../../shim/log.ts'

describe('formatLine', () => {
  test('time, level and message come first, then the fields', () => {
    const json =
      '{"level":30,"time":"2024-05-06T07:08:09.123Z","container":"c1","pid":42,"ok":true,"msg":"container created"}'
    expect(formatLine(json)).toBe(
      'time="2024-05-06T07:08:09.123Z" level=info msg="container created" container=c1 pid=42 ok=true\n',
    )
  })

  test('a record is one line, whatever is in it', () => {
    const json = JSON.stringify({ level: 50, time: 'now', error: 'first\nsecond "third" a=b', msg: 'failed' })
    expect(formatLine(json)).toBe('time=now level=error msg=failed error="first\\nsecond \\"third\\" a=b"\n')
  })

  test('levels have containerd’s names', () => {
    const names = [20, 30, 40, 50].map(
      (level) => /level=(\w+)/.exec(formatLine(JSON.stringify({ level, time: 't', msg: 'm' })))?.[1],
    )
    expect(names).toEqual(['debug', 'info', 'warning', 'error'])
  })
})

describe('createLogger', () => {
  function setUp(options: { debug: boolean; take?: boolean }) {
    const lines: string[] = []
    const write = (line: string) => {
      lines.push(line)
      return options.take ?? true
    }
    return { lines, logger: createLogger({ debug: options.debug, fields: { namespace: 'ns', id: 'c1' }, write }) }
  }

  test('without -debug only warnings and errors are written', async () => {
    const { lines, logger } = setUp({ debug: false })
    logger.debug({}, 'one')
    logger.info({}, 'two')
    logger.warn({ left: 3n }, 'three')
    logger.error({}, 'four')
    await logger.flush()
    expect(lines.map((line) => /level=.*$/m.exec(line)?.[0])).toEqual([
      'level=warning msg=three namespace=ns id=c1 left=3',
      'level=error msg=four namespace=ns id=c1',
    ])
  })

  test('with -debug everything is, in order, also what came before the library was loaded', async () => {
    const { lines, logger } = setUp({ debug: true })
    logger.debug({}, 'first')
    await logger.flush()
    logger.info({ exec: undefined }, 'second')
    expect(lines.map((line) => /msg=\w+/.exec(line)?.[0])).toEqual(['msg=first', 'msg=second'])
    expect(lines[1]).not.toContain('exec')
    expect(lines[0]).toMatch(/^time="\d{4}-\d\d-\d\dT[\d:.]+Z" level=debug /)
  })

  test('a broken descriptor is given up after one attempt', async () => {
    const { lines, logger } = setUp({ debug: false, take: false })
    logger.warn({}, 'one')
    logger.warn({}, 'two')
    await logger.flush()
    expect(lines).toHaveLength(1)
  })
})
