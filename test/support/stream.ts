/** The byte stream of `payload bytes`, computed here too, so that a test knows the digest of the whole stream. */
import { createHash } from 'node:crypto'

const CHUNK = 65536
const LETTERS = 26

/**
 * sha256 of the first `count` bytes. `text` is as in payload.c; with `terminal` each newline is the terminal's CR LF.
 */
export function expectedSha256(count: number, form: 'binary' | 'text' | 'terminal' = 'binary'): string {
  const hash = createHash('sha256')
  const wordsOfChunk = new Uint32Array(CHUNK / 4)
  let x = 2463534242
  for (let left = count; left > 0; left -= CHUNK) {
    for (let i = 0; i < wordsOfChunk.length; i++) {
      x ^= x << 13
      x ^= x >>> 17
      x ^= x << 5
      wordsOfChunk[i] = x
    }
    let chunk = Buffer.from(wordsOfChunk.buffer)
    if (form !== 'binary') chunk = chunk.map((byte, i) => (i % 64 === 63 ? 10 : 97 + (byte % LETTERS))) as typeof chunk
    chunk = chunk.subarray(0, Math.min(left, CHUNK))
    hash.update(form === 'terminal' ? Buffer.from(chunk.toString('latin1').replaceAll('\n', '\r\n'), 'latin1') : chunk)
  }
  return hash.digest('hex')
}
