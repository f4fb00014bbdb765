/**
 * Builds the test image from the machine's static busybox: a docker archive that `ctr image import` takes.
 * It needs no registry, no docker and no tar program. Owners and times are fixed, so equal inputs give equal digests.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

/** One entry of a tar archive. */
export type TarEntry =
  | { readonly kind: 'file'; readonly path: string; readonly mode: number; readonly data: Uint8Array }
  | { readonly kind: 'folder'; readonly path: string; readonly mode: number }
  | { readonly kind: 'link'; readonly path: string; readonly target: string }

const BLOCK = 512
const TYPES = { file: '0', folder: '5', link: '2' } as const

function header(entry: TarEntry): Buffer {
  const block = Buffer.alloc(BLOCK)
  const octal = (value: number, offset: number, width: number): void => {
    block.write(`${value.toString(8).padStart(width - 1, '0')}\0`, offset, 'latin1')
  }
  if (Buffer.byteLength(entry.path) > 100) throw new Error(`tar path is too long: "${entry.path}"`)
  block.write(entry.path, 0)
  octal(entry.kind === 'link' ? 0o777 : entry.mode, 100, 8)
  octal(0, 108, 8)
  octal(0, 116, 8)
  octal(entry.kind === 'file' ? entry.data.length : 0, 124, 12)
  octal(0, 136, 12)
  block.write(TYPES[entry.kind], 156, 'latin1')
  if (entry.kind === 'link') block.write(entry.target, 157)
  block.write('ustar\x0000', 257, 'latin1')
  // the checksum counts its own field as eight spaces
  block.fill(' ', 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

/** A tar archive of the entries, in their order. */
function tar(entries: readonly TarEntry[]): Buffer {
  const parts: Buffer[] = []
  for (const entry of entries) {
    parts.push(header(entry))
    if (entry.kind !== 'file') continue
    parts.push(Buffer.from(entry.data), Buffer.alloc((BLOCK - (entry.data.length % BLOCK)) % BLOCK))
  }
  return Buffer.concat([...parts, Buffer.alloc(2 * BLOCK)])
}

const FOLDERS = ['bin', 'dev', 'etc', 'home', 'proc', 'root', 'run', 'sys', 'tmp', 'usr', 'var', 'mnt'] as const

const ETC = {
  passwd:
    'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\nworker:x:1000:1000:worker:/home:/bin/sh\n',
  group: 'root:x:0:\nnogroup:x:65534:\nworker:x:1000:\nextra:x:1001:worker\n',
} as const

/** The files of the test image's root: busybox under each of its names, and the programs given. */
export function busyboxRoot(busybox: string, programs: Readonly<Record<string, string>> = {}): TarEntry[] {
  const applets = execFileSync(busybox, ['--list'], { encoding: 'utf8' })
    .split('\n')
    .filter((name) => name !== '' && name !== 'busybox')
  const text = new TextEncoder()
  return [
    ...FOLDERS.map((path): TarEntry => ({ kind: 'folder', path: `${path}/`, mode: path === 'tmp' ? 0o1777 : 0o755 })),
    { kind: 'file', path: 'bin/busybox', mode: 0o755, data: readFileSync(busybox) },
    ...applets.map((name): TarEntry => ({ kind: 'link', path: `bin/${name}`, target: 'busybox' })),
    ...Object.entries(programs).map(
      ([name, path]): TarEntry => ({ kind: 'file', path: `bin/${name}`, mode: 0o755, data: readFileSync(path) }),
    ),
    ...Object.entries(ETC).map(
      ([name, content]): TarEntry => ({ kind: 'file', path: `etc/${name}`, mode: 0o644, data: text.encode(content) }),
    ),
  ]
}

/** A docker archive with one layer, named so that `ctr` finds it as `reference`. */
export function imageArchive(
  reference: string,
  root: readonly TarEntry[],
  command: readonly string[] = ['sh'],
): Buffer {
  const layer = tar(root)
  const digest = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')
  const config = Buffer.from(
    JSON.stringify({
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      config: {
        Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
        Cmd: command,
        WorkingDir: '/',
      },
      rootfs: { type: 'layers', diff_ids: [`sha256:${digest(layer)}`] },
      history: [{ created_by: 'test/support/image.ts' }],
    }),
  )
  const manifest = Buffer.from(
    JSON.stringify([{ Config: `${digest(config)}.json`, RepoTags: [reference], Layers: ['layer.tar'] }]),
  )
  return tar([
    { kind: 'file', path: 'manifest.json', mode: 0o644, data: manifest },
    { kind: 'file', path: `${digest(config)}.json`, mode: 0o644, data: config },
    { kind: 'file', path: 'layer.tar', mode: 0o644, data: layer },
  ])
}
