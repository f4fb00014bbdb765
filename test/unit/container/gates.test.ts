/** The feature gates as changes of a document: what is off is gone from it, said once, and everything else stays. */
import { expect, test } from 'vitest'
import { gateExec, gateSpec } from '../../../runtime/container/gates.ts'
import { type LogFields, silentLogger } from '../../../runtime/logger.ts'
import { parseSpec } from '../../../runtime/spec/load.ts'
import { needs } from '../../support/needs.ts'

const spec = parseSpec(
  JSON.stringify({
    ociVersion: '1.0.2',
    root: { path: 'rootfs' },
    process: {
      user: { uid: 0, gid: 0 },
      args: ['x'],
      cwd: '/',
      apparmorProfile: 'p',
      capabilities: { bounding: ['CAP_CHOWN'], effective: ['CAP_CHOWN'], permitted: ['CAP_CHOWN'] },
    },
    linux: {
      namespaces: [{ type: 'mount' }],
      seccomp: { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['mkdir'], action: 'SCMP_ACT_ERRNO' }] },
      resources: { devices: [{ allow: false, access: 'rwm' }], pids: { limit: 7 } },
    },
  }),
  'config.json',
)

function recorder() {
  const warnings: string[] = []
  return {
    warnings,
    logger: { ...silentLogger, warn: ({ feature }: LogFields) => void warnings.push(String(feature)) },
  }
}

test('with every gate on, the document is the same object', () => {
  expect(gateSpec(spec, undefined, silentLogger)).toBe(spec)
  expect(gateSpec(spec, { seccomp: true }, silentLogger)).toBe(spec)
})

test('each gate takes away its own part and nothing else', needs('root'), () => {
  const { warnings, logger } = recorder()
  const off = gateSpec(spec, { seccomp: false, apparmor: false, cgroupDevices: false, capabilities: false }, logger)
  expect(off.linux.seccomp).toBeUndefined()
  expect(off.process.apparmorProfile).toBeUndefined()
  expect(off.linux.resources?.devices).toEqual([{ allow: true, type: 'a', access: 'rwm' }])
  expect(off.linux.resources?.pids).toEqual({ limit: 7n })
  expect(off.process.capabilities?.effective).toContain('CAP_SYS_ADMIN')
  expect(warnings).toEqual(['seccomp', 'capabilities', 'apparmor', 'cgroupDevices'])
  const { seccomp, ...linux } = gateSpec(spec, { seccomp: false }, silentLogger).linux
  expect({ ...linux, seccomp: spec.linux.seccomp }).toEqual(spec.linux)
  expect(seccomp).toBeUndefined()
})

test('an exec is gated with what it takes from its container, and each gate is said once', needs('root'), () => {
  const { warnings, logger } = recorder()
  const gated = gateExec({ spec, process: spec.process }, { apparmor: false, seccomp: false }, logger)
  expect(gated.process.apparmorProfile).toBeUndefined()
  expect(gated.spec.process.apparmorProfile).toBeUndefined()
  expect(gated.spec.linux.seccomp).toBeUndefined()
  expect(warnings).toEqual(['seccomp', 'apparmor'])
})

test('only root can switch something off', () => {
  const { geteuid = () => 0 } = process
  process.geteuid = () => 1000
  try {
    expect(() => gateSpec(spec, { seccomp: false }, silentLogger)).toThrow(
      'cannot switch off "seccomp": only root can switch features off',
    )
  } finally {
    process.geteuid = geteuid
  }
})
