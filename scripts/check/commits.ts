/**
 * What commits say, from one commit on: a subject of the form `area: summary` and a body. The commits before that one
 * are as they are. Invariant: where git or the history is missing, nothing is a finding, and the check says what it
 * could not look at.
 */
import { spawnSync } from 'node:child_process'
import { realpathSync } from 'node:fs'
import { COMMITS_AFTER, LIMITS } from './rules.ts'
import type { Finding } from './source.ts'

/** A commit: its hash, and its message as it was written. */
export interface Commit {
  readonly hash: string
  readonly message: string
}

/** Areas are folders or parts of the product, one or several. */
const SUBJECT = /^[\w./-]+(?:, [\w./-]+)*: \S/
/** Lines that tools add to a body: "Signed-off-by: …", "(cherry picked from commit …)". */
const TRAILER = /^(?:[A-Z][a-z]+(?:-[a-z]+)+: |\(cherry picked from )/

/** Messages that do not say what was changed, or why. */
export function checkCommits(commits: readonly Commit[]): Finding[] {
  return commits.flatMap(({ hash, message }) => {
    const [subject = '', ...body] = message.split('\n')
    const wrong = [
      ...(SUBJECT.test(subject) ? [] : ['the subject is not of the form "area: summary"']),
      ...(subject.length > LIMITS.subjectColumns
        ? [`a subject of ${subject.length} columns, ${LIMITS.subjectColumns} are allowed`]
        : []),
      ...(body.some((line) => line.trim() !== '' && !TRAILER.test(line)) ? [] : ['has no body that says why']),
    ]
    return wrong.map((what) => ({ path: `commit ${hash.slice(0, 9)}`, line: 1, what }))
  })
}

/** The commits of a tree after one of them, merges left out; or why they cannot be told. */
export function readCommits(root: string, after: string = COMMITS_AFTER): readonly Commit[] | string {
  const git = (...args: readonly string[]) => spawnSync('git', ['-C', root, ...args], { encoding: 'utf8' })
  const top = git('rev-parse', '--show-toplevel')
  if (top.status !== 0) return top.error?.message ?? top.stderr.trim()
  // a tree without a repository of its own may lie inside of another one
  if (realpathSync(top.stdout.trim()) !== realpathSync(root)) return 'this tree has no history of its own'
  if (git('merge-base', '--is-ancestor', after, 'HEAD').status !== 0)
    return `this history does not go back to ${after.slice(0, 9)}`
  const log = git('log', '--no-merges', '--format=%H%n%B%x00', `${after}..HEAD`)
  if (log.status !== 0) return `git log fails: ${log.stderr.trim()}`
  return log.stdout
    .split('\0')
    .map((text) => text.trim())
    .filter((text) => text !== '')
    .map((text) => ({ hash: text.slice(0, text.indexOf('\n')), message: text.slice(text.indexOf('\n') + 1) }))
}
