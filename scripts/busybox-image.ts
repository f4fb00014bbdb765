/** Writes a busybox image archive for `ctr image import`: node scripts/busybox-image.ts OUT.tar REFERENCE */
import { existsSync, writeFileSync } from 'node:fs'
import { busyboxRoot, imageArchive } from '../test/support/image.ts'

const [out, reference] = process.argv.slice(2)
if (out === undefined || reference === undefined) throw new Error('usage: busybox-image.ts OUT.tar REFERENCE')
const busybox = ['/bin/busybox', '/usr/bin/busybox'].find((path) => existsSync(path))
if (busybox === undefined) throw new Error('busybox is missing: install the package busybox-static')
writeFileSync(out, imageArchive(reference, busyboxRoot(busybox)))
