/** The features document says what the validator accepts, no more and no less. */
import { describe, expect, test } from 'vitest'
import { features } from '../../runtime/features.ts'
import { parseSpec } from '../../runtime/spec/load.ts'
import { type Document, specText } from './spec/fixture.ts'

const document: Document = features()
const accepted = (change: (spec: Document) => void) => expect(() => parseSpec(specText(change), 'test')).not.toThrow()

describe('features()', () => {
  test('names the versions that the validator takes', () => {
    for (const version of [document.ociVersionMin, document.ociVersionMax]) {
      accepted((spec) => (spec.ociVersion = version))
    }
  })

  test('tells what is switched off', () => {
    expect(document.annotations).not.toHaveProperty('runts.features.off')
    const off: Document = features({ seccomp: false, apparmor: true, cgroupDevices: false })
    expect(off.annotations['runts.features.off']).toBe('seccomp,cgroupDevices')
  })

  test.each<string>(document.hooks)('hook %s is accepted', (name) => {
    accepted((spec) => (spec.hooks = { [name]: [{ path: '/bin/true' }] }))
  })

  test('has all hooks of the specification', () => {
    const all = ['prestart', 'createRuntime', 'createContainer', 'startContainer', 'poststart', 'poststop']
    expect([...document.hooks].sort()).toEqual(all.sort())
  })

  test.each<string>(document.linux.namespaces)('a new %s namespace is accepted', (type) => {
    accepted((spec) => {
      const map = [{ containerID: 0, hostID: 1, size: 1 }]
      spec.linux.namespaces = [{ type: 'mount' }, ...(type === 'mount' ? [] : [{ type }])]
      if (type === 'user') Object.assign(spec.linux, { uidMappings: map, gidMappings: map })
    })
  })

  test.each<string>(document.linux.seccomp.actions)('seccomp action %s is accepted in a rule', (action) => {
    const syscalls = [{ names: ['mkdir'], action }]
    accepted((spec) => {
      spec.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', listenerPath: '/run/agent', syscalls }
    })
  })

  test('all known flags of seccomp are accepted, and those supported are among them', () => {
    const { knownFlags, supportedFlags } = document.linux.seccomp
    accepted((spec) => (spec.linux.seccomp = { defaultAction: 'SCMP_ACT_ALLOW', flags: knownFlags }))
    expect(knownFlags).toEqual(expect.arrayContaining(supportedFlags))
    // every kernel that the runtime runs on has these
    expect(supportedFlags).toEqual(
      expect.arrayContaining(['SECCOMP_FILTER_FLAG_LOG', 'SECCOMP_FILTER_FLAG_SPEC_ALLOW']),
    )
  })

  test.each<string>(document.linux.memoryPolicy.modes)('memory policy %s is accepted', (mode) => {
    const nodes = mode === 'MPOL_DEFAULT' || mode === 'MPOL_LOCAL' ? undefined : '0'
    const { flags } = document.linux.memoryPolicy
    accepted((spec) => (spec.linux.memoryPolicy = { mode, nodes, flags }))
  })

  test('capabilities, devices of the network and id-mapped mounts are accepted as it says', () => {
    accepted((spec) => (spec.process.capabilities = { bounding: document.linux.capabilities }))
    expect(document.linux.netDevices.enabled).toBe(true)
    accepted((spec) => (spec.linux.netDevices = { eth0: {} }))
    expect(document.linux.mountExtensions.idmap.enabled).toBe(true)
    accepted((spec) => spec.mounts.push({ destination: '/x', source: '/y', options: ['bind', 'idmap'] }))
  })

  test('the settings of Intel RDT are accepted as it says', () => {
    expect(document.linux.intelRdt).toEqual({ enabled: true, schemata: true, monitoring: true })
    accepted((spec) => (spec.linux.intelRdt = { schemata: ['L3:0=f'], enableMonitoring: true }))
  })
})
