/**
 * What a shim may answer: a model of one container and its execs, and a search for an order of calls that explains a
 * history. A call takes effect at one moment between its sending and its answer. Between calls, processes die and are
 * reaped. A history is right if such moments exist for all calls. Pure: it does not know the shim.
 */

/** The init is the process without a name. */
export const INIT = ''

/** A call that was made. Moments are counted, not measured. */
export interface Call {
  readonly kind: 'start' | 'exec' | 'kill' | 'killAll' | 'delete' | 'state' | 'wait' | 'pids' | 'pause' | 'resume'
  readonly process: string
  readonly signal?: number
  readonly sent: number
  answered: number
  /** 0 for success */
  code: number
  /** of State */
  status?: number
  /** of Wait and Delete; undefined for the exit of a process that never ran */
  exit?: number | undefined
  /** of Pids: whether the init is among them */
  hasInit?: boolean
}

/** What is known of the processes besides the calls: how each was to end, and how it did, by name and life. */
export interface Lives {
  /** exit status that its program has, or undefined when it runs until it is killed */
  readonly program: (process: string) => number | undefined
  /** status in its exit event; undefined when there was none */
  readonly exit: (process: string, life: number) => number | undefined
}

const CODE = { OK: 0, UNKNOWN: 2, NOT_FOUND: 5, EXISTS: 6, PRECONDITION: 9 } as const
const STATUS = { created: 1, running: 2, stopped: 3, paused: 4, pausing: 5 } as const
const SIGKILL = 9
const KILLED = 137

interface Process {
  readonly phase: 'created' | 'running' | 'pausing' | 'paused' | 'stopped'
  /** it has ended, but nobody was told */
  readonly dead: boolean
  readonly killed: boolean
  /** a start of it has failed */
  readonly failed: boolean
  /** which of the processes of that name that ran it is */
  readonly life: number
}

/** A process that was deleted, for those who still wait for it: until when they may have been sent. */
interface Grave {
  readonly exit: number | undefined
  readonly until: number
}

interface State {
  readonly processes: Readonly<Record<string, Process>>
  readonly graves: Readonly<Record<string, Grave>>
  /** lives so far, by name */
  readonly lives: Readonly<Record<string, number>>
}

const BORN: Process = { phase: 'created', dead: false, killed: false, failed: false, life: 0 }

/** How far a history can be explained: undefined when to its end, else the calls that were explained at best. */
export function unexplained(calls: readonly Call[], lives: Lives): readonly Call[] | undefined {
  const start: State = { processes: { [INIT]: BORN }, graves: {}, lives: {} }
  const seen = new Set<string>()
  let best: readonly Call[] = []

  function search(state: State, left: readonly Call[], done: readonly Call[]): boolean {
    if (done.length > best.length) best = done
    if (left.length === 0) return true
    const key = `${left.map((call) => call.sent).join(',')}|${JSON.stringify(state)}`
    if (seen.has(key)) return false
    seen.add(key)
    const soonest = Math.min(...left.map((call) => call.answered))
    for (const call of left) {
      if (call.sent > soonest) continue
      const rest = left.filter((each) => each !== call)
      for (const next of after(state, call, lives)) if (search(next, rest, [...done, call])) return true
    }
    const begun = left.filter((call) => call.sent < soonest)
    for (const next of [...byItself(state, lives), ...begins(state, begun)]) if (search(next, left, done)) return true
    return false
  }

  return search(start, calls, []) ? undefined : best
}

function change(state: State, name: string, what: Partial<Process>): State {
  const process = state.processes[name] ?? BORN
  return { ...state, processes: { ...state.processes, [name]: { ...process, ...what } } }
}

function without(state: State, name: string, grave: Grave): State {
  const { [name]: _, ...processes } = state.processes
  return { ...state, processes, graves: { ...state.graves, [name]: grave } }
}

const execsOf = (state: State): string[] => Object.keys(state.processes).filter((name) => name !== INIT)

/** What may happen without a call. */
function byItself(state: State, lives: Lives): State[] {
  const found: State[] = []
  const init = state.processes[INIT]
  for (const [name, process] of Object.entries(state.processes)) {
    if (process.phase === 'stopped' || (name !== INIT && process.phase === 'created')) continue
    if (process.dead) {
      const isLast = name !== INIT || execsOf(state).every((exec) => state.processes[exec]?.phase !== 'running')
      if (isLast) found.push(change(state, name, { phase: 'stopped', dead: false }))
      continue
    }
    const exit = lives.exit(name, process.life)
    const byKill = exit === KILLED && (process.killed || (name !== INIT && init?.dead !== false))
    const byProgram = exit !== undefined && process.phase !== 'created' && exit === lives.program(name)
    if (byKill || byProgram) found.push(change(state, name, { dead: true }))
  }
  return found
}

/**
 * What a call does some time before it has taken effect: Pause freezes, Delete kills a container that was never
 * started.
 */
function begins(state: State, begun: readonly Call[]): State[] {
  const init = state.processes[INIT]
  if (init?.phase === 'running') {
    const isPaused = begun.some(
      ({ kind, code }) => kind === 'pause' && (code === CODE.OK || code === CODE.PRECONDITION),
    )
    return isPaused ? [change(state, INIT, { phase: 'pausing' })] : []
  }
  if (init?.phase !== 'created' || init.killed) return []
  const isDeleted = begun.some(({ kind, process, code }) => kind === 'delete' && process === INIT && code === CODE.OK)
  return isDeleted ? [change(state, INIT, { killed: true })] : []
}

/** The states that a call may lead to, given its answer; none when the answer is wrong now. */
function after(state: State, call: Call, lives: Lives): State[] {
  const { code } = call
  const init = state.processes[INIT]
  const process = state.processes[call.process]
  const same = (right: boolean): State[] => (right ? [state] : [])
  if (call.kind === 'wait') return waited(state, call, lives)
  if (init === undefined) return same(code === CODE.NOT_FOUND)
  if (call.kind === 'exec') {
    if (init.phase !== 'created' && init.phase !== 'running') return same(code === CODE.UNKNOWN)
    if (process !== undefined) return same(code === CODE.EXISTS)
    return code === CODE.OK ? [change(state, call.process, BORN)] : []
  }
  if (process === undefined) return same(code === CODE.NOT_FOUND)
  const isInit = call.process === INIT
  switch (call.kind) {
    case 'start':
      return started(state, call)
    case 'state': {
      // an exec is as frozen as its container
      const isFrozen = process.phase === 'running' && (init.phase === 'pausing' || init.phase === 'paused')
      return same(code === CODE.OK && call.status === STATUS[isFrozen ? init.phase : process.phase])
    }
    case 'pids': {
      const mayLack = init.phase === 'stopped' || init.dead || init.killed || call.hasInit === true
      const mustLack = init.phase === 'stopped' && call.hasInit === true
      return same(code === CODE.OK && mayLack && !mustLack)
    }
    case 'kill': {
      if (!isInit && process.phase === 'created') return same(code === CODE.PRECONDITION)
      if (process.phase === 'stopped') return same(code === CODE.NOT_FOUND)
      if (process.dead) return same(code === CODE.OK || code === CODE.NOT_FOUND)
      if (code !== CODE.OK) return []
      return [call.signal === SIGKILL ? change(state, call.process, { killed: true }) : state]
    }
    case 'killAll': {
      if (code !== CODE.OK) return []
      let next = state
      for (const [name, { phase }] of Object.entries(state.processes))
        if (name === INIT ? phase !== 'stopped' : phase === 'running') next = change(next, name, { killed: true })
      return [next]
    }
    case 'pause':
      if (init.phase === 'pausing' && code === CODE.OK) return [change(state, INIT, { phase: 'paused' })]
      if (init.phase === 'pausing' && code === CODE.PRECONDITION && (init.killed || init.dead))
        return [change(state, INIT, { phase: 'running' })]
      return same(init.phase !== 'running' && init.phase !== 'pausing' && code === CODE.UNKNOWN)
    case 'resume':
      if (init.phase === 'paused' && code === CODE.OK) return [change(state, INIT, { phase: 'running' })]
      // a killed one was thawed, to die
      if (init.phase === 'paused' && code === CODE.PRECONDITION) return same(init.killed || init.dead)
      return same(init.phase !== 'paused' && init.phase !== 'pausing' && code === CODE.UNKNOWN)
    case 'delete':
      return deleted(state, call, lives)
  }
}

function started(state: State, { process: name, code }: Call): State[] {
  const init = state.processes[INIT]
  const process = state.processes[name]
  if (init === undefined || process === undefined) return []
  if (process.phase !== 'created') return code === CODE.UNKNOWN ? [state] : []
  const life = state.lives[name] ?? 0
  const runs = { ...change(state, name, { phase: 'running', life }), lives: { ...state.lives, [name]: life + 1 } }
  if (name === INIT) {
    // one that is killed meanwhile may get as far as its program, or not
    if (code === CODE.OK) return [runs]
    return code === CODE.UNKNOWN && (process.killed || process.dead) ? [state] : []
  }
  const isEnding = init.phase === 'stopped' || init.dead || init.killed
  const isFrozen = init.phase === 'pausing' || init.phase === 'paused'
  if (isFrozen && code === CODE.UNKNOWN) return [change(state, name, { failed: true })]
  if (code === CODE.OK) return init.phase === 'stopped' ? [] : [runs]
  return code === CODE.PRECONDITION && isEnding ? [change(state, name, { failed: true })] : []
}

function waited(state: State, { process: name, code, exit, sent }: Call, lives: Lives): State[] {
  const init = state.processes[INIT]
  const process = init === undefined ? undefined : state.processes[name]
  const grave = state.graves[name]
  // it was there when it was asked for, and is deleted now
  if (code === CODE.OK && grave !== undefined && sent < grave.until && exit === grave.exit) return [state]
  if (process === undefined) return code === CODE.NOT_FOUND ? [state] : []
  if (code !== CODE.OK) return []
  if (process.phase === 'stopped') return exit === lives.exit(name, process.life) ? [state] : []
  const isLost = name !== INIT && process.phase === 'created' && (process.failed || init?.phase === 'stopped')
  return isLost && exit === undefined ? [state] : []
}

function deleted(state: State, { process: name, code, exit, answered }: Call, lives: Lives): State[] {
  const process = state.processes[name]
  if (process === undefined) return []
  if (process.phase !== 'stopped' && process.phase !== 'created') return code === CODE.UNKNOWN ? [state] : []
  if (code !== CODE.OK) return []
  const told = process.phase === 'stopped' ? lives.exit(name, process.life) : undefined
  if (name !== INIT) return exit === told ? [without(state, name, { exit, until: answered })] : []
  // a created one is killed first
  if (exit !== (process.phase === 'created' ? KILLED : told)) return []
  let next = state
  for (const exec of execsOf(state)) {
    const { phase, life } = state.processes[exec] ?? BORN
    const last = phase === 'created' ? undefined : lives.exit(exec, life)
    next = without(next, exec, { exit: last, until: answered })
  }
  return [without(next, INIT, { exit, until: answered })]
}
