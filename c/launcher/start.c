/*
 * `start`: containerd runs it in the bundle and reads stdout and stderr until both are closed. In order:
 *
 *     options from stdin -> socket: name, folder, listen -> `address` file -> Node -> print
 *
 * Invariant: success prints the address and nothing else. Failure leaves no socket, address file or
 * process of its own. A killed `start` can leave a socket; the next start of that id replaces it.
 *
 * The shim process inherits its OOM score, core scheduling cookie, cgroup and umask. So the launcher sets
 * them on itself before it forks the shim.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef PR_SCHED_CORE
#define PR_SCHED_CORE 62
#endif
#ifndef PR_SCHED_CORE_CREATE
#define PR_SCHED_CORE_CREATE 1
#endif
#ifndef PR_SCHED_CORE_SCOPE_PROCESS_GROUP
#define PR_SCHED_CORE_SCOPE_PROCESS_GROUP 2
#endif

#define ADDRESS_TEMP ".address.tmp"

/* The command line wins. Newer daemons call its flags deprecated, so stdin fills the gaps. */
static void complete_settings(struct settings *settings, const struct bootstrap *given)
{
    if (!settings->id)
        settings->id = text_of(given->id);
    if (!settings->namespace)
        settings->namespace = text_of(given->namespace);
    if (!settings->address)
        settings->address = text_of(given->grpc_address);
    settings->debug = settings->debug || given->debug;
    check_identity(settings, "start");
    if (!settings->address || !*settings->address)
        die(0, "cannot start: -address, the path of containerd's socket, is missing");
}

static const char *find_ttrpc(const struct settings *settings, const struct bootstrap *given)
{
    const char *address = getenv("TTRPC_ADDRESS");
    if (!address || !*address)
        address = text_of(given->ttrpc_address);
    return address ? address : text("%s.ttrpc", settings->address);
}

static void write_address(const char *address)
{
    int fd = open(ADDRESS_TEMP, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    /* a killed start may have left the temporary file with another mode */
    if (fd < 0 || write_whole(fd, address, strlen(address)) < 0 || fchmod(fd, 0644) < 0 ||
        rename(ADDRESS_TEMP, BUNDLE_FILE_ADDRESS) < 0) {
        int reason = errno;

        (void)unlink(ADDRESS_TEMP);
        die(reason, "cannot write the file \"" BUNDLE_FILE_ADDRESS "\" in the bundle");
    }
}

/* If the daemon asks for core scheduling, the shim inherits the cookie of the process group. */
static void join_core_scheduling(void)
{
    const char *wish = getenv("SCHED_CORE");
    if (!wish || !*wish || strcmp(wish, "0") == 0 || strcmp(wish, "false") == 0)
        return;
    if (prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE, 0, PR_SCHED_CORE_SCOPE_PROCESS_GROUP, 0) < 0)
        die(errno, "cannot create a core scheduling cookie (SCHED_CORE=%s)", wish);
}

/*
 * One more than the score of the parent: the kernel then kills the shim before the daemon, and
 * usually after a container. If the parent is gone or hidden, the launcher's own score was
 * inherited from it. Only a lower score needs a privilege. Returns the score.
 */
static int raise_oom_score(void)
{
    int from = open(text("/proc/%d/oom_score_adj", getppid()), O_RDONLY | O_CLOEXEC);
    int own = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    char score[16] = "";
    const char *wanted;
    if ((from < 0 || read_up_to(from, score, sizeof score - 1) <= 0) &&
        (own < 0 || read_up_to(own, score, sizeof score - 1) <= 0))
        die(errno, "cannot read \"/proc/self/oom_score_adj\"");
    wanted = text("%d", atoi(score) < OOM_SCORE_LIMIT ? atoi(score) + 1 : OOM_SCORE_LIMIT);
    if (own < 0 || (pwrite(own, wanted, strlen(wanted), 0) < 0 && errno != EACCES && errno != EPERM))
        die(errno, "cannot set the shim's oom_score_adj to %s", wanted);
    return atoi(wanted);
}

/*
 * containerd reads this fifo while it runs. If it does not, the shim holds the read end open
 * itself. A missing log is no reason to refuse a container. Opening and writing never block.
 */
static int open_log(void)
{
    int fd = open(BUNDLE_FILE_LOG, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 && errno == ENXIO)
        fd = open(BUNDLE_FILE_LOG, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        die(errno, "cannot open \"/dev/null\"");
    return fd;
}

void launcher_start(struct settings *settings)
{
    mode_t inherited_umask = umask(0); /* every mode below is exact */
    struct slice options = read_stdin();
    struct node_call call = {.settings = settings, .action = getenv(VARIABLE_KEEPER) ? ACTION_WORK : ACTION_SERVE};
    const char *address, *shim_cgroup;
    struct bootstrap given;
    int log_fd, listen_fd;
    (void)signal(SIGPIPE, SIG_IGN); /* a closed stdout is an error like any other */
    if (!wire_parse_bootstrap(options, settings->id, &given))
        die(0, "cannot read the options on stdin: neither BootstrapParams nor google.protobuf.Any");
    complete_settings(settings, &given);
    call.bundle = getcwd(NULL, 0);
    if (!call.bundle)
        die(errno, "cannot name the bundle, the current folder");
    call.ttrpc = find_ttrpc(settings, &given);
    call.socket = socket_path(settings, text_of(given.socket_dir));
    address = text(SOCKET_SCHEME "%s", call.socket);
    log_fd = open_log();

    listen_fd = socket_listen(call.socket);
    if (listen_fd >= 0)
        failpoint("launch:socket");
    write_address(address);
    if (listen_fd >= 0) { /* otherwise a shim already serves this id: its address is the answer */
        failpoint("launch:address");
        call.oom_score = raise_oom_score();
        join_core_scheduling();
        shim_cgroup = text_of(given.shim_cgroup);
        if (shim_cgroup)
            cgroup_enter(shim_cgroup);
        (void)umask(inherited_umask);
        node_spawn(&call, log_fd, listen_fd);
        failpoint("launch:spawned");
    }
    print("the address", address, strlen(address));
}
