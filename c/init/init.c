/*
 * ts-init sets up one container process from a plan and becomes its program. The processes:
 *
 *  runtime --posix_spawn--> stage 0                             fds: 0-2 stdio of the container, 3 plan,
 *                             |                                 4 status, 5 console, 6.. fds of the program
 *                             | reads and checks the whole plan
 *                             | opens cgroups, fifo, namespaces; joins namespaces
 *                             | clone3(CLONE_PARENT) ------> container side  (child of the runtime)
 *                             | reports child{pid}, says 'c'   | reports nothing before 'c'
 *                             |                                | moves itself into the v1 cgroups
 *                             | writes the id maps, says 'm'   | waits for 'm' if there are maps
 *                             |                                | mounts, devices, pivot, ...
 *                             | joins the v2 cgroup, says 'j'  | waits for 'j' where the plan says so
 *                             | exits 0                        | ready, waits on the fifo, execve
 *
 * There are two processes because id maps must be written from outside, and because a pid namespace
 * begins with a child. Stage 0 ends as soon as the child and the host agent no longer need it. It is
 * never in the container's cgroup. If it fails, the child reads an end of file and leaves.
 *
 * Invariant: policy comes from the plan. A branch looks at an argument of the plan, at an errno, or at
 * what this process finds out about itself and its files: ids, capabilities, types. Two things are
 * still defaults of this program: PATH and HOME (ops_exec.c), and umask 022 until the umask operation.
 */
#include "init.h"

#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

/*
 * execve resets a caught signal to its default, but leaves an ignored one ignored. So no system
 * call is needed behind a seccomp filter. SIGPIPE is caught so that a write to a closed socket
 * fails with an errno. SIGCHLD is caught so that the end of a hook interrupts ppoll.
 */
static void caught_signal(int signal_number)
{
    (void)signal_number;
}

/* Attacker: the client's filter may refuse even exit_group; libc would then retry for ever. */
static _Noreturn void leave(int code)
{
    (void)syscall(__NR_exit_group, code);
    __builtin_trap();
}

/*
 * The first process of a pid namespace gets no signal without a handler. A created container is to
 * end by the signals that end any other process.
 */
static void ending_signal(int signal_number)
{
    leave(128 + signal_number);
}

/*
 * The raw system call reaches the signals that libc reserves. A posix_spawn of that libc may have
 * left exactly those ignored.
 */
static void reset_signals(void)
{
    static const int ending_signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    static const unsigned long standard[8]; /* the kernel's struct sigaction: SIG_DFL, no flags, no mask */
    for (int number = 1; number < NSIG; number++)
        (void)syscall(__NR_rt_sigaction, number, standard, NULL, (NSIG - 1) / 8);
    struct sigaction caught = {.sa_handler = caught_signal, .sa_flags = SA_RESTART};
    struct sigaction ending = {.sa_handler = ending_signal};
    (void)sigaction(SIGPIPE, &caught, NULL);
    (void)sigaction(SIGCHLD, &caught, NULL);
    for (size_t i = 0; i < sizeof ending_signals / sizeof *ending_signals; i++)
        (void)sigaction(ending_signals[i], &ending, NULL);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * Attacker: processes of a container that this process will join; any signal setting may be
 *   inherited.
 * Privilege held: all that the runtime has.
 * Order matters because: an undumpable process cannot be traced, nor its fds read, by a container
 *   that it joins later (CVE-2016-9962). So that comes before everything else.
 */
static int prepare(struct ctx *c)
{
    int err = sys_prctl(PR_SET_DUMPABLE, 0, 0);
    if (err < 0)
        return fail_if(c, err, "become undumpable");
    /* the kernel would otherwise show the number of the fd that was executed */
    (void)sys_prctl(PR_SET_NAME, (unsigned long)(uintptr_t) "ts-init", 0);
    /* a process of the container must not keep the runtime's working directory */
    if (chdir("/") < 0)
        return fail_if(c, -errno, "chdir to \"/\"");
    struct __user_cap_data_struct caps[2];
    c->dumpable_for_runtime = sys_capget(caps) < 0 ||
                              (caps[CAP_TO_INDEX(CAP_SYS_PTRACE)].effective & CAP_TO_MASK(CAP_SYS_PTRACE)) == 0;
    reset_signals();
    (void)umask(022);
    for (int fd = 0; fd <= FD_STATUS; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            return fail_if(c, -errno, "fd %d is not open", fd);
    for (int fd = FD_PLAN; fd <= FD_CONSOLE; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    for (int fd = FD_STATUS; fd <= FD_CONSOLE; fd++) {
        int flags = fcntl(fd, F_GETFL);
        if (flags >= 0)
            (void)fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    }
    return 0;
}

/* The runtime may share the plan's file offset, so pread is used. */
static int read_plan(struct ctx *c, struct plan *ret)
{
    struct stat st;
    int err = sys_fstat(FD_PLAN, &st);
    if (err < 0 || !S_ISREG(st.st_mode) || st.st_size < 0 || st.st_size > (off_t)LIMIT_PLAN_MAX_BYTES)
        return fail_if(c, err < 0 ? err : -EINVAL, "read the plan: it must be a file of at most %u bytes",
                       LIMIT_PLAN_MAX_BYTES);
    size_t size = (size_t)st.st_size;
    uint8_t *bytes = malloc(size + 1);
    ssize_t got = bytes ? pread(FD_PLAN, bytes, size, 0) : -1;
    /* a regular file, unlike a pipe, is read in one piece */
    if (!bytes || got != st.st_size) {
        err = !bytes ? -ENOMEM : got < 0 ? -errno : -EIO;
        free(bytes);
        return fail_if(c, err, "read the plan");
    }
    const char *why = "";
    err = plan_parse(bytes, size, ret, &why);
    if (err < 0) {
        free(bytes);
        return fail_if(c, err, "use the plan: %s", why);
    }
    ret->bytes = bytes;
    return 0;
}

/* Moves a socket that lies where the program's fds will be. */
static int move_fd(struct ctx *c, int *fd, int least)
{
    int moved = sys_result(fcntl(*fd, F_DUPFD_CLOEXEC, least));
    if (moved < 0)
        return fail_if(c, moved, "make room for the fds of the program");
    *fd = moved;
    return 0;
}

/*
 * Attacker: any fd of the runtime may have leaked into this process.
 * Privilege held: the runtime's.
 * Order matters because: only the plan says how many fds the program gets, so it is read first. All
 *   other fds are closed before anything else is done. The program's fds are moved now and not at
 *   the end, because a seccomp filter may then allow no more than execve. They are not
 *   close-on-exec.
 */
static int settle_fds(struct ctx *c)
{
    int extra = (int)c->plan->ops[c->plan->count - 1].exec.fds, end = FD_EXTRA + extra;
    bool terminal = false;
    int err = sys_close_range((unsigned)end, ~0U, 0);
    if (err < 0)
        return fail_if(c, err, "close inherited fds with close_range(2), which needs Linux 5.9 or newer");
    for (uint32_t i = 0; i < c->plan->count; i++)
        terminal = terminal || c->plan->ops[i].code == OP_TERMINAL;
    if (terminal && fcntl(FD_CONSOLE, F_GETFD) < 0)
        return fail_if(c, -errno, "fd %d is not open, but the plan has a terminal", FD_CONSOLE);
    for (int fd = FD_EXTRA; fd < end; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            return fail_if(c, -errno, "fd %d is not open, but the program is to have it", fd);
    (void)close(FD_PLAN);
    if (!terminal)
        close_fd(&c->console);
    if (extra == 0)
        return 0;
    err = move_fd(c, &c->status, end);
    if (err == 0 && terminal)
        err = move_fd(c, &c->console, end);
    for (int fd = FD_EXTRA; err == 0 && fd < end; fd++)
        if (dup3(fd, fd - FD_EXTRA + 3, 0) < 0)
            err = fail_if(c, -errno, "give the program fd %d", fd - FD_EXTRA + 3);
    return err == 0 ? sys_close_range((unsigned)extra + 3, (unsigned)end - 1, 0) : err;
}

/*
 * The index of the last operation that needs something of the host's. What it needs is closed after it.
 *
 * Attacker: in a shared pid namespace, a process with CAP_SYS_PTRACE over this one can open its fds.
 * Privilege held: the handle of the host's procfs and the socket of the host agent.
 * Order matters because: neither is held longer than the plan needs it (`host` in proto/init-plan.ts).
 */
static uint32_t last_need(const struct plan *plan, bool (*needs)(const struct op *))
{
    uint32_t last = 0;
    for (uint32_t i = 0; i < plan->count; i++)
        last = needs(&plan->ops[i]) ? i : last;
    return last;
}

/*
 * Only in builds for tests of crash safety: kills the process that comes to the named operation
 * ("init:mount"), or past it ("init:mount+"). The first process of a pid namespace survives its own
 * SIGKILL, but not a trap.
 */
static void fail_point(const struct op *op, const char *past)
{
#ifdef FAILPOINTS
    const char *wanted = getenv("RUNTS_FAIL_AT");
    char here[64];
    (void)snprintf(here, sizeof here, "init:%s%s", plan_schema(op->code)->name, past);
    if (wanted && strcmp(wanted, here) == 0) {
        (void)raise(SIGKILL);
        __builtin_trap();
    }
#else
    (void)op;
    (void)past;
#endif
}

/* Returns 0 in stage 0 once the child is set up. The container side returns only on failure. */
static int run_plan(struct ctx *c)
{
    uint32_t last_host_proc = last_need(c->plan, needs_host_proc), last_agent = last_need(c->plan, asks_agent);
    bool narrow = false;
    for (uint32_t i = 0; i < c->plan->count; i++) {
        const struct op *op = &c->plan->ops[i];
        c->at = i;
        c->failure = plan_schema(op->code)->failure;
        fail_point(op, "");
        int err = run_op(c, op);
        if (err != 0)
            return err;
        fail_point(op, "+");
        if (op->code == OP_CLONE && !c->container)
            return serve_child(c, &op->clone);
        if (c->container && i >= last_agent)
            close_fd(&c->agent);
        if (c->container && i >= last_host_proc && !narrow && !c->inside.program) {
            proc_narrow(c);
            narrow = true;
        }
    }
    return fail_if(c, -EINVAL, "execute a program: the plan has none");
}

int main(void)
{
    struct plan plan;
    struct ctx c = {.plan = &plan, .at = UINT32_MAX, .status = FD_STATUS, .console = FD_CONSOLE};
    c.fifo = c.sync = c.agent = c.procfs.host = c.procfs.fds = c.stage0.cgroup_dir.fd = c.stage0.cgroup_procs = -1;
    c.inside.root = c.inside.null = c.inside.empty = -1;
    int err = prepare(&c);
    err = err == 0 ? read_plan(&c, &plan) : err;
    err = err == 0 ? settle_fds(&c) : err;
    err = err == 0 ? proc_open(&c) : err;
    err = err == 0 ? run_plan(&c) : err;
    if (err < 0 && report_failed(&c, err) < 0)
        report_line(&c, err); /* to standard error, as no record can be delivered */
    leave(err == 0 ? 0 : c.container ? 255 : 1);
}
