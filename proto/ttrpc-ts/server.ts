/**
 * The server: a table of services, the sockets it listens on, and the connections that it serves. Calls run
 * concurrently, on one connection as on several. The failure of a call is answered to its caller; `onError` gets the
 * failures that belong to no call.
 */
import { createServer, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { CallContext } from './server-call.ts'
import { type Dispatcher, type Method, type Outcome, ServerConnection, type ServerLimits } from './server-connection.ts'
import type { Answer, InputOf, OutputOf, ServiceDescriptor } from './service.ts'
import { Code, type StatusInfo, statusOf, TtrpcError } from './status.ts'

/** One function per method of a service. */
export type ServiceHandlers<S extends ServiceDescriptor> = {
  readonly [K in keyof S['methods']]: Handler<InputOf<S['methods'][K]>, OutputOf<S['methods'][K]>>
}

/** Answers a call, at once or by a promise; throws a TtrpcError to choose the status. */
export type Handler<I, O> = (request: I, context: CallContext) => Answer<O> | Promise<Answer<O>>

/**
 * Runs around every call: it calls `next`, and returns what that returns, or something else. `request` is the message.
 */
export type Interceptor = (context: CallContext, next: () => Outcome, request: object) => Outcome

/** The options of a server. */
export interface ServerOptions extends ServerLimits {
  /** Translates what a handler threw, unless that is a TtrpcError. By default the code is Unknown, with the message. */
  readonly mapError?: (error: unknown) => StatusInfo
  readonly around?: Interceptor
  /** Whether to serve a socket that listen() has accepted; by default every one is served. */
  readonly accept?: (socket: Socket) => boolean
  /** A connection or a listener failed. */
  readonly onError?: (error: Error) => void
}

/** Serves ttrpc on any number of sockets. */
export class TtrpcServer {
  readonly #options: ServerOptions
  readonly #services = new Map<string, Map<string, Method>>()
  readonly #connections = new Set<ServerConnection>()
  readonly #listeners = new Set<Server>()
  readonly #dispatcher: Dispatcher
  #closing: PromiseWithResolvers<void> | undefined

  constructor(options: ServerOptions = {}) {
    this.#options = options
    this.#dispatcher = {
      find: (service, method) => this.#find(service, method),
      run: (method, request, context) => this.#run(method, request, context),
      statusOf: options.mapError ?? statusOf,
      closed: (connection, reason) => this.#closed(connection, reason),
    }
  }

  /** The number of open connections. */
  get connections(): number {
    return this.#connections.size
  }

  /** The number of calls that are not answered yet, on all connections. */
  get activeCalls(): number {
    let calls = 0
    for (const connection of this.#connections) calls += connection.activeCalls
    return calls
  }

  /** Adds a service. @throws Error when there is one of that name, or a handler is missing */
  register<S extends ServiceDescriptor>(service: S, handlers: ServiceHandlers<S>): this {
    if (this.#services.has(service.typeName)) throw new Error(`service "${service.typeName}" is already registered`)
    const table: object = handlers
    const methods = new Map<string, Method>()
    for (const [key, descriptor] of Object.entries(service.methods)) {
      // The table keeps the handlers without their types. ServiceHandlers has checked that `handle` takes what
      // `descriptor` decodes.
      const handle: Method['handle'] | undefined = Reflect.get(table, key)
      if (handle === undefined) throw new Error(`service "${service.typeName}" has no handler "${key}"`)
      methods.set(descriptor.name, { descriptor, handle: handle.bind(handlers) })
    }
    this.#services.set(service.typeName, methods)
    return this
  }

  /** Serves one connection, which the server owns from now on. */
  serve(stream: Duplex): void {
    if (this.#closing !== undefined) {
      stream.destroy()
      return
    }
    this.#connections.add(new ServerConnection(stream, this.#dispatcher, this.#options))
  }

  /** Accepts connections on an inherited listening socket, or on a new one at a path. Resolves when it listens. */
  listen(target: { readonly fd: number } | { readonly path: string }): Promise<void> {
    const listener = createServer((socket) => {
      if (this.#options.accept?.(socket) ?? true) this.serve(socket)
      else socket.destroy()
    })
    this.#listeners.add(listener)
    listener.once('close', () => this.#listeners.delete(listener))
    return new Promise((resolve, reject) => {
      listener.once('error', reject)
      listener.listen(target, () => {
        listener.off('error', reject)
        listener.on('error', (error) => this.#options.onError?.(error))
        resolve()
      })
    })
  }

  /**
   * Stops listening and ends all connections. Answers that are queued are sent, for at most `graceMs` (200 when
   * absent); calls in progress are aborted. Resolves when no connection is left.
   */
  close(options: { readonly graceMs?: number } = {}): Promise<void> {
    if (this.#closing === undefined) {
      this.#closing = Promise.withResolvers()
      for (const listener of this.#listeners) listener.close()
      for (const connection of this.#connections) connection.close(options.graceMs ?? 200)
      this.#settleClose()
    }
    return this.#closing.promise
  }

  #find(service: string, method: string): Method {
    const methods = this.#services.get(service)
    if (methods === undefined) throw new TtrpcError(Code.UNIMPLEMENTED, `service ${service}`)
    const found = methods.get(method)
    if (found === undefined) throw new TtrpcError(Code.UNIMPLEMENTED, `method ${method}`)
    return found
  }

  #run(method: Method, request: object, context: CallContext): Outcome {
    const { around } = this.#options
    return around === undefined
      ? method.handle(request, context)
      : around(context, () => method.handle(request, context), request)
  }

  #closed(connection: ServerConnection, reason: Error | undefined): void {
    this.#connections.delete(connection)
    if (reason !== undefined) this.#options.onError?.(reason)
    this.#settleClose()
  }

  #settleClose(): void {
    if (this.#connections.size === 0) this.#closing?.resolve()
  }
}
