/**
 * Writes the plans of all seed documents into a folder, as seeds of the plan reader's fuzzer:
 *   node test/fuzz/seeds.ts FOLDER
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { encodePlan } from '../../runtime/plan/encode.ts'
import { parseSpec } from '../../runtime/spec/load.ts'
import { createPlan, execPlan, FILTER } from '../unit/plan/support.ts'
import { SEEDS } from './configs.ts'

const folder = process.argv[2]
if (folder === undefined) throw new Error('usage: seeds.ts FOLDER')
mkdirSync(folder, { recursive: true })
for (const { name, document, host, cgroup } of SEEDS) {
  const spec = parseSpec(JSON.stringify(document), name)
  const create = createPlan(undefined, { spec, host, cgroup, seccomp: FILTER })
  writeFileSync(join(folder, name), encodePlan(create))
  writeFileSync(join(folder, `${name}-exec`), encodePlan(execPlan(document.process, undefined, { spec, host, cgroup })))
}
