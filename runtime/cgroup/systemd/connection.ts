/**
 * The systemd manager of the machine or of a user, over D-Bus: starting, stopping and changing units. Jobs are waited
 * for. systemd drops its clients when it restarts (`systemctl daemon-reexec`). A call that this interrupts is made
 * again, and a job that nobody reports any more is looked up. Invariants: everything ends by the deadline of the
 * object; a failure is one line that says what was attempted on which unit.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { RuntimeError, type RuntimeErrorCode } from '../../errors.ts'
import type { DbusProperty, DbusValue } from '../../sys/dbus-value.ts'
import { Bus, type BusAddress, type BusCall, BusFailure, type BusWords, type Deadline } from '../../sys/sd-bus.ts'

const NAME = 'org.freedesktop.systemd1'
const OBJECT = '/org/freedesktop/systemd1'
const MANAGER = `${NAME}.Manager`
const PROPERTIES = 'org.freedesktop.DBus.Properties'
const DBUS = 'org.freedesktop.DBus'
const JOB_MATCH = `type='signal',sender='${NAME}',interface='${MANAGER}',member='JobRemoved',path='${OBJECT}'`

/** How long one operation on a unit may take, waiting included. */
const BOUND_MS = 30_000
const LOOK_MS = 100
const RECONNECT_MS = 50
/** How long systemd may be away while it restarts. */
const ABSENCE_MS = 10_000

const NO_SUCH_UNIT = `${NAME}.NoSuchUnit`
const UNIT_EXISTS = `${NAME}.UnitExists`
const ACCESS_DENIED: readonly string[] = [
  `${DBUS}.Error.AccessDenied`,
  `${DBUS}.Error.AuthFailed`,
  `${DBUS}.Error.InteractiveAuthorizationRequired`,
]
/** What a bus answers in systemd's place while systemd restarts. */
const GONE: readonly string[] = [
  `${DBUS}.Error.NoReply`,
  `${DBUS}.Error.Disconnected`,
  `${DBUS}.Error.ServiceUnknown`,
  `${DBUS}.Error.NameHasNoOwner`,
]

/** The sockets at which a manager can be asked, the best first: systemd itself, then the bus. */
function managerAddresses(user: boolean, env: Readonly<Record<string, string | undefined>>): BusAddress[] {
  const at = (path: string, direct: boolean): BusAddress => ({ address: `unix:path=${escapePath(path)}`, direct })
  const chosen = user ? env['DBUS_SESSION_BUS_ADDRESS'] : env['DBUS_SYSTEM_BUS_ADDRESS']
  const bus = chosen ? [{ address: chosen, direct: false }] : []
  // who names another system bus wants that one; a session bus may belong to a desktop without systemd
  if (!user) return [...bus, at('/run/systemd/private', true), at('/run/dbus/system_bus_socket', false)]
  const runtimeDir = env['XDG_RUNTIME_DIR'] || `/run/user/${process.geteuid?.() ?? 0}`
  return [at(`${runtimeDir}/systemd/private`, true), ...bus, at(`${runtimeDir}/bus`, false)]
}

/** As addresses of D-Bus have paths: what is not plain is %NN. */
function escapePath(path: string): string {
  return [...Buffer.from(path)]
    .map((byte) =>
      /[A-Za-z0-9_/.\\*-]/.test(String.fromCharCode(byte))
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).padStart(2, '0')}`,
    )
    .join('')
}

/** How a connection is made. */
export interface ConnectOptions {
  /** the manager of this user, instead of the machine's */
  readonly user: boolean
  /** what is attempted, for errors: `create unit "x.scope"` */
  readonly what: string
  readonly signal?: AbortSignal | undefined
  /** default: those of the manager; tests have a bus of their own */
  readonly addresses?: readonly BusAddress[]
  readonly boundMs?: number
}

/** One connection to a manager, for one operation. */
export class Systemd implements Disposable {
  readonly #what: string
  readonly #addresses: readonly BusAddress[]
  readonly #signal: AbortSignal | undefined
  readonly #boundMs: number
  readonly #deadline: Deadline
  #bus: Bus | undefined
  /** when the connection was lost, until a call is answered again */
  #lostAt: number | undefined
  #where = 'its socket'

  constructor({ user, what, signal, addresses, boundMs = BOUND_MS }: ConnectOptions) {
    this.#what = what
    this.#addresses = addresses ?? managerAddresses(user, process.env)
    this.#signal = signal
    this.#boundMs = boundMs
    this.#deadline = performance.now() + boundMs
  }

  /** The first number of the manager's version. */
  async version(): Promise<number> {
    const [text] = await this.#manager('Version')
    return Number(/\d+/.exec(String(text))?.[0] ?? 0)
  }

  /** The cgroup of the manager, from the mount point; '' for the root. */
  async controlGroup(): Promise<string> {
    const [path] = await this.#manager('ControlGroup')
    return String(path).replace(/\/$/, '')
  }

  /**
   * Starts a transient unit and waits until it has started. A failed unit of this name is forgotten. `isOurs` says
   * whether a unit that is there already is the one that an interrupted call has made.
   * @throws FailedPrecondition for another unit of this name
   */
  async start(name: string, properties: readonly DbusProperty[], isOurs: () => boolean): Promise<void> {
    const args = [text(name), text('replace'), propertyList(properties), { signature: 'a(sa(sv))', data: [] }]
    for (let attempt = 1; ; attempt++) {
      try {
        const job = await this.#call({ member: 'StartTransientUnit', args }, 'o')
        await this.#jobDone(String(job[0]), name, async () => isOurs() || (await this.#state(name)) === 'active')
        return
      } catch (error) {
        if (!(error instanceof BusFailure) || error.errorName !== UNIT_EXISTS) throw this.#explained(error)
        if (isOurs()) return
        if (attempt > 1) throw await this.#taken(name, error)
        await this.resetFailed(name)
      }
    }
  }

  async #taken(name: string, cause: unknown): Promise<RuntimeError> {
    const state = await this.#state(name)
    const message = `cannot ${this.#what}: a systemd unit of that name exists already (${state ?? 'unknown state'}); \`systemctl stop ${name}\` ends it`
    return new RuntimeError('FailedPrecondition', message, { cause })
  }

  /** Stops a unit and forgets that it has failed, if it has. It is no error when there is none. */
  async stop(name: string): Promise<void> {
    try {
      const job = await this.#call({ member: 'StopUnit', args: [text(name), text('replace')] }, 'o')
      await this.#jobDone(String(job[0]), name, async () => {
        const state = await this.#state(name)
        return state === undefined || state === 'inactive' || state === 'failed'
      })
    } catch (error) {
      if (!(error instanceof BusFailure) || error.errorName !== NO_SUCH_UNIT) throw this.#explained(error)
    }
    await this.resetFailed(name)
  }

  /** Forgets that a unit has failed; systemd then unloads it. It is no error when there is none. */
  async resetFailed(name: string): Promise<void> {
    try {
      await this.#call({ member: 'ResetFailedUnit', args: [text(name)] }, '')
    } catch (error) {
      if (!(error instanceof BusFailure) || error.errorName !== NO_SUCH_UNIT) throw this.#explained(error)
    }
  }

  /** Changes properties until the unit ends. */
  async setProperties(name: string, properties: readonly DbusProperty[]): Promise<void> {
    const args = [text(name), { signature: 'b', data: true }, propertyList(properties)]
    await this.#explainedCall({ member: 'SetUnitProperties', args }, '')
  }

  /** Moves a process into the cgroup of a unit, or into one below it, that begins with "/". */
  async attach(name: string, below: string, pid: number): Promise<void> {
    const args = [text(name), text(below), { signature: 'au', data: [BigInt(pid)] }]
    await this.#explainedCall({ member: 'AttachProcessesToUnit', args }, '')
  }

  [Symbol.dispose](): void {
    this.#bus?.[Symbol.dispose]()
    this.#bus = undefined
  }

  #manager(property: string): Promise<BusWords> {
    const args = [text(MANAGER), text(property)]
    return this.#explainedCall({ member: 'Get', interface: PROPERTIES, args }, 'v:s')
  }

  /** What systemd says of a unit's state; undefined for one that is not loaded. */
  async #state(name: string): Promise<string | undefined> {
    try {
      const [path] = await this.#call({ member: 'GetUnit', args: [text(name)] }, 'o')
      const args = [text(`${NAME}.Unit`), text('ActiveState')]
      const [state] = await this.#call({ member: 'Get', interface: PROPERTIES, path: String(path), args }, 'v:s')
      return String(state)
    } catch (error) {
      // the unit may be unloaded between the two calls
      if (error instanceof BusFailure && error.kind === 'refused') return undefined
      throw error
    }
  }

  /** Waits for the end of a job; `isDone` tells where the connection is lost, and the report of the job with it. */
  async #jobDone(job: string, name: string, isDone: () => Promise<boolean>): Promise<void> {
    const bus = await this.#connected()
    try {
      const words = await bus.signal(
        { member: 'JobRemoved', types: 'uoss', wanted: ([, path]) => path === job },
        this.#deadline,
      )
      const result = String(words[3])
      if (result === 'done') return
      await this.resetFailed(name)
      throw new RuntimeError('Internal', `cannot ${this.#what}: systemd's job for unit "${name}" ended as "${result}"`)
    } catch (error) {
      if (!isGone(error)) throw error
      await this.#lost(error)
    }
    while (!(await isDone())) await this.#pause(LOOK_MS)
  }

  async #explainedCall(call: Partial<BusCall> & Pick<BusCall, 'member'>, reply: string): Promise<BusWords> {
    try {
      return await this.#call(call, reply)
    } catch (error) {
      throw this.#explained(error)
    }
  }

  /** A call that is made again on a new connection when the old one is lost. @throws BusFailure */
  async #call(call: Partial<BusCall> & Pick<BusCall, 'member'>, reply: string): Promise<BusWords> {
    for (;;) {
      try {
        const bus = await this.#connected()
        const whole = { destination: NAME, path: OBJECT, interface: MANAGER, ...call }
        const words = await bus.call(whole, reply, this.#deadline)
        this.#lostAt = undefined
        return words
      } catch (error) {
        if (!isGone(error) && !(this.#lostAt !== undefined && isAbsent(error))) throw error
        await this.#lost(error)
      }
    }
  }

  /** Waits a moment for a systemd that restarts. @throws the failure when it is away for too long */
  async #lost(error: unknown): Promise<void> {
    this[Symbol.dispose]()
    this.#lostAt ??= performance.now()
    if (performance.now() > this.#lostAt + Math.min(ABSENCE_MS, this.#boundMs)) throw error
    await this.#pause(RECONNECT_MS)
  }

  async #connected(): Promise<Bus> {
    if (this.#bus !== undefined) return this.#bus
    let failure = new BusFailure('absent', 'no address')
    for (const address of this.#addresses) {
      try {
        const bus = await Bus.open(address, this.#deadline, this.#signal)
        this.#bus = bus
        this.#where = placeOf(address)
        // systemd tells its own clients of jobs anyway; on a bus, only who asks
        if (!address.direct) {
          bus.post({
            destination: DBUS,
            path: '/org/freedesktop/DBus',
            interface: DBUS,
            member: 'AddMatch',
            args: [text(JOB_MATCH)],
          })
          bus.post({ destination: NAME, path: OBJECT, interface: MANAGER, member: 'Subscribe' })
        }
        return bus
      } catch (error) {
        if (!(error instanceof BusFailure)) throw error
        if (failure.message === 'no address')
          failure = new BusFailure(error.kind, `${placeOf(address)}: ${error.message}`)
      }
    }
    throw failure
  }

  async #pause(ms: number): Promise<void> {
    this.#signal?.throwIfAborted()
    if (performance.now() + ms > this.#deadline) throw new BusFailure('timeout', 'there is no answer')
    await delay(ms)
  }

  /** The failure with what was attempted. */
  #explained(error: unknown): unknown {
    if (!(error instanceof BusFailure)) return error
    const { code, reason } = this.#reasonOf(error)
    return new RuntimeError(code, `cannot ${this.#what}: ${reason}`, { cause: error })
  }

  #reasonOf({ kind, errorName, message }: BusFailure): { readonly code: RuntimeErrorCode; readonly reason: string } {
    if (kind === 'timeout') {
      const reason = `systemd did not answer within ${this.#boundMs / 1000} s at ${this.#where}`
      return { code: 'DeadlineExceeded', reason }
    }
    if (kind === 'absent')
      return { code: 'Unavailable', reason: `cannot connect to systemd at ${message}; is it running?` }
    if (kind === 'closed') return { code: 'Unavailable', reason: `systemd has closed the connection: ${message}` }
    const denied = kind === 'denied' || ACCESS_DENIED.includes(errorName)
    return { code: denied ? 'PermissionDenied' : 'InvalidArgument', reason: `systemd refuses it: ${message}` }
  }
}

function placeOf({ address }: BusAddress): string {
  return address.replace(/^unix:path=/, '')
}

function isAbsent(error: unknown): boolean {
  return error instanceof BusFailure && error.kind === 'absent'
}

/** Whether systemd has gone, or is about to come back. */
function isGone(error: unknown): boolean {
  if (!(error instanceof BusFailure)) return false
  return error.kind === 'closed' || GONE.includes(error.errorName)
}

function text(data: string): DbusValue {
  return { signature: 's', data }
}

function propertyList(properties: readonly DbusProperty[]): DbusValue {
  return { signature: 'a(sv)', data: properties.map(({ name, signature, data }) => [name, { signature, data }]) }
}
