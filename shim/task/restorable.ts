/**
 * A container between a Create that names a checkpoint and the Start that restores it: its mounts and streams are made,
 * and no process is. Afterwards every call goes to the restored container. Invariant: until then nothing of it exists
 * in the runtime, so there is nothing to signal, and nothing to destroy.
 */
import { type Container, type ExecOptions, type RestoreOptions, RuntimeError } from '../../runtime/index.ts'
import { newNamespaces } from '../../runtime/internal.ts'
import type { TaskContainer } from './registry.ts'

const NOTHING: Disposable = { [Symbol.dispose]() {} }

/** A container that Start restores. */
export class RestorableContainer implements TaskContainer {
  readonly id: string
  readonly cgroup = {
    thaw: async (): Promise<void> => await this.#restored?.cgroup.thaw(),
    stats: () => this.#there.cgroup.stats(),
  }
  readonly #plan: RestoreOptions
  readonly #restore: (plan: RestoreOptions) => Promise<Container>
  #restored: Container | undefined

  /** `restore` is how it is restored: by Container.restore(), unless something is in its way. */
  constructor(plan: RestoreOptions, restore: (plan: RestoreOptions) => Promise<Container>) {
    this.id = plan.id
    this.#plan = plan
    this.#restore = restore
  }

  get #there(): Container {
    if (this.#restored !== undefined) return this.#restored
    throw new RuntimeError('FailedPrecondition', `container "${this.id}" is not restored yet: start it first`)
  }

  get spec(): Container['spec'] {
    return this.#restored?.spec ?? this.#plan.spec
  }

  get init(): Container['init'] {
    return this.#there.init
  }

  get ownsPidNamespace(): boolean {
    return newNamespaces(this.spec).has('pid')
  }

  get ending(): boolean {
    return this.#restored?.ending ?? false
  }

  /** Restores it. @throws what Container.restore throws */
  async start(): Promise<void> {
    this.#restored = await this.#restore(this.#plan)
  }

  async exec(options: ExecOptions): ReturnType<Container['exec']> {
    return await this.#there.exec(options)
  }

  async signal(signal: number): Promise<void> {
    await this.#there.signal(signal)
  }

  async signalAll(signal: number): Promise<void> {
    await this.#restored?.signalAll(signal)
  }

  async pause(): Promise<void> {
    await this.#there.pause()
  }

  async resume(): Promise<void> {
    await this.#there.resume()
  }

  async checkpoint(options: Parameters<Container['checkpoint']>[0]): Promise<void> {
    await this.#there.checkpoint(options)
  }

  async set(resources: Parameters<Container['set']>[0]): Promise<void> {
    await this.#there.set(resources)
  }

  processes(): number[] {
    return this.#restored?.processes() ?? []
  }

  async listProcesses(): Promise<number[]> {
    return (await this.#restored?.listProcesses()) ?? []
  }

  oomKillCount(): number {
    return this.#restored?.oomKillCount() ?? 0
  }

  watchOom(onOom: () => void): Disposable {
    return this.#restored?.watchOom(onOom) ?? NOTHING
  }

  async destroy(options: { readonly force?: boolean }): Promise<void> {
    await this.#restored?.destroy(options)
  }
}
