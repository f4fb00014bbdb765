/** What tests of overlapping calls share: the code of an answer, the exit time of a process that never ran. */
import type { SpecChange, TestSpec } from '../support/spec.ts'

/** The exit time of a process that never ran, as the protocol has it. */
export const NEVER = { seconds: -62_135_596_800n, nanos: 0 }

/** A container in the host's pid namespace. */
export const hostPids: SpecChange = (spec: TestSpec) => {
  spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'pid')
}

/** The code of an answer, 0 for success. */
export const codeOf = (answer: Promise<unknown>): Promise<unknown> =>
  answer.then(
    () => 0,
    (error: unknown) => Reflect.get(Object(error), 'code'),
  )
