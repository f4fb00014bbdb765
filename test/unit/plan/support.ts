/** Plans from changed default specs, and ways to look at them. */
import type { Op, OpName } from '../../../proto/init-plan.ts'
import { RuntimeError } from '../../../runtime/errors.ts'
import type { HostFacts } from '../../../runtime/host/facts.ts'
import { buildCreatePlan, buildExecPlan, type CreateInput, type ExecInput } from '../../../runtime/plan/build.ts'
import { describeOp } from '../../../runtime/plan/describe.ts'
import { parseProcess, parseSpec } from '../../../runtime/spec/load.ts'
import { type Document, specText } from '../spec/fixture.ts'

/** A host with cgroup v1, two controllers merged, and no security module. */
export const HOST_V1: HostFacts = {
  cgroup2: false,
  cgroupMounts: [
    { controllers: ['memory'], mountpoint: '/sys/fs/cgroup/memory', ownPath: '/' },
    { controllers: ['cpu', 'cpuacct'], mountpoint: '/sys/fs/cgroup/cpu,cpuacct', ownPath: '/user' },
    { controllers: ['name=systemd'], mountpoint: '/sys/fs/cgroup/systemd', ownPath: '/' },
    { controllers: [], mountpoint: '/sys/fs/cgroup/unified', ownPath: '/' },
  ],
  apparmor: false,
  selinux: false,
  kcore: false,
  rootless: false,
  unprivileged: false,
  setgroups: true,
  lastCap: 40,
}

/** A host with cgroup v2. */
export const HOST_V2: HostFacts = {
  ...HOST_V1,
  cgroup2: true,
  cgroupMounts: [{ controllers: [], mountpoint: '/sys/fs/cgroup', ownPath: '/' }],
}

/** A compiled filter of two instructions. */
export const FILTER = { flags: 4, filter: new Uint8Array(16) }

/** Gives a container these namespaces and no others. */
export const setNamespaces =
  (...types: readonly string[]) =>
  (spec: Document): void => {
    spec.linux.namespaces = types.map((type) => ({ type }))
  }

/** A container without a mount namespace, and without all that needs one. */
export const chrooted = (spec: Document): void => {
  setNamespaces('pid')(spec)
  spec.mounts = []
  spec.linux.maskedPaths = []
  spec.linux.readonlyPaths = []
}

/** The plan of the default container after a change to its spec and to the rest of the input. */
export function createPlan(change: (spec: Document) => void = () => {}, input: Partial<CreateInput> = {}): Op[] {
  return buildCreatePlan({
    id: 'box',
    spec: parseSpec(specText(change), 'test'),
    bundle: '/run/bundle',
    rootfs: '/run/bundle/rootfs',
    cgroup: { kind: 'tasks', paths: ['/sys/fs/cgroup/memory/default/box/tasks'] },
    fifo: '/run/state/box/exec.fifo',
    noPivot: false,
    keyring: '_ses.box',
    extraFds: 0,
    host: HOST_V1,
    ...input,
  })
}

/** The plan of an exec in the default container. */
export function execPlan(
  process: Document,
  change: (spec: Document) => void = () => {},
  input: Partial<ExecInput> = {},
): Op[] {
  return buildExecPlan({
    spec: parseSpec(specText(change), 'test'),
    process: parseProcess(JSON.stringify({ args: ['id'], cwd: '/', ...process })),
    rootfs: '/run/bundle/rootfs',
    cgroup: { kind: 'tasks', paths: ['/sys/fs/cgroup/memory/default/box/tasks'] },
    init: { pid: 4242, startTime: 987654321n, namespaces: 0x6c020000 },
    keyring: '_ses.box',
    extraFds: 0,
    host: HOST_V1,
    ...input,
  })
}

/** The names of a plan's operations, in order. */
export function opNames(ops: readonly Op[]): OpName[] {
  return ops.map(({ op }) => op)
}

/** The operations of one name, described. */
export function described(ops: readonly Op[], ...names: readonly OpName[]): string[] {
  return ops.filter(({ op }) => names.includes(op)).map(describeOp)
}

/** The one mount on a target, described. */
export function mountOn(ops: readonly Op[], target: string): string | undefined {
  const found = ops.find((op) => op.op === 'mount' && op.target === target)
  return found === undefined ? undefined : describeOp(found)
}

/** What an action is refused with. */
export function refusal(action: () => unknown): RuntimeError {
  try {
    action()
  } catch (error) {
    if (error instanceof RuntimeError) return error
    throw error
  }
  throw new Error('nothing was refused')
}
