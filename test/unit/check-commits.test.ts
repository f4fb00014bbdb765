/** The rule about commits: what a message must say, and what is not checked where the history is missing. */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test as base, describe, expect } from 'vitest'
import { checkCommits, readCommits } from '../../scripts/check/commits.ts'
import { needs } from '../support/needs.ts'

/** A repository of the test. */
interface Repository {
  readonly root: string
  /** its first commit, which is before the rule */
  readonly first: string
  git(...args: readonly string[]): string
}

function repositoryIn(root: string): Repository {
  const who = { GIT_AUTHOR_NAME: 'a', GIT_AUTHOR_EMAIL: 'a@b', GIT_COMMITTER_NAME: 'a', GIT_COMMITTER_EMAIL: 'a@b' }
  const env = { ...process.env, ...who, GIT_CONFIG_GLOBAL: '/dev/null', GIT_CONFIG_NOSYSTEM: '1' }
  const git = (...args: readonly string[]): string =>
    execFileSync('git', ['-C', root, ...args], { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim()
  mkdirSync(root)
  git('init', '-q')
  git('commit', '-q', '--allow-empty', '-m', 'whatever')
  return { root, first: git('rev-parse', 'HEAD'), git }
}

const test = base.extend<{ repository: Repository }>({
  repository: async ({ task: _task }, use) => {
    const folder = mkdtempSync(join(tmpdir(), 'commits-'))
    await use(repositoryIn(join(folder, 'repository')))
    rmSync(folder, { recursive: true })
  },
})

const saidOf = (message: string): string[] =>
  checkCommits([{ hash: '0123456789abcdef', message }]).map(({ what }) => what)

describe('a commit', () => {
  test('has an area, a summary and a body', () => {
    expect(saidOf('runtime/sys, c: one thing\n\nBecause of another.\n')).toEqual([])
    expect(saidOf('One thing\n\nBecause of another.\n')).toEqual(['the subject is not of the form "area: summary"'])
    expect(saidOf('c: one thing\n')).toEqual(['has no body that says why'])
    expect(saidOf('c: one thing\n\nSigned-off-by: A <a@b>\n')).toEqual(['has no body that says why'])
  })

  test('has a subject that fits a line', () => {
    expect(saidOf(`c: ${'x'.repeat(97)}\n\nWhy.`)).toEqual([])
    expect(saidOf(`c: ${'x'.repeat(98)}\n\nWhy.`)).toEqual(['a subject of 101 columns, 100 are allowed'])
  })

  test('is told by its hash', () => {
    expect(checkCommits([{ hash: '0123456789abcdef', message: 'x' }])[0]?.path).toBe('commit 012345678')
  })
})

describe('the commits of a tree', needs('git'), () => {
  test('are those after the first that the rule is for, without merges', ({ repository: { root, first, git } }) => {
    expect(readCommits(root, first)).toEqual([])
    git('checkout', '-q', '-b', 'side')
    git('commit', '-q', '--allow-empty', '-m', 'c: one\n\nWhy one.')
    git('checkout', '-q', '-')
    git('commit', '-q', '--allow-empty', '-m', 'c: two\n\nWhy two.\n\nAnd more.')
    git('merge', '-q', '--no-ff', '-m', "Merge branch 'side'", 'side')
    const commits = readCommits(root, first)
    expect(new Set(Array.isArray(commits) ? commits.map(({ message }) => message) : commits)).toEqual(
      new Set(['c: one\n\nWhy one.', 'c: two\n\nWhy two.\n\nAnd more.']),
    )
  })

  test('are not known in a clone that does not reach back so far', ({ repository: { root, first, git } }) => {
    git('commit', '-q', '--allow-empty', '-m', 'no area')
    const shallow = `${root}-shallow`
    git('clone', '-q', '--depth', '1', `file://${root}`, shallow)
    expect(readCommits(shallow, first)).toBe(`this history does not go back to ${first.slice(0, 9)}`)
  })

  test('are not known in a copy without .git, also inside of another tree', ({ repository: { root, first } }) => {
    const copy = `${root}-copy`
    cpSync(root, copy, { recursive: true, filter: (path) => !path.endsWith('.git') })
    expect(readCommits(copy, first)).toContain('not a git repository')
    cpSync(copy, join(root, 'inner'), { recursive: true })
    expect(readCommits(join(root, 'inner'), first)).toBe('this tree has no history of its own')
  })
})
