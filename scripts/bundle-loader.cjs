// Installed beside each bundle as NAME.cjs: runs NAME.js with the code cache NAME.v8cache that scripts/code-cache.ts made. Compiling the
// bundle anew would cost more than all the rest of its start. A cache that V8 refuses (another Node) is ignored: the bundle is compiled.
'use strict'
const { readFileSync } = require('node:fs')
const { Script } = require('node:vm')

const base = __filename.slice(0, -'.cjs'.length)
const filename = `${base}.js`

let cachedData
try {
  cachedData = readFileSync(`${base}.v8cache`)
} catch {
  // no cache: the bundle is compiled
}
// The file is one function's text. UTF-8 is what Node reads without a buffer between, and V8 gets one byte per character of ASCII.
const script = new Script(readFileSync(filename, 'utf8'), { filename, cachedData })
// V8 has taken what it needs: without this the cache stays in memory until a full collection, which a quiet shim never has.
cachedData?.buffer.transfer(0)
// Modules of Node that many commands never use, and that cost milliseconds to load: they are when something of them is first asked for.
const LAZY = new Set(['node:net', 'node:os', 'node:timers/promises', 'node:tty'])
const requireLazily = (load) => (name) =>
  LAZY.has(name) ? new Proxy({}, { get: (_, key) => load(name)[key] }) : load(name)
const run = (load = require) => script.runInThisContext()(requireLazily(load), filename, __dirname)

if (require.main === module) run()
else module.exports = { script, run }
