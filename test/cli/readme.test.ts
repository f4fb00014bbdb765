/**
 * The README is true: containerd reads its configuration, its commands exist, and so do the files and tests that it
 * names.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { packAny } from 'ttrpc-ts'
import { RuntimeOptions } from 'ttrpc-ts/containerd'
import { describe, expect, onTestFinished, test } from 'vitest'
import { parseOptions } from '../../shim/options.ts'
import { needs } from '../support/needs.ts'
import { BIN, CONTAINERD, DOCKER_BIN, ROOT } from '../support/places.ts'

const README = readFileSync(join(ROOT, 'README.md'), 'utf8')

/** The code blocks of a language. */
function blocks(language: string): string[] {
  return [...README.matchAll(/```(\w*)\n([\s\S]*?)```/g)].flatMap(([, name, text]) =>
    name === language && text !== undefined ? [text] : [],
  )
}

/** What containerd makes of a configuration. */
function dump(config: string): { status: number | null; stdout: string } {
  const folder = mkdtempSync(join(tmpdir(), 'readme-'))
  try {
    writeFileSync(join(folder, 'config.toml'), config)
    const { status, stdout } = spawnSync(CONTAINERD, ['--config', join(folder, 'config.toml'), 'config', 'dump'], {
      encoding: 'utf8',
    })
    return { status, stdout }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

describe("the README's configuration", needs('containerd'), () => {
  test('is one for each form, and containerd knows the handler in the forms that it reads', () => {
    const configs = blocks('toml').filter((block) => block.startsWith('version'))
    const versions = configs.map((config) => /^version = \d$/m.exec(config)?.[0])
    // one more: with systemd's cgroups
    expect(versions).toEqual(['version = 2', 'version = 3', 'version = 3'])
    const release = Number(
      /\bv?(\d+)\.\d+\./.exec(spawnSync(CONTAINERD, ['--version'], { encoding: 'utf8' }).stdout)?.[1],
    )
    for (const config of configs.slice(0, release < 2 ? 1 : 3)) {
      const { status, stdout } = dump(config)
      expect(status).toBe(0)
      const runtime = stdout.slice(stdout.indexOf('containerd.runtimes.ts]'))
      expect(runtime).toMatch(/^containerd\.runtimes\.ts\]\n[\s\S]*?runtime_type = ["']io\.containerd\.ts\.v2["']/)
    }
  })
})

test("the README's options of the shim are options of the shim", async () => {
  const [body = '', ...others] = blocks('toml').filter((block) => !block.startsWith('version'))
  expect(others).toEqual([])
  const { options, warnings } = await parseOptions(packAny(RuntimeOptions, { configBody: Buffer.from(body) }))
  expect({ recursive: options.recursiveReadOnly, warnings }).toEqual({ recursive: true, warnings: [] })
})

describe("the README's configuration of Docker", needs('docker'), () => {
  test('is one that dockerd takes', () => {
    const folder = mkdtempSync(join(tmpdir(), 'readme-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const [config = '', ...others] = blocks('json')
    expect(others).toEqual([])
    writeFileSync(join(folder, 'daemon.json'), config)
    const words = ['--validate', '--userland-proxy=false', '--config-file', join(folder, 'daemon.json')]
    const { status, stderr } = spawnSync(join(DOCKER_BIN, 'dockerd'), words, { encoding: 'utf8' })
    expect({ status, stderr }).toEqual({ status: 0, stderr: 'configuration OK\n' })
  })
})

describe("the README's words", () => {
  test.each(['README.md', 'CONTRIBUTING.md', 'SECURITY.md'])(
    'and those of the other pages: %s names files that are there',
    (page) => {
      const text = readFileSync(join(ROOT, page), 'utf8')
      const names = text.matchAll(/`((?:c|runtime|shim|proto|scripts|test)\/[\w./-]*)[^`]*`|\]\(([\w./-]+)\)/g)
      const paths = [...names]
        .map(([, path, link]) => path ?? link ?? '')
        .filter((path) => !/[A-Z]{4}\.ts|_$/.test(path))
      expect(paths.length).toBeGreaterThan(3)
      expect(paths.filter((path) => !existsSync(join(ROOT, path)))).toEqual([])
    },
  )

  test('name a test for each difference from runc', () => {
    const rows = README.slice(README.indexOf('Different from runc'), README.indexOf('## Numbers')).split('\n')
    const tests = rows.flatMap((row) => /\| `((?:cli|oci)\/[\w-]+)` \|$/.exec(row)?.[1] ?? [])
    expect(tests.length).toBe(rows.filter((row) => row.startsWith('|')).length - 2)
    expect(tests.filter((name) => !existsSync(join(ROOT, 'test', `${name}.test.ts`)))).toEqual([])
  })

  test('refuse what the features document does not have', needs('the built shim'), () => {
    const refused = README.slice(README.indexOf('| refused, with'), README.indexOf('`runts features` prints'))
    for (const word of ['checkpoint', '`remount`']) expect(refused).toContain(word)
    const { mountOptions, linux, annotations } = JSON.parse(
      spawnSync(join(BIN, 'runts'), ['features'], { encoding: 'utf8' }).stdout,
    )
    const { cgroup, ...rest } = linux
    expect(mountOptions).not.toContain('remount')
    const { stdout } = spawnSync('sh', ['-c', 'PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v criu'])
    expect(annotations).toMatchObject({ 'runts.checkpoint.enabled': String(stdout.length > 0) })
    expect(cgroup).toMatchObject({ v1: true, v2: true, systemd: true, systemdUser: true })
    const off = Object.entries<{ enabled?: boolean }>(rest).filter(([, { enabled }]) => enabled === false)
    expect(off.map(([name]) => name)).toEqual([])
  })
})

describe("the README's commands", needs('root'), () => {
  test('name options and commands that runts has', () => {
    const commands = [...README.matchAll(/`runts ((?:--[\w-]+ \S+ )?[a-z]+|--version)/g)].map(([, words = '']) => words)
    expect(commands.length).toBeGreaterThan(3)
    for (const command of commands) {
      const { status, stderr } = spawnSync(join(BIN, 'runts'), [...command.split(' '), '--help'], { encoding: 'utf8' })
      expect({ status, stderr }, command).toEqual({ status: 0, stderr: '' })
    }
  })
})
