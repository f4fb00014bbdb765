/**
 * The server: a table of services, the sockets it listens on, and the connections that it serves. Calls run concurrently, on one
 * connection as on many. What goes wrong in a call is answered to its caller; `onError` hears only of what nobody else can.
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

/** Answers a call, at once or later; throws TtrpcError to choose the status. */
export type Handler<I, O> = (request: I, context: CallContext) => Answer<O> | Promise<Answer<O>>

/** Runs around every call, whose message is `request`: it calls `next` and returns or changes what that yields. */
export type Interceptor = (context: CallContext, next: () => Outcome, request: object) => Outcome

/** How a server behaves. */
export interface ServerOptions extends ServerLimits {
  /** Translates what a handler threw, unless it is a TtrpcError; by default the code is Unknown and the message is kept. */
  readonly mapError?: (error: unknown) => StatusInfo
  readonly around?: Interceptor
  /** Whether to serve an accepted socket; by default all. */
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

  /** Open connections. */
  get connections(): number {
    return this.#connections.size
  }

  /** Calls that are not answered yet, on all connections. */
  get activeCalls(): number {
    let calls = 0
    for (const connection of this.#connections) calls += connection.activeCalls
    return calls
  }

  /** Adds a service; @throws Error when one of that name is there, or a handler is missing. */
  register<S extends ServiceDescriptor>(service: S, handlers: ServiceHandlers<S>): this {
    if (this.#services.has(service.typeName)) throw new Error(`service "${service.typeName}" is already registered`)
    const table: object = handlers
    const methods = new Map<string, Method>()
    for (const [key, descriptor] of Object.entries(service.methods)) {
      // The types of handlers end here: `descriptor` decodes what `handle` takes, as ServiceHandlers has checked.
      const handle: Method['handle'] | undefined = Reflect.get(table, key)
      if (handle === undefined) throw new Error(`service "${service.typeName}" has no handler "${key}"`)
      methods.set(descriptor.name, { descriptor, handle: handle.bind(handlers) })
    }
    this.#services.set(service.typeName, methods)
    return this
  }

  /** Serves one connection, which it owns from now on. */
  serve(stream: Duplex): void {
    if (this.#closing !== undefined) {
      stream.destroy()
      return
    }
    this.#connections.add(new ServerConnection(stream, this.#dispatcher, this.#options))
  }

  /** Accepts connections on an inherited listening socket, or on a new one at a path; resolves when it listens. */
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

  /** Stops listening and ends all connections: answers that were given are sent, for at most `graceMs`; calls in progress are aborted. */
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
