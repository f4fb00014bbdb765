/**
 * The flags: those that only ask (`-info`, `-v`, `-h`), how they are written, and the command lines that cannot be
 * understood.
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Any, BootstrapParams, DeleteResponse, RuntimeInfo } from 'ttrpc-ts/containerd'
import { describe, expect } from 'vitest'
import { needs } from '../support/needs.ts'
import { expectRefusal, INFO, options, socketPath, test } from './launcher-layout.ts'

describe('-info', needs('gcc'), () => {
  test('describes the runtime and its features, and echoes the options', ({ layout }) => {
    const given = options('some-group')
    const result = layout.run(['-info'], { input: Any.encode(given) })
    expect(result).toMatchObject({ status: 0, stderr: '' })
    expect(RuntimeInfo.decode(result.stdout)).toEqual({ ...RuntimeInfo.decode(INFO), options: given })
    expect(existsSync(join(layout.lib, 'record'))).toBe(false)
  })

  test('has no options when none are given', ({ layout }) => {
    expect(layout.run(['-info']).stdout).toEqual(Buffer.from(INFO))
  })

  test('refuses options that are no message, and a build without an answer', ({ layout }) => {
    expectRefusal(layout.run(['-info'], { input: Buffer.from('hello') }), 'cannot read the options on stdin')
    rmSync(join(layout.lib, 'runtime-info'))
    expectRefusal(layout.run(['-info']), `cannot read "${layout.lib}/runtime-info": No such file or directory`)
  })
})

describe('the command line', needs('gcc'), () => {
  test('-v and -version print the version', ({ layout }) => {
    for (const flag of ['-v', '-version', '--v']) {
      expect(layout.run([flag])).toMatchObject({
        status: 0,
        text: 'containerd-shim-ts-v2:\n  Version:  1.2.3\n',
        stderr: '',
      })
    }
  })

  test('-v quotes the file that it cannot read', ({ layout }) => {
    rmSync(join(layout.lib, 'VERSION'))
    mkdirSync(join(layout.lib, 'VERSION'))
    expectRefusal(layout.run(['-v']), `cannot read "${layout.lib}/VERSION": Is a directory`)
  })

  test('-h explains every flag on stdout', ({ layout }) => {
    for (const flag of ['-h', '--help']) {
      const result = layout.run([flag])
      expect(result).toMatchObject({ status: 0, stderr: '' })
      for (const word of [
        '-namespace',
        '-id',
        '-address',
        '-bundle',
        '-debug',
        '-info',
        '-v',
        'start',
        'delete',
        'SIGUSR1',
      ]) {
        expect(result.text).toContain(word)
      }
    }
  })

  test('takes one dash or two, and values after a space or an equals sign', async ({ layout }) => {
    const args = ['--namespace=default', `-address=${layout.address}`, '--id', 'c1', '-debug=false', 'start', '-debug']
    const input = BootstrapParams.encode({ instanceId: 'c1', socketDir: layout.sockets })
    expect(layout.run(args, { input })).toMatchObject({ status: 0, text: `unix://${socketPath(layout)}` })
    expect((await layout.facts())('arg')).not.toContain('-debug')
  })

  test('skips unknown flags, with their values', ({ layout }) => {
    for (const flags of [['-x'], ['-x=start'], ['-x', 'value'], ['--future', '-y'], ['-x=', '-z', '/some/path']]) {
      writeFileSync(join(layout.bundle, 'shim-exit'), DeleteResponse.encode({ pid: 1, exitStatus: 2, exitedAt: {} }))
      const args = ['-namespace', 'default', '-id', 'c1', ...flags, 'delete']
      expect(DeleteResponse.decode(layout.run(args).stdout)).toMatchObject({ pid: 1, exitStatus: 2 })
    }
  })

  test('refuses what it cannot understand, in one line', ({ layout }) => {
    expectRefusal(layout.run([]), 'cannot tell what to do')
    expectRefusal(layout.run(['-debug']), 'cannot tell what to do')
    expectRefusal(layout.run(['restart']), 'cannot do "restart"')
    expectRefusal(layout.run(['-id']), 'its value is missing')
    expectRefusal(layout.run(['-debug=maybe', 'start']), 'neither true nor false')
    expectRefusal(layout.run(['-=x', 'start']), 'cannot understand the flag "-=x"')
    expectRefusal(layout.run(['two\nlines']), 'cannot do "two?lines"')
    expect(layout.run([]).status).toBe(2)
  })
})
