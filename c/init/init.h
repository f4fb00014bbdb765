/*
 * What the files of ts-init share: the state of one run. Invariant: an operation (op_NAME) returns
 * 0, STOP, or a negative errno after fail_if() has said what failed. Only op_exec does not return
 * when it succeeds, and only hand_over_listener ends the process by itself. All state is in one
 * struct on main's stack, split by whose it is and how long it lives; a few large buffers are
 * static. Nothing is allocated once the plan has been read.
 */
#ifndef INIT_H
#define INIT_H

#include <limits.h>

#include "plan_read.h"
#include "sys.h"

/* The other side is gone, or has reported the failure itself: leave without a report. */
#define STOP 1

struct held {
    int fd;
    uint32_t op;   /* the operation that opened it, for its error */
    uint64_t type; /* namespaces: the CLONE_NEW* flag */
};

/* Where this process finds procfs. keep_few closes both. */
struct procfs {
    int host; /* the host's /proc, verified; -1 once proc_narrow has closed it */
    int fds;  /* /proc/self/fd, of the container's procfs if that is usable */
};

/*
 * What stage 0 opens for its joins and the clone, and the processes that it starts. The child has a
 * copy, and uses only the cgroups of it.
 */
struct stage0 {
    struct held cgroup_dir; /* fd -1: none */
    int cgroup_procs;       /* its cgroup.procs, or the errno of opening it */
    struct held cgroups[LIMIT_CGROUPS_MAX];
    uint32_t cgroup_count;
    struct held namespaces[LIMIT_NAMESPACES_MAX];
    uint32_t namespace_count;
    bool plain_clone; /* the child is not in cgroup_dir yet */
    pid_t child;      /* the container process */
    pid_t agent;      /* the host agent, its own child */
};

/*
 * What the container side finds inside its root, and has done so far: set after the clone. Its fds
 * are closed when the program is known (keep_few).
 */
struct inside {
    int root;              /* the container's root directory; paths of the plan start here */
    int null;              /* the root's /dev/null, verified, O_PATH */
    int empty;             /* the read-only tmpfs that masks directories, if any */
    const char *root_path; /* of the rootfs op, for messages */
    bool announced;        /* stage 0 has reported its pid */
    bool new_user;         /* it is in a user namespace made for it */
    bool cwd_done;
    const struct op_program *program;
    char executable[PATH_MAX];
    char home[PATH_MAX + 8];
};

/* The capability sets that the program gets. */
struct caps {
    uint64_t permitted, effective, inheritable, lent; /* lent: permitted besides, until the filter is loaded */
};

/* One run. Each of its processes has a copy: stage 0, the host agent, the container side. */
struct ctx {
    const struct plan *plan;
    uint32_t at; /* index of the running operation; UINT32_MAX before the first */
    int status;  /* the status socket, then the exec fifo */
    int console;
    int fifo;                  /* the exec fifo, until the start was taken */
    int sync;                  /* socket between stage 0 and the container side */
    int agent;                 /* container side: socket to the host agent, until its last use */
    bool container;            /* this process is the container side */
    bool strangers;            /* it has joined a user namespace, whose processes may have power over it */
    bool dumpable_for_runtime; /* a runtime without CAP_SYS_PTRACE: pidfd_getfd needs this */
    struct procfs procfs;
    struct stage0 stage0;
    struct inside inside;
    struct caps caps;
    uint32_t failure;                  /* FAILURE_*: what kind of text `failed` is */
    char failed[LIMIT_STEP_MAX_BYTES]; /* what failed, in words */
};

/* report.c */
int fail_if(struct ctx *c, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));
int report(struct ctx *c, enum record_type type);
int report_u32(struct ctx *c, enum record_type type, uint32_t value);
void report_warning(struct ctx *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
int report_failed(struct ctx *c, int err);
void report_line(const struct ctx *c, int err);
const char *words(const char *name, char text[64]);
const char *reason(int err, char text[64]);

/* path.c: paths below a root directory */
int path_open(int root, const char *path, int flags);
enum last { LAST_DIRECTORY, LAST_FILE };
int path_make(int root, const char *path, enum last last, bool *ret_made);
int path_make_plain_directory(int root, const char *path, bool *ret_made);
int path_parent(int root, const char *path, char ret_name[NAME_MAX + 1]);
bool path_reaches_procfs_by_symlink(int root, const char *path, int fd);
int path_null_device(struct inside *inside);
bool is_null_device(const struct stat *st);
/* path.c: procfs */
int proc_open(struct ctx *c);
int proc_open_at(int directory, const char *path, int flags);
int proc_write(int directory, const char *path, const char *text, size_t size);
int proc_write_own(const struct ctx *c, const char *path, const char *text, size_t size);
int proc_open_ns(int proc, const char *pid, const char *name);
int proc_own_path(int proc, int fd, char path[PATH_MAX]);
void proc_prepare(struct ctx *c);
void proc_narrow(struct ctx *c);
int proc_reopen(const struct procfs *procfs, int fd, int flags);

/* ops_ns.c */
int serve_child(struct ctx *c, const struct op_clone *op);
int become_root(struct ctx *c);
int await_announced(struct ctx *c);

/* host_agent.c: the agent, and how operations ask it */
void await_agent(pid_t agent);
int host_source(struct ctx *c, const struct op_mount *op);
int host_time_offsets(struct ctx *c);

/* ops_mount.c, copy_up.c */
int mount_empty_tmpfs(struct ctx *c, const char *what);
int copy_tree(int from, int to);

/* ops_exec.c */
int await_runtime(const struct ctx *c);

#include "ops.gen.h"

#endif
