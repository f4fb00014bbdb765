/** Runtime options in the four forms in which they arrive. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { packAny } from 'ttrpc-ts'
import { LegacyCreateOptions, RuncOptions, RuntimeOptions } from 'ttrpc-ts/containerd'
import { describe, expect, onTestFinished, test } from 'vitest'
import { parseOptions } from '../../../shim/options.ts'

const DEFAULTS = {
  noPivotRoot: false,
  noNewKeyring: false,
  ioUid: 0,
  ioGid: 0,
  root: '',
  systemdCgroup: false,
  recursiveReadOnly: false,
  criuWorkPath: '',
  criu: {
    openTcp: false,
    externalUnixSockets: false,
    terminal: false,
    fileLocks: false,
    emptyNamespaces: [],
    cgroupsMode: '',
  },
}

function config(body: string) {
  return packAny(RuntimeOptions, { configBody: Buffer.from(body) })
}

describe('parseOptions', () => {
  test('nothing at all means the defaults', async () => {
    expect(await parseOptions(undefined)).toEqual({ options: DEFAULTS, warnings: [] })
    expect(await parseOptions({ typeUrl: '', value: new Uint8Array() })).toEqual({ options: DEFAULTS, warnings: [] })
  })

  test('containerd.runc.v1.Options are read', async () => {
    const any = packAny(RuncOptions, {
      noPivotRoot: true,
      noNewKeyring: true,
      ioUid: 100,
      ioGid: 200,
      root: '/run/other',
      binaryName: 'runc',
      criuWorkPath: '/work',
    })
    expect((await parseOptions(any)).options).toEqual({
      ...DEFAULTS,
      noPivotRoot: true,
      noNewKeyring: true,
      ioUid: 100,
      ioGid: 200,
      root: '/run/other',
      criuWorkPath: '/work',
    })
  })

  test('the type URL may have the prefix of other protobuf libraries', async () => {
    const any = packAny(RuncOptions, { noPivotRoot: true })
    const { options } = await parseOptions({ ...any, typeUrl: `type.googleapis.com/${any.typeUrl}` })
    expect(options.noPivotRoot).toBe(true)
  })

  test('the legacy containerd.linux.runc.CreateOptions are read', async () => {
    const any = packAny(LegacyCreateOptions, { noPivotRoot: true, noNewKeyring: true, ioUid: 7, ioGid: 8 })
    expect((await parseOptions(any)).options).toEqual({
      ...DEFAULTS,
      noPivotRoot: true,
      noNewKeyring: true,
      ioUid: 7,
      ioGid: 8,
    })
  })

  test('the legacy options say what a restore may bring back', async () => {
    const criu = { openTcp: true, externalUnixSockets: true, terminal: true, fileLocks: true, cgroupsMode: 'full' }
    const any = packAny(LegacyCreateOptions, { ...criu, emptyNamespaces: ['network'], criuWorkPath: '/work' })
    const { options } = await parseOptions(any)
    expect(options).toEqual({ ...DEFAULTS, criuWorkPath: '/work', criu: { ...criu, emptyNamespaces: ['network'] } })
  })

  test('runtimeoptions.v1.Options bring their configuration inline', async () => {
    const { options, warnings } = await parseOptions(
      config(
        '# ours\nNoPivotRoot = true\nIoUid = 12 # who\nRoot = "/run/\\u0061"\nBinaryName = \'\'\nRecursiveReadOnly = true\n',
      ),
    )
    expect(options).toEqual({ ...DEFAULTS, noPivotRoot: true, ioUid: 12, root: '/run/a', recursiveReadOnly: true })
    expect(warnings).toEqual([])
  })

  test('runtimeoptions.v1.Options name a file', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'shim-options-'))
    onTestFinished(() => rmSync(dir, { recursive: true }))
    const path = join(dir, 'shim.toml')
    writeFileSync(path, 'NoNewKeyring = true\nColour = "blue"\n')
    const { options, warnings } = await parseOptions(packAny(RuntimeOptions, { configPath: path }))
    expect(options.noNewKeyring).toBe(true)
    expect(warnings).toEqual([`ignoring the key "Colour" of the runtime options "${path}"`])
    const missing = join(dir, 'none')
    await expect(parseOptions(packAny(RuntimeOptions, { configPath: missing }))).rejects.toThrow(
      `cannot read the runtime options "${missing}": ENOENT`,
    )
  })

  test('a document may use all of TOML, and what is no option of ours is named in a warning', async () => {
    const text = `
      Root = """
/run/other"""   # a string of several lines
      IoUid = 0x10
      IoGid = 1_000
      "NoPivotRoot" = true
      CriuImagePath = '/x'
      [plugins.other]
      IoUid = "not ours"
      list = [1, { two = 2.5 }, 1979-05-27T07:32:00Z]
      [[layers]]
      name = "a"
    `
    expect(await parseOptions(config(text))).toEqual({
      options: { ...DEFAULTS, noPivotRoot: true, ioUid: 16, ioGid: 1000, root: '/run/other' },
      warnings: ['CriuImagePath', 'plugins', 'layers'].map((key) => `ignoring the key "${key}" of the runtime options`),
    })
  })

  test('an empty document means the defaults, whether it is inline or a file', async () => {
    expect(await parseOptions(config(''))).toEqual({ options: DEFAULTS, warnings: [] })
    expect(await parseOptions(config('# nothing\n'))).toEqual({ options: DEFAULTS, warnings: [] })
  })

  test.for([
    ['NoPivotRoot = "true"', 'true or false'],
    ['SystemdCgroup = 0', 'true or false'],
    ['NoNewKeyring = {}', 'true or false'],
    ['IoUid = "12"', 'a whole number from 0 to 4294967294'],
    ['IoUid = 12.0', 'a whole number from 0 to 4294967294'],
    ['IoGid = -1', 'a whole number from 0 to 4294967294'],
    ['IoUid = 4294967295', 'a whole number from 0 to 4294967294'],
    ['Root = [1]', 'a string without NUL'],
    ['Root = "/run/a\\u0000b"', 'a string without NUL'],
    ['[BinaryName]', 'a string without NUL'],
    ['ShimCgroup = false', 'a string without NUL'],
  ] as const)('a value of another type is refused: %s', async ([text, expected]) => {
    const key = /\w+/.exec(text)?.[0]
    await expect(parseOptions(config(text))).rejects.toThrow(
      `cannot use the key "${key}" of the runtime options: expected ${expected}`,
    )
  })

  test.for([
    ['NoPivotRoot = true\nRoot = ', 'line 2, column 8'],
    ['Root = "/run', 'line 1, column 8'],
    ['IoUid = 1\nIoUid = 2', 'line 2, column 1'],
    ['= 1', 'line 1, column 1'],
  ] as const)('an error of syntax is one line with its place: %j', async ([text, place]) => {
    const error: unknown = await parseOptions(config(text)).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'InvalidArgument' })
    expect(String(error)).toMatch(new RegExp(`: cannot read the runtime options, ${place}: [^\\n]+$`))
  })

  test('what is no text, or no file of a sensible size, is refused', async () => {
    const body = (bytes: Uint8Array) => parseOptions(packAny(RuntimeOptions, { configBody: bytes }))
    await expect(body(Buffer.from([0xff, 0x3d]))).rejects.toThrow('cannot read the runtime options: it is not UTF-8')
    const file = (configPath: string) => parseOptions(packAny(RuntimeOptions, { configPath }))
    await expect(file('/dev/zero')).rejects.toThrow('the runtime options "/dev/zero": it is not a regular file')
  })

  test('an unknown type is ignored with a warning', async () => {
    expect(await parseOptions({ typeUrl: 'example.Options', value: new Uint8Array([1, 2, 3]) })).toEqual({
      options: DEFAULTS,
      warnings: ['ignoring runtime options of the unknown type "example.Options"'],
    })
  })

  test('another runtime binary is refused by name, our own are not', async () => {
    await expect(parseOptions(packAny(RuncOptions, { binaryName: '/usr/bin/crun' }))).rejects.toThrow('"/usr/bin/crun"')
    for (const binaryName of ['', 'runc', 'runts'])
      await expect(parseOptions(packAny(RuncOptions, { binaryName }))).resolves.toBeDefined()
  })

  test('systemd makes the cgroups if one of the forms says so', async () => {
    const asked = { options: { ...DEFAULTS, systemdCgroup: true }, warnings: [] }
    expect(await parseOptions(packAny(RuncOptions, { systemdCgroup: true }))).toEqual(asked)
    expect(await parseOptions(config('SystemdCgroup = true'))).toEqual(asked)
  })

  test('what cannot be honoured is refused', async () => {
    await expect(parseOptions(packAny(RuncOptions, { root: 'relative' }))).rejects.toThrow(
      'not an absolute path: "relative"',
    )
  })

  test('shim_cgroup is the launcher’s business', async () => {
    expect((await parseOptions(packAny(RuncOptions, { shimCgroup: '/shims' }))).options).toEqual(DEFAULTS)
  })
})
