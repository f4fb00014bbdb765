/*
 * `start`: containerd runs it in the bundle and reads stdout and stderr together until both are closed. In order:
 *
 *     options from stdin -> socket: name, folder, listen -> `address` file -> Node with the socket as fd 3 -> print
 *
 * Invariant: success prints the address and nothing else; failure leaves no socket, no address file and no process.
 * A killed `start` can leave a socket behind; the next one of that id replaces it.
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
#include <sys/wait.h>
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

static int read_options(const struct settings *settings, struct bootstrap *ret, struct failure *failure)
{
    cleanup_free uint8_t *bytes = NULL;
    size_t size;

    *ret = (struct bootstrap){0};
    if (isatty(STDIN_FILENO))
        return 0;
    if (read_whole(STDIN_FILENO, "the options on stdin", STDIN_LIMIT_BYTES, &bytes, &size, failure) < 0)
        return -1;
    return size == 0 ? 0 : bootstrap_parse(bytes, size, settings->id, ret, failure);
}

/* The command line wins; newer daemons call its flags deprecated, so what stdin says fills the gaps. */
static int complete_settings(struct settings *settings, const struct bootstrap *bootstrap, struct failure *failure)
{
    if (!settings->id)
        settings->id = bootstrap->id;
    if (!settings->namespace)
        settings->namespace = bootstrap->namespace;
    if (!settings->address)
        settings->address = bootstrap->grpc_address;
    settings->debug = settings->debug || bootstrap->debug;

    if (!settings->id || !is_identifier(settings->id))
        return fail(failure, 0, "cannot start: -id \"%s\" is not a container id", settings->id ? settings->id : "");
    if (!settings->namespace || !is_identifier(settings->namespace))
        return fail(failure, 0, "cannot start: -namespace \"%s\" is not a namespace",
                    settings->namespace ? settings->namespace : "");
    if (!settings->address || !*settings->address)
        return fail(failure, 0, "cannot start: -address, the path of containerd's socket, is missing");
    return 0;
}

static int find_ttrpc(const struct settings *settings, const struct bootstrap *bootstrap, char ret[static PATH_MAX],
                      struct failure *failure)
{
    const char *given = getenv("TTRPC_ADDRESS");
    int n;

    if (!given || !*given)
        given = bootstrap->ttrpc_address;
    n = given ? snprintf(ret, PATH_MAX, "%s", given) : snprintf(ret, PATH_MAX, "%s.ttrpc", settings->address);
    if (n < 0 || n >= PATH_MAX)
        return fail(failure, ENAMETOOLONG, "cannot use containerd's ttrpc address");
    return 0;
}

/* Core scheduling asked for by the daemon: the cookie of our process group is inherited by the shim. */
static int join_core_scheduling(struct failure *failure)
{
    const char *wish = getenv("SCHED_CORE");

    if (!wish || !*wish || strcmp(wish, "0") == 0 || strcmp(wish, "false") == 0)
        return 0;
    if (prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE, 0, PR_SCHED_CORE_SCOPE_PROCESS_GROUP, 0) < 0)
        return fail(failure, errno, "cannot create a core scheduling cookie (SCHED_CORE=%s)", wish);
    return 0;
}

static int write_address(const char *address, struct failure *failure)
{
    cleanup_fd int fd = open(ADDRESS_TEMP, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);

    /* the mode is set again for the case that a killed start left the temporary file */
    if (fd < 0 || write_whole(fd, address, strlen(address)) < 0 || fchmod(fd, 0644) < 0 ||
        rename(ADDRESS_TEMP, ADDRESS_FILE) < 0) {
        (void)fail(failure, errno, "cannot write the file \"" ADDRESS_FILE "\" in the bundle");
        if (fd >= 0)
            (void)unlink(ADDRESS_TEMP);
        return -1;
    }
    return 0;
}

static int print_address(const char *address, struct failure *failure)
{
    if (write_whole(STDOUT_FILENO, address, strlen(address)) < 0)
        return fail(failure, errno, "cannot print the address");
    return 0;
}

static bool read_score(const char *path, int *ret)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    char text[16];
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (n <= 0)
        return false;
    text[n] = '\0';
    *ret = (int)strtol(text, NULL, 10);
    return true;
}

/* One more than whoever started us has; our own was inherited from there, should that process be gone or hidden. */
static int find_oom_score(int *ret, struct failure *failure)
{
    char path[64];
    int score;

    (void)snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", getppid());
    if (!read_score(path, &score) && !read_score("/proc/self/oom_score_adj", &score))
        return fail(failure, errno, "cannot read \"/proc/self/oom_score_adj\"");
    *ret = score + 1;
    return 0;
}

/* containerd reads this fifo while it runs. Without a reader we hold it open ourselves; a log that cannot be had is
 * no reason to refuse a container. Never blocks, now or when it is written to. */
static int open_log(void)
{
    int fd = open("log", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

    if (fd < 0 && errno == ENXIO)
        fd = open("log", O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    return fd >= 0 ? fd : open("/dev/null", O_WRONLY | O_CLOEXEC);
}

/* The steps after the socket is ours; the caller takes back socket and address file when one of them fails. */
static int launch(const struct settings *settings, const struct bootstrap *bootstrap, const struct socket_name *name,
                  struct node_server *server, struct failure *failure)
{
    char bundle[PATH_MAX], ttrpc[PATH_MAX];
    const struct node_call call = {
        .settings = settings, .bundle = bundle, .ttrpc = ttrpc, .socket = name->path, .action = "serve"};
    pid_t pid;

    if (!getcwd(bundle, sizeof(bundle)))
        return fail(failure, errno, "cannot name the bundle, the current folder");
    failpoint("launch:socket");
    if (find_ttrpc(settings, bootstrap, ttrpc, failure) < 0 || find_oom_score(&server->oom_score_adj, failure) < 0 ||
        write_address(name->address, failure) < 0)
        return -1;
    failpoint("launch:address");
    if (join_core_scheduling(failure) < 0 || node_spawn(&call, server, &pid, failure) < 0)
        return -1;
    failpoint("launch:spawned");
    if (print_address(name->address, failure) < 0) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        return -1;
    }
    return 0;
}

static int start(struct settings *settings, const struct bootstrap *bootstrap, mode_t inherited_umask,
                 struct failure *failure)
{
    cleanup_fd int null_fd = -1, log_fd = -1, listen_fd = -1;
    struct socket_name name;
    struct node_server server = {.umask = inherited_umask, .shim_cgroup = bootstrap->shim_cgroup};

    if (complete_settings(settings, bootstrap, failure) < 0 ||
        socket_name(settings, bootstrap->socket_dir, &name, failure) < 0)
        return -1;
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    log_fd = open_log();
    if (null_fd < 0 || log_fd < 0)
        return fail(failure, errno, "cannot open \"/dev/null\"");
    if (socket_listen(&name, &listen_fd, failure) < 0)
        return -1;
    if (listen_fd < 0) /* a shim serves this id already: its address is the answer */
        return write_address(name.address, failure) < 0 ? -1 : print_address(name.address, failure);

    server.null_fd = null_fd;
    server.log_fd = log_fd;
    server.listen_fd = listen_fd;
    if (launch(settings, bootstrap, &name, &server, failure) < 0) {
        socket_remove(name.path);
        (void)unlink(ADDRESS_FILE);
        return -1;
    }
    return 0;
}

int launcher_start(struct settings *settings, struct failure *failure)
{
    struct bootstrap bootstrap;
    mode_t inherited_umask;
    int r;

    /* every mode below is meant as written, and a reader of stdout that went away is an error like any other */
    inherited_umask = umask(0);
    (void)signal(SIGPIPE, SIG_IGN);
    if (read_options(settings, &bootstrap, failure) < 0)
        return -1;
    r = start(settings, &bootstrap, inherited_umask, failure);
    bootstrap_free(&bootstrap);
    return r;
}
