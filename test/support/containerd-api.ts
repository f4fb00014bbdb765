/**
 * containerd's own gRPC API, for what `ctr` cannot ask of every release: runtime options of any type, as the CRI and
 * moby give them. The messages have the fields that tests use. Names, numbers and types are the same in all releases.
 */
import { Client, credentials, Metadata } from '@grpc/grpc-js'
import protobuf from 'protobufjs'
import type { Any } from 'ttrpc-ts/containerd'
import type { Daemon } from './daemon.ts'

const SPEC = 'types.containerd.io/opencontainers/runtime-spec/1/Spec'
const { root } = protobuf.parse(`
  syntax = "proto3";
  message Any { string type_url = 1; bytes value = 2; }
  message Runtime { string name = 1; Any options = 2; }
  message Container { string id = 1; Runtime runtime = 4; Any spec = 5; }
  message CreateContainerRequest { Container container = 1; }
  message CreateContainerResponse { Container container = 1; }
  message CreateTaskRequest {
    string container_id = 1; string stdin = 4; string stdout = 5; string stderr = 6; bool terminal = 7;
    Any options = 9; string runtime_path = 10;
  }
  message CreateTaskResponse { string container_id = 1; uint32 pid = 2; }
  message StartRequest { string container_id = 1; string exec_id = 2; }
  message StartResponse { uint32 pid = 1; }
`)

/** What a task is created with besides its container. */
export interface TaskWishes {
  readonly options?: Any
  readonly stdin?: string
  readonly stdout?: string
  readonly stderr?: string
  readonly terminal?: boolean
  /** the shim to use, whatever the runtime of the container is called */
  readonly runtimePath?: string
}

/** A connection to one daemon; ends with `using`. */
export class ContainerdApi implements Disposable {
  readonly #client: Client
  readonly #metadata = new Metadata()

  constructor(daemon: Daemon) {
    this.#client = new Client(`unix://${daemon.address}`, credentials.createInsecure())
    this.#metadata.set('containerd-namespace', daemon.namespace)
  }

  /** Makes a container without a task. A task without options gets the container's. @throws as create() */
  async createContainer(id: string, runtime: { name: string; options?: Any }, spec: string): Promise<void> {
    const container = { id, runtime, spec: { typeUrl: SPEC, value: Buffer.from(spec) } }
    await this.#call('containers.v1.Containers/Create', 'CreateContainer', { container })
  }

  /** Answers the pid. @throws grpc-js's ServiceError with what the daemon or the shim said */
  create(containerId: string, wishes: TaskWishes = {}): Promise<number> {
    return this.#call('tasks.v1.Tasks/Create', 'CreateTask', { containerId, ...wishes })
  }

  /** Answers the pid. @throws as create() */
  start(containerId: string): Promise<number> {
    return this.#call('tasks.v1.Tasks/Start', 'Start', { containerId })
  }

  [Symbol.dispose](): void {
    this.#client.close()
  }

  #call(method: string, message: string, fields: Record<string, unknown>): Promise<number> {
    const requestType = root.lookupType(`${message}Request`)
    const responseType = root.lookupType(`${message}Response`)
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        `/containerd.services.${method}`,
        (request: Record<string, unknown>) => Buffer.from(requestType.encode(requestType.create(request)).finish()),
        (bytes: Buffer) => Number(responseType.decode(bytes).toJSON()['pid'] ?? 0),
        fields,
        this.#metadata,
        (error, pid) => (error === null ? resolve(pid ?? 0) : reject(error)),
      )
    })
  }
}
