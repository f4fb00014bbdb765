/*
 * The host agent is a process that stage 0 forks before it joins anything. It keeps the rights and
 * the namespaces of the host while the container side already has fewer. It clones mount sources
 * and maps their ids, opens the socket by which the runtime moves network devices, and writes time
 * offsets.
 *
 * Invariant: the agent performs only operations of its own copy of the plan. The container side
 * sends nothing but the number of one and fds of its namespaces. So an attacker who speaks for the
 * container side gets nothing that the plan does not give. The agent ends when the container side
 * has closed its socket, and stage 0 waits for that.
 */
#include "init.h"

#include <linux/netlink.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/* The agent's own fds. Besides them it holds at most the user namespace of the last id map. */
#define AGENT_SOCKET 0
#define AGENT_PROC 1

/* The errno and the step that failed. An fd comes with it: a detached tree or a socket. */
struct answer {
    int32_t err;
    char step[LIMIT_STEP_MAX_BYTES];
};

/* A user namespace, for its maps only. */
struct mapping {
    int fd;
    const struct op_mount *op; /* the operation it was made for */
};

/*
 * Makes a user namespace for its maps. A process is needed only to make it; the fd keeps it alive.
 *
 * Attacker: the maps are the client's; no process of the container is in this namespace.
 * Privilege held: the host's, so the kernel accepts any map.
 * Order matters because: the child does nothing, and is dead when this returns or when the agent
 *   dies.
 */
static int make_mapping(int proc, const struct op_mount *op)
{
    char pid_text[16], path[32];
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    pid_t parent = getpid();
    int pid = sys_clone3(&args);
    if (pid == 0) {
        (void)sys_prctl(PR_SET_PDEATHSIG, SIGKILL, 0);
        while (getppid() == parent)
            (void)pause();
        _exit(0);
    }
    if (pid < 0)
        return pid;
    (void)snprintf(pid_text, sizeof pid_text, "%d", pid);
    (void)snprintf(path, sizeof path, "%d/uid_map", pid);
    int err = proc_write(proc, path, op->uid_map.s, op->uid_map.len);
    (void)snprintf(path, sizeof path, "%d/gid_map", pid);
    if (err == 0)
        err = proc_write(proc, path, op->gid_map.s, op->gid_map.len);
    int fd = err < 0 ? err : proc_open_ns(proc, pid_text, "user");
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    return fd;
}

/* Most containers have one map for all their mounts, so the last one is remembered. */
static int find_mapping(int proc, struct mapping *last, const struct op_mount *op)
{
    if (last->fd >= 0 && strcmp(last->op->uid_map.s, op->uid_map.s) == 0 &&
        strcmp(last->op->gid_map.s, op->gid_map.s) == 0)
        return last->fd;
    close_fd(&last->fd);
    *last = (struct mapping){.fd = make_mapping(proc, op), .op = op};
    return last->fd;
}

/*
 * Attacker: the image shapes what lies at a source below an earlier mount, as for every bind mount.
 * Privilege held: the host's.
 * Order matters because: the agent enters the mount namespace first. So it looks the source up
 *   among the mounts of this moment, and the clone gets the locks of a less privileged namespace.
 */
static int clone_source(struct ctx *c, struct mapping *last, const struct op_mount *op, const int fds[2])
{
    unsigned recursive = (op->how & MOUNT_HOW_RECURSIVE) != 0 ? (unsigned)AT_RECURSIVE : 0;
    const char *doing = "source: enter the container's mount namespace";
    int err = sys_setns(fds[0], CLONE_NEWNS);
    if (err == 0)
        doing = "source";
    cleanup_fd int tree = err < 0 ? err : sys_clone_tree(AT_FDCWD, op->source.s, recursive);
    err = tree < 0 ? tree : 0;
    if (err == 0 && (op->how & MOUNT_HOW_IDMAP) != 0) {
        doing = "idmap: make a user namespace of its maps";
        int user = op->uid_map.len == 0 ? fds[1] : find_mapping(c->procfs.host, last, op);
        struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)(unsigned)user};
        err = user < 0 ? user : sys_mount_attr(tree, (op->how & MOUNT_HOW_IDMAP_RECURSIVE) != 0, attr);
        if (user >= 0)
            doing = err == -EINVAL ? "idmap: the file system of the source does not support it" : "idmap";
    }
    return err < 0 ? fail_if(c, err, "mount \"%s\" on \"%s\": %s", op->source.s, op->target.s, doing) : take_fd(&tree);
}

/*
 * `directory` is that of the container process in the host's procfs. The kernel looks at the rights
 * of the process that opens the file, so the agent opens it.
 */
static int write_offsets(struct ctx *c, const struct op_time_offsets *op, int directory)
{
    bool proc = sys_fs_type(directory) == PROC_SUPER_MAGIC;
    int err = proc ? proc_write(directory, "timens_offsets", op->offsets.s, op->offsets.len) : -EINVAL;
    return fail_if(c, err, "set the offsets of the time namespace");
}

/*
 * Attacker: others in a joined network cannot send to the socket, because it is not bound yet. Once
 *   it is bound, it is connected to the kernel.
 * Privilege held: the host's. The kernel checks both the opener and the sender of a netlink socket.
 *   A joined network may belong to a user namespace in which the container side has no power.
 * Order matters because: the agent returns to the host's network before it answers. The network of
 *   the process that opens a mount source decides what some files of procfs and network file
 *   systems show.
 */
static int open_net_socket(struct ctx *c, int net)
{
    cleanup_fd int home = proc_open_ns(c->procfs.host, "self", "net");
    int err = home < 0 ? home : sys_setns(net, CLONE_NEWNET);
    cleanup_fd int fd = err < 0 ? err : sys_result(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    err = fd < 0 ? fd : sys_setns(home, CLONE_NEWNET);
    return err < 0 ? fail_if(c, err, "move network devices: open a socket in the container's network namespace") :
                     take_fd(&fd);
}

/* Returns a negative errno, 0, or an fd, which is never one of the agent's own two. */
static int perform(struct ctx *c, struct mapping *last, const int fds[2])
{
    const struct op *op = c->at < c->plan->count ? &c->plan->ops[c->at] : NULL;
    if (op && op->code == OP_MOUNT && (op->mount.how & MOUNT_HOW_HOST_SOURCE) != 0)
        return clone_source(c, last, &op->mount, fds);
    if (op && op->code == OP_NET_DEVICES)
        return open_net_socket(c, fds[0]);
    if (op && op->code == OP_TIME_OFFSETS)
        return write_offsets(c, &op->time_offsets, fds[0]);
    return fail_if(c, -EINVAL, "ask the host agent for what it does not do");
}

_Noreturn static void serve(struct ctx *c)
{
    static struct answer answer;
    struct mapping last = {.fd = -1};
    for (;;) {
        int fds[2] = {-1, -1};
        if (sys_receive_fds(AGENT_SOCKET, &c->at, sizeof c->at, fds) != (ssize_t)sizeof c->at)
            _exit(0);
        int fd = perform(c, &last, fds);
        bool opened = fd > AGENT_PROC;
        answer.err = fd < 0 ? fd : 0;
        (void)snprintf(answer.step, sizeof answer.step, "%s", fd < 0 ? c->failed : "");
        size_t size = offsetof(struct answer, step) + strlen(answer.step) + 1;
        int err = sys_send_fds(AGENT_SOCKET, &answer, size, &fd, opened ? 1 : 0);
        if (opened)
            close_fd(&fd);
        close_fd(&fds[0]);
        close_fd(&fds[1]);
        if (err < 0)
            _exit(0);
    }
}

/*
 * Attacker: none yet; nothing was joined and no code of the image runs.
 * Privilege held: the runtime's, which the agent keeps.
 * Order matters because: it is forked from stage 0 before any namespace or cgroup is entered. It
 *   holds only its socket and the host's procfs, so it delays no end of file that another process
 *   waits for.
 */
int op_host_agent(struct ctx *c)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return fail_if(c, -errno, "make a socket pair");
    struct clone_args args = {.exit_signal = SIGCHLD};
    int pid = sys_clone3(&args);
    if (pid == 0) {
        if (dup3(ends[1], AGENT_SOCKET, O_CLOEXEC) < 0 || dup3(c->procfs.host, AGENT_PROC, O_CLOEXEC) < 0 ||
            sys_close_range(AGENT_PROC + 1, ~0U, 0) < 0)
            _exit(1);
        c->procfs.host = AGENT_PROC;
        serve(c);
    }
    (void)close(ends[1]);
    c->agent = ends[0];
    c->stage0.agent = pid;
    return fail_if(c, pid, "start the host agent");
}

/* Stage 0 reaps the agent, which is its child. */
void await_agent(pid_t agent)
{
    while (agent > 0 && waitpid(agent, NULL, 0) < 0 && errno == EINTR)
        ;
}

/*
 * The container side asks the agent to perform the running operation. Returns the answer: a
 * negative errno, 0, or an fd.
 */
static int ask(struct ctx *c, const int *fds, size_t count)
{
    struct answer answer;
    int got[2] = {-1, -1};
    int err = sys_send_fds(c->agent, &c->at, sizeof c->at, fds, count);
    ssize_t size = err < 0 ? err : sys_receive_fds(c->agent, &answer, sizeof answer - 1, got);
    if (size <= (ssize_t)offsetof(struct answer, step))
        return fail_if(c, size < 0 ? (int)size : -EPIPE, "ask the host agent");
    ((char *)&answer)[size] = 0;
    if (answer.err < 0)
        return fail_if(c, answer.err, "%s", answer.step);
    return got[0] >= 0 ? got[0] : 0;
}

int host_source(struct ctx *c, const struct op_mount *op)
{
    cleanup_fd int mounts = proc_open_ns(c->procfs.host, "self", "mnt");
    cleanup_fd int user = mounts < 0 ? mounts : proc_open_ns(c->procfs.host, "self", "user");
    if (user < 0)
        return fail_if(c, user, "mount \"%s\" on \"%s\": source: open our own namespaces", op->source.s, op->target.s);
    int tree = ask(c, (int[]){mounts, user}, 2);
    return tree == 0 ? fail_if(c, -EPROTO, "ask the host agent") : tree;
}

int host_time_offsets(struct ctx *c)
{
    cleanup_fd int directory = proc_open_at(c->procfs.host, "self", O_PATH | O_DIRECTORY);
    return directory < 0 ? fail_if(c, directory, "set the offsets of the time namespace") : ask(c, &directory, 1);
}

/*
 * The runtime takes the socket by pidfd_getfd, like a seccomp listener, and moves the devices.
 *
 * Attacker: processes with power over this one, while it is dumpable. A runtime with CAP_SYS_PTRACE
 *   does not need that. Another one can take the socket only from a dumpable process, which others
 *   of its power could then trace, as they can trace the runtime itself.
 * Privilege held: the host's procfs, still. A netlink socket gives its holder no rights of the
 *   opener.
 * Order matters because: dumpability ends as soon as the runtime has answered. In a joined user
 *   namespace others have power over this process, and in a new one every process of its owner's
 *   id. So it does not become dumpable there, and the operation fails for such a runtime.
 */
int op_net_devices(struct ctx *c)
{
    cleanup_fd int net = proc_open_ns(c->procfs.host, "self", "net");
    if (net < 0)
        return fail_if(c, net, "move network devices: open our own network namespace");
    int fd = ask(c, &net, 1);
    if (fd <= 0)
        return fd < 0 ? fd : fail_if(c, -EPROTO, "ask the host agent");
    bool visible = c->dumpable_for_runtime && !c->strangers && !c->inside.new_user;
    if (visible && sys_prctl(PR_SET_DUMPABLE, 1, 0) < 0)
        return fail_if(c, -errno, "become dumpable for the socket");
    int err = report_u32(c, RECORD_NET_SOCKET, (uint32_t)fd) < 0 ? STOP : await_runtime(c);
    (void)close(fd);
    if (err == 0 && visible && sys_prctl(PR_SET_DUMPABLE, 0, 0) < 0)
        return fail_if(c, -errno, "become undumpable again");
    return err;
}
