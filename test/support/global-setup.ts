/**
 * Makes what the container tests need, if it is missing or old: the static programs, and the image with one of them.
 * Everything lies in build/test/, so the guest of the test machine finds it there and needs no compiler.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { busyboxRoot, imageArchive } from './image.ts'
import { missing } from './needs.ts'
import { ATTACK, BARE, BUSYBOX, IMAGE, IMAGE_ARCHIVE, PAYLOAD, PROBE, TEST_BUILD } from './places.ts'

function isNewer(path: string, ...inputs: readonly string[]): boolean {
  const made = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
  return made !== 0 && inputs.every((input) => (statSync(input, { throwIfNoEntry: false })?.mtimeMs ?? 0) <= made)
}

function compile(program: string, more: readonly string[] = []): void {
  const source = join(import.meta.dirname, `${basename(program)}.c`)
  if (isNewer(program, source) || missing('gcc') !== undefined) return
  const compiler = existsSync('/usr/bin/musl-gcc') ? 'musl-gcc' : 'gcc'
  const flags = ['-std=gnu17', '-O2', '-Wall', '-Wextra', '-Werror', '-static', ...more]
  // musl-gcc does not look for the kernel's headers by itself; they come after the libc's own
  const multiarch = `${process.arch === 'x64' ? 'x86_64' : 'aarch64'}-linux-gnu`
  const kernel = ['/usr/include', `/usr/include/${multiarch}`].flatMap((folder) => ['-idirafter', folder])
  execFileSync(compiler, [...flags, ...kernel, '-o', program, source], { stdio: 'inherit' })
}

/** Called by vitest before the first test of a project that names this file. */
export function setup(): void {
  mkdirSync(TEST_BUILD, { recursive: true })
  for (const program of [PAYLOAD, PROBE, ATTACK]) compile(program)
  compile(BARE, ['-nostdlib', '-ffreestanding'])
  if (
    isNewer(IMAGE_ARCHIVE, PAYLOAD, BUSYBOX, join(import.meta.dirname, 'image.ts')) ||
    missing('busybox') !== undefined
  )
    return
  writeFileSync(IMAGE_ARCHIVE, imageArchive(IMAGE, busyboxRoot(BUSYBOX, { payload: PAYLOAD })))
}
