/**
 * The hooks in the plan. The container process waits while the runtime runs the hooks of the runtime's namespaces, and
 * runs the hooks of the container's namespaces itself. Each gets the container's state on its standard input. ts-init
 * fills in the pid, which is known only there.
 */
import { type Op, SYNC_POINTS } from '../../proto/init-plan.ts'
import type { Hooks, Spec } from '../spec/types.ts'
import type { CreateInput } from './input.ts'

/** As the only entry of a hook's environment: the program's own environment (see the hook op). */
const PROGRAM_ENVIRONMENT: readonly string[] = ['']

/** True when a hook runs while the container is being set up: the process must be in its cgroup by then. */
export function hasCreateHooks({ prestart, createRuntime, createContainer }: Hooks): boolean {
  return prestart.length + createRuntime.length + createContainer.length > 0
}

/**
 * Before the pivot: the process waits for the runtime's own hooks, then runs its own while the host's paths are still
 * reachable.
 */
export function createHooks(input: CreateInput): readonly Op[] {
  const { prestart, createRuntime } = input.spec.hooks
  const waits = prestart.length + createRuntime.length > 0
  return [
    ...(waits ? [{ op: 'sync', point: SYNC_POINTS.RUNTIME_HOOKS, origin: '/hooks' } as const] : []),
    ...run(input, 'createContainer', 'creating'),
  ]
}

/** After the start, with exactly the privileges and the environment that the program will have. */
export function startHooks(input: CreateInput): readonly Op[] {
  return run(input, 'startContainer', 'created')
}

function run(input: CreateInput, name: 'createContainer' | 'startContainer', status: string): readonly Op[] {
  const hooks = input.spec.hooks[name]
  if (hooks.length === 0) return []
  const [stateHead, stateTail] = state(input.spec, input, status)
  const inherited = name === 'startContainer' ? PROGRAM_ENVIRONMENT : []
  return hooks.map(({ path, args, env = inherited, timeout = 0 }, index) => ({
    op: 'hook',
    name,
    index,
    path,
    args,
    env,
    timeout,
    stateHead,
    stateTail,
    origin: `/hooks/${name}/${index}`,
  }))
}

/** The state document (runtime.md of the specification), split around the digits of its pid. */
function state(
  { ociVersion, annotations }: Spec,
  { id, bundle }: CreateInput,
  status: string,
): readonly [head: string, tail: string] {
  const head = JSON.stringify({ ociVersion, id, status })
  const tail = JSON.stringify({ bundle, ...(Object.keys(annotations).length === 0 ? {} : { annotations }) })
  return [`${head.slice(0, -1)},"pid":`, `,${tail.slice(1)}`]
}
