/**
 * A part of oci.ts: a warm Node that has loaded the library. Its argument is a bundle. For each line on stdin it
 * makes, starts, awaits and destroys one container, and prints the milliseconds that this took.
 */
import { closeSync, openSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { Container, loadSpec, Reaper } from '../../runtime/index.ts'

const [root = '', bundle = ''] = process.argv.slice(2)
const reaper = new Reaper()
reaper.start()
const fd = openSync('/dev/null', 'r+')
let count = 0

async function once(): Promise<number> {
  const started = performance.now()
  const container = await Container.create({
    root,
    id: `embedded-${count++}`,
    bundle,
    spec: loadSpec(bundle),
    stdio: { kind: 'fds', stdin: fd, stdout: fd, stderr: fd },
    reaper,
  })
  await container.start()
  const { status } = await container.init.exited
  await container.destroy()
  if (status !== 0) throw new Error(`the program ended with ${status}`)
  return performance.now() - started
}

for await (const _ of createInterface({ input: process.stdin })) process.stdout.write(`${await once()}\n`)
closeSync(fd)
process.exit(0)
