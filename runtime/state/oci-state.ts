/**
 * The state document of the OCI specification: what hooks and the seccomp agent receive, and the core of what `runts
 * state` prints. Pure.
 */
import type { Spec } from '../spec/types.ts'

/** The statuses of the specification, and runc's two of a frozen container. */
export type OciStatus = 'creating' | 'created' | 'running' | 'pausing' | 'paused' | 'stopped'

/** The state document. */
export interface OciState {
  readonly ociVersion: string
  readonly id: string
  readonly status: OciStatus
  /** pid of init on the host; left out once the container has stopped */
  readonly pid?: number
  readonly bundle: string
  readonly annotations?: Readonly<Record<string, string>>
}

/** The facts that the document is made from. */
export interface OciStateFacts {
  readonly id: string
  readonly bundle: string
  readonly spec: Spec
  readonly pid: number
}

/** Makes the document for a status. */
export function ociState({ id, bundle, spec, pid }: OciStateFacts, status: OciStatus): OciState {
  return {
    ociVersion: spec.ociVersion,
    id,
    status,
    ...(status === 'stopped' ? {} : { pid }),
    bundle,
    ...(Object.keys(spec.annotations).length === 0 ? {} : { annotations: spec.annotations }),
  }
}
