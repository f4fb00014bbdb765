/**
 * Attacks on the process that becomes the container's program: on its executable, and on its descriptors.
 * Also what it inherits from a careless caller, and what a container can see of it while it joins.
 */
import { createHash } from 'node:crypto'
import { closeSync, copyFileSync, ftruncateSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { isAlive } from '../support/census.ts'
import { type Command, startCommand, until } from '../support/command.ts'
import { needs } from '../support/needs.ts'
import { ATTACK, BIN, LIB } from '../support/places.ts'
import { type Runts, test } from '../support/runts.ts'
import type { SpecChange, TestSpec } from '../support/spec.ts'

const SLEEP = ['sleep', '1000']
const HELPER = join(LIB, 'ts-init')
const NOTHING = { looked: 0, traced: 0, opened: 0, written: 0 }

function checksum(): string {
  return createHash('sha256').update(readFileSync(HELPER)).digest('hex')
}

function errorOf(action: () => unknown): string | undefined {
  try {
    action()
    return undefined
  } catch (error) {
    return (error as NodeJS.ErrnoException).code
  }
}

/** A bundle whose program is the attacker. */
function attackBundle(runts: Runts, args: readonly string[], change?: SpecChange): string {
  const bundle = runts.bundle(['attack', ...args], change)
  copyFileSync(ATTACK, join(bundle, 'rootfs/bin/attack'))
  return bundle
}

function grant(spec: TestSpec, ...capabilities: string[]): void {
  for (const set of Object.values(spec.process.capabilities ?? {})) set.push(...capabilities)
}

function inUserNamespace(spec: TestSpec): void {
  spec.linux.namespaces.push({ type: 'user' })
  const map = [{ containerID: 0, hostID: 0, size: 100_000 }]
  Object.assign(spec.linux, { uidMappings: map, gidMappings: map })
}

/** What the attacker counted, by name. */
async function countsOf(runts: Runts, attacker: Command): Promise<Record<string, number>> {
  await runts.ok('kill', 'attacker', 'TERM')
  const { stdout } = await attacker.finished
  return Object.fromEntries([...stdout.matchAll(/^(\w+) (\d+)$/gm)].map(([, name, count]) => [name, Number(count)]))
}

/**
 * `runts` as a program with leaked descriptors, signals that are ignored and blocked, and a umask of 0777 would start
 * it.
 */
async function runDirty(runts: Runts, ...args: string[]): Promise<string> {
  const { stdout, stderr, code } = await startCommand(ATTACK, [
    'dirty',
    join(BIN, 'runts'),
    '--root',
    runts.root,
    ...args,
  ]).finished
  expect(code, stderr).toBe(0)
  return stdout
}

describe('a container', needs('our shim', 'root', 'busybox', 'gcc'), () => {
  test('cannot overwrite the runtime through /proc/self/exe (CVE-2019-5736)', async ({ runts }) => {
    const before = checksum()
    const attacker = runts.start(['run', '-b', attackBundle(runts, ['joiners']), 'attacker'])
    await attacker.untilOutput('ready')
    // what the exploits do: make the runtime itself the program, as a path and as an interpreter
    writeFileSync(join(runts.folder, 'bundle0/rootfs/bin/trap'), '#!/proc/self/exe\n', { mode: 0o755 })
    for (let i = 0; i < 10; i++)
      for (const program of ['/proc/self/exe', 'trap']) await runts.run('exec', 'attacker', program)
    const { seen, written } = await countsOf(runts, attacker)
    expect(seen).toBeGreaterThan(5)
    expect(written).toBe(0)
    expect(checksum()).toBe(before)
  })

  test('runs its helper from memory that nobody can change, not even root of the host (CVE-2019-5736)', async ({
    runts,
  }) => {
    const before = checksum()
    runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
    const pid = Number((await runts.state('c'))['pid'])
    const exe = `/proc/${pid}/exe`
    expect(errorOf(() => openSync(exe, 'r+'))).toBe('ETXTBSY')
    const held = openSync(exe, 'r')
    await runts.ok('delete', '-f', 'c')
    await until('the helper to end', () => !isAlive(pid))
    const writable = openSync(`/proc/self/fd/${held}`, 'r+')
    expect(errorOf(() => writeSync(writable, '#!/bin/sh\n'))).toBe('EPERM')
    expect(errorOf(() => ftruncateSync(writable, 0))).toBe('EPERM')
    for (const fd of [held, writable]) closeSync(fd)
    expect(checksum()).toBe(before)
  })

  test('has nothing of the helper once its program runs', async ({ runts }) => {
    runts.leave('create', '-b', runts.bundle(SLEEP), 'c')
    const pid = Number((await runts.state('c'))['pid'])
    expect(readFileSync(`/proc/${pid}/environ`, 'utf8')).toBe('')
    expect(readFileSync(`/proc/${pid}/comm`, 'utf8')).toBe('ts-init\n')
    await runts.ok('start', 'c')
    const { stdout } = await runts.ok(
      'exec',
      'c',
      'sh',
      '-c',
      'readlink /proc/1/exe; ls /proc/1/fd; tr "\\0" "\\n" < /proc/1/environ',
    )
    expect(stdout).toBe('/bin/sleep\n0\n1\n2\nPATH=/bin:/usr/bin\nHOME=/root\n')
  })

  for (const [where, change] of [
    ['', (spec: TestSpec) => grant(spec, 'CAP_DAC_READ_SEARCH')],
    [
      ' even as root with CAP_SYS_PTRACE of its user namespace',
      (spec: TestSpec) => {
        inUserNamespace(spec)
        grant(spec, 'CAP_SYS_PTRACE', 'CAP_DAC_READ_SEARCH')
      },
    ],
  ] as const) {
    test(`cannot look at, trace or take descriptors of a process that joins it${where} (CVE-2016-9962)`, async ({
      runts,
    }) => {
      const attacker = runts.start(['run', '-b', attackBundle(runts, ['joiners'], change), 'attacker'])
      await attacker.untilOutput('ready')
      for (let i = 0; i < 20; i++) await runts.run('exec', 'attacker', 'true')
      const counts = await countsOf(runts, attacker)
      expect(counts['seen']).toBeGreaterThan(5)
      expect(counts).toMatchObject(NOTHING)
    })
  }

  test('gets no descriptor but the three, whatever its caller leaks (CVE-2024-21626)', async ({ runts }) => {
    const bundle = runts.bundle(['payload', 'fds'])
    expect((await runDirty(runts, 'run', '-b', bundle, 'c')).match(/^\d+/gm)).toEqual(['0', '1', '2'])
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'd')
    expect((await runDirty(runts, 'exec', 'd', 'payload', 'fds')).match(/^\d+/gm)).toEqual(['0', '1', '2'])
  })

  test('cannot work in, or be executed from, a directory of the host by way of a descriptor (CVE-2024-21626)', async ({
    runts,
  }) => {
    const bundle = runts.bundle(['pwd', '-P'], (spec) => {
      spec.process.cwd = '/proc/self/fd/NUMBER'
    })
    const numbers = Array.from({ length: 48 }, (_, index) => String(index + 3))
    const bundles = runts.variants(bundle, 'NUMBER', numbers)
    // descriptors are there to be hit: the starter has the volume's folder and files open like any caller
    const { outcomes } = await runts.startMany(bundles, 1)
    expect(outcomes).toHaveLength(bundles.length)
    for (const { outcome } of outcomes) expect(outcome).toMatch(/^error: .*(cwd|working directory)/)

    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'c')
    for (const fd of [3, 4, 5, 7]) {
      expect(await runts.run('exec', '--cwd', `/proc/self/fd/${fd}`, 'c', 'pwd'), `${fd}`).toMatchObject({
        code: 255,
        stdout: '',
      })
      expect(await runts.run('exec', 'c', `/proc/self/fd/${fd}/bin/true`), `${fd}`).toMatchObject({
        code: 255,
        stdout: '',
      })
    }
  })

  test('starts with fresh signals and umask, whatever its caller has set', async ({ runts }) => {
    const look = ['grep', '-E', '^(Umask|ShdPnd|SigPnd|SigBlk|SigIgn|SigCgt)', '/proc/self/status']
    const none = '0000000000000000'
    const fresh = `Umask:\t0022\nSigPnd:\t${none}\nShdPnd:\t${none}\nSigBlk:\t${none}\nSigIgn:\t${none}\nSigCgt:\t${none}\n`
    expect(await runDirty(runts, 'run', '-b', runts.bundle(look), 'c')).toBe(fresh)
    runts.leave('run', '-d', '-b', runts.bundle(SLEEP), 'd')
    expect(await runDirty(runts, 'exec', 'd', ...look)).toBe(fresh)
  })

  test("has a session keyring of its own, not the caller's", async ({ runts }) => {
    const host = (await startCommand(ATTACK, ['keyring-id']).finished).stdout.trim()
    const { stdout } = await runts.ok('run', '-b', attackBundle(runts, ['keyring', host]), 'c')
    expect(stdout).toBe('_ses.c\n')
  })

  test("keeps none of the caller's supplementary groups (CVE-2023-25173)", async ({ runts }) => {
    const bundle = runts.bundle(['sh', '-c', 'grep Groups /proc/self/status; exec sleep 1000'], (spec) => {
      // what another runtime takes as a wish of the image
      Object.assign(spec, { annotations: { 'run.oci.keep_original_groups': '1' } })
    })
    const withGroups = (...args: string[]) =>
      startCommand('setpriv', ['--groups', '4,20,27', join(BIN, 'runts'), '--root', runts.root, ...args])
    const running = withGroups('run', '-b', bundle, 'c')
    await running.untilOutput('Groups:')
    expect(running.stdout).toBe('Groups:\t \n')
    const { stdout } = await withGroups('exec', 'c', 'grep', 'Groups', '/proc/self/status').finished
    expect(stdout).toBe('Groups:\t \n')
    await runts.ok('kill', 'c', 'KILL')
    await running.finished
  })

  test('gets its own environment when many are made at once (CVE-2021-21334)', async ({ runts }) => {
    const bundles = Array.from({ length: 8 }, (_, number) =>
      runts.bundle(['sh', '-c', 'env | sort'], (spec) => {
        spec.process.env = ['PATH=/bin', `SECRET=${number}`, ...(number % 2 === 0 ? [`ONLY_${number}=1`] : [])]
      }),
    )
    const { outcomes } = await runts.startMany(bundles, 3, true)
    for (const [number, bundle] of bundles.entries()) {
      const own = number % 2 === 0 ? `ONLY_${number}=1\n` : ''
      const expected = `0 HOME=/root\n${own}PATH=/bin\nPWD=/\nSECRET=${number}\nSHLVL=1\n`
      expect(outcomes.filter((each) => each.bundle === bundle)).toEqual([{ bundle, outcome: expected, count: 3 }])
    }
  })

  test('gets no capability into its inheritable set that was not asked for (CVE-2022-24769, CVE-2022-27650, CVE-2022-29162)', async ({
    runts,
  }) => {
    const look = ['grep', '-E', '^Cap(Inh|Prm|Eff|Amb)', '/proc/self/status']
    const bundle = runts.bundle(SLEEP, (spec) => {
      const set = ['CAP_CHOWN', 'CAP_KILL']
      spec.process.capabilities = { bounding: set, effective: set, permitted: set }
    })
    const expected = `CapInh:\t${'0'.repeat(16)}\nCapPrm:\t${'21'.padStart(16, '0')}\nCapEff:\t${'21'.padStart(16, '0')}\nCapAmb:\t${'0'.repeat(16)}\n`
    runts.leave('run', '-d', '-b', bundle, 'c')
    const { stdout } = await runts.ok('exec', 'c', 'grep', '-E', '^Cap(Inh|Prm|Eff|Amb)', '/proc/1/status')
    expect(stdout).toBe(expected)
    expect((await runts.ok('exec', 'c', ...look)).stdout).toBe(expected)
  })
})
