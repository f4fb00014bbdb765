/** Removing files and folders: what goes, what stays, and what a failure says. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test as base, expect } from 'vitest'
import { removeFile, removeTree } from '../../../runtime/sys/remove.ts'

const test = base.extend<{ folder: string }>({
  folder: async ({ task: _task }, use) => {
    const folder = mkdtempSync(join(tmpdir(), 'remove-'))
    await use(folder)
    rmSync(folder, { recursive: true })
  },
})

test('removeTree() removes a folder with all below it, and links but nothing that they name', ({ folder }) => {
  const [tree, kept] = [join(folder, 'tree'), join(folder, 'kept')]
  mkdirSync(join(tree, 'a/b'), { recursive: true })
  mkdirSync(kept)
  for (const path of [join(tree, 'f'), join(tree, 'a/b/f'), join(kept, 'f')]) writeFileSync(path, '')
  symlinkSync(kept, join(tree, 'a/link'))
  symlinkSync('nowhere', join(tree, 'dangling'))
  removeTree(tree)
  expect(readdirSync(folder)).toEqual(['kept'])
  expect(readdirSync(kept)).toEqual(['f'])
})

test('removeTree() of a link to a folder removes the link', ({ folder }) => {
  const kept = join(folder, 'kept')
  mkdirSync(kept)
  writeFileSync(join(kept, 'f'), '')
  symlinkSync(kept, join(folder, 'link'))
  removeTree(join(folder, 'link'))
  expect(readdirSync(folder)).toEqual(['kept'])
  expect(existsSync(join(kept, 'f'))).toBe(true)
})

test('what is not there is removed', ({ folder }) => {
  removeTree(join(folder, 'none'))
  removeFile(join(folder, 'none'))
})

test('a failure names the path that stayed and the reason', ({ folder }) => {
  mkdirSync(join(folder, 'd'))
  const detail = { source: 'syscall', path: join(folder, 'd') }
  expect(() => removeFile(join(folder, 'd'))).toThrow(
    expect.objectContaining({
      message: `cannot remove "${join(folder, 'd')}": EISDIR: is a directory`,
      detail: expect.objectContaining(detail),
    }),
  )
  // procfs removes nothing for anybody
  expect(() => removeTree('/proc/self/fdinfo')).toThrow('cannot remove "/proc/self/')
})
