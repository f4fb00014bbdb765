/**
 * nerdctl's networks: it is its own createRuntime and poststop hook, and what those made (addresses, ports, firewall
 * rules) has to be gone with the container, whatever became of its shim.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { until } from '../../support/command.ts'
import { needs } from '../../support/needs.ts'
import { expect, NERDCTL_NEEDS, type Nerdctl, test } from '../../support/nerdctl.ts'

const SERVE = ['sh', '-c', 'mkdir -p /www && echo served >/www/index.html && exec httpd -f -p 80 -h /www']
const BRIDGE = ['--network', 'bridge'] as const

function fetch(nerd: Nerdctl, url: string) {
  return nerd.host.run('busybox', 'wget', '-q', '-O', '-', url)
}

/** Waits until the page is there: its server needs a moment. */
function untilServed(nerd: Nerdctl, url: string): Promise<void> {
  return until(`an answer of ${url}`, async () => (await fetch(nerd, url)).stdout === 'served\n')
}

const addressOf = (nerd: Nerdctl, name: string): Promise<string> => nerd.inspect(name, '{{.NetworkSettings.IPAddress}}')

/** What a container has of the network, without the bridge's ends, which go a moment after their namespace. */
const attachments = async (nerd: Nerdctl): Promise<string[]> =>
  (await nerd.host.traces()).filter((trace) => !/^(network link|socket) /.test(trace))

describe('a network of nerdctl', needs(...NERDCTL_NEEDS), () => {
  test('gives each container an address at which others and the host reach it', async ({ nerd }) => {
    const server = await nerd.detached([...BRIDGE, '--hostname', 'server'], SERVE)
    const address = await addressOf(nerd, server)
    expect(await nerd.ok('exec', server, 'ip', '-4', 'addr', 'show', 'eth0')).toContain(address)
    await untilServed(nerd, `http://${address}/`)
    const other = await nerd.output(
      [...BRIDGE, '--add-host', `alias:${address}`, '--dns', '192.0.2.1'],
      ['sh', '-c', `wget -q -O - http://alias/; cat /etc/resolv.conf`],
    )
    expect(other).toMatch(/^served\n.*nameserver 192\.0\.2\.1/s)
  })

  test('publishes ports with -p, until the container is removed', async ({ nerd }) => {
    const server = await nerd.detached(['-p', '8080:80'], SERVE)
    expect(await nerd.ok('port', server)).toBe('80/tcp -> 0.0.0.0:8080\n')
    await untilServed(nerd, 'http://10.4.0.1:8080/')
    await nerd.ok('kill', server)
    await nerd.ok('start', server)
    await untilServed(nerd, 'http://10.4.0.1:8080/')
    await nerd.ok('rm', '-f', server)
    expect(await attachments(nerd)).toEqual([])
    expect((await fetch(nerd, 'http://10.4.0.1:8080/')).code).not.toBe(0)
  })

  test('takes everything back when the shim is killed: `delete` runs the poststop hook', async ({ nerd }) => {
    const server = await nerd.detached(['-p', '8081:80'], SERVE)
    const before = await attachments(nerd)
    expect(before.filter((trace) => trace.startsWith('address ')).length).toBe(1)
    expect(before.filter((trace) => trace.startsWith('network attachment ')).length).toBe(1)
    expect(before.filter((trace) => trace.startsWith('firewall rule ')).length).toBeGreaterThan(3)
    process.kill(await nerd.shimPid(server), 'SIGKILL')
    await until('nothing left', async () => (await attachments(nerd)).length === 0)
    await nerd.ok('rm', '-f', server)
  })

  test('whose hook fails says why to the user, and nothing is left', async ({ nerd }) => {
    await nerd.detached([...BRIDGE, '--ip', '10.4.0.50'])
    const second = await nerd.once([...BRIDGE, '--ip', '10.4.0.50'], ['true'])
    expect(second.code).not.toBe(0)
    expect(second.stderr).toMatch(/error running (createRuntime )?hook/)
    expect(second.stderr).toMatch(/10\.4\.0\.50.*not available|already|allocated/)
  })

  test("of the user's own has its own addresses, and names", async ({ nerd }) => {
    const network = nerd.name()
    await nerd.ok('network', 'create', '--subnet', '10.77.0.0/24', network)
    const server = await nerd.detached(['--network', network], SERVE, 'server')
    expect(await nerd.ok('exec', server, 'ip', '-4', 'addr')).toMatch(/inet 10\.77\.0\.\d+\/24/)
    const client = await nerd.output(
      ['--network', network],
      ['sh', '-c', 'until wget -q -O - http://server/; do :; done'],
    )
    expect(client).toBe('served\n')
    await nerd.ok('rm', '-f', server)
    await nerd.ok('network', 'rm', network)
  })

  test('can be that of the host, of another container, or none', async ({ nerd }) => {
    const links = ['sh', '-c', 'ls /sys/class/net; readlink /proc/self/ns/net']
    const [ns] = (await nerd.host.run('readlink', '/proc/self/ns/net')).stdout.split('\n')
    expect(await nerd.output(['--network', 'host'], links)).toContain(ns)
    expect(await nerd.output(['--network', 'none'], ['ls', '/sys/class/net'])).toBe('lo\n')
    const server = await nerd.detached(BRIDGE)
    const inside = await nerd.ok('exec', server, 'readlink', '/proc/self/ns/net')
    expect(await nerd.output(['--network', `container:${server}`], links)).toContain(inside)
  })
})

describe('`nerdctl compose`', needs(...NERDCTL_NEEDS), () => {
  test('runs two services that know each other by name, and takes them down', { timeout: 60_000 }, async ({ nerd }) => {
    const file = join(nerd.folder, 'compose.yaml')
    const service = { image: nerd.image, pull_policy: 'never', runtime: nerd.runtime, stop_signal: 'SIGKILL' }
    const client = 'until wget -q -O - http://web/; do sleep 0.1; done; exec sleep 1000'
    const services = {
      web: { ...service, command: SERVE, ports: ['8090:80'] },
      client: { ...service, command: ['sh', '-c', client], depends_on: ['web'], mem_limit: '64m' },
    }
    // JSON is YAML
    writeFileSync(file, JSON.stringify({ services }))
    const compose = (...args: readonly string[]): Promise<string> =>
      nerd.ok('compose', '-f', file, '-p', 'pair', ...args)
    await compose('up', '-d')
    await untilServed(nerd, 'http://10.4.1.1:8090/')
    await until('the client', async () => (await compose('logs', '--no-log-prefix', 'client')).includes('served'))
    expect(await compose('ps', '--format', 'json')).toMatch(/pair-client-1.*pair-web-1|pair-web-1.*pair-client-1/s)
    expect(await compose('exec', '-T', 'client', 'hostname')).not.toBe('')
    await compose('down', '-v')
    expect(await nerd.ok('ps', '-aq')).toBe('')
  })
})
