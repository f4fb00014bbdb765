/*
 * The end of the plan: find the program, wait to be started, become it. Invariant: the program is found with its own credentials; what
 * follows may run behind its seccomp filter and makes no call but read, write, close and execve; and from then on no fd is open but the
 * program's own, the fifo, and the sockets to the runtime and to stage 0.
 */
#include "init.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define MAX_PASSWD_BYTES (1024 * 1024)

/* The runtime answers with one byte; end of file means that it gave up. */
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
 * A runtime that dies before it has written down what we are leaves nobody behind: we wait at the fifo only when its state is on disk.
 * That was the last word on the socket: who starts us may be another process, and a write to one that has gone would be a signal.
 */
int op_ready(struct ctx *c)
{
    int err = report(c, RECORD_READY) < 0 ? STOP : await_runtime(c);
    close_fd(&c->status);
    return err;
}

/* One line of passwd(5), "name:password:uid:gid:gecos:home:shell": true and the home, when the uid is ours. */
static bool home_of_line(char *line, uint32_t uid, char **ret_home)
{
    char *field[6], *end;
    for (int i = 0; i < 6; i++)
        field[i] = strsep(&line, ":");
    if (field[5] == NULL)
        return false;
    unsigned long number = strtoul(field[2], &end, 10);
    if (field[2][0] < '0' || field[2][0] > '9' || *end != 0 || number != uid)
        return false;
    *ret_home = field[5];
    return true;
}

/*
 * Who can influence: the image's file may be anything, also a device that does something when it is opened. So it is found inside the
 * root without opening it, must be a regular file, is read to a bound, and only the uid, a number that we know already, is looked for in
 * it. Pages of the text that nothing is read into cost nothing.
 */
static void find_home(struct ctx *c, uint32_t uid)
{
    static char text[MAX_PASSWD_BYTES + 2];
    struct stat st;
    (void)snprintf(c->home, sizeof c->home, "HOME=/");
    cleanup_fd int found = path_open(c->root, "/etc/passwd", O_PATH);
    if (found < 0 || sys_fstat(found, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    cleanup_fd int fd = proc_reopen(c, found, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    ssize_t size = fd < 0 ? fd : sys_read_full(fd, text, MAX_PASSWD_BYTES + 1);
    for (char *rest = text, *home = NULL, *line; (line = strsep(&rest, "\n")) != NULL;) {
        if (rest == NULL && size > MAX_PASSWD_BYTES) /* the bound has cut this line */
            return;
        if (home_of_line(line, uid, &home)) {
            if (home[0] != 0 && strlen(home) < PATH_MAX)
                (void)snprintf(c->home, sizeof c->home, "HOME=%s", home);
            return;
        }
    }
}

/* What stat and the permission bits say about executing `path`. EPERM and ENOSYS of faccessat2 may come from a filter: execve decides. */
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
        int used = snprintf(c->executable, sizeof c->executable, "%.*s/%s", (int)size, path, name);
        /* an empty or relative entry would mean the working directory, where the image's data is */
        if (path[0] == '/' && used > 0 && (size_t)used < sizeof c->executable && check_executable(c->executable) == 0)
            return 0;
        path += size;
        path += *path == ':';
    }
    return step(c, -ENOENT, "exec: \"%s\": executable file not found in $PATH", name);
}

/*
 * Closes all fds from `first` on that the rest of the plan does without: what execve resolves may be /proc/self/fd/N (CVE-2024-21626), and
 * a container that is only created should hold nothing of the host's. Here, because a filter that follows may forbid it.
 */
static void keep_few(struct ctx *c, unsigned first)
{
    const int kept[] = { c->status, c->sync, c->fifo };
    for (unsigned next = 0; next != ~0U; first = next + 1) {
        next = ~0U;
        for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
            if (kept[i] >= (int)first && (unsigned)kept[i] < next)
                next = (unsigned)kept[i];
        (void)sys_close_range(first, next - 1, 0); /* EINVAL where two lie side by side */
    }
    c->proc = c->own_fds = c->root = c->agent = c->null = c->empty = c->console = -1;
}

/*
 * A runtime without privileges must look at a created container's namespaces to run a further process in it, which it can only while we
 * are dumpable; here, because a filter that follows may forbid it. Who can influence: whoever has all power over our user namespace could
 * trace us until execve, and would hold nothing by that but the fifo of a container that is his. All else is closed by now.
 */
static void stay_visible(struct ctx *c)
{
    if (c->dumpable_for_runtime && c->fifo >= 0)
        (void)sys_prctl(PR_SET_DUMPABLE, 1, 0);
}

/*
 * Who can influence: names are the client's, files the image's. Privilege: normally the program's own by now. All of this happens in the
 * container's root; it only chooses words for a failure early, execve is what really checks.
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
    if (*home == NULL || (*home)[5] == 0) {
        find_home(c, op->uid);
        *home = c->home; /* at the end this is the spare slot; the one behind it stays NULL */
    }
    c->program = op;
    keep_few(c, 3 + c->plan->ops[c->plan->count - 1].exec.fds);
    stay_visible(c);
    if (strchr(name, '/') == NULL)
        return find_in_path(c, name, path);
    char text[64];
    int err = check_executable(name);
    if (err == 0 && (size_t)snprintf(c->executable, sizeof c->executable, "%s", name) >= sizeof c->executable)
        err = -ENAMETOOLONG;
    if (err == -EISDIR || err == -EACCES) /* some tools know only what execve says of a directory, and some what Go does */
        return step(c, err, "exec: \"%s\": %s%s", name, err == -EISDIR ? "is a directory: " : "", reason(-EACCES, text));
    return err < 0 ? step(c, err, "exec: \"%s\": stat %s: %s", name, name, reason(err, text)) : 0;
}

/*
 * The fifo is full until it is read by who starts us, and by then so is our byte: without that, nobody has taken the start. What is to be
 * told from now on is told there; it is closed by execve, which is how the reader learns of that. Records fit into it: nobody need read on.
 */
int op_await_start(struct ctx *c)
{
    int err = sys_write_all(c->fifo, "0", 1);
    close_fd(&c->status);
    c->status = take_fd(&c->fifo);
    return err < 0 ? step(c, err, "take the start from the exec fifo") : 0;
}

/*
 * Who can influence: argv, env and the path are the client's. The status fd, which lies above the program's fds, closes by itself when
 * execve succeeds, which is how the runtime learns of it. A runtime that is no longer listening is no reason to fail here; a stage 0 that
 * died before it said whose process this is, is one: nobody would know of the program.
 */
int op_exec(struct ctx *c, const struct op_exec *op)
{
    char text[64];
    (void)op; /* its fds are in their places since the beginning */
    if (await_announced(c) < 0)
        return STOP;
    (void)report(c, RECORD_EXECUTING);
    (void)execve(c->executable, c->program->args.v, c->program->env.v);
    int err = -errno;
    return step(c, err, "exec %s: %s", c->executable, reason(err, text));
}
