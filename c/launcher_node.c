/*
 * Starting Node. It gets nothing by accident: exactly the fds, signals, umask, score and environment named here,
 * whatever the daemon that started us had. Invariant: node_spawn returns success only after Node has been executed,
 * and failure only when no process is left.
 */
#include "launcher.h"
#include "node_flags.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1u << 2)
#endif

#define LISTEN_FD 3
#define FIRST_FREE_FD 4
#define OOM_SCORE_LIMIT 1000
#define KERNEL_SIGNALS 64
#define KERNEL_SIGSET_BYTES 8

extern char **environ;

/* Node's own flags stand here, before the script. */
static const char *const NODE_FLAGS[] = {NODE_FLAGS_LIST, NULL};

/* Tells the limit of open files that we were started with: Node raises the soft one for itself, before any script could look. */
#define SOFT_NOFILE "RUNTS_SOFT_NOFILE="

/* Variables of the daemon's environment that would change how Node starts, and what takes their place. */
static const char *const DROPPED_PREFIXES[] = {"NODE_", "UV_", "OPENSSL_CONF=", "OPENSSL_MODULES=", SOFT_NOFILE};
static const char *const ADDED_VARIABLES[] = {"NODE_NO_WARNINGS=1"};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

struct node_program {
    char node[PATH_MAX];
    char script[PATH_MAX];
    char *argv[LENGTH(NODE_FLAGS) + 20];
    char soft_nofile[sizeof(SOFT_NOFILE) + 20]; /* 2^64 - 1 has 20 digits */
    char **envp;
};

int lib_path(const char *name, char ret_path[static PATH_MAX], struct failure *failure)
{
    char program[PATH_MAX];
    const char *parts[] = {program, "../..", "lib/containerd-shim-ts", name};
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);

    if (n < 0)
        return fail(failure, errno, "cannot find this program: \"/proc/self/exe\"");
    program[n] = '\0';
    return path_join(ret_path, PATH_MAX, parts, LENGTH(parts), failure);
}

static bool is_dropped(const char *variable)
{
    for (size_t i = 0; i < LENGTH(DROPPED_PREFIXES); i++) {
        if (strncmp(variable, DROPPED_PREFIXES[i], strlen(DROPPED_PREFIXES[i])) == 0)
            return true;
    }
    return false;
}

/*
 * No privilege is held for this and nobody else's input is read: the limit is our own, a number of the kernel's, and the text is bounded
 * by its type. A limit that cannot be read is not told, and Node's children then have Node's: more than they should, which is only a
 * question of custom, since a process may raise its soft limit itself.
 */
static bool tell_soft_nofile(struct node_program *program)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return false;
    (void)snprintf(program->soft_nofile, sizeof(program->soft_nofile), SOFT_NOFILE "%llu", (unsigned long long)limit.rlim_cur);
    return true;
}

static char **build_environment(struct node_program *program)
{
    char *const *given = environ;
    size_t count = 0, used = 0;
    char **envp;

    while (given[count])
        count++;
    /* the limit's, and the NULL at the end */
    envp = calloc(count + LENGTH(ADDED_VARIABLES) + 2, sizeof(*envp));
    if (!envp)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        if (!is_dropped(given[i]))
            envp[used++] = given[i];
    }
    for (size_t i = 0; i < LENGTH(ADDED_VARIABLES); i++)
        envp[used++] = (char *)(uintptr_t)ADDED_VARIABLES[i]; /* execve does not write, its prototype is old */
    if (tell_soft_nofile(program))
        envp[used++] = program->soft_nofile;
    return envp;
}

struct words {
    char **argv;
    size_t used;
};

static void add_word(struct words *words, const char *word)
{
    words->argv[words->used++] = (char *)(uintptr_t)word;
}

static void add_flag(struct words *words, const char *flag, const char *value)
{
    if (!value)
        return;
    add_word(words, flag);
    add_word(words, value);
}

/* The one place that knows Node's command line. */
static void build_argv(struct node_program *program, const struct node_call *call)
{
    struct words words = {.argv = program->argv};

    add_word(&words, PROGRAM);
    for (size_t i = 0; NODE_FLAGS[i]; i++)
        add_word(&words, NODE_FLAGS[i]);
    add_word(&words, program->script);
    add_flag(&words, "-namespace", call->settings->namespace);
    add_flag(&words, "-id", call->settings->id);
    add_flag(&words, "-address", call->settings->address);
    add_flag(&words, "-bundle", call->bundle);
    add_flag(&words, "-ttrpc", call->ttrpc);
    add_flag(&words, "-socket", call->socket);
    if (call->settings->debug)
        add_word(&words, "-debug");
    add_word(&words, call->action);
    add_word(&words, NULL);
}

/* The script is looked at here, because Node would complain where nobody reads it. */
static int prepare(struct node_program *program, const struct node_call *call, struct failure *failure)
{
    if (lib_path("node", program->node, failure) < 0 || lib_path("shim.cjs", program->script, failure) < 0)
        return -1;
    if (access(program->script, R_OK) < 0)
        return fail(failure, errno, "cannot read \"%s\"", program->script);
    program->envp = build_environment(program);
    if (!program->envp)
        return fail(failure, ENOMEM, "cannot copy the environment");
    build_argv(program, call);
    return 0;
}

/* Ignored signals and the mask outlive exec. The raw call reaches the signals that libc keeps for itself too. */
static void reset_signals(void)
{
    /* zeros are SIG_DFL, no flags and an empty mask, whatever the order of the members on this machine */
    static const unsigned char by_default[64];
    sigset_t none;

    for (int number = 1; number <= KERNEL_SIGNALS; number++)
        (void)syscall(SYS_rt_sigaction, number, by_default, NULL, KERNEL_SIGSET_BYTES);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static int close_at_exec(unsigned first, struct failure *failure)
{
    if (syscall(SYS_close_range, first, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
        return fail(failure, errno, "cannot close inherited files (Linux 5.11 or newer is needed)");
    return 0;
}

static int execute(const struct node_program *program, struct failure *failure)
{
    (void)execve(program->node, program->argv, program->envp);
    return fail(failure, errno, "cannot run \"%s\"", program->node);
}

int node_exec(const struct node_call *call, struct failure *failure)
{
    struct node_program program;

    if (prepare(&program, call, failure) < 0)
        return -1;
    if (close_at_exec(LISTEN_FD, failure) == 0) {
        reset_signals();
        (void)execute(&program, failure);
    }
    free(program.envp);
    return -1;
}

/* Puts our four fds on 0 to 3; they may stand anywhere before, also on each other's places. */
static int place_fds(const struct node_server *server, struct failure *failure)
{
    const int wanted[FIRST_FREE_FD] = {server->null_fd, server->null_fd, server->log_fd, server->listen_fd};
    int moved[FIRST_FREE_FD];

    for (int i = 0; i < FIRST_FREE_FD; i++) {
        moved[i] = fcntl(wanted[i], F_DUPFD_CLOEXEC, FIRST_FREE_FD);
        if (moved[i] < 0)
            return fail(failure, errno, "cannot pass on file %d", i);
    }
    for (int i = 0; i < FIRST_FREE_FD; i++) {
        if (dup2(moved[i], i) < 0)
            return fail(failure, errno, "cannot pass on file %d", i);
    }
    return 0;
}

/* More likely to be killed than the daemon, less likely than a container. Only lowering needs a privilege. */
static int set_oom_score(int score, struct failure *failure)
{
    cleanup_fd int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    char text[16];
    int n;

    n = snprintf(text, sizeof(text), "%d", score > OOM_SCORE_LIMIT ? OOM_SCORE_LIMIT : score);
    if (fd < 0 || (write_whole(fd, text, (size_t)n) < 0 && errno != EACCES && errno != EPERM))
        return fail(failure, errno, "cannot set the shim's oom_score_adj to %s", text);
    return 0;
}

/*
 * The child, up to exec. The order matters: the cgroup first, while /proc and our own fds are as we know them; the fds
 * last, after which fd 2 is the log; `report` stays open above them until exec closes it.
 */
static int become_node(const struct node_program *program, const struct node_server *server, struct failure *failure)
{
    if (setpgid(0, 0) < 0)
        return fail(failure, errno, "cannot create a process group");
    if (server->shim_cgroup && cgroup_enter(server->shim_cgroup, failure) < 0)
        return -1;
    if (set_oom_score(server->oom_score_adj, failure) < 0 || place_fds(server, failure) < 0 ||
        close_at_exec(FIRST_FREE_FD, failure) < 0)
        return -1;
    (void)umask(server->umask);
    reset_signals();
    return execute(program, failure);
}

static _Noreturn void run_child(const struct node_program *program, const struct node_server *server, int report)
{
    struct failure failure;

    /* the report must not stand where the four fds go */
    report = fcntl(report, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
    if (report < 0)
        _exit(1);
    (void)become_node(program, server, &failure);
    (void)write_whole(report, failure.text, strlen(failure.text));
    _exit(1);
}

/* An empty report means that exec has closed it, or that the child died without a word. */
static int await_exec(int report, pid_t pid, struct failure *failure)
{
    cleanup_free uint8_t *text = NULL;
    size_t size;
    int status;

    if (read_whole(report, "the report of the child", sizeof(failure->text), &text, &size, failure) < 0) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        return -1;
    }
    if (size > 0) {
        (void)waitpid(pid, NULL, 0);
        return fail(failure, 0, "%.*s", (int)size, (const char *)text);
    }
    if (waitpid(pid, &status, WNOHANG) != pid)
        return 0;
    return fail(failure, 0, "cannot start the shim process: it ended at once with wait status 0x%x", (unsigned)status);
}

int node_spawn(const struct node_call *call, const struct node_server *server, pid_t *ret_pid, struct failure *failure)
{
    cleanup_fd int read_end = -1, write_end = -1;
    struct node_program program;
    int ends[2], r;
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail(failure, errno, "cannot create a pipe");
    read_end = ends[0];
    write_end = ends[1];
    if (prepare(&program, call, failure) < 0)
        return -1;
    pid = fork();
    if (pid == 0)
        run_child(&program, server, write_end);
    free(program.envp);
    if (pid < 0)
        return fail(failure, errno, "cannot start a process");
    close_fd(&write_end);
    r = await_exec(read_end, pid, failure);
    if (r == 0)
        *ret_pid = pid;
    return r;
}
