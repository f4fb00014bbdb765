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
// latin1: the bundle is pure ASCII, and so V8 gets one byte per character
const script = new Script(`(function (require, __filename, __dirname) {${readFileSync(filename, 'latin1')}\n})`, {
  filename,
  cachedData,
})
// Modules of Node that many commands never use, and that cost milliseconds to load: they are when something of them is first asked for.
const LAZY = new Set(['node:net', 'node:os', 'node:timers/promises', 'node:tty'])
const requireLazily = (load) => (name) =>
  LAZY.has(name) ? new Proxy({}, { get: (_, key) => load(name)[key] }) : load(name)
const run = (load = require) => script.runInThisContext()(requireLazily(load), filename, __dirname)

if (require.main === module) run()
else module.exports = { script, run }
