/** The command line between launcher and shim process. */
import { describe, expect, test } from 'vitest'
import { parseFlags } from '../../../shim/flags.ts'

describe('parseFlags', () => {
  test('reads what the launcher writes', () => {
    const argv =
      '-namespace default -id c1 -address /run/c.sock -bundle /b -ttrpc /run/c.sock.ttrpc -socket /run/s/1 -debug serve'.split(
        ' ',
      )
    expect(parseFlags(argv)).toEqual({
      action: 'serve',
      namespace: 'default',
      id: 'c1',
      address: '/run/c.sock',
      bundle: '/b',
      ttrpc: '/run/c.sock.ttrpc',
      socket: '/run/s/1',
      debug: true,
    })
  })

  test('takes both spellings, and values that begin with a dash', () => {
    expect(parseFlags(['--namespace=n', '-id', '-odd', 'delete'])).toMatchObject({
      namespace: 'n',
      id: '-odd',
      action: 'delete',
      debug: false,
    })
  })

  const refused: [string[], string][] = [
    [['-id', 'c1', '-namespace', 'n'], 'unknown action ""'],
    [['-id', 'c1', '-namespace', 'n', 'start'], 'unknown action "start"'],
    [['-id'], 'flag needs an argument: -id'],
    [['-what', 'x', 'serve'], 'flag provided but not defined: -what'],
    [['-namespace', 'n', 'serve'], '-id is missing'],
    [['-id', 'c1', 'serve'], '-namespace is missing'],
  ]
  test.each(refused)('%j is refused: %s', (argv, message) => {
    expect(() => parseFlags(argv)).toThrow(message)
  })
})
