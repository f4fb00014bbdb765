/*
 * Starts Node with exactly the fds, signals and environment named here, whatever the launcher has
 * inherited. Invariant: node_spawn returns only after Node has been executed.
 */
#include "launcher.h"
#include "../keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1u << 2)
#endif

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define KERNEL_SIGNALS 64
#define KERNEL_SIGSET_BYTES 8

/* Node's own flags, which come before the script. */
static const char *const NODE_FLAGS[] = {NODE_FLAGS_LIST};

/* Variables of the daemon's environment that would change how Node starts. */
static const char *const CHANGING_PREFIXES[] = {CHANGING_VARIABLES_LIST};

/* Only the launcher may set these for Node, so inherited ones are dropped. */
static const char *const OWN_PREFIXES[] = {VARIABLE_SOFT_NOFILE "=", VARIABLE_OUTER};

struct node_program {
    const char *node;
    const char *argv[LENGTH(NODE_FLAGS) + 20];
};

static bool begins_with_any(const char *variable, const char *const *prefixes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}

/*
 * Attacker: none; the daemon's administrator wrote the environment, and may do more than the
 *   launcher.
 * Privilege held: the daemon's.
 * Order matters because: inherited variables of the launcher's own names are dropped before it sets
 *   its own. An unreadable limit is left out; Node's children then get the limit that Node has
 *   raised, which any process may do for itself.
 */
static void prepare_environment(void)
{
    char **to = environ;
    struct rlimit limit;
    for (char **from = environ; *from; from++) {
        if (begins_with_any(*from, OWN_PREFIXES, LENGTH(OWN_PREFIXES)))
            continue;
        *to++ = begins_with_any(*from, CHANGING_PREFIXES, LENGTH(CHANGING_PREFIXES)) ?
                    text(VARIABLE_OUTER "%s", *from) :
                    *from;
    }
    *to = NULL;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
        setenv(VARIABLE_SOFT_NOFILE, text("%llu", (unsigned long long)limit.rlim_cur), true) < 0)
        die(errno, "cannot change the environment");
}

/*
 * The only place that knows Node's command line. It checks the script, because an error message of
 * Node would have no reader.
 */
static struct node_program prepare(const struct node_call *call)
{
    const struct settings *settings = call->settings;
    const char *const options[][2] = {
        {"-" FLAG_NAMESPACE, settings->namespace}, {"-" FLAG_ID, settings->id},   {"-" FLAG_ADDRESS, settings->address},
        {"-" FLAG_BUNDLE, call->bundle},           {"-" FLAG_TTRPC, call->ttrpc}, {"-" FLAG_SOCKET, call->socket},
    };
    const char *script = lib_path(LIB_FILE_SCRIPT);
    struct node_program program = {.node = lib_path(LIB_FILE_NODE),
                                   .argv = {strcmp(call->action, ACTION_WORK) == 0 ? WORKER_NAME : PROGRAM}};
    size_t count = 1;
    if (access(script, R_OK) < 0)
        die(errno, "cannot read \"%s\"", script);
    for (size_t i = 0; i < LENGTH(NODE_FLAGS); i++)
        program.argv[count++] = NODE_FLAGS[i];
    program.argv[count++] = script;
    for (size_t i = 0; i < LENGTH(options); i++) {
        if (options[i][1]) {
            program.argv[count++] = options[i][0];
            program.argv[count++] = options[i][1];
        }
    }
    if (settings->debug)
        program.argv[count++] = "-" FLAG_DEBUG;
    program.argv[count++] = call->action;
    prepare_environment();
    return program;
}

static void close_at_exec(int first)
{
    if (syscall(SYS_close_range, first, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
        die(errno, "cannot close inherited files (Linux 5.11 or newer is needed)");
}

/*
 * The kernel enlarges a full table of open files, and in a process with threads that waits for an
 * RCU grace period of up to tens of milliseconds. Node has threads, so the table, which outlives
 * exec, is enlarged here. A failure only costs that time.
 */
static void enlarge_file_table(void)
{
    int last = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, FILE_TABLE_SLOTS - 1);
    if (last >= 0)
        (void)close(last);
}

/* The raw call reaches the signals that libc reserves. */
void signals_by_default(void)
{
    /* zeros mean SIG_DFL, no flags and an empty mask, on every machine */
    static const unsigned char by_default[64];
    for (int number = 1; number <= KERNEL_SIGNALS; number++)
        (void)syscall(SYS_rt_sigaction, number, by_default, NULL, KERNEL_SIGSET_BYTES);
}

/*
 * Returns only on failure, with the errno. Ignored signals and the mask outlive exec, so both are
 * reset.
 */
static int execute(const struct node_program *program)
{
    sigset_t none;
    signals_by_default();
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    enlarge_file_table();
    /* execve does not write to argv; its prototype is older than const */
    (void)execve(program->node, (char *const *)(uintptr_t)program->argv, environ);
    return errno;
}

void node_exec(const struct node_call *call)
{
    struct node_program program = prepare(call);
    close_at_exec(STDERR_FILENO + 1);
    die(execute(&program), "cannot run \"%s\"", program.node);
}

void node_spawn(const struct node_call *call, int log_fd, int listen_fd)
{
    struct node_program program = prepare(call);
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    int ends[2], status = 0, reason = 0;
    if (null_fd < 0 || pipe2(ends, O_CLOEXEC) < 0)
        die(errno, "cannot open \"/dev/null\" and a pipe");
    close_at_exec(FD_LISTEN + 1);
    made.shim = fork();
    if (made.shim < 0)
        die(errno, "cannot start a process");
    if (made.shim == 0) {
        /*
         * main keeps these fds above FD_LISTEN; the pipe is closed by exec, or carries the errno of
         * its failure
         */
        if (setpgid(0, 0) < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(null_fd, STDOUT_FILENO) < 0 ||
            dup2(log_fd, FD_LOG) < 0 || dup2(listen_fd, FD_LISTEN) < 0)
            reason = errno;
        else if (strcmp(call->action, ACTION_WORK) == 0)
            keeper_run(call, program.node, (char **)(uintptr_t)program.argv, ends[1]);
        else
            reason = execute(&program);
        (void)write_whole(ends[1], &reason, sizeof reason);
        _exit(EXIT_FAILURE);
    }
    (void)close(ends[1]);
    if (read(ends[0], &reason, sizeof reason) != 0)
        die(reason, "cannot run \"%s\"", program.node);
    if (waitpid(made.shim, &status, WNOHANG) != 0) {
        made.shim = 0;
        die(0, "cannot start the shim process: it ended at once with wait status 0x%x", (unsigned)status);
    }
}
