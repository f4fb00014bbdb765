/** What is generated must be what the sources say: a stale file is a red test. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { FDS, MOUNT_HOW, OPS } from '../../../proto/init-plan.ts'
import { PLAN_SCHEMA_HASH } from '../../../proto/plan-hash.gen.ts'
import { opsHeader, planHeader } from '../../../scripts/generate/plan-header.ts'

const run = promisify(execFile)

test('gen --check finds every generated file up to date', async () => {
  const script = join(import.meta.dirname, '../../../scripts/gen.ts')
  await expect(run(process.execPath, [script, '--check'])).resolves.toMatchObject({ stdout: '' })
})

test('plan.gen.h carries the schema hash, the fds and every operation', () => {
  const header = planHeader()
  expect(header).toContain(`#define PLAN_SCHEMA_HASH 0x${PLAN_SCHEMA_HASH.toString(16).padStart(8, '0')}u`)
  for (const [name, fd] of Object.entries(FDS)) expect(header).toContain(`#define FD_${name} ${fd}\n`)
  for (const [name, op] of Object.entries(OPS)) {
    expect(header).toContain(`    OP_${name.toUpperCase()} = ${op.code},\n`)
    expect(header).toContain(
      `{ OP_${name.toUpperCase()}, STAGE_${op.stage.toUpperCase()}, FAILURE_${'failure' in op ? op.failure : 'PART'}, ${'most' in op ? op.most : 0}, ${'needs' in op ? `OP_${op.needs.toUpperCase()}` : 0}, "${name}",`,
    )
    expect(opsHeader()).toMatch(new RegExp(`case OP_${name.toUpperCase()}: return op_${name}\\(c(, &op->${name})?\\);`))
  }
})

test('ops.gen.h tells which operations use the procfs and the agent of the host', () => {
  const [, agent = '', procfs = ''] = opsHeader().split('static inline bool ')
  expect(agent).toContain('(op->code == OP_NET_DEVICES)')
  expect(agent).toContain(`(op->code == OP_MOUNT && (op->mount.how & ${MOUNT_HOW.HOST_SOURCE}u) != 0)`)
  expect(agent).not.toContain('OP_PIVOT')
  expect(procfs).toContain('(op->code == OP_PIVOT)')
  expect(procfs).toContain('(op->code == OP_NET_DEVICES)')
  expect(procfs).toContain('(op->code == OP_KEYRING && op->keyring.label.len > 0)')
})
