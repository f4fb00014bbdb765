/*
 * What the parts of ts-init share: the state of one run, and the operations. Invariant: an operation returns 0, or a negative errno after
 * step() has put a sentence into the state, or STOP; it never prints or exits by itself. Everything lives in one struct on main's stack;
 * nothing is allocated after the plan was read.
 */
#ifndef INIT_H
#define INIT_H

#include <limits.h>

#include "plan_read.h"
#include "sys.h"

/* The other side is gone and has said why, or nobody is left to be told: leave without a report. */
#define STOP 1

struct held {
    int fd;
    uint32_t op;   /* the operation that opened it, for its error */
    uint64_t type; /* namespaces: the CLONE_NEW* flag; 0 once joined */
};

struct ctx {
    const struct plan *plan;
    uint32_t at;     /* index of the operation that runs; UINT32_MAX before the first */
    int proc;        /* the host's /proc, verified: the only way to procfs files that counts */
    int own_fds;     /* /proc/self/fd of a procfs that does no harm in foreign hands, or of the host's where there is none */
    int root;        /* the root directory of the container: paths of the plan are resolved below it */
    int fifo;        /* the exec fifo, O_PATH */
    int sync;        /* socket between stage 0 and the container side */
    int agent;       /* container side: socket to the host agent, until the last operation that asks it */
    int status;      /* the status socket, and the console socket: not at their agreed places where the program gets more fds */
    int console;
    int null;        /* the root's /dev/null, verified, O_PATH */
    int empty;       /* the read-only tmpfs that masks directories, once one is attached */
    bool container;  /* this process is the container side */
    bool announced;  /* container side: stage 0 has reported our pid */
    bool cwd_done;
    bool strangers;  /* processes that are not ours may have power over this one: it has entered a user namespace that was there */
    bool dumpable_for_runtime; /* it has no CAP_SYS_PTRACE, so it can take a fd of ours only while we are dumpable */
    const char *root_path;                   /* of the rootfs op, for pivot by MOVE */
    struct held cgroup_dir;                  /* fd -1: none */
    int cgroup_procs;                        /* its cgroup.procs, or why it could not be opened */
    struct held cgroups[PLAN_MAX_CGROUPS];
    uint32_t cgroup_count;
    struct held namespaces[PLAN_MAX_NAMESPACES];
    uint32_t namespace_count;
    pid_t child;                             /* stage 0: the container process */
    pid_t agent_pid;                         /* stage 0: the host agent, its own child */
    bool plain_clone;                        /* stage 0: the child is not in cgroup_dir yet */
    const struct op_program *program;
    char executable[PATH_MAX];
    char home[PATH_MAX + 8];
    char step[LIMIT_STEP_MAX_BYTES];         /* what failed, in words */
};

/* report.c */
int step(struct ctx *c, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));
int report(struct ctx *c, enum record_type type);
int report_u32(struct ctx *c, enum record_type type, uint32_t value);
void report_warning(struct ctx *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
int report_failed(struct ctx *c, int err);
void report_line(const struct ctx *c, int err);
const char *reason(int err, char text[64]);

/* path.c: below a root directory, never outside it */
int path_open(int root, const char *path, int flags);
int path_make_directory(int root, const char *path, bool *ret_made);
int path_make_plain_directory(int root, const char *path, bool *ret_made);
int path_make_file(int root, const char *path);
int path_parent(int root, const char *path, char ret_name[NAME_MAX + 1]);
bool path_reaches_procfs_by_symlink(int root, const char *path, int fd);
int path_null_device(struct ctx *c);
bool is_null_device(const struct stat *st);
/* path.c: procfs */
int proc_open(struct ctx *c);
int proc_write_at(int directory, const char *path, const char *text, size_t size);
int proc_write(const struct ctx *c, const char *path, const char *text, size_t size);
int proc_write_own(const struct ctx *c, const char *path, const char *text, size_t size);
int proc_open_ns(const struct ctx *c, const char *pid, const char *name);
void proc_prepare(struct ctx *c);
void proc_narrow(struct ctx *c);
int proc_reopen(const struct ctx *c, int fd, int flags);

/* ops_ns.c: host side */
int op_oom_score_adj(struct ctx *c, const struct op_oom_score_adj *op);
int op_raise_rlimit(struct ctx *c, const struct op_raise_rlimit *op);
int op_cgroup_dir(struct ctx *c, const struct op_cgroup_dir *op);
int op_cgroup_tasks(struct ctx *c, const struct op_cgroup_tasks *op);
int op_open_fifo(struct ctx *c, const struct op_open_fifo *op);
int op_open_ns(struct ctx *c, const struct op_open_ns *op);
int op_join(struct ctx *c);
int op_join_process(struct ctx *c, const struct op_join_process *op);
int op_clone(struct ctx *c, const struct op_clone *op);
int serve_child(struct ctx *c, const struct op_clone *op);
int become_root(struct ctx *c);
/* ops_ns.c: container side */
int await_announced(struct ctx *c);
int op_wait_cgroup(struct ctx *c);
int op_unshare(struct ctx *c, const struct op_unshare *op);
int op_loopback_up(struct ctx *c);
int op_time_offsets(struct ctx *c, const struct op_time_offsets *op);

/* host_agent.c, net_device.c: the agent, and the operations that ask it */
int op_host_agent(struct ctx *c);
void await_agent(const struct ctx *c);
int host_source(struct ctx *c, const struct op_mount *op);
int host_time_offsets(struct ctx *c);
int op_net_device(struct ctx *c, const struct op_net_device *op);
int move_device(struct ctx *c, const struct op_net_device *op, int target);
int set_link(int inet, const char *name, bool up);

/* ops_mount.c */
int op_mount(struct ctx *c, const struct op_mount *op);
int mount_tmpfs(struct ctx *c, const char *what, const char *options, unsigned attributes);
/* copy_up.c */
int copy_tree(int from, int to);

/* ops_root.c */
int op_root_propagation(struct ctx *c, const struct op_root_propagation *op);
int op_rootfs(struct ctx *c, const struct op_rootfs *op);
int op_pivot(struct ctx *c, const struct op_pivot *op);
int op_readonly_mount(struct ctx *c, const struct op_readonly_mount *op);
int op_readonly_path(struct ctx *c, const struct op_readonly_path *op);
int op_mask_path(struct ctx *c, const struct op_mask_path *op);

/* ops_node.c */
int op_device(struct ctx *c, const struct op_device *op);
int op_symlink(struct ctx *c, const struct op_symlink *op);
int op_reopen_null(struct ctx *c);
int op_terminal(struct ctx *c, const struct op_terminal *op);
int op_stdio_owner(struct ctx *c, const struct op_stdio_owner *op);
int op_make_cwd(struct ctx *c, const struct op_make_cwd *op);
int op_chdir(struct ctx *c, const struct op_chdir *op);

/* ops_process.c */
int op_session(struct ctx *c, const struct op_session *op);
int op_keyring(struct ctx *c, const struct op_keyring *op);
int op_sysctl(struct ctx *c, const struct op_sysctl *op);
int op_hostname(struct ctx *c, const struct op_hostname *op);
int op_domainname(struct ctx *c, const struct op_domainname *op);
int op_rlimit(struct ctx *c, const struct op_rlimit *op);
int op_no_new_privs(struct ctx *c);
int op_apparmor(struct ctx *c, const struct op_apparmor *op);
int op_selinux(struct ctx *c, const struct op_selinux *op);
int op_seccomp(struct ctx *c, const struct op_seccomp *op);
int op_credentials(struct ctx *c, const struct op_credentials *op);
int op_personality(struct ctx *c, const struct op_personality *op);
int op_scheduler(struct ctx *c, const struct op_scheduler *op);
int op_io_priority(struct ctx *c, const struct op_io_priority *op);
int op_memory_policy(struct ctx *c, const struct op_memory_policy *op);
int op_affinity(struct ctx *c, const struct plan_bytes *mask);

/* ops_hook.c */
int op_hook(struct ctx *c, const struct op_hook *op);

/* ops_exec.c */
int await_runtime(const struct ctx *c);
int op_sync(struct ctx *c, const struct op_sync *op);
int op_program(struct ctx *c, const struct op_program *op);
int op_ready(struct ctx *c);
int op_await_start(struct ctx *c);
int op_exec(struct ctx *c, const struct op_exec *op);

#endif
