/*
 * Host operations: what stage 0 opens, the joins, the clone, and what stage 0 then does for the
 * child. Also the operations of the container side that concern namespaces. Invariant: the plan
 * opens each path of the host before the first join, because a path in a joined mount namespace
 * names a file of the container.
 */
#include "init.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define CHILD_REPORTED 'c'
#define MAPS_DONE 'm'
#define CGROUPS_DONE 'j'

int op_oom_score_adj(struct ctx *c, const struct op_oom_score_adj *op)
{
    char text[16];
    int size = snprintf(text, sizeof text, "%d", op->value);
    int err = proc_write_own(c, "self/oom_score_adj", text, (size_t)size);
    return fail_if(c, err, "set oom_score_adj to %d", op->value);
}

/* Stage 0 does this, because a process in a new user namespace may only lower its hard limits. */
int op_raise_rlimit(struct ctx *c, const struct op_raise_rlimit *op)
{
    struct rlimit limit;
    int err = sys_result(prlimit(0, (int)op->resource, NULL, &limit));
    if (err == 0 && limit.rlim_max < op->hard) {
        limit.rlim_max = op->hard;
        err = sys_result(prlimit(0, (int)op->resource, &limit, NULL));
    }
    return fail_if(c, err, "raise the hard limit of resource %u", op->resource);
}

/*
 * The kernel checks a clone into a cgroup by the rights of the caller at that time, but a write to
 * cgroup.procs by those of the opener. In a joined user namespace only the write works, so the file
 * is opened now. A failure to open it counts only if it is needed later.
 */
int op_cgroup_dir(struct ctx *c, const struct op_cgroup_dir *op)
{
    int fd = sys_openat(AT_FDCWD, op->path.s, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return fail_if(c, fd, "open cgroup \"%s\"", op->path.s);
    c->stage0.cgroup_dir = (struct held){.fd = fd, .op = c->at};
    c->stage0.cgroup_procs = sys_openat(fd, "cgroup.procs", O_WRONLY | O_NOFOLLOW, 0);
    return 0;
}

int op_cgroup_tasks(struct ctx *c, const struct op_cgroup_tasks *op)
{
    int fd = sys_openat(AT_FDCWD, op->path.s, O_WRONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return fail_if(c, fd, "open cgroup \"%s\"", op->path.s);
    c->stage0.cgroups[c->stage0.cgroup_count++] = (struct held){.fd = fd, .op = c->at};
    return 0;
}

/*
 * Opens the fifo with the runtime's rights, so that no other process needs any to it. Both ends are
 * open, so that a write never fails for lack of a reader. The fifo is filled, so that the write
 * that takes the start waits until it is read empty. Every filter allows write; it need not allow
 * open.
 */
int op_open_fifo(struct ctx *c, const struct op_open_fifo *op)
{
    static const char filler[4096];
    struct stat st;
    cleanup_fd int fd = sys_openat(AT_FDCWD, op->path.s, O_RDWR | O_NONBLOCK | O_NOFOLLOW, 0);
    int err = fd < 0 ? fd : sys_fstat(fd, &st);
    if (err == 0 && !S_ISFIFO(st.st_mode))
        err = -EINVAL;
    if (err == 0)
        /* one page saves memory; if it is refused, the kernel's own size is filled instead */
        (void)fcntl(fd, F_SETPIPE_SZ, sizeof filler);
    for (int wrote = err; wrote >= 0 && err == 0;)
        wrote = sys_result((int)write(fd, filler, sizeof filler));
    if (err == 0)
        err = sys_result(fcntl(fd, F_SETFL, 0));
    if (err < 0)
        return fail_if(c, err, "open fifo \"%s\"", op->path.s);
    c->fifo = take_fd(&fd);
    return 0;
}

int op_open_ns(struct ctx *c, const struct op_open_ns *op)
{
    if (op->type == 0 || (op->type & ~NAMESPACE_FLAGS) != 0 || (op->type & (op->type - 1)) != 0)
        return fail_if(c, -EINVAL, "open namespace \"%s\": its type must be one namespace flag", op->path.s);
    int fd = sys_openat(AT_FDCWD, op->path.s, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return fail_if(c, fd, "open namespace \"%s\"", op->path.s);
    c->stage0.namespaces[c->stage0.namespace_count++] = (struct held){.fd = fd, .op = c->at, .type = op->type};
    return 0;
}

/*
 * Drops the runtime's supplementary groups. Before a join too, because the user namespace's owner
 * may have forbidden setgroups(2), which would leave them in place. EPERM: it has, or the runtime
 * has no privileges, and the process then keeps no more groups than its user has.
 */
static int leave_groups(struct ctx *c)
{
    int err = sys_setgroups(0, NULL);
    return err < 0 && err != -EPERM ? fail_if(c, err, "drop the supplementary groups") : 0;
}

/* Becomes root of the user namespace just entered, so that what is made next belongs to it. */
int become_root(struct ctx *c)
{
    int err = sys_setresgid(0);
    if (err < 0)
        return fail_if(c, err, "cannot setgid to unmapped gid 0 in user namespace");
    err = leave_groups(c);
    if (err < 0)
        return err;
    err = sys_setresuid(0);
    if (err < 0)
        return fail_if(c, err, "cannot setuid to unmapped uid 0 in user namespace");
    /* a change of ids sets it to fs.suid_dumpable (proc_sys_fs(5)) */
    return fail_if(c, sys_prctl(PR_SET_DUMPABLE, 0, 0), "stay undumpable");
}

/*
 * Joins all open namespaces of the types `wanted`. The mount namespace is last, because paths are
 * the container's from then on. With `tolerant`, EPERM leaves a namespace for a later pass. setns
 * compares the given type with that of the file.
 */
static int join_pass(struct ctx *c, uint64_t wanted, bool tolerant)
{
    for (int mounts = 0; mounts < 2; mounts++) {
        for (uint32_t i = 0; i < c->stage0.namespace_count; i++) {
            struct held *ns = &c->stage0.namespaces[i];
            if (ns->fd < 0 || (ns->type & wanted) == 0 || (ns->type == CLONE_NEWNS) != (mounts == 1))
                continue;
            int err = sys_setns(ns->fd, ns->type);
            if (err == -EPERM && tolerant)
                continue;
            if (err < 0) {
                c->at = ns->op;
                return fail_if(c, err, "join namespace \"%s\"", c->plan->ops[ns->op].open_ns.path.s);
            }
            close_fd(&ns->fd);
        }
    }
    return 0;
}

/*
 * Attacker: the owners of the joined namespaces.
 * Privilege held: the runtime's.
 * Order matters because: this process can join namespaces of the host's user namespace only while
 *   it has privilege there, and the container's only after it has joined that user namespace. Only
 *   the kernel knows which is which. So: what works now, then the user namespace, then all the
 *   rest.
 */
int op_join(struct ctx *c)
{
    bool user = false;
    for (uint32_t i = 0; i < c->stage0.namespace_count; i++)
        user = user || c->stage0.namespaces[i].type == CLONE_NEWUSER;
    uint64_t others = NAMESPACE_FLAGS & ~(uint64_t)CLONE_NEWUSER;
    int err = join_pass(c, others, user);
    if (err == 0 && user)
        err = leave_groups(c);
    if (err == 0 && user)
        err = join_pass(c, CLONE_NEWUSER, false);
    c->strangers = c->strangers || user;
    if (err == 0 && user)
        err = become_root(c);
    return err != 0 ? err : join_pass(c, others, false);
}

/*
 * Field 22 of proc_pid_stat(5). The name in field 2 may hold any byte, so counting starts at the
 * last parenthesis.
 */
static int start_time(const struct ctx *c, uint32_t pid, uint64_t *ret)
{
    char path[32], text[1024];
    (void)snprintf(path, sizeof path, "%u/stat", pid);
    cleanup_fd int fd = proc_open_at(c->procfs.host, path, O_RDONLY);
    ssize_t size = fd < 0 ? fd : sys_read_full(fd, text, sizeof text - 1);
    if (size < 0)
        return (int)size;
    text[size] = 0;
    const char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!at)
        return -EINVAL;
    *ret = strtoull(at + 1, NULL, 10);
    return 0;
}

/*
 * Attacker: the container may end at any moment, and its pid may be used again.
 * Privilege held: the runtime's, over all the namespaces among the flags at once.
 * Order matters because: the pidfd is taken before the start time is compared. If that agrees, the
 *   pidfd is the wanted process, and setns fails once it is gone. One call joins all the
 *   namespaces.
 */
int op_join_process(struct ctx *c, const struct op_join_process *op)
{
    uint64_t started = 0;
    bool user = (op->flags & CLONE_NEWUSER) != 0;
    if ((op->flags & ~NAMESPACE_FLAGS) != 0)
        return fail_if(c, -EINVAL, "join process %u: unknown namespace flags", op->pid);
    int err = user ? leave_groups(c) : 0;
    if (err < 0)
        return err;
    cleanup_fd int pidfd = sys_result(syscall(__NR_pidfd_open, (pid_t)op->pid, 0));
    err = pidfd < 0 ? pidfd : start_time(c, op->pid, &started);
    if (err == 0 && started != op->start_time)
        err = -ESRCH;
    if (err == 0 && op->flags != 0)
        err = sys_setns(pidfd, op->flags);
    if (err < 0)
        return fail_if(c, err, "join the namespaces of process %u", op->pid);
    c->strangers = c->strangers || user;
    return user ? become_root(c) : 0;
}

static int await_byte(int sync, char byte)
{
    char got = 0;
    return sys_read_full(sync, &got, 1) == 1 && got == byte ? 0 : -EPIPE;
}

/* The first record of the container side must not overtake the one that announces its pid. */
int await_announced(struct ctx *c)
{
    if (!c->container || c->inside.announced)
        return 0;
    int err = await_byte(c->sync, CHILD_REPORTED);
    c->inside.announced = err == 0;
    return err;
}

/*
 * Moves this process, which has one thread. "0" in a v1 tasks file is the only move without a lock
 * of the whole machine; a pid, or cgroup.procs, waits 5 to 20 ms for an RCU grace period. The
 * kernel checks the opener, which was stage 0, so this works in a new user namespace too. EINVAL
 * and EAGAIN come from a cpuset or realtime cgroup whose settings are still being applied.
 */
static int enter_cgroups(struct ctx *c)
{
    for (uint32_t i = 0; i < c->stage0.cgroup_count; i++) {
        struct held *cgroup = &c->stage0.cgroups[i];
        int err = -EINVAL;
        for (int tries = 0; tries < 5 && (err == -EINVAL || err == -EAGAIN); tries++)
            err = sys_write_all(cgroup->fd, "0", 1);
        if (err < 0) {
            c->at = cgroup->op;
            return fail_if(c, err, "join cgroup \"%s\"", c->plan->ops[cgroup->op].cgroup_tasks.path.s);
        }
        close_fd(&cgroup->fd);
    }
    return 0;
}

static bool has_maps(const struct op_clone *op)
{
    return op->uid_map.len > 0 || op->gid_map.len > 0 || op->runtime_maps != 0;
}

/*
 * Clones the container process. CLONE_PARENT makes it a child of the runtime, which alone reaps it
 * and gets SIGCHLD as its exit signal. The child must not hold stage 0's end of the socket, or it
 * would never read an end of file when stage 0 fails.
 *
 * If another user than root writes the maps, the child is dumpable until they are written. The
 * files of an undumpable process belong to root, and newuidmap compares their owner with its
 * caller.
 *
 * Attacker: for a create, no code of the image runs yet. For an exec, processes of the joined
 *   namespaces, which cannot trace an undumpable child. While the child of a rootless runtime is
 *   dumpable, other processes of its user may trace it, as they may trace the runtime. Those of the
 *   user's containers may not, because they have no power over a sibling user namespace.
 * Privilege held: the runtime's, or that of the joined user namespace.
 * Order matters because: the child is undumpable before it opens the root or runs another
 *   operation.
 */
int op_clone(struct ctx *c, const struct op_clone *op)
{
    if ((op->flags & ~NAMESPACE_FLAGS) != 0)
        return fail_if(c, -EINVAL, "clone: unknown namespace flags");
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return fail_if(c, -errno, "make a socket pair");
    struct clone_args args = {.flags = CLONE_PARENT | op->flags};
    struct clone_args into = args;
    int pid = -EOPNOTSUPP;
    bool visible = op->runtime_maps != 0 && geteuid() != 0;
    if (visible)
        (void)sys_prctl(PR_SET_DUMPABLE, 1, 0);
    if (c->stage0.cgroup_dir.fd >= 0) {
        into.flags |= CLONE_INTO_CGROUP;
        into.cgroup = (uint64_t)(unsigned)c->stage0.cgroup_dir.fd;
        pid = sys_clone3(&into);
        /* fallback: threaded or busy cgroups refuse it, and so do some outer containers */
        c->stage0.plain_clone = pid < 0;
    }
    if (pid < 0)
        pid = sys_clone3(&args);
    int hidden = pid != 0 && visible ? sys_prctl(PR_SET_DUMPABLE, 0, 0) : 0;
    if (pid < 0) {
        (void)close(ends[0]);
        (void)close(ends[1]);
        return fail_if(c, pid, "clone the container process with namespace flags 0x%llx",
                       (unsigned long long)op->flags);
    }
    if (pid > 0) {
        (void)close(ends[1]);
        /* the child's end is the only one left, and decides how long the agent lives */
        close_fd(&c->agent);
        c->sync = ends[0];
        c->stage0.child = pid;
        return fail_if(c, hidden, "stay undumpable");
    }
    (void)close(ends[0]);
    c->sync = ends[1];
    c->container = true;
    c->inside.new_user = (op->flags & CLONE_NEWUSER) != 0;
    close_fd(&c->stage0.cgroup_dir.fd);
    close_fd(&c->stage0.cgroup_procs);
    int err = enter_cgroups(c);
    if (err != 0)
        return err;
    if (has_maps(op) && (await_announced(c) < 0 || await_byte(c->sync, MAPS_DONE) < 0))
        return STOP;
    hidden = visible ? sys_prctl(PR_SET_DUMPABLE, 0, 0) : 0;
    if (hidden < 0)
        return fail_if(c, hidden, "become undumpable");
    c->inside.root = sys_openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0);
    return fail_if(c, c->inside.root, "open the root directory");
}

static int write_map(struct ctx *c, const char *name, const struct plan_str *map)
{
    char path[48];
    if (map->len == 0)
        return 0;
    (void)snprintf(path, sizeof path, "%d/%s", c->stage0.child, name);
    int err = proc_write(c->procfs.host, path, map->s, map->len);
    return fail_if(c, err, "write the container's %s", name);
}

/*
 * Only for a clone that the kernel did not put into the v2 cgroup. ESRCH: the child has ended and
 * has reported why.
 */
static int move_child(struct ctx *c)
{
    if (!c->stage0.plain_clone)
        return 0;
    char text[16];
    size_t size = (size_t)snprintf(text, sizeof text, "%d", c->stage0.child);
    int err = c->stage0.cgroup_procs < 0 ? c->stage0.cgroup_procs : sys_write_all(c->stage0.cgroup_procs, text, size);
    if (err == 0 || err == -ESRCH)
        return 0;
    c->at = c->stage0.cgroup_dir.op;
    return fail_if(c, err, "join cgroup \"%s\"", c->plan->ops[c->stage0.cgroup_dir.op].cgroup_dir.path.s);
}

/* Sends one byte to the child. A child that is gone has reported the reason itself. */
static int tell(int sync, char byte)
{
    ssize_t sent = send(sync, &byte, 1, MSG_NOSIGNAL);
    return sent == 1 ? 0 : STOP;
}

/*
 * What stage 0 does for the child after the clone. It writes gid_map only if it has CAP_SETGID
 * outside, so setgroups stays allowed. Otherwise the runtime writes the maps: through newgidmap, or
 * with setgroups denied.
 */
int serve_child(struct ctx *c, const struct op_clone *op)
{
    int err = report_u32(c, RECORD_CHILD, (uint32_t)c->stage0.child) < 0 ? STOP : tell(c->sync, CHILD_REPORTED);
    if (err == 0 && op->runtime_maps != 0)
        err = report_u32(c, RECORD_REACHED, SYNC_ID_MAPS) < 0 ? STOP : await_runtime(c);
    if (err == 0 && op->runtime_maps == 0)
        err = write_map(c, "uid_map", &op->uid_map);
    if (err == 0 && op->runtime_maps == 0)
        err = write_map(c, "gid_map", &op->gid_map);
    if (err == 0 && has_maps(op))
        err = tell(c->sync, MAPS_DONE);
    err = err == 0 ? move_child(c) : err;
    if (err == 0 && tell(c->sync, CGROUPS_DONE) == 0)
        await_agent(c->stage0.agent);
    return err;
}

/*
 * Until this returns the child may be outside its cgroups, uncounted and without limits. So the
 * plan runs nothing of the image earlier.
 */
int op_wait_cgroup(struct ctx *c)
{
    if (await_announced(c) < 0 || await_byte(c->sync, CGROUPS_DONE) < 0)
        return STOP;
    close_fd(&c->sync);
    return 0;
}

int op_unshare(struct ctx *c, const struct op_unshare *op)
{
    int err = (op->flags & ~NAMESPACE_FLAGS) != 0 ? -EINVAL : sys_unshare(op->flags);
    return fail_if(c, err, "unshare namespaces 0x%llx", (unsigned long long)op->flags);
}

/*
 * The offsets of a time namespace can be set until a process is in it, so it is entered last. A
 * process with one thread can enter it without a child.
 * Attacker: the text is the client's. The kernel checks it, for a namespace that is only this
 *   one's.
 * Privilege held: root in the container's user namespace, which owns the new one. If that is not
 *   enough, the host agent writes, so that this process need not become dumpable.
 * Order matters because: the offsets are written before the namespace is entered.
 */
int op_time_offsets(struct ctx *c, const struct op_time_offsets *op)
{
    int err = sys_unshare(CLONE_NEWTIME);
    if (err < 0)
        return fail_if(c, err, "make a time namespace");
    if (op->offsets.len > 0)
        err = c->agent >= 0 ? proc_write(c->procfs.host, "self/timens_offsets", op->offsets.s, op->offsets.len) :
                              proc_write_own(c, "self/timens_offsets", op->offsets.s, op->offsets.len);
    if (err == -EACCES && c->agent >= 0)
        err = host_time_offsets(c);
    else if (err < 0)
        (void)fail_if(c, err, "set the offsets of the time namespace");
    if (err < 0)
        return err;
    cleanup_fd int fd = proc_open_ns(c->procfs.host, "self", "time_for_children");
    err = fd < 0 ? fd : sys_setns(fd, CLONE_NEWTIME);
    return fail_if(c, err, "enter the time namespace");
}
