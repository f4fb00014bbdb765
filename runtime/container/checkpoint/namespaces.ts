/**
 * The namespaces that a restored container joins. CRIU gets those of the network and of pids as open files, since their
 * owners are outside; it joins the others by their paths. Invariant: the files are open for as long as this object.
 */
import { constants, openSync } from 'node:fs'
import { specError } from '../../errors.ts'
import type { Namespace, Spec } from '../../spec/types.ts'
import { reasonOf } from '../../sys/errno.ts'
import { OwnedFd } from '../../sys/fd.ts'
import type { CriuAbility } from './criu.ts'
import { namespaceName, OUTSIDE_NAMESPACES, outsideKey } from './request.ts'

const isOutside = (type: string): boolean => OUTSIDE_NAMESPACES.some((name) => name === type)

/** The namespaces of a spec that have a path. */
export class NamespaceFiles implements Disposable {
  /** the keys of the files, in their order */
  readonly inherited: readonly string[]
  /** the kinds that CRIU joins by itself, with their paths */
  readonly joined: readonly { readonly ns: string; readonly nsFile: string }[]
  readonly abilities: readonly CriuAbility[]
  readonly #open = new DisposableStack()
  readonly #files: readonly OwnedFd[]

  /** Opens the files. @throws InvalidArgument for a kind that CRIU cannot join, or a file that cannot be opened */
  constructor({ linux }: Spec) {
    const paths = linux.namespaces.flatMap(({ type, path }, index) =>
      path === undefined ? [] : [{ type, path, at: `/linux/namespaces/${index}/path` }],
    )
    const refused = paths.find(({ type }) => type === 'cgroup' || type === 'time' || type === 'mount')
    if (refused !== undefined) {
      throw specError(refused.at, `cannot restore into a ${refused.type} namespace that exists: criu cannot join one`)
    }
    const outside = paths.filter(({ type }) => isOutside(type))
    this.inherited = outside.map(({ type }) => outsideKey(type))
    this.joined = paths
      .filter(({ type }) => !isOutside(type))
      .map(({ type, path }) => ({ ns: namespaceName(type), nsFile: path }))
    this.abilities = outside.map(({ type }) =>
      type === 'pid' ? 'a pid namespace of another owner' : 'a network namespace of another owner',
    )
    using files = new DisposableStack()
    this.#files = outside.map((namespace) => files.use(openNamespace(namespace)))
    this.#open = files.move()
  }

  /** The descriptors, borrowed. */
  get files(): readonly number[] {
    return this.#files.map(({ fd }) => fd)
  }

  [Symbol.dispose](): void {
    this.#open.dispose()
  }
}

function openNamespace({ type, path, at }: { type: Namespace['type']; path: string; at: string }): OwnedFd {
  try {
    return new OwnedFd(openSync(path, constants.O_RDONLY))
  } catch (error) {
    throw specError(at, `cannot open the ${type} namespace "${path}": ${reasonOf(error)}`)
  }
}
