/**
 * `delete`: answered from the record that the shim left, by Node where there is none, and the socket is removed that
 * belongs to the shim.
 */
import { existsSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DeleteResponse } from 'ttrpc-ts/containerd'
import { describe, expect } from 'vitest'
import { NODE_FLAGS } from '../../proto/launch.ts'
import { needs } from '../support/needs.ts'
import { expectRefusal, LEAKING, socketPath, test } from './launcher-layout.ts'

describe('delete', needs('gcc'), () => {
  const RESPONSE = { pid: 4711, exitStatus: 137, exitedAt: { seconds: 1700000000n, nanos: 123456789 } }
  const RECORD = DeleteResponse.encode(RESPONSE)

  test("answers from the shim's record without Node, any number of times", ({ layout }) => {
    writeFileSync(join(layout.bundle, 'shim-exit'), RECORD)
    for (let time = 0; time < 2; time++) {
      const result = layout.delete()
      expect(result).toMatchObject({ status: 0, stderr: '' })
      expect(DeleteResponse.decode(result.stdout)).toMatchObject(RESPONSE)
    }
    expect(existsSync(join(layout.lib, 'record'))).toBe(false)
  })

  test('reads on where the file system gave a part of the record', needs('strace'), ({ layout }) => {
    const path = join(layout.bundle, 'shim-exit')
    const [head, rest] = [Buffer.from(RECORD.subarray(0, 5)), RECORD.subarray(5)]
    // the first read of the file gets the head, which is not in it
    writeFileSync(path, rest)
    const inject = `inject=read:retval=${head.length}:poke_exit=@arg2=${head.toString('hex')}:when=1`
    const through = ['strace', '-qq', '-o', '/dev/null', '-P', path, '-e', 'trace=read', '-e', inject]
    expect(layout.delete({ through })).toMatchObject({ status: 0, stdout: Buffer.from(RECORD), stderr: '' })
  })

  test('takes an end with no status at no time for one, but not an empty record', ({ layout }) => {
    for (const seconds of [0n, -62135596800n]) {
      const record = DeleteResponse.encode({ exitedAt: { seconds, nanos: 0 } })
      writeFileSync(join(layout.bundle, 'shim-exit'), record)
      expect(layout.delete().stdout).toEqual(Buffer.from(record))
    }
  })

  test('removes the socket that the address file names', async ({ layout }) => {
    layout.start()
    await layout.end()
    writeFileSync(join(layout.bundle, 'shim-exit'), RECORD)
    expect(existsSync(socketPath(layout))).toBe(true)
    expect(layout.delete().status).toBe(0)
    expect(existsSync(socketPath(layout))).toBe(false)
  })

  test('leaves a socket that is younger than the record and listened on: the id was started again', async ({
    layout,
  }) => {
    const record = join(layout.bundle, 'shim-exit')
    writeFileSync(record, RECORD)
    layout.start()
    const made = statSync(socketPath(layout)).mtime
    const before = new Date(made.getTime() - 1_000)
    utimesSync(record, before, before)
    expect(layout.delete().status).toBe(0)
    expect(existsSync(socketPath(layout))).toBe(true)
    // one that is dying listens for another moment
    utimesSync(record, new Date(), new Date())
    expect(layout.delete().status).toBe(0)
    expect(existsSync(socketPath(layout))).toBe(false)
  })

  test('removes a socket that nobody listens on, however young it is', async ({ layout }) => {
    layout.start()
    await layout.end()
    writeFileSync(join(layout.bundle, 'shim-exit'), RECORD)
    utimesSync(join(layout.bundle, 'shim-exit'), 1, 1)
    expect(layout.delete().status).toBe(0)
    expect(existsSync(socketPath(layout))).toBe(false)
  })

  test('removes no socket of another name, and no file that is not a socket', async ({ layout }) => {
    layout.start({ id: 'other' })
    await layout.end()
    writeFileSync(join(layout.bundle, 'shim-exit'), RECORD)
    expect(layout.delete().status).toBe(0)
    expect(existsSync(socketPath(layout, 'other'))).toBe(true)

    writeFileSync(socketPath(layout), 'precious')
    writeFileSync(join(layout.bundle, 'address'), `unix://${socketPath(layout)}`)
    expect(layout.delete().status).toBe(0)
    expect(existsSync(socketPath(layout))).toBe(true)
  })

  test('asks Node when there is no record', async ({ layout }) => {
    expect(layout.delete()).toMatchObject({ status: 0, text: "the stand-in's answer\n", stderr: '' })
    const settings = ['-namespace', 'default', '-id', 'c1', '-address', layout.address, '-bundle', layout.bundle]
    const facts = await layout.facts()
    expect(facts('arg')).toEqual([
      'containerd-shim-ts-v2',
      ...NODE_FLAGS,
      join(layout.lib, 'shim.cjs'),
      ...settings,
      'delete',
    ])
    expect(facts('env')).toContainEqual(expect.stringMatching(/^RUNTS_SOFT_NOFILE=\d+$/))
  })

  test('asks Node when the record makes no sense', async ({ layout }) => {
    const pid = Buffer.of(0x08, 1)
    const records = [
      '', // would read as "exit status 0 of no process"
      RECORD.subarray(0, -1),
      RECORD.subarray(0, 6),
      pid,
      Buffer.concat([RECORD, pid]),
      Buffer.concat([pid, Buffer.of(0x18, 1)]),
      Buffer.concat([Buffer.of(0x0a, 1, 1), RECORD]),
      Buffer.concat([Buffer.of(0x20, 1), RECORD]),
      Buffer.concat([pid, Buffer.of(0x1a, 1, 0xff)]), // whole, but torn within the time
      Buffer.concat([RECORD, Buffer.alloc(300)]),
      '4711 137 1700000000 123456789\n', // a line, as shims from before an update write it
      '1 2 3 4\n',
    ]
    for (const record of records) {
      writeFileSync(join(layout.bundle, 'shim-exit'), record)
      expect(layout.delete().text).toBe("the stand-in's answer\n")
    }
  })

  test('gives Node only the standard files', async ({ layout }) => {
    layout.delete({ through: LEAKING })
    expect(
      (await layout.facts())('fd')
        .map((file) => file.split(' ')[0])
        .sort(),
    ).toEqual(['0', '1', '2'])
  })

  test('works without a current folder, and runs Node in one that exists', async ({ layout }) => {
    const through = ['sh', '-c', 'mkdir gone; cd gone; rmdir ../gone; exec "$@"', 'sh']
    expect(layout.delete({ through })).toMatchObject({ status: 0, stderr: '' })
    expect((await layout.facts())('cwd')).toEqual(['/'])
    const args = ['-namespace', 'default', '-address', layout.address, '-id', 'c1', 'delete']
    expect(layout.run(args, { through })).toMatchObject({ status: 0, stderr: '' })
  })

  test('works without a bundle', async ({ layout }) => {
    rmSync(layout.bundle, { recursive: true })
    expect(layout.delete({ cwd: layout.root })).toMatchObject({
      status: 0,
      text: "the stand-in's answer\n",
      stderr: '',
    })
  })

  test('takes the current folder, or a folder relative to it, as the bundle', async ({ layout }) => {
    writeFileSync(join(layout.bundle, 'shim-exit'), RECORD)
    const args = ['-namespace', 'default', '-address', layout.address, '-id', 'c1']
    expect(DeleteResponse.decode(layout.run([...args, 'delete']).stdout)).toMatchObject(RESPONSE)
    const relative = layout.run([...args, '-bundle', 'bundle', 'delete'], { cwd: layout.root })
    expect(DeleteResponse.decode(relative.stdout)).toMatchObject(RESPONSE)
  })

  test('fails clearly when Node is needed and missing', ({ layout }) => {
    rmSync(join(layout.lib, 'node'))
    expectRefusal(layout.delete(), `cannot run "${layout.lib}/node"`)
  })
})
