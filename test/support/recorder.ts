/**
 * A runtime that records how the daemon ran it (words, environment, folder, stdin) and the answer; our launcher does
 * the work. Each call is a folder, which gets its final name when the call has ended.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Any, BootstrapParams } from 'ttrpc-ts/containerd'
import { BIN } from './places.ts'

/** One run of the launcher. */
export interface RecordedCall {
  readonly action: 'start' | 'delete' | '-info' | string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly cwd: string
  readonly stdin: Buffer
  readonly stdout: Buffer
  readonly stderr: string
  readonly code: number
}

/** The runtime options that `start` got on stdin, in either of the two ways; undefined for none. */
export function optionsOf({ stdin, args }: RecordedCall): Any | undefined {
  if (stdin.length === 0) return undefined
  const params = BootstrapParams.decode(stdin)
  return params.instanceId === args[args.indexOf('-id') + 1] ? params.extensions[0]?.value : Any.decode(stdin)
}

/** A runtime whose path is given to `ctr --runtime`. */
export class RecordingRuntime {
  readonly path: string
  readonly #calls: string

  constructor(folder: string) {
    this.path = join(folder, 'containerd-shim-recorded-v2')
    this.#calls = join(folder, 'calls')
    mkdirSync(this.#calls, { recursive: true })
    // stdin is /dev/null or a pipe whose other end the daemon closes
    const script = `#!/bin/sh
at=$(mktemp -d '${this.#calls}/.XXXXXX')
printf '%s\\n' "$@" >"$at/args"
env -0 >"$at/env"
printf %s "$PWD" >"$at/cwd"
cat >"$at/stdin"
'${BIN}/containerd-shim-ts-v2' "$@" <"$at/stdin" >"$at/stdout" 2>"$at/stderr"
code=$?
printf %s "$code" >"$at/code"
cat "$at/stdout"
cat "$at/stderr" >&2
mv "$at" '${this.#calls}'/"$(date +%s.%N)"
exit "$code"
`
    writeFileSync(this.path, script, { mode: 0o755 })
  }

  /** The calls that have ended, in that order. */
  get calls(): readonly RecordedCall[] {
    return readdirSync(this.#calls)
      .filter((name) => !name.startsWith('.'))
      .sort()
      .map((name) => readCall(join(this.#calls, name)))
  }

  /** The only call of one kind. */
  only(action: RecordedCall['action']): RecordedCall {
    const [call, ...more] = this.calls.filter((each) => each.action === action)
    if (call === undefined || more.length > 0) {
      throw new Error(`${more.length + (call === undefined ? 0 : 1)} calls of ${action}, not one`)
    }
    return call
  }
}

function readCall(folder: string): RecordedCall {
  const read = (name: string): string => readFileSync(join(folder, name), 'utf8')
  const args = read('args').split('\n').slice(0, -1)
  const variables = read('env').split('\0').slice(0, -1)
  return {
    action: args.at(-1) ?? '',
    args,
    env: Object.fromEntries(
      variables.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
    ),
    cwd: read('cwd'),
    stdin: existsSync(join(folder, 'stdin')) ? readFileSync(join(folder, 'stdin')) : Buffer.alloc(0),
    stdout: readFileSync(join(folder, 'stdout')),
    stderr: read('stderr'),
    code: Number(read('code')),
  }
}
