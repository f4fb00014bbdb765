/** Mounts of a container: what appears where, with which flags and modes, and which destinations are refused. */
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { startCommand } from '../support/command.ts'
import { needs, notRunc } from '../support/needs.ts'
import { inModes, MODES, type OciHost, RUNTIME_NAME } from '../support/oci.ts'
import type { SpecChange, TestMount } from '../support/spec.ts'

/** A folder of the host with one file, which the container's users may read. */
function hostFolder(runts: OciHost, name = 'source'): string {
  const folder = join(runts.folder, name)
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'file'), `of ${name}\n`)
  return folder
}

function bind(source: string, destination: string, ...options: string[]): TestMount {
  return { destination, source, type: 'bind', options: ['rbind', ...options] }
}

function tmpfs(destination: string, ...options: string[]): TestMount {
  return { destination, source: 'tmpfs', type: 'tmpfs', options }
}

/** Shell: the options of the last mount at a place. */
const optionsOf = (place: string): string => `awk '$5 == "${place}" { o = $6 } END { print o }' /proc/self/mountinfo`

inModes(MODES, 'bind mounts', (test, mode) => {
  test('show a folder and a file of the host, also by a source relative to the bundle', async ({ runts }) => {
    const source = hostFolder(runts)
    const out = await runts.inside('cat /a/file /b /c/mark; stat -c %F /b', (spec) => {
      spec.mounts.push(bind(source, '/a'), bind(join(source, 'file'), '/b'), bind('rootfs/etc', '/c'))
      spec.process.args[2] = `${spec.process.args[2]}`.replace('/c/mark', '/c/passwd | grep -v root')
    })
    expect(out).toMatch(/^of source\nof source\n/)
    expect(out).toContain('worker')
    expect(out).toMatch(/regular file\n$/)
  })

  test(
    'are read-only where they say so, below them only with rro',
    notRunc('rro needs runc 1.1.? with a kernel it trusts'),
    async ({ runts }) => {
      // the folder below is a mount of the container's own, so that no mount of the host is needed
      const source = hostFolder(runts)
      mkdirSync(join(source, 'sub'))
      const out = await runts.inside(
        `${optionsOf('/ro/sub')}; ${optionsOf('/rro/sub')}; ${optionsOf('/ro')}`,
        (spec) => {
          spec.mounts.push(
            bind(source, '/a'),
            tmpfs('/a/sub', 'mode=755'),
            bind('rootfs/a', '/ro', 'ro'),
            bind('rootfs/a', '/rro', 'ro', 'rro'),
          )
        },
      )
      const [below, recursive, top] = out
        .trimEnd()
        .split('\n')
        .map((options) => options.split(','))
      expect(below).toContain('rw')
      expect(recursive).toContain('ro')
      expect(top).toContain('ro')
    },
  )

  test('take flags on top of those of their source', async ({ runts }) => {
    const source = hostFolder(runts)
    // a user namespace may not change how access times are kept
    const flags = ['nosuid', 'nodev', 'noexec', 'ro', ...(runts.isMapped ? [] : ['noatime'])]
    const out = await runts.inside(`${optionsOf('/a')}; ${optionsOf('/b')}`, (spec) => {
      spec.mounts.push(bind(source, '/a'), bind(source, '/b', ...flags))
    })
    const [plain, strict] = out
      .trimEnd()
      .split('\n')
      .map((options) => options.split(','))
    for (const flag of flags) {
      expect(plain).not.toContain(flag)
      expect(strict).toContain(flag)
    }
  })

  const early = mode === 'in a user namespace' ? notRunc('1.1 opens all sources before the first mount') : {}
  test('may take something that an earlier mount brought', early, async ({ runts }) => {
    const source = hostFolder(runts)
    const out = await runts.inside('cat /second/file', (spec) => {
      spec.mounts.push(bind(source, '/first'), bind('rootfs/first', '/second'))
    })
    expect(out).toBe('of source\n')
  })

  test('with a source that is not there are refused, and no mount point appears', async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.mounts.push(bind('/no/such/source', '/point'))
    })
    expect(error).toMatch(/no\/such\/source.*(no such file or directory|ENOENT)/i)
  })

  test('refuse options of a file system', notRunc('needs runc 1.2'), async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.mounts.push(bind('/etc', '/a', 'size=1k'))
    })
    expect(error).toMatch(/bind mounts cannot have any filesystem-specific options applied/)
  })
})

// those of a mount of the host are locked in a user namespace
inModes(['as root'], 'bind mounts by root', (test) => {
  const recursive = notRunc('needs runc 1.2: recursive access times')
  test('keep access times as they say, all the way down with a recursive option', recursive, async ({ runts }) => {
    const source = hostFolder(runts)
    mkdirSync(join(source, 'sub'))
    const kinds = ['noatime', 'relatime', 'strictatime', 'nodiratime'] as const
    const flat = kinds.map((kind) => `/flat-${kind}`)
    const deep = kinds.map((kind) => `/deep-${kind}`)
    const out = await runts.inside(
      [...flat, ...deep].flatMap((place) => [optionsOf(place), optionsOf(`${place}/sub`)]).join('; '),
      (spec) => {
        spec.mounts.push(bind(source, '/a'), tmpfs('/a/sub', 'relatime'))
        for (const [index, kind] of kinds.entries()) {
          spec.mounts.push(bind('rootfs/a', flat[index]!, kind), bind('rootfs/a', deep[index]!, `r${kind}`))
        }
      },
    )
    const shown = out
      .trimEnd()
      .split('\n')
      .map((options) =>
        options
          .split(',')
          .filter((word) => word.includes('atime'))
          .join(),
      )
    const words = ['noatime', 'relatime', '', 'nodiratime,relatime']
    expect(shown.slice(0, 8)).toEqual(words.flatMap((word) => [word, 'relatime']))
    expect(shown.slice(8)).toEqual(words.flatMap((word) => [word, word]))
  })
})

inModes(['as root'], 'overlay mounts', (test) => {
  const layersOf = (runts: OciHost, count: number): string[] =>
    Array.from({ length: count }, (_, index) => hostFolder(runts, `layer-${index}-${'x'.repeat(40)}`))

  test('have as many layers as there are, the first one on top', needs('Linux 6.5'), async ({ runts }) => {
    const layers = layersOf(runts, 40)
    for (const [index, layer] of layers.entries()) writeFileSync(join(layer, `own-${index}`), '')
    const out = await runts.inside('cat /o/file; ls /o | wc -l', (spec) => {
      spec.mounts.push({
        destination: '/o',
        source: 'overlay',
        type: 'overlay',
        options: [`lowerdir=${layers.join(':')}`],
      })
    })
    expect(out.trim().split(/\s*\n/)).toEqual([`of ${layers[0]!.split('/').at(-1)}`, '41'])
  })
})

inModes(MODES, 'mount points', (test) => {
  test('are made, with their parents, as folder or file', async ({ runts }) => {
    const source = hostFolder(runts)
    const out = await runts.inside('stat -c "%a %F" /x/y /x/y/z /x/file', (spec) => {
      spec.mounts.push(tmpfs('/x/y/z', 'mode=700'), bind(join(source, 'file'), '/x/file'))
    })
    expect(out).toBe('755 directory\n700 directory\n644 regular file\n')
  })

  test('behind links of the image stay inside the root', async ({ runts }) => {
    const source = hostFolder(runts)
    const bundle = runts.bundle(['sh', '-c', 'cat /etc/real/file; cat /up/file; ls -d /etc/real'], (spec) => {
      spec.mounts.push(bind(source, '/absolute'), bind(source, '/up/'))
    })
    const rootfs = join(bundle, 'rootfs')
    symlinkSync('/etc/real', join(rootfs, 'absolute'))
    symlinkSync('../../../../../etc/up', join(rootfs, 'up'))
    mkdirSync(join(rootfs, 'etc/real'))
    mkdirSync(join(rootfs, 'etc/up'))
    expect(await runts.ok('run', '-b', bundle, 'c')).toMatchObject({ stdout: 'of source\nof source\n/etc/real\n' })
  })

  test(
    'behind dangling links are made where the links point',
    notRunc('1.1 refuses some of them'),
    async ({ runts }) => {
      const source = hostFolder(runts)
      const places = ['/made/folder/file', '/made/under', '/made/file', '/made/whole/file']
      const bundle = runts.bundle(['cat', ...places], (spec) => {
        const file = join(source, 'file')
        spec.mounts.push(bind(source, '/link/folder'), bind(file, '/link/under'))
        spec.mounts.push(bind(file, '/trailing'), bind(source, '/ending'))
      })
      symlinkSync('/made', join(bundle, 'rootfs/link'))
      symlinkSync('made/file', join(bundle, 'rootfs/trailing'))
      symlinkSync('/made/whole', join(bundle, 'rootfs/ending'))
      expect((await runts.ok('run', '-b', bundle, 'c')).stdout).toBe('of source\n'.repeat(4))
    },
  )

  test('are made by the rules of the folder that they are made in', async ({ runts }) => {
    const bundle = runts.bundle(['stat', '-c', '%a %g', '/shared/made', '/shared/made/here'], (spec) => {
      spec.mounts.push(bind(hostFolder(runts), '/shared/made/here/source'))
    })
    const shared = join(bundle, 'rootfs/shared')
    mkdirSync(shared)
    chownSync(shared, runts.owner, runts.hostId(100))
    chmodSync(shared, 0o2755)
    expect((await runts.ok('run', '-b', bundle, 'c')).stdout).toBe('2755 100\n2755 100\n')
  })

  test(
    'below the path that the root has on the host are taken from the root, with a warning',
    notRunc('1.1 takes it for a path of the host, or fails'),
    async ({ runts }) => {
      const bundle = runts.bundle(['sh', '-c', 'cat /a/file /c/file /b$HOST/file'], (spec) => {
        const root = join(runts.folder, 'bundle0/rootfs')
        const source = hostFolder(runts)
        // by the path that config.json has for it, and by one that only begins like it
        spec.mounts.push(bind(source, join(root, 'a')), bind(source, `/b${root}`), bind(source, `${root}/./x/../c/`))
        spec.process.env.push(`HOST=${root}`)
      })
      const { code, stdout, stderr } = await runts.run('run', '-b', bundle, 'c')
      expect({ code, stdout }, stderr).toEqual({ code: 0, stdout: 'of source\nof source\nof source\n' })
      expect(stderr.match(/warn.*mount destination .*bundle0\/rootfs\/a.* \/mounts\/\d+/g)).toHaveLength(1)
      expect(stderr.match(/warn/g)).toHaveLength(2)
      expect(existsSync(join(bundle, 'rootfs', runts.folder))).toBe(false)
    },
  )

  test(
    'below the path of a link to the root are taken from the root too',
    notRunc('refuses such a root'),
    async ({ runts }) => {
      const bundle = runts.bundle(['cat', '/a/file', '/b/file'], (spec) => {
        const source = hostFolder(runts)
        spec.root!.path = join(runts.folder, 'link')
        spec.mounts.push(
          bind(source, join(runts.folder, 'link/a')),
          bind(source, join(runts.folder, 'bundle0/rootfs/b')),
        )
      })
      symlinkSync(join(bundle, 'rootfs'), join(runts.folder, 'link'))
      expect((await runts.ok('run', '-b', bundle, 'c')).stdout).toBe('of source\nof source\n')
    },
  )

  test('must not be the root itself, by its path on the host either', notRunc('fails otherwise'), async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.mounts.push(tmpfs(join(runts.folder, 'bundle0/rootfs')))
    })
    expect(error).toContain('is on the top of rootfs')
  })

  test('must not be the root itself', async ({ runts }) => {
    expect(await runts.refused((spec) => spec.mounts.push(tmpfs('/')))).not.toBe('')
  })

  test('below a /proc that is a link are refused', async ({ runts }) => {
    for (const place of ['proc', 'sys']) {
      const bundle = runts.bundle(['true'])
      const rootfs = join(bundle, 'rootfs')
      mkdirSync(join(rootfs, 'bad'))
      rmdirSync(join(rootfs, place))
      symlinkSync('bad', join(rootfs, place))
      expect(runts.refusal(await runts.run('run', '-b', bundle, 'c'))).toContain(
        'must be mounted on ordinary directory',
      )
    }
  })

  test('inside /proc are refused, but for the few that are known to be harmless', async ({ runts }) => {
    const source = hostFolder(runts)
    const file = join(source, 'file')
    const error = await runts.refused((spec) => spec.mounts.push(bind(file, '/proc/version')))
    expect(error).toContain('inside /proc')
    expect(await runts.inside('cat /proc/uptime', (spec) => spec.mounts.push(bind(file, '/proc/uptime')))).toBe(
      'of source\n',
    )
  })
})

inModes(MODES, 'tmpfs mounts', (test) => {
  test('inherit the mode of the folder that they cover', async ({ runts }) => {
    const bundle = runts.bundle(['stat', '-c', '%a', '/old'], (spec) => spec.mounts.push(tmpfs('/old')))
    mkdirSync(join(bundle, 'rootfs/old'))
    chmodSync(join(bundle, 'rootfs/old'), 0o3711)
    expect((await runts.ok('run', '-b', bundle, 'c')).stdout).toBe('3711\n')
  })

  test('have the mode that they say', notRunc("1.1 restores the covered folder's"), async ({ runts }) => {
    const out = await runts.inside('stat -c %a /mnt /new', (spec) => {
      spec.mounts.push(tmpfs('/mnt', 'mode=0710'), tmpfs('/new', 'mode=0701'))
    })
    expect(out).toBe('710\n701\n')
  })

  test(
    'on a new folder are open to all',
    notRunc('1.1 makes the folder first and inherits its 755'),
    async ({ runts }) => {
      expect(await runts.inside('stat -c %a /new', (spec) => spec.mounts.push(tmpfs('/new')))).toBe('1777\n')
    },
  )

  test('at a link of the image cover what it leads to inside the root', async ({ runts }) => {
    const bundle = runts.bundle(['sh', '-c', 'stat -f -c %T /real; ls -A /real; readlink /link'], (spec) => {
      spec.mounts.push(tmpfs('/link'))
    })
    mkdirSync(join(bundle, 'rootfs/real'))
    writeFileSync(join(bundle, 'rootfs/real/covered'), '')
    symlinkSync('/real', join(bundle, 'rootfs/link'))
    expect((await runts.ok('run', '-b', bundle, 'c')).stdout).toBe('tmpfs\n/real\n')
  })

  test('may be a read-only /dev, which has its nodes all the same', async ({ runts }) => {
    const out = await runts.inside(
      'touch 2>/dev/null /dev/x || echo ro; echo x > /dev/null && ls /dev/zero',
      (spec) => {
        spec.mounts.find(({ destination }) => destination === '/dev')!.options!.push('ro')
      },
    )
    expect(out).toBe('ro\n/dev/zero\n')
  })

  test('have their size, and are read-only only after they were filled', async ({ runts }) => {
    const script = `df -k /small | awk 'END { print $2 }'; ${optionsOf('/frozen')}; cat /frozen/uptime; touch 2>/dev/null /frozen/x || echo ro`
    const source = hostFolder(runts)
    const out = await runts.inside(script, (spec) => {
      spec.mounts.push(
        tmpfs('/small', 'size=64k'),
        tmpfs('/frozen', 'ro'),
        bind(join(source, 'file'), '/frozen/uptime'),
      )
    })
    expect(out).toMatch(/^64\nro,\S+\nof source\nro\n$/)
  })

  test('with tmpcopyup show what they cover', async ({ runts }) => {
    const out = await runts.inside('cat /etc/group | head -n 1; touch /etc/new; stat -f -c %T /etc', (spec) => {
      spec.mounts.push(tmpfs('/etc', 'tmpcopyup'))
    })
    expect(out).toBe('root:x:0:\ntmpfs\n')
  })
})

inModes(MODES, 'the root', (test) => {
  test('is read-only where the config says so, and mounts on it are not', async ({ runts }) => {
    const out = await runts.inside('touch 2>/dev/null /x || echo ro; touch /tmp/x && echo rw; umask', (spec) => {
      spec.root!.readonly = true
      spec.mounts.push(tmpfs('/tmp'))
    })
    expect(out).toBe('ro\nrw\n0022\n')
  })

  test('may be the bundle itself', async ({ runts }) => {
    const bundle = runts.bundle(['cat', '/mark'])
    const config = join(bundle, 'config.json')
    const spec = JSON.parse(readFileSync(config, 'utf8'))
    writeFileSync(join(bundle, 'rootfs/config.json'), JSON.stringify({ ...spec, root: { path: '.' } }))
    writeFileSync(join(bundle, 'rootfs/mark'), 'here\n')
    expect((await runts.ok('run', '-b', join(bundle, 'rootfs'), 'c')).stdout).toBe('here\n')
  })

  test('is not there, and the error names it', async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.root!.path = 'nothing'
    })
    expect(error).toMatch(/nothing.*(no such file or directory|ENOENT)/i)
  })

  test('has the propagation that the config says', notRunc('1.1 does not make it shared again'), async ({ runts }) => {
    // for private the kernel shows no word at all
    const shown = async (rootfsPropagation: string): Promise<string> =>
      await runts.inside('awk \'$5 == "/" { print $7 }\' /proc/self/mountinfo', (spec) => {
        spec.linux.rootfsPropagation = rootfsPropagation
      })
    expect(await shown('private')).toBe('-\n')
    expect(await shown('shared')).toMatch(/^shared:/)
    expect(await shown('slave')).toMatch(/^(master:\d+|-)\n$/)
    expect(await shown('unbindable')).toBe('unbindable\n')
    expect(await runts.refused((spec) => (spec.linux.rootfsPropagation = 'upwards'))).toContain('upwards')
  })

  test('is moved to, not pivoted to, with --no-pivot', async ({ runts }) => {
    const bundle = runts.bundle(['ls', '/'], (spec) => {
      spec.linux.rootfsPropagation = 'slave'
    })
    writeFileSync(join(bundle, 'rootfs/mark'), '')
    expect((await runts.ok('run', '--no-pivot', '-b', bundle, 'c')).stdout).toContain('mark')
  })
})

inModes(['as root'], 'a root that was moved to with --no-pivot', (test) => {
  const NEW_PROC = 'unshare -U -r -m -p -f mount -t proc proc /mnt 2>&1; ls /mnt | wc -l'
  const powers: SpecChange = (spec) => {
    for (const set of Object.values(spec.process.capabilities!)) set.push('CAP_SYS_ADMIN', 'CAP_SETFCAP')
  }

  test('leaves no whole /proc behind, with which another one could be had', async ({ runts }) => {
    const { stdout } = await runts.ok('run', '--no-pivot', '-b', runts.bundle(['sh', '-c', NEW_PROC], powers), 'c')
    expect(stdout).toMatch(/^mount: .*[Pp]ermi.*\n0\n$/)
  })

  for (const [where, script] of [
    ['whose own root was mounted over', 'mount -t tmpfs over /mnt && mount --move /mnt / && exec "$@"'],
    ['in a chroot', 'mount --rbind / /mnt && exec chroot /mnt "$@"'],
  ] as const) {
    test(`nor does a runtime ${where}`, notRunc('covers what it sees itself, or not even that'), async ({ runts }) => {
      const command = runts.commandOf('run', '--no-pivot', '-b', runts.bundle(['sh', '-c', NEW_PROC], powers), 'c')
      const { code, stdout, stderr } = await startCommand('unshare', ['-m', 'sh', '-c', script, 'sh', ...command])
        .finished
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(stdout).toMatch(/^mount: .*[Pp]ermi.*\n0\n$/)
    })
  }
})

inModes(MODES, 'masked and read-only paths', (test) => {
  /** A bundle with things below /secret to mask, whose root has the capability that unmounting takes. */
  const secretive = (runts: OciHost, script: string, change?: SpecChange): string => {
    const bundle = runts.bundle(['sh', '-c', script], (spec) => {
      spec.linux.maskedPaths = ['/secret/file', '/secret/folder', '/secret/other', '/missing', '/secret/file']
      spec.linux.readonlyPaths = ['/secret/frozen', '/missing']
      change?.(spec)
    })
    const secret = join(bundle, 'rootfs/secret')
    for (const name of ['folder', 'other', 'frozen']) {
      mkdirSync(join(secret, name), { recursive: true })
      writeFileSync(join(secret, name, 'mark'), 'mark\n')
    }
    writeFileSync(join(secret, 'file'), 'secret\n')
    return bundle
  }

  for (const readonly of [false, true]) {
    test(`keep their secret and their content, on a ${readonly ? 'read-only' : 'writable'} root`, async ({ runts }) => {
      const script = `exec 2>&1; cat /secret/file; ls /secret/folder /secret/other
        touch /secret/folder/x; touch /secret/frozen/x; cat /secret/frozen/mark
        exec 2>/dev/null; rm -f /secret/file && echo removed
        for place in file folder frozen; do umount /secret/$place && echo unmounted; done; echo kept`
      const bundle = secretive(runts, script, (spec) => {
        spec.root!.readonly = readonly
      })
      const { stdout } = await runts.ok('run', '-b', bundle, 'c')
      const denied = 'Read-only file system'
      expect(stdout).toBe(
        [
          '/secret/folder:\n\n/secret/other:',
          `touch: /secret/folder/x: ${denied}`,
          `touch: /secret/frozen/x: ${denied}`,
          'mark',
          'kept\n',
        ].join('\n'),
      )
    })
  }

  test('may be relative to the root, with a warning', async ({ runts }) => {
    const script = 'cat /secret/file; ls /secret/folder; touch /secret/frozen/x 2>&1; cat /etc/passwd | wc -l'
    const bundle = secretive(runts, script, (spec) => {
      spec.linux.maskedPaths = ['secret/file', '../secret/./folder', '']
      spec.linux.readonlyPaths = ['secret/frozen', '']
    })
    const { code, stdout, stderr } = await runts.run('run', '-b', bundle, 'c')
    const lines = readFileSync(join(bundle, 'rootfs/etc/passwd'), 'utf8').trimEnd().split('\n').length
    expect({ code, stdout }, stderr).toEqual({
      code: 0,
      stdout: `touch: /secret/frozen/x: Read-only file system\n${lines}\n`,
    })
    if (RUNTIME_NAME === 'runc') return
    expect(stderr).toMatch(/warn.*secret\/file.*\/linux\/maskedPaths\/0/)
    expect(stderr).toMatch(/warn.*secret\/frozen.*\/linux\/readonlyPaths\/0/)
  })

  test('are mounted once, and folders share one empty file system', notRunc('needs runc 1.3'), async ({ runts }) => {
    const script = `grep -c ' /secret/file ' /proc/self/mountinfo; stat -c %d /secret/folder /secret/other | uniq | wc -l`
    expect((await runts.ok('run', '-b', secretive(runts, script), 'c')).stdout).toBe('1\n1\n')
  })

  test('need a mount namespace', async ({ runts }) => {
    const error = await runts.refused((spec) => {
      spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'mount')
      spec.mounts = []
    })
    expect(error).toContain('without a private MNT namespace')
  })
})
