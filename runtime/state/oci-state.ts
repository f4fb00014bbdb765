/** The state document of the OCI specification: what hooks and the seccomp agent are told, and the core of what `state` prints. Pure. */
import type { Spec } from '../spec/types.ts'

/** The statuses of the specification, and the two about the freezer, which runc's users know. */
export type OciStatus = 'creating' | 'created' | 'running' | 'pausing' | 'paused' | 'stopped'

/** The document. */
export interface OciState {
  readonly ociVersion: string
  readonly id: string
  readonly status: OciStatus
  /** of init on the host; left out once it has stopped */
  readonly pid?: number
  readonly bundle: string
  readonly annotations?: Readonly<Record<string, string>>
}

/** What the document is made from. */
export interface OciStateFacts {
  readonly id: string
  readonly bundle: string
  readonly spec: Spec
  readonly pid: number
}

/** The document for a status. */
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
