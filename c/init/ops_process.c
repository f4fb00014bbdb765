/*
 * What makes the process the container's: session, keyring, limits, labels, credentials, filter,
 * its share of the machine. Invariant: privilege only shrinks once the user namespace's root was
 * taken. Ids and the capability sets are read back; for groups, the bounding set and the rest a
 * failed call ends the start.
 */
#include "init.h"

#include <grp.h>
#include <linux/filter.h>
#include <linux/ioprio.h>
#include <linux/keyctl.h>
#include <linux/sched/types.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>

#define KEY_USR_SEARCH 0x00080000u
#define ID_NONE UINT32_MAX

int op_session(struct ctx *c, const struct op_session *op)
{
    if (setsid() < 0)
        return fail_if(c, -errno, "start a session");
    return op->become_root != 0 ? become_root(c) : 0;
}

/*
 * Lets its user search the new keyring, which KEYCTL_DESCRIBE describes as
 * "type;uid;gid;permissions;name". Keys that are made later do not get the label.
 */
int op_keyring(struct ctx *c, const struct op_keyring *op)
{
    char text[512] = "", *rest = text; /* longer than any name needs; the kernel copies no longer description */
    int err = op->label.len > 0 ? proc_write(c->procfs.host, "self/attr/keycreate", op->label.s, op->label.len) : 0;
    if (err < 0)
        return fail_if(c, err, "apply selinux label \"%s\" to session keyring \"%s\"", op->label.s, op->name.s);
    int key = sys_keyctl(KEYCTL_JOIN_SESSION_KEYRING, (unsigned long)(uintptr_t)op->name.s, 0, 0);
    err = op->label.len > 0 ? proc_write(c->procfs.host, "self/attr/keycreate", "", 0) : 0;
    if (err < 0)
        return fail_if(c, err, "take the selinux label of session keyring \"%s\" back", op->name.s);
    if (key == -ENOSYS)
        return 0;
    if (key < 0)
        return fail_if(c, key, "join session keyring \"%s\"", op->name.s);
    unsigned long id = (unsigned)key;
    err = sys_keyctl(KEYCTL_DESCRIBE, id, (unsigned long)(uintptr_t)text, sizeof text - 1);
    if (err < 0)
        return fail_if(c, err, "describe session keyring \"%s\"", op->name.s);
    for (int field = 0; field < 3; field++)
        (void)strsep(&rest, ";");
    err = !rest ? -EINVAL : sys_keyctl(KEYCTL_SETPERM, id, strtoul(rest, NULL, 16) | KEY_USR_SEARCH, 0);
    return fail_if(c, err, "set the permissions of session keyring \"%s\"", op->name.s);
}

/*
 * Attacker: names and values are the client's; a container may mount over parts of a shared /proc.
 * Privilege held: root in the container's user namespace, and the host's procfs. The kernel
 *   requires power over the namespace that a setting belongs to.
 * Order matters because: a name is resolved below the fd of /proc/sys, through no mount and no
 *   link.
 */
int op_sysctl(struct ctx *c, const struct op_sysctl *op)
{
    cleanup_fd int settings = proc_open_at(c->procfs.host, "sys", O_PATH | O_DIRECTORY);
    int err = settings < 0 ? settings : proc_write(settings, op->path.s, op->value.s, op->value.len);
    return fail_if(c, err, "write sysctl \"%s\"", op->path.s);
}

int op_hostname(struct ctx *c, const struct op_hostname *op)
{
    return fail_if(c, sys_result(sethostname(op->name.s, op->name.len)), "set the host name to \"%s\"", op->name.s);
}

int op_domainname(struct ctx *c, const struct op_domainname *op)
{
    return fail_if(c, sys_result(setdomainname(op->name.s, op->name.len)), "set the domain name to \"%s\"", op->name.s);
}

/* Any socket of the namespace will do (netdevice(7)). */
int op_loopback_up(struct ctx *c)
{
    struct ifreq lo = {.ifr_name = "lo"};
    cleanup_fd int fd = sys_result(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    int err = fd < 0 ? fd : sys_ioctl(fd, SIOCGIFFLAGS, &lo);
    lo.ifr_flags |= IFF_UP;
    if (err == 0)
        err = sys_ioctl(fd, SIOCSIFFLAGS, &lo);
    return fail_if(c, err, "bring up \"lo\"");
}

int op_umask(struct ctx *c, const struct op_umask *op)
{
    (void)c;
    (void)umask((mode_t)(op->mask & 0777));
    return 0;
}

int op_rlimit(struct ctx *c, const struct op_rlimit *op)
{
    const struct rlimit limit = {.rlim_cur = op->soft, .rlim_max = op->hard};
    int err = sys_result(prlimit(0, (int)op->resource, &limit, NULL));
    return fail_if(c, err, "set resource limit %u to %llu/%llu", op->resource, (unsigned long long)op->soft,
                   (unsigned long long)op->hard);
}

int op_no_new_privs(struct ctx *c)
{
    return fail_if(c, sys_prctl(PR_SET_NO_NEW_PRIVS, 1, 0), "set no_new_privs");
}

int op_apparmor(struct ctx *c, const struct op_apparmor *op)
{
    char text[PATH_MAX];
    int size = snprintf(text, sizeof text, "exec %s", op->profile.s);
    bool fits = size >= 0 && (size_t)size < sizeof text;
    int err = fits ? proc_write(c->procfs.host, "self/attr/apparmor/exec", text, (size_t)size) : -ENAMETOOLONG;
    if (err == -ENOENT)
        /* fallback: kernels before 5.8 have one directory for all modules */
        err = proc_write(c->procfs.host, "self/attr/exec", text, (size_t)size);
    return fail_if(c, err, "apply apparmor profile \"%s\"", op->profile.s);
}

int op_selinux(struct ctx *c, const struct op_selinux *op)
{
    return fail_if(c, proc_write(c->procfs.host, "self/attr/exec", op->label.s, op->label.len),
                   "apply selinux label \"%s\"", op->label.s);
}

static uint64_t cap_pair(uint32_t low, uint32_t high)
{
    return (uint64_t)high << 32 | low;
}

/* Sets the program's sets, and the given capabilities besides. */
static int set_caps(const struct caps *caps, uint64_t permitted, uint64_t effective)
{
    struct __user_cap_data_struct set[2];
    for (unsigned i = 0; i < 2; i++)
        set[i] = (struct __user_cap_data_struct){
            .effective = (uint32_t)((caps->effective | effective) >> (32 * i)),
            .permitted = (uint32_t)((caps->permitted | permitted) >> (32 * i)),
            .inheritable = (uint32_t)(caps->inheritable >> (32 * i)),
        };
    return sys_capset(set);
}

/*
 * Reports the number of the listener and waits until the runtime has taken it. write is the first
 * call, because it alone may not be handed to the notify agent; every other call may wait for that
 * agent. This process must not keep the listener: the program's calls would wait for ever once the
 * agent has died, instead of failing with ENOSYS. So if the runtime does not take it, the process
 * traps, which needs no system call.
 */
static void hand_over_listener(struct ctx *c, int listener)
{
    if (report_u32(c, RECORD_LISTENER, (uint32_t)listener) < 0 || await_runtime(c) != 0)
        __builtin_trap();
    (void)close(listener);
}

/*
 * Loads the filter, which must load as asked: a failure is never only a warning.
 *
 * A runtime without CAP_SYS_PTRACE can take the listener only from a dumpable process. So the
 * process becomes dumpable only for such a runtime, and only until the listener is taken. If the
 * filter forbids that last prctl, the start fails. A process that stay_visible has made dumpable is
 * left so.
 *
 * Attacker: the client's profile; the kernel checks the compiled program. While it is dumpable, a
 *   process of the container with CAP_SYS_PTRACE over this one can look in. It sees only the fifo
 *   and two sockets, and gets nothing beyond the user's own rights.
 * Privilege held: no_new_privs, or CAP_SYS_ADMIN, which op_credentials has lent for this call.
 * Order matters because: the lent capability is made effective just before, and given back just
 *   after. A filter that refuses that does no harm: execve keeps only what the other sets of the
 *   process give.
 */
int op_seccomp(struct ctx *c, const struct op_seccomp *op)
{
    size_t count = op->filter.len / sizeof(struct sock_filter);
    if (count == 0 || count > BPF_MAXINSNS || op->filter.len % sizeof(struct sock_filter) != 0)
        return fail_if(c, -EINVAL, "load seccomp filter: %u bytes are no program", op->filter.len);
    if (await_announced(c) < 0)
        return STOP;
    bool listen = (op->flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) != 0;
    bool dumpable = listen && c->dumpable_for_runtime && sys_prctl(PR_GET_DUMPABLE, 0, 0) == 0;
    int err = dumpable ? sys_prctl(PR_SET_DUMPABLE, 1, 0) : 0;
    if (err < 0)
        return fail_if(c, err, "become dumpable for the seccomp listener");
    if (c->caps.lent != 0)
        (void)set_caps(&c->caps, c->caps.lent, c->caps.lent);
    struct sock_fprog program = {.len = (unsigned short)count, .filter = (struct sock_filter *)(uintptr_t)op->filter.p};
    err = sys_result(syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, op->flags, &program));
    if (err > 0 && !listen) /* with TSYNC: the id of a thread that could not be synchronized */
        err = -ESRCH;
    if (err < 0)
        return fail_if(c, err, "load seccomp filter");
    if (listen)
        hand_over_listener(c, err);
    if (c->caps.lent != 0)
        (void)set_caps(&c->caps, 0, 0);
    err = dumpable ? sys_prctl(PR_SET_DUMPABLE, 0, 0) : 0;
    return fail_if(c, err, "become undumpable again");
}

static int drop_bounding(struct ctx *c, uint64_t keep)
{
    for (unsigned long cap = 0; cap < 64; cap++) {
        int has = sys_prctl(PR_CAPBSET_READ, cap, 0);
        if (has == -EINVAL)
            return 0; /* past the last capability of this kernel */
        if (has > 0 && (keep >> cap & 1) == 0)
            has = sys_prctl(PR_CAPBSET_DROP, cap, 0) < 0 ? -errno : 0;
        if (has < 0)
            return fail_if(c, has, "drop capability %lu from the bounding set", cap);
    }
    return 0;
}

static int set_ids(struct ctx *c, uint32_t uid, uint32_t gid)
{
    uint32_t real, effective, saved;
    if (uid == ID_NONE || gid == ID_NONE)
        return fail_if(c, -EINVAL, "use uid %u and gid %u", uid, gid); /* -1 would leave the id as it is */
    int err = sys_setresgid(gid);
    if (err == -EINVAL)
        return fail_if(c, err, "cannot setgid to unmapped gid %u in user namespace", gid);
    if (err < 0)
        return fail_if(c, err, "setgid to %u", gid);
    err = sys_setresuid(uid);
    if (err == -EINVAL)
        return fail_if(c, err, "cannot setuid to unmapped uid %u in user namespace", uid);
    if (err < 0)
        return fail_if(c, err, "setuid to %u", uid);
    if (getresgid(&real, &effective, &saved) < 0 || real != gid || effective != gid || saved != gid)
        return fail_if(c, -EPERM, "setgid to %u: the kernel kept another", gid);
    if (getresuid(&real, &effective, &saved) < 0 || real != uid || effective != uid || saved != uid)
        return fail_if(c, -EPERM, "setuid to %u: the kernel kept another", uid);
    return 0;
}

/*
 * A capability that this process does not have itself cannot be granted, which is a warning by the
 * OCI runtime specification. What remains is set and read back.
 */
static int set_capabilities(struct ctx *c, const struct op_credentials *op)
{
    struct __user_cap_data_struct now[2];
    int err = sys_capget(now);
    if (err < 0)
        return fail_if(c, err, "read capabilities");
    uint64_t held = cap_pair(now[0].permitted, now[1].permitted);
    uint64_t inherited = cap_pair(now[0].inheritable, now[1].inheritable);
    c->caps.permitted = op->permitted & held;
    c->caps.effective = op->effective & c->caps.permitted;
    c->caps.inheritable = op->inheritable & (held | inherited) & (op->bounding | inherited);
    c->caps.lent = (op->flags & CREDENTIALS_LEND_ADMIN) != 0 ? held & (uint64_t)1 << CAP_SYS_ADMIN : 0;
    uint64_t missing = (op->permitted & ~c->caps.permitted) | (op->effective & ~c->caps.effective) |
                       (op->inheritable & ~c->caps.inheritable);
    if (missing != 0)
        report_warning(c, "capabilities 0x%llx cannot be granted", (unsigned long long)missing);
    err = set_caps(&c->caps, c->caps.lent, 0);
    if (err == 0)
        err = sys_capget(now);
    if (err == 0 && (cap_pair(now[0].permitted, now[1].permitted) != (c->caps.permitted | c->caps.lent) ||
                     cap_pair(now[0].effective, now[1].effective) != c->caps.effective ||
                     cap_pair(now[0].inheritable, now[1].inheritable) != c->caps.inheritable))
        err = -EPERM;
    return fail_if(c, err, "set capabilities");
}

/*
 * Ambient capabilities must be permitted and inheritable, so they come last. A refused one is a
 * warning.
 */
static void set_ambient(struct ctx *c, uint64_t ambient)
{
    (void)sys_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0);
    for (unsigned long cap = 0; cap < 64; cap++)
        if ((ambient >> cap & 1) != 0 && sys_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap) < 0)
            report_warning(c, "ambient capability %lu cannot be raised", cap);
}

/*
 * Attacker: ids and sets are the client's.
 * Privilege held: all capabilities of the container's user namespace; afterwards only the given
 *   ones.
 * Order matters because: the bounding set needs CAP_SETPCAP, groups and gid need CAP_SETGID, so the
 *   uid is the last id. Under keepcaps the permitted set survives the change of uid until it is
 *   set. All of it precedes the filter, which may refuse it. If loading the filter needs
 *   CAP_SYS_ADMIN, that stays permitted until then, but not effective (CREDENTIALS_LEND_ADMIN).
 */
int op_credentials(struct ctx *c, const struct op_credentials *op)
{
    bool caps = (op->flags & CREDENTIALS_SET_CAPS) != 0;
    int err = caps ? drop_bounding(c, op->bounding) : 0;
    if (err == 0 && caps && sys_prctl(PR_SET_KEEPCAPS, 1, 0) < 0)
        err = fail_if(c, -errno, "keep capabilities over the change of uid");
    if (err == 0 && (op->flags & CREDENTIALS_SET_GROUPS) != 0 && sys_setgroups(op->groups.count, op->groups.p) < 0)
        err = fail_if(c, -errno, "set supplementary groups");
    if (err == 0)
        err = set_ids(c, op->uid, op->gid);
    /* a change of ids sets it to fs.suid_dumpable (proc_sys_fs(5)) */
    if (err == 0 && sys_prctl(PR_SET_DUMPABLE, 0, 0) < 0)
        err = fail_if(c, -errno, "stay undumpable");
    if (err == 0 && caps && sys_prctl(PR_SET_KEEPCAPS, 0, 0) < 0)
        err = fail_if(c, -errno, "let go of kept capabilities");
    if (err == 0 && caps)
        err = set_capabilities(c, op);
    if (err == 0 && caps)
        set_ambient(c, op->ambient);
    return err;
}

int op_personality(struct ctx *c, const struct op_personality *op)
{
    return fail_if(c, sys_result(personality(op->domain)), "set personality 0x%x", op->domain);
}

/* The kernel checks the rights of this process; a refusal is a failure. */
int op_scheduler(struct ctx *c, const struct op_scheduler *op)
{
    struct sched_attr attr = {
        .size = sizeof attr,
        .sched_policy = op->policy,
        .sched_flags = op->flags,
        .sched_nice = op->nice,
        .sched_priority = op->priority,
        .sched_runtime = op->runtime,
        .sched_deadline = op->deadline,
        .sched_period = op->period,
    };
    return fail_if(c, sys_result(syscall(__NR_sched_setattr, 0, &attr, 0)), "set scheduler policy %u", op->policy);
}

int op_io_priority(struct ctx *c, const struct op_io_priority *op)
{
    int err = sys_result(syscall(__NR_ioprio_set, IOPRIO_WHO_PGRP, 0, op->value));
    return fail_if(c, err, "set i/o priority 0x%x", op->value);
}

/*
 * The kernel expects a count of bits plus one (set_mempolicy(2), BUGS). It refuses missing nodes.
 */
int op_memory_policy(struct ctx *c, const struct op_memory_policy *op)
{
    unsigned long count = op->nodes.len > 0 ? (unsigned long)op->nodes.len * 8 + 1 : 0;
    int err = sys_result(syscall(__NR_set_mempolicy, op->mode, count > 0 ? op->nodes.p : NULL, count));
    return fail_if(c, err, "set memory policy 0x%x", op->mode);
}

/*
 * Without a mask this only undoes the runtime's own affinity. An outer sandbox may forbid that,
 * which is a warning.
 */
static int set_affinity(struct ctx *c, const struct plan_bytes *mask)
{
    uint8_t every[8192]; /* more CPUs than any kernel is built for */
    bool all = mask->len == 0;
    memset(every, 0xff, sizeof every);
    int err = sys_result(syscall(__NR_sched_setaffinity, 0, all ? sizeof every : mask->len, all ? every : mask->p));
    if (err < 0 && all) {
        report_warning(c, "the CPU affinity of the runtime cannot be taken back");
        return 0;
    }
    return fail_if(c, err, "set CPU affinity");
}

int op_initial_affinity(struct ctx *c, const struct op_initial_affinity *op)
{
    return set_affinity(c, &op->mask);
}

int op_affinity(struct ctx *c, const struct op_affinity *op)
{
    return set_affinity(c, &op->mask);
}
