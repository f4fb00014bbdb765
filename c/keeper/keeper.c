/*
 * The keeper: one per container, from the launcher's `start` to the container's end. It listens,
 * accepts and keeps connections, holds descriptors under keys, spawns and reaps, remembers exits,
 * and gets a worker whenever something happens while there is none. It knows no protocol, no
 * container and no policy: a worker may die at any moment, and the next one finds everything here.
 *
 * Invariants: it blocks in poll only. It ends when a worker says so, or when no worker can be had and
 * no child is left.
 */
#include "keeper.h"

#include <stdio.h>
#include <sys/signalfd.h>

#define MS UINT64_C(1000000) /* in nanoseconds */

/*
 * The price of a worker's end. A worker is started when less than MOST_DEBT is owed, and time pays.
 * So one death costs nothing, and a worker that dies again and again has a bounded share of a
 * processor.
 */
#define MOST_DEBT (8000 * MS)
#define DEBT_OF_PARK (100 * MS)
#define DEBT_OF_DEATH (1000 * MS)
#define DEBT_BEFORE_READY (4000 * MS)
/* So many workers in a row that never got ready show that none can be had. */
#define MOST_FAILURES 5
/* How long no connection is accepted after the system had no room for one. */
#define ACCEPT_PAUSE (500 * MS)

/* One line in containerd's form. Without a reader or without room it is lost. */
#define LOG(format, ...) \
    ((void)dprintf(STDERR_FILENO, "level=warning msg=\"" format "\" id=%s\n", __VA_ARGS__, start->settings->id))

#define HAS_ROOM (kept_count < KEPT_MAX / 2)

#define REPORT_FD 4

enum { SIGNALS_AT, LISTENER_AT, WORKER_AT, KEPT_AT };

static const struct node_call *start;
static struct spawn command;
static int signals_fd, state_fd;
static uint64_t paid_off, accept_after; /* CLOCK_MONOTONIC; 0: long ago */
static unsigned failures;

uint64_t clock_now(clockid_t clock)
{
    struct timespec time;
    (void)clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000 * MS + (uint64_t)time.tv_nsec;
}

/* Only a death before the worker was ready is a failure: others may have been caused from outside. */
static void owe(bool ready, uint64_t price)
{
    uint64_t time = clock_now(CLOCK_MONOTONIC);
    failures = ready ? 0 : failures + 1;
    paid_off = (paid_off > time ? paid_off : time) + price;
}

/* A worker is dead, and what it has sent before is carried out, but for spawns. */
static void on_worker_end(int status)
{
    pid_t pid = worker.pid;
    worker.pid = 0;
    while (worker.socket >= 0 && worker_read() > 0)
        ;
    worker_disconnect();
    const uint32_t ready = worker.status.flags & STATUS_READY, parks = worker.status.flags & STATUS_PARKS;
    owe(ready, !ready ? DEBT_BEFORE_READY : parks ? DEBT_OF_PARK : DEBT_OF_DEATH);
    worker.go.reasons = parks ? 0 : REASON_DEATH;
    worker.go.deaths += parks ? 0 : 1;
    if (!parks && !(worker.status.flags & STATUS_QUIT))
        LOG("worker %d ended with wait status 0x%x%s: the next one takes over", pid, (unsigned)status,
            ready ? "" : ", before it was ready");
}

/*
 * The worker comes first, because a full table must not hide its end. What the table cannot take
 * stays a zombie until an exit is acknowledged.
 */
static void reap(void)
{
    int status;
    pid_t pid;
    if (worker.pid > 0 && waitpid(worker.pid, &status, WNOHANG) > 0)
        on_worker_end(status);
    while (process_count < PROCESSES_MAX && (pid = waitpid(-1, &status, WNOHANG)) > 0)
        pid == worker.pid ? on_worker_end(status) : process_ended(pid, status);
    if (ended_count > 0)
        worker.go.reasons |= REASON_EXIT;
}

/* SIGCHLD needs no more than the end of poll, and SIGPIPE comes from a log without a reader. */
static void read_signals(void)
{
    struct signalfd_siginfo info;
    while (read(signals_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD || info.ssi_signo == SIGPIPE || info.ssi_signo >= 64)
            continue;
        worker.go.signals |= UINT64_C(1) << info.ssi_signo;
        worker.taught = 0;
    }
}

static void accept_all(void)
{
    static uint32_t count;
    int fd;
    while (HAS_ROOM && (fd = accept4(FD_LISTEN, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
        (void)keep(FIRST_CONNECTION_KEY | count++, fd, POLLIN, false); /* cannot fail: there is room */
    if (HAS_ROOM && errno != EAGAIN && errno != ECONNABORTED)
        accept_after = clock_now(CLOCK_MONOTONIC) + ACCEPT_PAUSE;
}

/* When the wait for events ends by itself; UINT64_MAX: never. */
static uint64_t next_time(void)
{
    uint64_t time = accept_after != 0 ? accept_after : UINT64_MAX, wake = UINT64_MAX;
    if (worker.pid == 0 && worker.go.reasons != 0)
        wake = paid_off > MOST_DEBT ? paid_off - MOST_DEBT : 0;
    else if (worker.pid == 0 && worker.status.wake_at != 0)
        wake = worker.status.wake_at;
    return wake < time ? wake : time;
}

static void wait_for_events(void)
{
    static struct pollfd polled[KEPT_AT + KEPT_MAX];
    const short wanted = (short)((worker.answer.code == 0 ? POLLIN : 0) | (worker.behind ? POLLOUT : 0));
    uint64_t until = next_time(), time = clock_now(CLOCK_MONOTONIC),
             wait = until > time ? (until - time + MS - 1) / MS : 0;
    nfds_t count = KEPT_AT;
    accept_after = accept_after > time ? accept_after : 0;
    polled[SIGNALS_AT] = (struct pollfd){.fd = signals_fd, .events = POLLIN};
    polled[LISTENER_AT] = (struct pollfd){.fd = accept_after == 0 && HAS_ROOM ? FD_LISTEN : -1, .events = POLLIN};
    polled[WORKER_AT] = (struct pollfd){.fd = worker.socket, .events = wanted};
    for (uint32_t i = 0; worker.pid == 0 && worker.go.reasons == 0 && i < kept_count; i++) {
        if (kept[i].events != 0) /* poll reports a hang-up even if no event is asked for */
            polled[count++] = (struct pollfd){.fd = kept[i].fd, .events = (short)kept[i].events};
    }
    if (poll(polled, count, wait < INT32_MAX ? (int)wait : until == UINT64_MAX ? -1 : INT32_MAX) < 0)
        return;
    for (nfds_t i = KEPT_AT; i < count; i++) {
        if (polled[i].revents != 0)
            worker.go.reasons |= REASON_EVENT;
    }
    if (polled[SIGNALS_AT].revents != 0)
        read_signals();
    if (polled[LISTENER_AT].revents != 0)
        accept_all();
    if (polled[WORKER_AT].revents != 0 && worker_read() < 0) {
        (void)kill(worker.pid, SIGKILL); /* it has closed its socket, and is of no use; its exit follows */
        worker_disconnect();
    }
}

/* Gives up if no worker can be had, and no process is left that would need one. */
static void start_if_wanted(void)
{
    uint64_t time = clock_now(CLOCK_MONOTONIC);
    siginfo_t info;
    if (failures >= MOST_FAILURES && waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0) {
        LOG("cannot get a worker %u times, and no process is left: the shim ends", failures);
        (void)unlink(start->socket);
        _exit(EXIT_FAILURE);
    }
    if (worker.status.wake_at != 0 && time >= worker.status.wake_at)
        worker.go.reasons |= REASON_TIME;
    if (worker.go.signals != 0)
        worker.go.reasons |= REASON_SIGNAL;
    if (worker.go.reasons == 0 || paid_off > time + MOST_DEBT)
        return;
    const int reason = worker_start(&command, state_fd);
    if (reason != 0) {
        LOG("cannot start a worker: %s", strerror(reason));
        owe(false, DEBT_BEFORE_READY);
    }
}

/*
 * What ps shows is memory whose place the kernel lets a process choose, together with all the others
 * that /proc/self/stat (proc_pid_stat(5)) tells. Kernels without CONFIG_CHECKPOINT_RESTORE refuse it;
 * the command line then stays that of the launcher, which names the container too.
 */
static void show_title(const struct settings *settings)
{
    const char *title = text(PROGRAM " -" FLAG_NAMESPACE " %s -" FLAG_ID " %s -" FLAG_ADDRESS " %s",
                             settings->namespace, settings->id, settings->address);
    struct prctl_mm_map map = {.exe_fd = UINT32_MAX, .brk = (uintptr_t)sbrk(0)};
    __typeof__(map.brk) *const places[52] = {
        [26] = &map.start_code, [27] = &map.end_code,  [28] = &map.start_stack, [45] = &map.start_data,
        [46] = &map.end_data,   [47] = &map.start_brk, [50] = &map.env_start,   [51] = &map.env_end,
    };
    char stat[1024] = "";
    int at = 1, fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    (void)prctl(PR_SET_NAME, "containerd-shim", 0, 0, 0); /* without the blank that another name may have */
    (void)!read(fd, stat, sizeof stat - 1);
    for (char *word = strtok(stat, " "); word; word = strtok(NULL, " "), at++) {
        if (at < 52 && places[at])
            *places[at] = strtoull(word, NULL, 10);
    }
    (void)close(fd);
    map.arg_start = (uintptr_t)title;
    map.arg_end = map.arg_start + strlen(title) + 1;
    (void)prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0);
}

static int prepare(const char *node, char **argv, int report)
{
    const struct state_head head = {.magic = STATE_MAGIC, .version = KEEPER_VERSION, .keeper = getpid()};
    sigset_t all;
    signals_by_default();
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    /* it listens itself, so that SO_PEERCRED of a client names it */
    if (dup2(report, REPORT_FD) < 0 || syscall(SYS_close_range, REPORT_FD + 1, ~0u, 0) < 0 ||
        fcntl(FD_LISTEN, F_SETFD, FD_CLOEXEC) < 0 || fcntl(FD_LISTEN, F_SETFL, O_NONBLOCK) < 0 ||
        listen(FD_LISTEN, LIMIT_BACKLOG) < 0 || chdir("/") < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0 ||
        getrlimit(RLIMIT_NOFILE, &inherited_files) < 0)
        return errno;
    (void)setrlimit(RLIMIT_NOFILE, &(struct rlimit){inherited_files.rlim_max, inherited_files.rlim_max});
    /* all others come above the numbers of streams, see spawn.c */
    while (fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0) < (int)STREAMS_MAX)
        ;
    signals_fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    worker.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    state_fd = memfd_create("shim-state", MFD_CLOEXEC);
    if (signals_fd < 0 || worker.bell < 0 || write(state_fd, &head, sizeof head) != (ssize_t)sizeof head)
        return errno;
    command = (struct spawn){.path = node, .cwd = "", .argv = argv, .env = environ, .program = AT_FDCWD};
    command.own_group = true;
    command.oom_score = text("%d", start->oom_score < OOM_SCORE_LIMIT ? start->oom_score + 1 : OOM_SCORE_LIMIT);
    worker.go = (struct notice_go){.code = NOTICE_GO, .reasons = REASON_START};
    show_title(start->settings);
    return worker_start(&command, state_fd);
}

_Noreturn void keeper_run(const struct node_call *call, const char *node, char **argv, int report)
{
    start = call;
    const int reason = prepare(node, argv, report);
    if (reason != 0) {
        (void)!write(REPORT_FD, &reason, sizeof reason);
        _exit(EXIT_FAILURE);
    }
    (void)dup3(STDIN_FILENO, REPORT_FD, O_CLOEXEC); /* closes it */
    for (;;) {
        worker_tell();
        wait_for_events();
        reap();
        /* not before the worker has ended, so that nothing is left of the two when the keeper is gone */
        if (worker.status.flags & STATUS_QUIT && (worker.pid == 0 || kill(worker.pid, SIGKILL) < 0))
            _exit(EXIT_SUCCESS);
        if (worker.pid == 0)
            start_if_wanted();
    }
}
