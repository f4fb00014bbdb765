/**
 * The OCI command line with systemd as the maker of cgroups, on the systemd of this machine. Teardown demands that no
 * unit of the test is left, not even a failed one.
 */
import { existsSync, readFileSync } from 'node:fs'
import { test as base, expect } from 'vitest'
import { startCommand } from './command.ts'
import { isCgroup2 } from './needs.ts'
import { Runts } from './runts.ts'
import type { SpecChange } from './spec.ts'

/** Runs systemctl and answers its output. */
export async function systemctl(...args: string[]): Promise<string> {
  return (await startCommand('systemctl', ['--no-pager', '--no-legend', '--plain', ...args]).finished).stdout
}

/** What systemd says of a unit, by property. */
export async function shown(unit: string, ...names: readonly string[]): Promise<Record<string, string>> {
  const text = await systemctl('show', unit, ...names.flatMap((name) => ['-p', name]))
  return Object.fromEntries(
    text
      .split('\n')
      .filter(Boolean)
      .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  )
}

/** One test's runtime with `--systemd-cgroup`. */
export class SystemdHost extends Runts {
  protected override readonly cgroupManager = 'systemd'

  protected override commandLine(args: readonly string[]): readonly [string, ...string[]] {
    const [program, ...rest] = super.commandLine(args)
    return [program, '--systemd-cgroup', ...rest]
  }

  /** The unit of the container whose bundle names `stem`. */
  unit(stem: string): string {
    return `${this.name}-${stem}.scope`
  }

  /** A bundle whose container is the unit of this stem. */
  bundleOf(stem: string, command: readonly string[] = ['sleep', '1000'], change?: SpecChange): string {
    return this.bundle(command, (spec) => {
      spec.linux.cgroupsPath = `:${this.name}:${stem}`
      change?.(spec)
    })
  }

  /** Starts a container that sleeps. Its id is the stem of its unit. */
  sleeper(stem: string, change?: SpecChange): void {
    this.leave('run', '-d', '-b', this.bundleOf(stem, ['sleep', '1000'], change), stem)
  }

  /** The directory of a unit in a hierarchy of v1, or in the one of v2. */
  dir(stem: string, controller: string): string {
    const root = isCgroup2() ? '/sys/fs/cgroup' : `/sys/fs/cgroup/${controller}`
    return `${root}/system.slice/${this.unit(stem)}`
  }

  /** The text of a unit's file, without the line's end. */
  file(stem: string, name: string): string {
    return readFileSync(`${this.dir(stem, name.split('.')[0] ?? '')}/${name}`, 'utf8').trim()
  }

  exists(stem: string): boolean {
    return existsSync(this.dir(stem, 'pids'))
  }

  /** The units of the test that systemd knows. */
  async units(): Promise<string[]> {
    const text = await systemctl('list-units', '--all', `${this.name}-*`)
    return text.split('\n').flatMap((line) => line.trim().split(/\s+/)[0] || [])
  }

  override async end(): Promise<string[]> {
    const left = await super.end()
    return [...left, ...(await this.units())]
  }
}

/** A test with such a runtime of its own. */
export const test = base.extend<{ runts: SystemdHost }>({
  runts: async ({ task: _task }, use) => {
    const runts = new SystemdHost()
    await use(runts)
    expect(await runts.end(), 'what the test left behind').toEqual([])
  },
})
