// Installed beside each bundle as NAME.cjs: runs NAME.js with the code cache NAME.v8cache of scripts/code-cache.ts.
// Compiling the bundle would cost more than all the rest of its start.
// V8 refuses the cache of another Node; the bundle is then compiled.
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
// The file is the text of one function, in ASCII. Node reads UTF-8 without a buffer between, and V8 keeps one byte per character.
const script = new Script(readFileSync(filename, 'utf8'), { filename, cachedData })
// V8 has taken what it needs. Without this line the cache stays in memory until a full collection, which a quiet shim never has.
cachedData?.buffer.transfer(0)
// Modules of Node that many commands never use. They cost milliseconds to load, so each is loaded at its first use.
const LAZY = new Set(['node:net', 'node:os', 'node:timers/promises', 'node:tty'])
const requireLazily = (load) => (name) =>
  LAZY.has(name) ? new Proxy({}, { get: (_, key) => load(name)[key] }) : load(name)
const run = (load = require) => script.runInThisContext()(requireLazily(load), filename, __dirname)

if (require.main === module) run()
else module.exports = { script, run }
