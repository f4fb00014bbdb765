// Installed beside each bundle as NAME.cjs: runs NAME.js, and the parts of it that are asked for (scripts/parts.ts), each with the
// code cache FILE.v8cache of scripts/code-cache.ts. Compiling the bundle would cost more than all the rest of its start.
// V8 refuses the cache of another Node; the file is then compiled.
'use strict'
const { readFileSync } = require('node:fs')
const { basename, join } = require('node:path')
const { Script } = require('node:vm')

/** What has been compiled, by file name. */
const scripts = new Map()

// Each file is the text of one function, in ASCII. Node reads UTF-8 without a buffer between, and V8 keeps one byte per character.
function compile(name) {
  const filename = join(__dirname, name)
  const known = scripts.get(name)
  if (known !== undefined) return { filename, script: known }
  let cachedData
  try {
    cachedData = readFileSync(filename.replace(/js$/, 'v8cache'))
  } catch {
    // no cache: the file is compiled
  }
  const script = new Script(readFileSync(filename, 'utf8'), { filename, cachedData })
  // V8 has taken what it needs. Without this line the cache stays in memory until a full collection, which a quiet shim never has.
  // A small buffer shares its memory with others.
  if (cachedData?.length === cachedData?.buffer.byteLength) cachedData?.buffer.transfer(0)
  scripts.set(name, script)
  return { filename, script }
}

// Modules of Node that many commands never use. They cost milliseconds to load, so each is loaded at its first use.
const LAZY = new Set(['node:net', 'node:os', 'node:timers/promises', 'node:tty'])

function run(load = require) {
  const { filename, script } = compile(basename(__filename).replace(/cjs$/, 'js'))
  const parts = new Map()
  let share
  const part = (name) => {
    if (parts.size === 0) for (const [file, exports] of Object.entries(share())) parts.set(file, exports)
    if (!parts.has(name)) {
      const module = { exports: {} }
      parts.set(name, module)
      const { filename, script } = compile(name.slice('./'.length))
      script.runInThisContext()(find, module, module.exports, filename, __dirname)
      parts.set(name, module.exports)
    }
    return parts.get(name)
  }
  const find = (name) => {
    if (name.startsWith('./')) return part(name)
    return LAZY.has(name) ? new Proxy({}, { get: (_, key) => load(name)[key] }) : load(name)
  }
  script.runInThisContext()(find, filename, __dirname, (made) => {
    share = made
  })
}

if (require.main === module) run()
else module.exports = { compile, scripts, run }
