/**
 * Makes what the container tests need, once per run and only when it is missing or old: the static programs and the image with the
 * payload. Everything lands in build/test/, so that the guest of the test machine finds it made and needs no compiler.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { busyboxRoot, imageArchive } from './image.ts'
import { missing } from './needs.ts'
import { ATTACK, BUSYBOX, IMAGE, IMAGE_ARCHIVE, PAYLOAD, TEST_BUILD } from './places.ts'

function isNewer(path: string, ...inputs: readonly string[]): boolean {
  const made = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
  return made !== 0 && inputs.every((input) => (statSync(input, { throwIfNoEntry: false })?.mtimeMs ?? 0) <= made)
}

function compile(source: string, program: string): void {
  const compiler = existsSync('/usr/bin/musl-gcc') ? 'musl-gcc' : 'gcc'
  execFileSync(compiler, ['-std=gnu17', '-O2', '-Wall', '-Wextra', '-Werror', '-static', '-o', program, source], {
    stdio: 'inherit',
  })
}

/** Called by vitest before the first test of a project that names this file. */
export function setup(): void {
  mkdirSync(TEST_BUILD, { recursive: true })
  for (const [name, program] of Object.entries({ 'payload.c': PAYLOAD, 'attack.c': ATTACK })) {
    const source = join(import.meta.dirname, name)
    if (!isNewer(program, source) && missing('gcc') === undefined) compile(source, program)
  }
  if (
    isNewer(IMAGE_ARCHIVE, PAYLOAD, BUSYBOX, join(import.meta.dirname, 'image.ts')) ||
    missing('busybox') !== undefined
  )
    return
  writeFileSync(IMAGE_ARCHIVE, imageArchive(IMAGE, busyboxRoot(BUSYBOX, { payload: PAYLOAD })))
}
