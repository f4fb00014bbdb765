/*
 * The end of the plan: find the program, wait for the start, become the program. Invariants: the
 * program is looked up with its own credentials. From then on only the program's fds, the fifo, and
 * the sockets to the runtime and to stage 0 are open. Once the filter is loaded, only read, write,
 * close and execve are called, besides the last steps of op_seccomp and what a startContainer hook
 * needs.
 */
#include "init.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define MAX_PASSWD_BYTES (1024 * 1024)

/* The runtime answers with one byte. End of file means that it has given up. */
int await_runtime(const struct ctx *c)
{
    char byte;
    return sys_read_full(c->status, &byte, 1) == 1 ? 0 : STOP;
}

int op_sync(struct ctx *c, const struct op_sync *op)
{
    return report_u32(c, RECORD_REACHED, op->point) < 0 ? STOP : await_runtime(c);
}

/*
 * Waits until the runtime has written the state to disk. If the runtime dies earlier, this process
 * ends too. Then the socket is closed, because another process may start the container. A write to
 * a socket whose reader is gone raises SIGPIPE, and a filter may refuse the return from its
 * handler.
 */
int op_ready(struct ctx *c)
{
    int err = report(c, RECORD_READY) < 0 ? STOP : await_runtime(c);
    close_fd(&c->status);
    return err;
}

/* Parses a line of passwd(5), "name:password:uid:gid:gecos:home:shell". True if the uid matches. */
static bool home_of_line(char *line, uint32_t uid, char **ret_home)
{
    char *field[6], *end;
    for (int i = 0; i < 6; i++)
        field[i] = strsep(&line, ":");
    if (!field[5])
        return false;
    unsigned long number = strtoul(field[2], &end, 10);
    if (field[2][0] < '0' || field[2][0] > '9' || *end != 0 || number != uid)
        return false;
    *ret_home = field[5];
    return true;
}

/*
 * Attacker: the image's /etc/passwd may be any file, even a device that acts when it is opened.
 * Privilege held: what is left after op_credentials, and the fds of this process.
 * Order matters because: the file is found without opening it, and must be a regular file. It is
 *   read up to a bound, and only the line of the given uid is used. Unread pages of the buffer cost
 *   no memory.
 */
static void find_home(struct ctx *c, uint32_t uid)
{
    static char text[MAX_PASSWD_BYTES + 2];
    struct stat st;
    (void)snprintf(c->inside.home, sizeof c->inside.home, "HOME=/");
    cleanup_fd int found = path_open(c->inside.root, "/etc/passwd", O_PATH);
    if (found < 0 || sys_fstat(found, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    cleanup_fd int fd = proc_reopen(&c->procfs, found, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    ssize_t size = fd < 0 ? fd : sys_read_full(fd, text, MAX_PASSWD_BYTES + 1);
    for (char *rest = text, *home = NULL, *line; (line = strsep(&rest, "\n"));) {
        if (!rest && size > MAX_PASSWD_BYTES) /* the bound has cut this line */
            return;
        if (home_of_line(line, uid, &home)) {
            if (home[0] != 0 && strlen(home) < PATH_MAX)
                (void)snprintf(c->inside.home, sizeof c->inside.home, "HOME=%s", home);
            return;
        }
    }
}

/*
 * Checks `path` by stat and access. EPERM and ENOSYS of faccessat2 may come from a filter of an
 * outer container, and are left to execve.
 */
static int check_executable(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    int err = sys_result(syscall(__NR_faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS));
    return err == -EPERM || err == -ENOSYS ? 0 : err;
}

static int find_in_path(struct ctx *c, const char *name, const char *path)
{
    while (*path != 0) {
        size_t size = strcspn(path, ":");
        int used = snprintf(c->inside.executable, PATH_MAX, "%.*s/%s", (int)size, path, name);
        /* an empty or relative entry would mean the working directory, which the image fills */
        if (path[0] == '/' && used > 0 && used < PATH_MAX && check_executable(c->inside.executable) == 0)
            return 0;
        path += size;
        path += *path == ':';
    }
    return fail_if(c, -ENOENT, "exec: \"%s\": executable file not found in $PATH", name);
}

/*
 * Closes all fds from `first` on, except those that the rest of the plan needs. execve may resolve
 * /proc/self/fd/N (CVE-2024-21626), and a created container must hold no fd of the host. It happens
 * here because a later filter may forbid it.
 */
static void keep_few(struct ctx *c, unsigned first)
{
    const int kept[] = {c->status, c->sync, c->fifo};
    for (unsigned next = 0; next != ~0U; first = next + 1) {
        next = ~0U;
        for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
            if (kept[i] >= (int)first && (unsigned)kept[i] < next)
                next = (unsigned)kept[i];
        (void)sys_close_range(first, next - 1, 0); /* EINVAL for two neighbours */
    }
    c->procfs.host = c->procfs.fds = c->inside.root = c->agent = c->inside.null = c->inside.empty = c->console = -1;
}

/*
 * A runtime without CAP_SYS_PTRACE must open the namespaces of a created container to run a further
 * process in it. It can do so only while this process is dumpable. A later filter may forbid the
 * call, so it is made here.
 *
 * Attacker: processes with power over this user namespace could trace this one until execve.
 * Privilege held: the program's own, and the fifo of a container of the same user.
 * Order matters because: keep_few has closed all other fds.
 */
static void stay_visible(struct ctx *c)
{
    if (c->dumpable_for_runtime && c->fifo >= 0)
        (void)sys_prctl(PR_SET_DUMPABLE, 1, 0);
}

/*
 * Finds the program. The checks only give an early failure its words; execve is what decides.
 *
 * Attacker: names are the client's, files the image's.
 * Privilege held: normally the program's own by now.
 * Order matters because: the root is the container's, so no name leads to the host.
 */
int op_program(struct ctx *c, const struct op_program *op)
{
    const char *path = DEFAULT_PATH, *name = op->args.v[0];
    char **home = &op->env.v[op->env.count];
    bool have_path = false;
    for (uint32_t i = 0; i < op->env.count; i++) {
        if (!have_path && strncmp(op->env.v[i], "PATH=", 5) == 0) {
            path = op->env.v[i] + 5;
            have_path = true;
        }
        if (strncmp(op->env.v[i], "HOME=", 5) == 0)
            home = &op->env.v[i];
    }
    if (!*home || (*home)[5] == 0) {
        find_home(c, op->uid);
        *home = c->inside.home; /* at the end this is the spare slot; the next one stays NULL */
    }
    c->inside.program = op;
    keep_few(c, 3 + c->plan->ops[c->plan->count - 1].exec.fds);
    stay_visible(c);
    if (!strchr(name, '/'))
        return find_in_path(c, name, path);
    char text[64];
    int err = check_executable(name);
    if (err == 0 && (size_t)snprintf(c->inside.executable, PATH_MAX, "%s", name) >= PATH_MAX)
        err = -ENAMETOOLONG;
    /* tools look for the words of execve, and of Go */
    if (err == -EISDIR || err == -EACCES)
        return fail_if(c, err, "exec: \"%s\": %s%s", name, err == -EISDIR ? "is a directory: " : "",
                       reason(-EACCES, text));
    return err < 0 ? fail_if(c, err, "exec: \"%s\": stat %s: %s", name, name, reason(err, text)) : 0;
}

/*
 * The write returns once the starter has read the full fifo empty; the byte tells the starter that
 * the start was taken. Later records go to the fifo too. execve closes it, which tells the reader
 * of success. The records fit into the fifo, so they are written even if the starter reads no
 * further.
 */
int op_await_start(struct ctx *c)
{
    int err = sys_write_all(c->fifo, "0", 1);
    close_fd(&c->status);
    c->status = take_fd(&c->fifo);
    return fail_if(c, err, "take the start from the exec fifo");
}

/*
 * execve closes the status fd, which tells the runtime of success. If the runtime no longer
 * listens, the program is executed all the same. But if stage 0 died before it reported this
 * process, the runtime could not know the program, so it is not executed.
 *
 * Attacker: argv, env and the path are the client's.
 * Privilege held: the program's own.
 * Order matters because: executing is reported before execve, and only a failure after it.
 */
int op_exec(struct ctx *c, const struct op_exec *op)
{
    char text[64];
    (void)op; /* its fds have been in place since settle_fds */
    if (await_announced(c) < 0)
        return STOP;
    (void)report(c, RECORD_EXECUTING);
    (void)execve(c->inside.executable, c->inside.program->args.v, c->inside.program->env.v);
    int err = -errno;
    return fail_if(c, err, "exec %s: %s", c->inside.executable, reason(err, text));
}
