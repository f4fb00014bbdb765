/**
 * The messages of the CRI that tests use, with the names, numbers and types of runtime.v1. Fields that are left out
 * here are skipped.
 */
import protobuf from 'protobufjs'

/** The message types by name. */
export const messages: protobuf.Root = protobuf.parse(`
  syntax = "proto3";
  message Nothing {}
  message Int64Value { int64 value = 1; }
  message UInt64Value { uint64 value = 1; }

  message IDMapping { uint32 host_id = 1; uint32 container_id = 2; uint32 length = 3; }
  message UserNamespace { int32 mode = 1; repeated IDMapping uids = 2; repeated IDMapping gids = 3; }
  message NamespaceOption { int32 network = 1; int32 pid = 2; int32 ipc = 3; string target_id = 4; UserNamespace userns_options = 5; }
  message SecurityProfile { int32 profile_type = 1; string localhost_ref = 2; }
  message Capability { repeated string add_capabilities = 1; repeated string drop_capabilities = 2; }

  message SandboxSecurity {
    NamespaceOption namespace_options = 1; Int64Value run_as_user = 3; bool readonly_rootfs = 4; bool privileged = 6;
    Int64Value run_as_group = 8; SecurityProfile seccomp = 9;
  }
  message LinuxSandbox { string cgroup_parent = 1; SandboxSecurity security_context = 2; map<string, string> sysctls = 3; }
  message SandboxMetadata { string name = 1; string uid = 2; string namespace = 3; uint32 attempt = 4; }
  message DnsConfig { repeated string servers = 1; repeated string searches = 2; repeated string options = 3; }
  message SandboxConfig {
    SandboxMetadata metadata = 1; string hostname = 2; string log_directory = 3; DnsConfig dns_config = 4;
    map<string, string> labels = 6; map<string, string> annotations = 7; LinuxSandbox linux = 8;
  }
  message RunPodSandboxRequest { SandboxConfig config = 1; string runtime_handler = 2; }
  message RunPodSandboxResponse { string pod_sandbox_id = 1; }
  message PodRequest { string pod_sandbox_id = 1; bool verbose = 2; }
  message PodNetwork { string ip = 1; }
  message PodStatus { string id = 1; int32 state = 3; PodNetwork network = 5; string runtime_handler = 9; }
  message PodStatusResponse { PodStatus status = 1; map<string, string> info = 2; }
  message ListedPod { string id = 1; }
  message ListPodsResponse { repeated ListedPod items = 1; }

  message ImageSpec { string image = 1; }
  message ContainerMetadata { string name = 1; uint32 attempt = 2; }
  message KeyValue { string key = 1; string value = 2; }
  message Mount {
    string container_path = 1; string host_path = 2; bool readonly = 3; int32 propagation = 5; repeated IDMapping uidMappings = 6;
    repeated IDMapping gidMappings = 7; bool recursive_read_only = 8;
  }
  message Device { string container_path = 1; string host_path = 2; string permissions = 3; }
  message LinuxResources {
    int64 cpu_period = 1; int64 cpu_quota = 2; int64 cpu_shares = 3; int64 memory_limit_in_bytes = 4; int64 oom_score_adj = 5;
    string cpuset_cpus = 6; string cpuset_mems = 7; map<string, string> unified = 9;
  }
  message ContainerSecurity {
    Capability capabilities = 1; bool privileged = 2; NamespaceOption namespace_options = 3; Int64Value run_as_user = 5;
    bool readonly_rootfs = 7; repeated int64 supplemental_groups = 8; bool no_new_privs = 11; Int64Value run_as_group = 12;
    repeated string masked_paths = 13; repeated string readonly_paths = 14; SecurityProfile seccomp = 15;
    SecurityProfile apparmor = 16;
  }
  message LinuxContainer { LinuxResources resources = 1; ContainerSecurity security_context = 2; }
  message ContainerConfig {
    ContainerMetadata metadata = 1; ImageSpec image = 2; repeated string command = 3; repeated string args = 4; string working_dir = 5;
    repeated KeyValue envs = 6; repeated Mount mounts = 7; repeated Device devices = 8; map<string, string> labels = 9;
    map<string, string> annotations = 10; string log_path = 11; bool stdin = 12; bool stdin_once = 13; bool tty = 14;
    LinuxContainer linux = 15;
  }
  message CreateContainerRequest { string pod_sandbox_id = 1; ContainerConfig config = 2; SandboxConfig sandbox_config = 3; }
  message CreateContainerResponse { string container_id = 1; }
  message ContainerRequest { string container_id = 1; }
  message StopContainerRequest { string container_id = 1; int64 timeout = 2; }
  message UpdateRequest { string container_id = 1; LinuxResources linux = 2; map<string, string> annotations = 4; }
  message ContainerStatus {
    string id = 1; int32 state = 3; int64 created_at = 4; int64 started_at = 5; int64 finished_at = 6; int32 exit_code = 7;
    string reason = 10; string message = 11;
  }
  message ContainerStatusResponse { ContainerStatus status = 1; map<string, string> info = 2; }

  message ExecSyncRequest { string container_id = 1; repeated string cmd = 2; int64 timeout = 3; }
  message ExecSyncResponse { bytes stdout = 1; bytes stderr = 2; int32 exit_code = 3; }
  message ExecRequest { string container_id = 1; repeated string cmd = 2; bool tty = 3; bool stdin = 4; bool stdout = 5; bool stderr = 6; }
  message AttachRequest { string container_id = 1; bool stdin = 2; bool tty = 3; bool stdout = 4; bool stderr = 5; }
  message PortForwardRequest { string pod_sandbox_id = 1; repeated int32 port = 2; }
  message UrlResponse { string url = 1; }

  message CpuUsage { UInt64Value usage_core_nano_seconds = 2; }
  message MemoryUsage { UInt64Value working_set_bytes = 2; }
  message StatsAttributes { string id = 1; }
  message ContainerStats { StatsAttributes attributes = 1; CpuUsage cpu = 2; MemoryUsage memory = 3; }
  message ContainerStatsResponse { ContainerStats stats = 1; }
  message StatsFilter { string id = 1; string pod_sandbox_id = 2; }
  message ListContainerStatsRequest { StatsFilter filter = 1; }
  message ListContainerStatsResponse { repeated ContainerStats stats = 1; }
  message ProcessUsage { UInt64Value process_count = 2; }
  message InterfaceUsage { string name = 1; UInt64Value rx_bytes = 2; }
  message NetworkUsage { InterfaceUsage default_interface = 2; }
  message LinuxPodStats {
    CpuUsage cpu = 1; MemoryUsage memory = 2; NetworkUsage network = 3; ProcessUsage process = 4; repeated ContainerStats containers = 5;
  }
  message PodStats { StatsAttributes attributes = 1; LinuxPodStats linux = 2; }
  message PodStatsResponse { PodStats stats = 1; }

  message StatusRequest { bool verbose = 1; }
  message HandlerFeatures { bool recursive_read_only_mounts = 1; bool user_namespaces = 2; }
  message RuntimeHandler { string name = 1; HandlerFeatures features = 2; }
  message Condition { string type = 1; bool status = 2; string reason = 3; string message = 4; }
  message RuntimeStatus { repeated Condition conditions = 1; }
  message StatusResponse { RuntimeStatus status = 1; map<string, string> info = 2; repeated RuntimeHandler runtime_handlers = 3; }

  message ImageStatusRequest { ImageSpec image = 1; }
  message Image { string id = 1; }
  message ImageStatusResponse { Image image = 1; }
`).root
