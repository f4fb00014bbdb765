/** What the project's README gives to copy is true: containerd reads its configuration, and its commands for looking at a shim's runtime exist. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
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
    expect(configs.map((config) => /^version = \d$/m.exec(config)?.[0])).toEqual(['version = 2', 'version = 3'])
    const release = Number(
      /\bv?(\d+)\.\d+\./.exec(spawnSync(CONTAINERD, ['--version'], { encoding: 'utf8' }).stdout)?.[1],
    )
    for (const config of configs.slice(0, release < 2 ? 1 : 2)) {
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
