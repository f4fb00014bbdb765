/*
 * Hooks that run in the container's namespaces. createContainer runs a program before the root
 * changes. startContainer runs a program of the image, with the credentials of the container's
 * program and behind its filter. Invariants: a hook gets three pipes and no other fd. Whatever it
 * prints, leaves running or does not read costs a fixed amount of memory and, with a timeout, of
 * time. Until the container is started, a hook ends when the runtime is gone.
 */
#include "init.h"

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

/*
 * The pipes, in the order of the hook's fds. The last one is closed by a successful execve;
 * otherwise it carries the errno.
 */
enum { IN, OUT, ERR, UNEXECUTED, PIPES };

/*
 * After the hook's end at most 1 MiB is read, the largest pipe (fs.pipe-max-size). A process that
 * the hook has left may go on writing.
 */
#define READ_BYTES 16384
#define LAST_READS 64

struct tail {
    size_t size;
    char text[LIMIT_HOOK_OUTPUT_MAX_BYTES + 1];
};

struct hook {
    pid_t pid;
    int status;
    bool timed_out;
    struct pollfd ours[PIPES + 1]; /* the last one is the status socket */
    struct plan_str state[3];      /* what is left to be written of each part */
    unsigned part;                 /* the part of the state that is being written */
    struct tail tails[PIPES];
};

static void keep_tail(struct tail *tail, const char *bytes, size_t size)
{
    const size_t most = LIMIT_HOOK_OUTPUT_MAX_BYTES;
    if (size > most) {
        bytes += size - most;
        size = most;
    }
    size_t old = tail->size < most - size ? tail->size : most - size;
    memmove(tail->text, tail->text + tail->size - old, old);
    memcpy(tail->text + old, bytes, size);
    tail->size = old + size;
}

/* The text for the error: without a NUL and without newlines at its end. */
static const char *tail_text(struct tail *tail)
{
    while (tail->size > 0 && tail->text[tail->size - 1] == '\n')
        tail->size--;
    tail->text[tail->size] = 0;
    for (size_t i = 0; i < tail->size; i++)
        tail->text[i] = tail->text[i] == 0 ? ' ' : tail->text[i];
    return tail->text;
}

/*
 * A pipe that poll reports writable takes PIPE_BUF bytes without blocking. A hook need not read its
 * state: SIGPIPE is caught.
 */
static void write_state(struct hook *h)
{
    while (h->part < 3 && h->state[h->part].len == 0)
        h->part++;
    if (h->part < 3) {
        struct plan_str *state = &h->state[h->part];
        ssize_t wrote = write(h->ours[IN].fd, state->s, state->len < PIPE_BUF ? state->len : PIPE_BUF);
        if (wrote < 0 && errno == EINTR)
            return;
        if (wrote > 0) {
            state->s += wrote;
            state->len -= (uint32_t)wrote;
            return;
        }
    }
    close_fd(&h->ours[IN].fd);
}

static void read_output(struct hook *h, int which)
{
    char bytes[READ_BYTES];
    ssize_t got = read(h->ours[which].fd, bytes, sizeof bytes);
    if (got > 0)
        keep_tail(&h->tails[which], bytes, (size_t)got);
    else if (got == 0 || errno != EINTR)
        close_fd(&h->ours[which].fd);
}

static int64_t now_ns(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void kill_hook(const struct hook *h)
{
    (void)kill(-h->pid, SIGKILL);
    (void)kill(h->pid, SIGKILL); /* it may not have made its group yet */
}

/*
 * Serves the pipes until the hook has ended, or until the runtime is gone. SIGCHLD is blocked
 * except in ppoll, so no end between two looks is missed. A pidfd would tell it too, but there are
 * filters that do not know pidfd_open.
 */
static int serve_hook(struct hook *h, uint32_t timeout)
{
    const int64_t deadline = now_ns() + (int64_t)timeout * 1000000000;
    sigset_t none;
    (void)sigemptyset(&none);
    bool ended = false;
    for (int rounds = 0; rounds < LAST_READS; rounds += ended) {
        int64_t left = ended ? 0 : deadline - now_ns();
        if (!ended && timeout > 0 && left <= 0) {
            h->timed_out = true;
            kill_hook(h);
            left = 0;
        }
        if (!ended) {
            pid_t got = waitpid(h->pid, &h->status, h->timed_out ? 0 : WNOHANG);
            if (got < 0 && errno != EINTR)
                return -errno;
            ended = got == h->pid;
            left = ended ? 0 : left;
        }
        struct timespec wait = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
        int ready = ppoll(h->ours, PIPES + 1, ended || timeout > 0 ? &wait : NULL, &none);
        if (ready < 0 && errno != EINTR)
            return -errno;
        if (ready <= 0 && ended)
            return 0;
        if (ready > 0 && !ended && h->ours[PIPES].revents != 0)
            return STOP;
        for (int i = 0; ready > 0 && i < PIPES; i++) {
            if (h->ours[i].fd < 0 || h->ours[i].revents == 0)
                continue;
            if (i == IN)
                write_state(h);
            else
                read_output(h, i);
        }
    }
    return 0;
}

/*
 * Attacker: path, argv and env are the client's.
 * Privilege held: that of the container's process at this point of the plan.
 * Order matters because: the directory is entered while its fd is open. All other fds are closed
 *   before the path is resolved, because it may be /proc/self/fd/N (CVE-2024-21626). The signal
 *   mask is last. As undumpable as its parent until execve, which makes a new memory. Until the
 *   container is started it dies with its parent, which may be killed where no pid namespace and no
 *   cgroup would end it.
 */
static _Noreturn void become_hook(const struct ctx *c, pid_t parent, const char *path, char **argv, char **env,
                                  int pipes[PIPES][2])
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)setpgid(0, 0);
    if (c->fifo >= 0 && (sys_prctl(PR_SET_PDEATHSIG, SIGKILL, 0) < 0 || getppid() != parent))
        _exit(127);
    int err = c->inside.cwd_done ? 0 : sys_result(fchdir(c->inside.root));
    for (int fd = 0; fd < UNEXECUTED && err >= 0; fd++)
        err = sys_result(dup3(pipes[fd][fd == IN ? 0 : 1], fd, 0));
    if (err >= 0 && pipes[UNEXECUTED][1] != UNEXECUTED)
        err = sys_result(dup3(pipes[UNEXECUTED][1], UNEXECUTED, O_CLOEXEC));
    sys_close_from(PIPES);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (err >= 0) {
        (void)execve(path, argv, env);
        err = -errno;
    }
    (void)sys_write_all(UNEXECUTED, &err, sizeof err);
    _exit(127);
}

static int start_hook(const struct ctx *c, struct hook *h, const struct op_hook *op)
{
    char *alone[] = {(char *)(uintptr_t)op->path.s, NULL};
    bool as_program = op->env.count == 1 && op->env.v[0][0] == 0;
    char **argv = op->args.count > 0 ? op->args.v : alone;
    char **env = as_program && c->inside.program ? c->inside.program->env.v : op->env.v;
    int pipes[PIPES][2], err = as_program && !c->inside.program ? -EINVAL : 0, made = 0;
    while (made < PIPES && err == 0) {
        err = sys_result(pipe2(pipes[made], O_CLOEXEC));
        made += err == 0;
    }
    pid_t self = getpid();
    h->pid = err < 0 ? err : sys_result(fork());
    if (h->pid == 0)
        become_hook(c, self, op->path.s, argv, env, pipes);
    for (int i = 0; i < made; i++) {
        h->ours[i] = (struct pollfd){.fd = pipes[i][i == IN ? 1 : 0], .events = i == IN ? POLLOUT : POLLIN};
        (void)close(pipes[i][i == IN ? 0 : 1]);
    }
    return h->pid < 0 ? h->pid : 0;
}

/*
 * Says what went wrong in the words that tools know. The sentence is complete; its errno only has
 * to be other than zero.
 */
static int explain(struct ctx *c, struct hook *h, const struct op_hook *op, int err)
{
    char text[64], why[96];
    if (err == 0 && h->tails[UNEXECUTED].size == sizeof err) {
        memcpy(&err, h->tails[UNEXECUTED].text, sizeof err);
        return fail_if(c, err, "error running %s hook #%u: exec %s: %s", op->name.s, op->index, op->path.s,
                       reason(err, text));
    }
    if (err < 0)
        return fail_if(c, err, "error running %s hook #%u: %s", op->name.s, op->index, reason(err, text));
    if (!h->timed_out && WIFEXITED(h->status) && WEXITSTATUS(h->status) == 0)
        return 0;
    if (h->timed_out)
        (void)snprintf(why, sizeof why, "timed out after %u s", op->timeout);
    else if (WIFSIGNALED(h->status))
        (void)snprintf(why, sizeof why, "signal: %s", words(strsignal(WTERMSIG(h->status)), text));
    else
        (void)snprintf(why, sizeof why, "exit status %d", WEXITSTATUS(h->status));
    return fail_if(c, h->timed_out ? -ETIMEDOUT : -ECANCELED, "error running %s hook #%u: %s, stdout: %s, stderr: %s",
                   op->name.s, op->index, why, tail_text(&h->tails[OUT]), tail_text(&h->tails[ERR]));
}

int op_hook(struct ctx *c, const struct op_hook *op)
{
    char pid[16];
    sigset_t child_ended, before;
    if (await_announced(c) < 0) /* the runtime must know this process first */
        return STOP;
    uint32_t size = (uint32_t)snprintf(pid, sizeof pid, "%d", (int)getpid());
    struct hook h = {.state = {op->state_head, {.s = pid, .len = size}, op->state_tail}};
    for (int i = 0; i < PIPES; i++)
        h.ours[i].fd = -1;
    h.ours[PIPES] = (struct pollfd){.fd = c->fifo >= 0 ? c->status : -1, .events = POLLRDHUP};
    (void)sigemptyset(&child_ended);
    (void)sigaddset(&child_ended, SIGCHLD);
    int err = sys_result(sigprocmask(SIG_BLOCK, &child_ended, &before));
    if (err == 0)
        err = start_hook(c, &h, op);
    if (err == 0)
        err = serve_hook(&h, op->timeout);
    if (err != 0 && h.pid > 0) { /* a filter may refuse waitpid or ppoll */
        kill_hook(&h);
        (void)waitpid(h.pid, NULL, 0);
    }
    for (int i = 0; i < PIPES; i++)
        close_fd(&h.ours[i].fd);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return err == STOP ? STOP : explain(c, &h, op, err);
}
