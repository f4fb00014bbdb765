/** Runtime options in the four forms in which they arrive. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { packAny } from 'ttrpc-ts'
import { LegacyCreateOptions, RuncOptions, RuntimeOptions } from 'ttrpc-ts/containerd'
import { describe, expect, onTestFinished, test } from 'vitest'
import { parseOptions } from '../../../shim/options.ts'

const DEFAULTS = { noPivotRoot: false, noNewKeyring: false, ioUid: 0, ioGid: 0, root: '' }

function config(body: string) {
  return packAny(RuntimeOptions, { configBody: Buffer.from(body) })
}

describe('parseOptions', () => {
  test('nothing at all means the defaults', () => {
    expect(parseOptions(undefined)).toEqual({ options: DEFAULTS, warnings: [] })
    expect(parseOptions({ typeUrl: '', value: new Uint8Array() })).toEqual({ options: DEFAULTS, warnings: [] })
  })

  test('containerd.runc.v1.Options are read', () => {
    const any = packAny(RuncOptions, {
      noPivotRoot: true,
      noNewKeyring: true,
      ioUid: 100,
      ioGid: 200,
      root: '/run/other',
      binaryName: 'runc',
    })
    expect(parseOptions(any).options).toEqual({
      noPivotRoot: true,
      noNewKeyring: true,
      ioUid: 100,
      ioGid: 200,
      root: '/run/other',
    })
  })

  test('the type URL may have the prefix of other protobuf libraries', () => {
    const any = packAny(RuncOptions, { noPivotRoot: true })
    expect(parseOptions({ ...any, typeUrl: `type.googleapis.com/${any.typeUrl}` }).options.noPivotRoot).toBe(true)
  })

  test('the legacy containerd.linux.runc.CreateOptions are read', () => {
    const any = packAny(LegacyCreateOptions, { noPivotRoot: true, noNewKeyring: true, ioUid: 7, ioGid: 8 })
    expect(parseOptions(any).options).toEqual({
      ...DEFAULTS,
      noPivotRoot: true,
      noNewKeyring: true,
      ioUid: 7,
      ioGid: 8,
    })
  })

  test('runtimeoptions.v1.Options bring their configuration inline', () => {
    const { options, warnings } = parseOptions(
      config('# ours\nNoPivotRoot = true\nIoUid = 12 # who\nRoot = "/run/\\u0061"\nBinaryName = \'\'\n'),
    )
    expect(options).toEqual({ ...DEFAULTS, noPivotRoot: true, ioUid: 12, root: '/run/a' })
    expect(warnings).toEqual([])
  })

  test('runtimeoptions.v1.Options name a file', () => {
    const dir = mkdtempSync(join(tmpdir(), 'shim-options-'))
    onTestFinished(() => rmSync(dir, { recursive: true }))
    const path = join(dir, 'shim.toml')
    writeFileSync(path, 'NoNewKeyring = true\nColour = "blue"\n')
    const { options, warnings } = parseOptions(packAny(RuntimeOptions, { configPath: path }))
    expect(options.noNewKeyring).toBe(true)
    expect(warnings).toEqual([`ignoring the key "Colour" of "${path}", line 2`])
    const missing = join(dir, 'none')
    expect(() => parseOptions(packAny(RuntimeOptions, { configPath: missing }))).toThrow(
      `cannot read the runtime options "${missing}": ENOENT`,
    )
  })

  test('what the flat reader does not understand is refused with its line', () => {
    expect(() => parseOptions(config('NoPivotRoot = true\n[options]\n'))).toThrow(
      'cannot read the runtime options, line 2',
    )
    expect(() => parseOptions(config('Root = [1]\n'))).toThrow('line 1')
  })

  test('an unknown type is ignored with a warning', () => {
    expect(parseOptions({ typeUrl: 'example.Options', value: new Uint8Array([1, 2, 3]) })).toEqual({
      options: DEFAULTS,
      warnings: ['ignoring runtime options of the unknown type "example.Options"'],
    })
  })

  test('another runtime binary is refused by name, our own are not', () => {
    expect(() => parseOptions(packAny(RuncOptions, { binaryName: '/usr/bin/crun' }))).toThrow('"/usr/bin/crun"')
    for (const binaryName of ['', 'runc', 'runts'])
      expect(() => parseOptions(packAny(RuncOptions, { binaryName }))).not.toThrow()
  })

  test('what cannot be honoured is refused', () => {
    expect(() => parseOptions(packAny(RuncOptions, { systemdCgroup: true }))).toThrow('systemd_cgroup is not supported')
    expect(() => parseOptions(config('SystemdCgroup = true'))).toThrow('systemd_cgroup is not supported')
    expect(() => parseOptions(packAny(RuncOptions, { root: 'relative' }))).toThrow('not an absolute path: "relative"')
  })

  test('shim_cgroup is the launcher’s business', () => {
    expect(parseOptions(packAny(RuncOptions, { shimCgroup: '/shims' })).options).toEqual(DEFAULTS)
  })
})
