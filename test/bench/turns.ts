/**
 * How long each call of containerd holds a shim's event loop, with a container of many processes and mounts.
 * It prints the longest turn of each call, the best of some rounds. It asserts nothing: test/shim/turns.test.ts does.
 *    turns.ts [PROCESSES [MOUNTS [ROUNDS]]]
 */
import { FakeContainerd } from '../support/fake-containerd.ts'
import { setup } from '../support/global-setup.ts'
import { buildFailing } from '../support/kill-points.ts'
import { FAILING_SHIM } from '../support/places.ts'
import { bestTurns, CROWD_CHANGES, longestTurns, type Turn } from '../support/turns.ts'

const [processes = 2000, mounts = 300, count = 5] = process.argv.slice(2).map(Number)

setup()
buildFailing()
const fake = new FakeContainerd()
fake.program = FAILING_SHIM
try {
  await fake.start()
  process.stdout.write(`${processes} processes, ${mounts} mounts, best of ${count} rounds\n`)
  for (const [name, change] of Object.entries(CROWD_CHANGES)) {
    const rounds: Map<string, Turn>[] = []
    for (let round = 0; round < count; round++) {
      rounds.push(await longestTurns(fake, { processes, mounts, change }))
      await fake.removeAll()
    }
    process.stdout.write(`\n| ${name} | longest turn, ms | after |\n| --- | --- | --- |\n`)
    for (const [call, { heldMs, place }] of bestTurns(rounds))
      process.stdout.write(`| ${call} | ${heldMs.toFixed(1)} | ${place} |\n`)
  }
} finally {
  await fake.stop()
}
