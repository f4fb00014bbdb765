/**
 * Docker with `userns-remap`: its containers' root is a user of the host without rights, and dockerd has left them
 * their files.
 */
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe } from 'vitest'
import { expect, seconds } from '../support/containerd.ts'
import { dockerTest } from '../support/docker.ts'
import { needs } from '../support/needs.ts'

// The ranges of ids are read from two files of the host's: dockerd gets files of its own in their place.
const RANGES = 'echo nobody:100000:65536 >"$0"; mount --bind "$0" /etc/subuid; mount --bind "$0" /etc/subgid; exec "$@"'
const test = dockerTest(
  () => ({ 'userns-remap': 'nobody:nogroup' }),
  (folder) => ['unshare', '--net', '--mount', '--propagation=slave', 'sh', '-c', RANGES, join(folder, 'docker/ranges')],
)

const NEEDS = needs('root', 'containerd', 'busybox', 'the built shim', 'our shim', 'docker')

describe('userns-remap', { ...NEEDS, timeout: seconds(90) }, () => {
  test('gives a container its own users, with streams, terminal, execs and files that belong to them', async ({
    docker,
  }) => {
    const script = 'id -u; cat /proc/self/uid_map | tr -s " "; touch /new; stat -c %u /new /bin; echo re >/dev/stdout'
    const { stdout } = await docker.run([], ['sh', '-c', script])
    expect(stdout).toBe('0\n 0 100000 65536\n0\n0\nre\n')
    const id = await docker.detached(['-it', '--user=1000'], ['sh'])
    const pid = await docker.inspect(id, '{{.State.Pid}}')
    expect(readFileSync(`/proc/${pid}/status`, 'utf8')).toMatch(/^Uid:\t101000\t/m)
    expect(statSync(`/proc/${pid}/root/dev/console`).uid).toBe(101000)
    expect(await docker.ok('exec', '--user=0', id, 'sh', '-c', 'id -u; echo re >/dev/stderr')).toBe('0')
    expect(await docker.docker('exec', id, 'payload', 'both', '3', 'x')).toMatchObject({ code: 3, stdout: 'out:x\n' })
    await docker.ok('kill', id)
    expect(await docker.ok('wait', id)).toBe('137')
  })

  test('shares a network namespace between containers, and leaves privileged ones the host’s users', async ({
    docker,
  }) => {
    const id = await docker.detached()
    const joined = await docker.run([`--network=container:${id}`], ['readlink', '/proc/self/ns/net'])
    expect(joined).toMatchObject({
      code: 0,
      stdout: `${await docker.ok('exec', id, 'readlink', '/proc/self/ns/net')}\n`,
    })
    const host = await docker.run(['--userns=host', '--privileged'], ['sh', '-c', 'tr -s " " </proc/self/uid_map'])
    expect(host).toMatchObject({ code: 0, stdout: ' 0 0 4294967295\n' })
  })
})
