/**
 * Writes every generated file of the repository.
 * - From proto/init-plan.ts: c/init/plan.gen.h, c/init/ops.gen.h and proto/plan-hash.gen.ts.
 * - From proto/launch.ts: c/launcher/launch.gen.h. From proto/keeper.ts: c/keeper/keeper.gen.h.
 * - From proto/*.proto: proto/ttrpc-ts/gen/*.ts.
 * The output depends on these sources alone, so `--check` can compare it with the files on disk, byte by byte.
 *
 *   node scripts/gen.ts            write what differs, remove generated files that nothing generates any more
 *   node scripts/gen.ts --check    write nothing; exit 1 and name the files that differ
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { keeperHeader } from './generate/keeper-header.ts'
import { launchHeader } from './generate/launch-header.ts'
import { messageModules } from './generate/messages.ts'
import { opsHeader, planHash, planHeader } from './generate/plan-header.ts'
import { loadProtoFiles } from './generate/proto-model.ts'

const REPO = join(import.meta.dirname, '..')
const PROTO_DIR = join(REPO, 'proto')
const MESSAGES_DIR = join(PROTO_DIR, 'ttrpc-ts', 'gen')

function generateAll(): Map<string, string> {
  const modules = [...messageModules(loadProtoFiles(PROTO_DIR))]
  return new Map([
    [join(REPO, 'c/init/plan.gen.h'), planHeader()],
    [join(REPO, 'c/init/ops.gen.h'), opsHeader()],
    [join(REPO, 'c/launcher/launch.gen.h'), launchHeader()],
    [join(REPO, 'c/keeper/keeper.gen.h'), keeperHeader()],
    [join(PROTO_DIR, 'plan-hash.gen.ts'), planHash()],
    ...modules.map(([name, text]): [string, string] => [join(MESSAGES_DIR, name), text]),
  ])
}

function staleFiles(wanted: ReadonlyMap<string, string>): string[] {
  if (!existsSync(MESSAGES_DIR)) return []
  return readdirSync(MESSAGES_DIR)
    .map((name) => join(MESSAGES_DIR, name))
    .filter((path) => !wanted.has(path))
}

function main(args: readonly string[]): number {
  const check = args[0] === '--check'
  if (args.length > 1 || (args.length === 1 && !check)) {
    process.stderr.write('usage: node scripts/gen.ts [--check]\n')
    return 2
  }
  const wanted = generateAll()
  const differing = [...wanted].filter(([path, text]) => !existsSync(path) || readFileSync(path, 'utf8') !== text)
  const stale = staleFiles(wanted)
  for (const path of [...differing.map(([path]) => path), ...stale]) {
    process.stdout.write(`${check ? 'differs' : 'wrote'}: ${relative(REPO, path)}\n`)
  }
  if (check) return differing.length + stale.length === 0 ? 0 : 1
  for (const [path, text] of differing) {
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, text)
  }
  for (const path of stale) rmSync(path)
  return 0
}

process.exitCode = main(process.argv.slice(2))
