/**
 * The five capability sets and no_new_privileges, of the first process and of an exec, as /proc/self/status shows
 * them.
 */
import { expect } from 'vitest'
import { notRunc } from '../support/needs.ts'
import { inModes, MODES } from '../support/oci.ts'

const STATUS = 'grep -E "^(Cap|NoNewPrivs)" /proc/self/status'
const CHOWN = 1n << 0n
const KILL = 1n << 5n
const SETUID = 1n << 7n
const SYS_PTRACE = 1n << 19n

/** The sets in the kernel's words. */
function setsOf(status: string): Record<string, bigint> {
  return Object.fromEntries(
    [...status.matchAll(/^(\w+):\s*(\w+)$/gm)].map(([, name, value]) => [String(name), BigInt(`0x${value}`)]),
  )
}

inModes(MODES, 'capabilities', (test) => {
  test('are exactly what each of the five sets says', async ({ runts }) => {
    const status = await runts.inside(STATUS, (spec) => {
      spec.process.user.uid = 1000
      spec.process.capabilities = {
        bounding: ['CAP_CHOWN', 'CAP_KILL', 'CAP_SETUID', 'CAP_SYS_PTRACE'],
        permitted: ['CAP_CHOWN', 'CAP_KILL', 'CAP_SYS_PTRACE'],
        effective: ['CAP_CHOWN', 'CAP_KILL'],
        inheritable: ['CAP_KILL'],
        ambient: ['CAP_KILL'],
      }
    })
    expect(setsOf(status)).toEqual({
      CapInh: KILL,
      // another user than root keeps over execve what is ambient
      CapPrm: KILL,
      CapEff: KILL,
      CapBnd: CHOWN | KILL | SETUID | SYS_PTRACE,
      CapAmb: KILL,
      NoNewPrivs: 1n,
    })
  })

  test('of a config without them are none', async ({ runts }) => {
    const status = await runts.inside(STATUS, (spec) => {
      delete spec.process.capabilities
    })
    expect(setsOf(status)).toMatchObject({ CapInh: 0n, CapPrm: 0n, CapEff: 0n, CapAmb: 0n })
  })

  test('that nobody knows are a warning, and the others are given', async ({ runts }) => {
    const unknown = ['CAP_UNKNOWN', 'UNKNOWN_CAP', 'cap_kill', 'KILL', 'CAP_X1', '', 'CAP_ kill']
    const list = ['CAP_CHOWN', ...unknown]
    const bundle = runts.bundle(['sh', '-c', STATUS], (spec) => {
      spec.process.capabilities = { bounding: list, effective: list, permitted: list, inheritable: list, ambient: list }
    })
    const { code, stdout, stderr } = await runts.run('run', '-b', bundle, 'c')
    expect({ code, sets: setsOf(stdout) }, stderr).toMatchObject({ code: 0, sets: { CapEff: CHOWN, CapAmb: CHOWN } })
    expect(stderr).toMatch(/warn.*unknown or unavailable capabilities/)
    for (const name of unknown) expect(stderr).toContain(name)
  })

  test('that nobody knows are a warning of an exec too, and the others are given', async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      const list = ['CAP_CHOWN']
      spec.process.capabilities = { bounding: list, effective: list, permitted: list }
    })
    const { code, stdout, stderr } = await runts.run(
      ...['exec', '--cap', 'cap_kill', '--cap', 'CAP_SYS_PTRACE', '--cap', 'nonsense', 'c', 'sh', '-c', STATUS],
    )
    expect({ code, sets: setsOf(stdout) }, stderr).toMatchObject({ code: 0, sets: { CapEff: CHOWN | SYS_PTRACE } })
    expect(stderr).toMatch(/warn.*unknown or unavailable capabilities.*cap_kill.*nonsense/)
  })

  test(
    'that are ambient without being inheritable are a warning',
    notRunc('1.1 drops them without a word'),
    async ({ runts }) => {
      const bundle = runts.bundle(['sh', '-c', STATUS], (spec) => {
        const list = ['CAP_CHOWN', 'CAP_KILL']
        spec.process.capabilities = { bounding: list, effective: list, permitted: list, ambient: ['CAP_KILL'] }
      })
      const { code, stdout, stderr } = await runts.run('run', '-b', bundle, 'c')
      expect({ code, sets: setsOf(stdout) }, stderr).toMatchObject({
        code: 0,
        sets: { CapEff: CHOWN | KILL, CapAmb: 0n },
      })
      expect(stderr).toMatch(/warn.*ambient/i)
    },
  )

  test('grow by exec --cap, and ambient ones only where they are inheritable', async ({ runts }) => {
    runts.sleeper('c', (spec) => {
      spec.process.capabilities = {
        bounding: ['CAP_CHOWN', 'CAP_KILL'],
        permitted: ['CAP_CHOWN', 'CAP_KILL'],
        effective: ['CAP_CHOWN', 'CAP_KILL'],
        inheritable: ['CAP_CHOWN', 'CAP_KILL'],
        ambient: ['CAP_KILL'],
      }
    })
    expect(setsOf(await runts.exec('c', 'sh', '-c', STATUS))).toMatchObject({
      CapInh: CHOWN | KILL,
      CapPrm: CHOWN | KILL,
      CapEff: CHOWN | KILL,
      CapBnd: CHOWN | KILL,
      CapAmb: KILL,
    })
    expect(setsOf(await runts.exec('--cap', 'CAP_SYS_PTRACE', 'c', 'sh', '-c', STATUS))).toMatchObject({
      CapInh: CHOWN | KILL,
      CapPrm: CHOWN | KILL | SYS_PTRACE,
      CapEff: CHOWN | KILL | SYS_PTRACE,
      CapBnd: CHOWN | KILL | SYS_PTRACE,
      CapAmb: KILL,
    })
  })

  test('may grow by a set-uid program exactly where new privileges are allowed', async ({ runts }) => {
    // a set-uid program of root's, which another user runs
    const script = `cp /bin/probe /tmp/probe && chmod 4755 /tmp/probe &&
      exec su worker -s /bin/sh -c '/tmp/probe privileges'`
    const sets = async (noNewPrivileges: boolean) =>
      setsOf(
        await runts.inside(script, (spec) => {
          spec.process.noNewPrivileges = noNewPrivileges
        }),
      )
    expect(await sets(true)).toEqual({ CapEff: 0n, NoNewPrivs: 1n })
    const allowed = await sets(false)
    expect(allowed).toMatchObject({ NoNewPrivs: 0n })
    expect(allowed['CapEff']).not.toBe(0n)
  })
})
