/**
 * A small client of the CRI, the API between the kubelet and containerd. It asks for pods and containers as the
 * kubelet does by default. A test says what it wants differently in the API's words.
 */
import { mkdtempSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Client, credentials, type ServiceError } from '@grpc/grpc-js'
import { messages } from './cri-proto.ts'
import { CriStream } from './cri-stream.ts'
import type { Daemon } from './daemon.ts'
import { SLOWNESS } from './needs.ts'

/** The namespace of the CRI's containers. */
export const CRI_NAMESPACE = 'k8s.io'
/** The namespace that a container gets: its pod's, one of its own, the host's, or another container's. */
export const NamespaceMode = { POD: 0, CONTAINER: 1, NODE: 2, TARGET: 3 } as const
/** The states of a container. */
export const ContainerState = { CREATED: 0, RUNNING: 1, EXITED: 2 } as const
/** The states of a pod. */
export const PodState = { READY: 0, NOTREADY: 1 } as const
const MILLISECONDS = 60_000 * SLOWNESS

/** A message as protobufjs takes it; what is left out has its default. */
export type Fields = Readonly<Record<string, unknown>>

/** A pod, and what each call for one of its containers repeats. */
export interface Pod {
  readonly id: string
  readonly config: Fields
  /** the part of the security context that the kubelet repeats for each container */
  readonly namespaces: Fields
}

/** What a test may want of a pod. */
export interface PodWish {
  /** The handler of the daemon's configuration. */
  readonly handler?: string
  /** NamespaceOption; by default the host's network, and processes that are each container's own. */
  readonly namespaces?: Fields
  /** Other fields of the pod's security context. */
  readonly security?: Fields
  /** Other fields of LinuxPodSandboxConfig. */
  readonly linux?: Fields
  /** Other fields of PodSandboxConfig. */
  readonly config?: Fields
}

/** What a test may want of a container. */
export interface ContainerWish {
  readonly namespaces?: Fields
  readonly security?: Fields
  readonly resources?: Fields
  /** Other fields of ContainerConfig. */
  readonly config?: Fields
}

/** What the CRI tells of a container. */
export interface Status {
  readonly state: number
  readonly exitCode: number
  readonly reason: string
  readonly message: string
}

/** One line of a container's log, as the CRI writes it: with F for a whole line, P for a part of one. */
export interface LogLine {
  readonly stream: string
  readonly tag: string
  readonly text: string
}

/** What the kubelet hides from containers that are not privileged. */
const MASKED = ['/proc/acpi', '/proc/kcore', '/proc/keys', '/proc/latency_stats', '/proc/timer_list', '/sys/firmware']
const READONLY = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

const LOG_LINE = /^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) (stdout|stderr) ([FP]) (.*)$/

/** A connection to the CRI of one daemon; ends with `using`. */
export class Cri implements Disposable {
  /** The ids of all pods and containers that were made. */
  readonly ids: string[] = []
  readonly #client: Client
  readonly #daemon: Daemon
  readonly #image: string
  readonly #calls = new Set<Promise<unknown>>()
  #over = false
  readonly #logs = new Map<string, string>()
  #next = 1

  /** `image` is what containers are made of. */
  constructor(daemon: Daemon, image: string) {
    this.#daemon = daemon
    this.#image = image
    const options = { 'grpc.max_receive_message_length': -1 }
    this.#client = new Client(`unix://${daemon.address}`, credentials.createInsecure(), options)
  }

  /** Whether the CRI knows its image, which it learns some time after the import. */
  async knowsImage(): Promise<boolean> {
    const request = { image: { image: this.#image } }
    const answer = await this.call('ImageStatus', 'ImageStatusRequest', 'ImageStatusResponse', request, 'ImageService')
    return answer['image'] !== null
  }

  /** Runs a pod. @throws what the daemon says */
  async runPod(wish: PodWish = {}): Promise<Pod> {
    const name = `pod-${this.#next++}`
    const logDirectory = mkdtempSync(join(this.#daemon.folder, 'logs-'))
    const namespaces = { network: NamespaceMode.NODE, pid: NamespaceMode.CONTAINER, ...wish.namespaces }
    const config = {
      metadata: { name, uid: name, namespace: 'tests' },
      logDirectory,
      ...wish.config,
      linux: {
        // below the folder where a test's cgroups are counted
        cgroupParent: `/${this.#daemon.namespace}`,
        ...wish.linux,
        securityContext: { seccomp: {}, ...wish.security, namespaceOptions: namespaces },
      },
    }
    const request = { config, runtimeHandler: wish.handler ?? 'ts' }
    const { podSandboxId } = await this.call('RunPodSandbox', 'RunPodSandboxRequest', 'RunPodSandboxResponse', request)
    const pod = { id: String(podSandboxId), config, namespaces }
    this.ids.push(pod.id)
    return pod
  }

  /** Makes a container; answers its id. @throws what the daemon says */
  async createContainer(pod: Pod, command: readonly string[], wish: ContainerWish = {}): Promise<string> {
    const security = {
      seccomp: {},
      maskedPaths: MASKED,
      readonlyPaths: READONLY,
      ...wish.security,
      namespaceOptions: { ...pod.namespaces, ...wish.namespaces },
    }
    const name = `c-${this.#next++}`
    const config = {
      metadata: { name },
      logPath: `${name}.log`,
      image: { image: this.#image },
      command,
      ...wish.config,
      linux: { resources: { memoryLimitInBytes: 1 << 26, ...wish.resources }, securityContext: security },
    }
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config }
    const answer = await this.call('CreateContainer', 'CreateContainerRequest', 'CreateContainerResponse', request)
    const id = String(answer['containerId'])
    this.ids.push(id)
    this.#logs.set(id, join(String(pod.config['logDirectory']), config.logPath))
    return id
  }

  /** @throws what the daemon says */
  async startContainer(containerId: string): Promise<void> {
    await this.call('StartContainer', 'ContainerRequest', 'Nothing', { containerId })
  }

  /** Makes and starts a container; answers its id. */
  async runContainer(pod: Pod, command: readonly string[], wish: ContainerWish = {}): Promise<string> {
    const id = await this.createContainer(pod, command, wish)
    await this.startContainer(id)
    return id
  }

  /** Runs a program in a container to its end. @throws what the daemon says, for one that takes longer too */
  async execSync(
    containerId: string,
    cmd: readonly string[],
    timeout = 30 * SLOWNESS,
  ): Promise<{ exitCode: number; stdout: string; stderr: string }> {
    const answer = await this.call('ExecSync', 'ExecSyncRequest', 'ExecSyncResponse', { containerId, cmd, timeout })
    const text = (bytes: unknown): string => (bytes instanceof Uint8Array ? Buffer.from(bytes).toString() : '')
    return {
      exitCode: Number(answer['exitCode']),
      stdout: text(answer['stdout']),
      stderr: text(answer['stderr']),
    }
  }

  /** What a shell in the container prints, without the last line end. @throws when it fails */
  async sh(containerId: string, script: string): Promise<string> {
    const { exitCode, stdout, stderr } = await this.execSync(containerId, ['sh', '-c', script])
    if (exitCode !== 0) throw new Error(`${script}: status ${exitCode}: ${stdout}${stderr}`)
    return stdout.trimEnd()
  }

  /** Starts a program in a container; its streams come over a websocket. */
  async exec(containerId: string, cmd: readonly string[], wish: Fields = {}): Promise<CriStream> {
    const fields = { containerId, cmd, stdout: true, stderr: wish['tty'] !== true, ...wish }
    const { url } = await this.call('Exec', 'ExecRequest', 'UrlResponse', fields)
    return await CriStream.open(String(url))
  }

  /** Joins the streams of a container's first process. */
  async attach(containerId: string, wish: Fields = {}): Promise<CriStream> {
    const fields = { containerId, stdout: true, stderr: wish['tty'] !== true, ...wish }
    const { url } = await this.call('Attach', 'AttachRequest', 'UrlResponse', fields)
    return await CriStream.open(String(url))
  }

  /** Connects to a port of the pod's. */
  async portForward(pod: Pod, port: number): Promise<CriStream> {
    const fields = { podSandboxId: pod.id, port: [port] }
    const { url } = await this.call('PortForward', 'PortForwardRequest', 'UrlResponse', fields)
    return await CriStream.open(String(url))
  }

  /** Changes limits of a running container. */
  async update(containerId: string, linux: Fields, annotations: Fields = {}): Promise<void> {
    await this.call('UpdateContainerResources', 'UpdateRequest', 'Nothing', { containerId, linux, annotations })
  }

  async status(containerId: string): Promise<Status> {
    const answer = await this.call('ContainerStatus', 'ContainerRequest', 'ContainerStatusResponse', { containerId })
    const at = (key: string): unknown => valueAt(answer, 'status', key)
    return {
      state: Number(at('state')),
      exitCode: Number(at('exitCode')),
      reason: String(at('reason')),
      message: String(at('message')),
    }
  }

  async podStatus(pod: Pod): Promise<{ state: number; ip: string }> {
    const answer = await this.call('PodSandboxStatus', 'PodRequest', 'PodStatusResponse', { podSandboxId: pod.id })
    return {
      state: Number(valueAt(answer, 'status', 'state')),
      ip: String(valueAt(answer, 'status', 'network', 'ip') ?? ''),
    }
  }

  /** Processor time in nanoseconds and memory in bytes that a container uses. */
  async statsOf(containerId: string): Promise<{ cpu: number; memory: number }> {
    const answer = await this.call('ContainerStats', 'ContainerRequest', 'ContainerStatsResponse', { containerId })
    return {
      cpu: Number(valueAt(answer, 'stats', 'cpu', 'usageCoreNanoSeconds', 'value')),
      memory: Number(valueAt(answer, 'stats', 'memory', 'workingSetBytes', 'value')),
    }
  }

  /** The file that a container's output goes to. */
  logPath(containerId: string): string {
    return this.#logs.get(containerId) ?? ''
  }

  /** The lines of a container's log. @throws Error for one that is not in the CRI's format */
  logOf(containerId: string): LogLine[] {
    const lines = readFileSync(this.logPath(containerId), 'utf8').split('\n').slice(0, -1)
    return lines.map((line) => {
      const [, stream = '', tag = '', text = ''] = LOG_LINE.exec(line) ?? []
      if (stream === '') throw new Error(`this is no line of the CRI's log: ${line}`)
      return { stream, tag, text }
    })
  }

  /** SIGTERM, and SIGKILL after the seconds given. */
  async stopContainer(containerId: string, timeout: number): Promise<void> {
    await this.call('StopContainer', 'StopContainerRequest', 'Nothing', { containerId, timeout })
  }

  async removeContainer(containerId: string): Promise<void> {
    await this.call('RemoveContainer', 'ContainerRequest', 'Nothing', { containerId })
  }

  /** Ends all that is in a pod, and gives back its address. */
  async stopPod(pod: Pod): Promise<void> {
    await this.call('StopPodSandbox', 'PodRequest', 'Nothing', { podSandboxId: pod.id })
  }

  /** Stops and removes a pod with all that is in it. */
  async removePod(pod: Pod): Promise<void> {
    await this.stopPod(pod)
    await this.call('RemovePodSandbox', 'PodRequest', 'Nothing', { podSandboxId: pod.id })
  }

  /** Removes what a test left. A test that failed may have calls under way, and can make no more. */
  async end(): Promise<void> {
    this.#over = true
    await Promise.allSettled(this.#calls)
    const { items } = await this.#send('ListPodSandbox', 'Nothing', 'ListPodsResponse')
    for (const { id } of Array.isArray(items) ? items : []) {
      for (const method of ['StopPodSandbox', 'RemovePodSandbox'])
        await this.#send(method, 'PodRequest', 'Nothing', { podSandboxId: String(id) })
    }
  }

  [Symbol.dispose](): void {
    this.#client.close()
  }

  /** Any call of the API. @throws ServiceError */
  async call(
    ...args: [method: string, request: string, response: string, fields?: Fields, service?: string]
  ): Promise<Fields> {
    if (this.#over) throw new Error(`${args[0]}: the test is over`)
    const answered = this.#send(...args)
    this.#calls.add(answered)
    return await answered
  }

  #send(
    method: string,
    request: string,
    response: string,
    fields: Fields = {},
    service = 'RuntimeService',
  ): Promise<Fields> {
    const requestType = messages.lookupType(request)
    const responseType = messages.lookupType(response)
    return new Promise<Fields>((resolve, reject) => {
      this.#client.makeUnaryRequest(
        `/runtime.v1.${service}/${method}`,
        (message: Fields) => Buffer.from(requestType.encode(requestType.fromObject(message)).finish()),
        (bytes: Buffer): Fields => responseType.toObject(responseType.decode(bytes), { defaults: true, longs: Number }),
        fields,
        { deadline: Date.now() + MILLISECONDS },
        (error: ServiceError | null, answer) => (error === null ? resolve(answer ?? {}) : reject(error)),
      )
    })
  }
}

/** What is at a place in an answer. */
export function valueAt(answer: unknown, ...path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>((at, key) => (at instanceof Object ? Reflect.get(at, key) : undefined), answer)
}
