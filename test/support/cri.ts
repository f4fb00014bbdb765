/**
 * A small client of the CRI, the API that the kubelet speaks to containerd: pods in the host's network and their containers. The proto has
 * the calls and fields that tests use, with the names, numbers and types of runtime.v1.
 */
import { Client, credentials } from '@grpc/grpc-js'
import protobuf from 'protobufjs'
import type { Daemon } from './daemon.ts'

const { root } = protobuf.parse(`
  syntax = "proto3";
  message IDMapping { uint32 host_id = 1; uint32 container_id = 2; uint32 length = 3; }
  message UserNamespace { int32 mode = 1; repeated IDMapping uids = 2; repeated IDMapping gids = 3; }
  message NamespaceOption { int32 network = 1; int32 pid = 2; int32 ipc = 3; string target_id = 4; UserNamespace userns_options = 5; }
  message SandboxSecurity { NamespaceOption namespace_options = 1; }
  message LinuxSandbox { string cgroup_parent = 1; SandboxSecurity security_context = 2; }
  message SandboxMetadata { string name = 1; string uid = 2; string namespace = 3; }
  message SandboxConfig { SandboxMetadata metadata = 1; string log_directory = 3; LinuxSandbox linux = 8; }
  message RunPodSandboxRequest { SandboxConfig config = 1; string runtime_handler = 2; }
  message RunPodSandboxResponse { string pod_sandbox_id = 1; }
  message PodRequest { string pod_sandbox_id = 1; }
  message Nothing {}
  message ImageSpec { string image = 1; }
  message ContainerMetadata { string name = 1; }
  message LinuxResources { int64 cpu_period = 1; int64 cpu_quota = 2; int64 cpu_shares = 3; int64 memory_limit_in_bytes = 4; }
  message ContainerSecurity { NamespaceOption namespace_options = 3; }
  message LinuxContainer { LinuxResources resources = 1; ContainerSecurity security_context = 2; }
  message ContainerConfig {
    ContainerMetadata metadata = 1; ImageSpec image = 2; repeated string command = 3; string log_path = 11; LinuxContainer linux = 15;
  }
  message CreateContainerRequest { string pod_sandbox_id = 1; ContainerConfig config = 2; SandboxConfig sandbox_config = 3; }
  message CreateContainerResponse { string container_id = 1; }
  message ContainerRequest { string container_id = 1; int64 timeout = 2; }
  message ExecSyncRequest { string container_id = 1; repeated string cmd = 2; int64 timeout = 3; }
  message ExecSyncResponse { bytes stdout = 1; bytes stderr = 2; int32 exit_code = 3; }
  message UpdateRequest { string container_id = 1; LinuxResources linux = 2; }
  message ContainerStatusResponse { ContainerStatus status = 1; }
  message ContainerStatus { string id = 1; int32 state = 3; int32 exit_code = 7; }
  message ImageStatusRequest { ImageSpec image = 1; }
  message Image { string id = 1; }
  message ImageStatusResponse { Image image = 1; }
  message UInt64Value { uint64 value = 1; }
  message MemoryUsage { UInt64Value working_set_bytes = 2; }
  message ContainerStats { MemoryUsage memory = 3; }
  message ContainerStatsResponse { ContainerStats stats = 1; }
`)

/** The namespace of the CRI's containers. */
export const CRI_NAMESPACE = 'k8s.io'
/** NamespaceMode.NODE: the host's own. */
const NODE = 2
const MILLISECONDS = 60_000

/** A number in an answer; what is left out is 0, as in every message of proto3. */
function numberAt(answer: unknown, ...path: readonly string[]): number {
  const found = path.reduce<unknown>((at, key) => (at instanceof Object ? Reflect.get(at, key) : undefined), answer)
  return Number(found ?? 0)
}

/** A pod, and what each of its containers must be told again. */
export interface Pod {
  readonly id: string
  readonly config: Record<string, unknown>
}

/** A connection to the CRI of one daemon; ends with `using`. */
export class Cri implements Disposable {
  readonly #client: Client
  readonly #daemon: Daemon
  #next = 1

  constructor(daemon: Daemon) {
    this.#daemon = daemon
    this.#client = new Client(`unix://${daemon.address}`, credentials.createInsecure())
  }

  /** Whether the CRI knows an image; it hears of one some time after it was imported. */
  async knows(image: string): Promise<boolean> {
    const method = { service: 'ImageService', name: 'ImageStatus' }
    return (
      (await this.#call(method, 'ImageStatusRequest', 'ImageStatusResponse', { image: { image } }))['image'] !==
      undefined
    )
  }

  /** Runs a pod in the host's network with a handler of the daemon's configuration. @throws what the daemon says */
  async runPod(runtimeHandler: string, logDirectory = ''): Promise<Pod> {
    const name = `pod-${this.#next++}`
    const config = {
      metadata: { name, uid: name, namespace: 'tests' },
      logDirectory,
      // below the folder where a test's cgroups are counted
      linux: { cgroupParent: `/${this.#daemon.namespace}`, securityContext: { namespaceOptions: { network: NODE } } },
    }
    const { podSandboxId } = await this.#call('RunPodSandbox', 'RunPodSandboxRequest', 'RunPodSandboxResponse', {
      config,
      runtimeHandler,
    })
    return { id: String(podSandboxId), config }
  }

  /** Makes and starts a container of an image; answers its id. */
  async runContainer(pod: Pod, image: string, command: readonly string[], logPath = ''): Promise<string> {
    const config = {
      metadata: { name: `c-${this.#next++}` },
      image: { image },
      command,
      logPath,
      linux: { resources: { memoryLimitInBytes: 1 << 26 }, securityContext: { namespaceOptions: { network: NODE } } },
    }
    const request = { podSandboxId: pod.id, config, sandboxConfig: pod.config }
    const made = await this.#call('CreateContainer', 'CreateContainerRequest', 'CreateContainerResponse', request)
    const containerId = String(made['containerId'])
    await this.#call('StartContainer', 'ContainerRequest', 'Nothing', { containerId })
    return containerId
  }

  async execSync(containerId: string, cmd: readonly string[]): Promise<{ exitCode: number; stdout: string }> {
    const { exitCode, stdout } = await this.#call('ExecSync', 'ExecSyncRequest', 'ExecSyncResponse', {
      containerId,
      cmd,
      timeout: 30,
    })
    return { exitCode: Number(exitCode ?? 0), stdout: Buffer.from(String(stdout ?? ''), 'base64').toString() }
  }

  async setMemoryLimit(containerId: string, memoryLimitInBytes: number): Promise<void> {
    await this.#call('UpdateContainerResources', 'UpdateRequest', 'Nothing', {
      containerId,
      linux: { memoryLimitInBytes },
    })
  }

  async memoryOf(containerId: string): Promise<number> {
    const answer = await this.#call('ContainerStats', 'ContainerRequest', 'ContainerStatsResponse', { containerId })
    return numberAt(answer, 'stats', 'memory', 'workingSetBytes', 'value')
  }

  /** The state (0 created, 1 running, 2 exited) and the exit status. */
  async status(containerId: string): Promise<{ state: number; exitCode: number }> {
    const answer = await this.#call('ContainerStatus', 'ContainerRequest', 'ContainerStatusResponse', { containerId })
    return { state: numberAt(answer, 'status', 'state'), exitCode: numberAt(answer, 'status', 'exitCode') }
  }

  /** SIGTERM, and SIGKILL after the seconds given. */
  async stopContainer(containerId: string, timeout: number): Promise<void> {
    await this.#call('StopContainer', 'ContainerRequest', 'Nothing', { containerId, timeout })
  }

  async removeContainer(containerId: string): Promise<void> {
    await this.#call('RemoveContainer', 'ContainerRequest', 'Nothing', { containerId })
  }

  /** Stops and removes a pod with all that is in it. */
  async removePod(pod: Pod): Promise<void> {
    for (const method of ['StopPodSandbox', 'RemovePodSandbox'])
      await this.#call(method, 'PodRequest', 'Nothing', { podSandboxId: pod.id })
  }

  [Symbol.dispose](): void {
    this.#client.close()
  }

  #call(
    method: string | { service: string; name: string },
    request: string,
    response: string,
    fields: Record<string, unknown>,
  ): Promise<Record<string, unknown>> {
    const requestType = root.lookupType(request)
    const responseType = root.lookupType(response)
    const path = typeof method === 'string' ? `RuntimeService/${method}` : `${method.service}/${method.name}`
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        `/runtime.v1.${path}`,
        (message: Record<string, unknown>) => Buffer.from(requestType.encode(requestType.fromObject(message)).finish()),
        (bytes: Buffer): Record<string, unknown> => responseType.decode(bytes).toJSON(),
        fields,
        { deadline: Date.now() + MILLISECONDS },
        (error, answer) => (error === null ? resolve(answer ?? {}) : reject(error)),
      )
    })
  }
}
