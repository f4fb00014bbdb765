/** Work that must not interleave: one after the other, in the order of the calls. A failure is its caller's and stops nobody else. */
export class Lane {
  #last: Promise<unknown> = Promise.resolve()

  /** Runs the work once everything before it has settled. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work, work)
    this.#last = result
    return result
  }
}
