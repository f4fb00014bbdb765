/**
 * A program that starts containers in one process as fast as it can, for attacks that need many tries or many at once.
 * It reads {root, bundles, rounds, together, cgroupManager} from stdin. In each round it starts the bundles, in turn or
 * all together. It prints every outcome once, with its count, as JSON. An outcome is "error: MESSAGE" or "STATUS
 * OUTPUT".
 */
import { closeSync, openSync, readFileSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { Container, loadSpec, Reaper, silentLogger } from '../../runtime/index.ts'

interface Jobs {
  readonly root: string
  readonly bundles: readonly string[]
  readonly rounds: number
  readonly together: boolean
  readonly cgroupManager: 'cgroupfs' | 'systemd'
}

/** What the program prints. */
export interface Outcomes {
  readonly outcomes: readonly { readonly bundle: string; readonly outcome: string; readonly count: number }[]
  /** high-water mark of this process's memory */
  readonly maxRssKib: number
}

const reaper = new Reaper(silentLogger)

async function startOne(root: string, id: string, bundle: string): Promise<string> {
  const output = join(root, `.output-${id}`)
  const [stdin, stdout] = [openSync('/dev/null', 'r'), openSync(output, 'w+')]
  let container: Container | undefined
  try {
    container = await Container.create({
      root,
      id,
      bundle,
      spec: loadSpec(bundle),
      stdio: { kind: 'fds', stdin, stdout, stderr: stdout },
      reaper,
      cgroupManager: jobs.cgroupManager,
    })
    await container.start()
    const { status } = await container.init.exited
    return `${status} ${readFileSync(output, 'utf8')}`
  } catch (error) {
    return `error: ${error instanceof Error ? error.message : error}`
  } finally {
    await container?.destroy({ force: true })
    for (const fd of [stdin, stdout]) closeSync(fd)
    unlinkSync(output)
  }
}

const jobs: Jobs = JSON.parse(readFileSync(0, 'utf8'))
reaper.start()
const found = new Map<string, { bundle: string; outcome: string; count: number }>()
for (let round = 0; round < jobs.rounds; round++) {
  const running: Promise<void>[] = []
  for (const [index, bundle] of jobs.bundles.entries()) {
    const done = startOne(jobs.root, `r${round}-${index}`, bundle).then((outcome) => {
      const known = found.get(`${bundle} ${outcome}`)
      if (known === undefined) found.set(`${bundle} ${outcome}`, { bundle, outcome, count: 1 })
      else known.count++
    })
    running.push(done)
    if (!jobs.together) await done
  }
  await Promise.all(running)
}
const result: Outcomes = { outcomes: [...found.values()], maxRssKib: process.resourceUsage().maxRSS }
process.stdout.write(JSON.stringify(result))
process.exit(0)
