/**
 * Reading lists of processes in a tree of plain files. The kernel ends a read of a long list at the last line that fits
 * into a page. A fifo with room for one page, that is written to in such pieces, does the same.
 */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { readText, readTextAside } from '../../../runtime/cgroup/files.ts'
import { listProcesses, processesIn } from '../../../runtime/cgroup/tree.ts'
import { ROOT } from '../../support/places.ts'

const PAGE = 4096
const KIB = 1024

/** The writer opens the fifo before anything can fail, since its reader, this process, does nothing else until then. */
const WRITER = `
  import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
  const fd = openSync(process.argv[1], 'w')
  const { fcntl } = await import('${join(ROOT, 'runtime/sys/libc.ts')}')
  const F_SETPIPE_SZ = 1031
  fcntl(fd, F_SETPIPE_SZ, ${PAGE})
  for (const piece of JSON.parse(readFileSync(process.argv[2], 'utf8'))) writeSync(fd, piece)
  closeSync(fd)`

let dir: string
let list: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'cgroup-files-'))
  list = join(dir, 'cgroup.procs')
})
afterEach(() => rmSync(dir, { recursive: true }))

/** Makes the list a fifo in which the pieces come one by one. */
function comeInPieces(pieces: readonly string[]): void {
  spawnSync('mkfifo', [list])
  const file = join(dir, 'pieces.json')
  writeFileSync(file, JSON.stringify(pieces))
  // nobody needs its complaint of a reader that leaves too early: the test finds that by itself
  spawn(process.execPath, ['--input-type=module', '-e', WRITER, list, file], { stdio: 'ignore' })
}

/** Numbers from the first with so many digits on; their lines fill more than so many bytes. */
function pidsOf(digits: number, bytes: number): number[] {
  const first = 10 ** (digits - 1)
  return Array.from({ length: Math.floor(bytes / (digits + 1)) + 20 }, (_, index) => first + index)
}

/** Whole lines, as many as are less than a page: so does the kernel answer. */
function pagesOf(pids: readonly number[]): string[] {
  const pages: string[] = []
  let page = ''
  for (const pid of pids) {
    const line = `${pid}\n`
    if (page.length + line.length >= PAGE) {
      pages.push(page)
      page = ''
    }
    page += line
  }
  return [...pages, page]
}

/** Both ways to read: on the thread of the event loop, and aside. */
const WAYS = [
  { way: 'at once', list: async (path: string) => processesIn(path), text: async (path: string) => readText(path) },
  { way: 'aside', list: listProcesses, text: readTextAside },
]
const LISTS = [4, 5, 6, 7].flatMap((digits) =>
  [16, 32, 64].flatMap((kib) => WAYS.map((way) => ({ digits, kib, ...way }))),
)

test.each(LISTS)('a list of more than $kib KiB of pids of $digits digits is read to its end, $way', async (of) => {
  const { digits, kib } = of
  const pids = pidsOf(digits, kib * KIB)
  comeInPieces(pagesOf(pids))
  expect(await of.list(dir)).toEqual(pids)
})

const SIZES = [1, 100, 2047, 2048, 4095].flatMap((size) => WAYS.map((way) => ({ size, ...way })))

test.each(SIZES)('no piece of $size bytes is taken for the last one, $way', async ({ size, text: read }) => {
  const text = pagesOf(pidsOf(5, 20 * KIB)).join('')
  // these leave 24 bytes of the first 16 KiB
  const head = [text.slice(0, 4090), text.slice(4090, 8180), text.slice(8180, 12_270), text.slice(12_270, 16_360)]
  const rest = text.slice(16_360, 16_360 + 40 * size)
  const pieces = Array.from({ length: Math.ceil(rest.length / size) }, (_, i) => rest.slice(i * size, (i + 1) * size))
  comeInPieces([...head, ...pieces])
  expect(await read(list)).toBe([...head, rest].join(''))
})

test.each([0, 1, 16_383, 16_384, 16_385, 32_768, 1 << 20])('a file of %i bytes is read whole', async (size) => {
  const text = '1234567\n'.repeat(size / 8 + 1).slice(0, size)
  writeFileSync(list, text)
  for (const { text: read } of WAYS) expect(await read(list)).toBe(text)
})

test('the processes of a tree are those of each list in it, but for those that have no number here', async () => {
  writeFileSync(list, '0\n12\n345\n0\n')
  mkdirSync(join(dir, 'below/deep'), { recursive: true })
  writeFileSync(join(dir, 'below/cgroup.procs'), '')
  writeFileSync(join(dir, 'below/deep/cgroup.procs'), '12\n4194304\n')
  for (const { list: read } of WAYS) {
    expect(await read(dir)).toEqual([12, 345, 4194304])
    expect(await read(join(dir, 'gone'))).toEqual([])
  }
})

test.each(['13097\n1309', '12 13\n', '-1\n', '12\nself\n', '0x10\n', '1e3\n'])(
  'what is no list of processes, or only a part of one, names nobody: %j',
  async (text) => {
    writeFileSync(list, text)
    for (const { list: read } of WAYS) await expect(read(dir)).rejects.toThrow('is no list of processes')
  },
)
