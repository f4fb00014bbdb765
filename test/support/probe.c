/*
 * What the tests of the OCI command line need besides payload.c.
 * Inside a container it prints facts that only system calls tell, a line each.
 * Outside it is the other end of the sockets that a runtime connects to: console, pidfd and seccomp agent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FAILED 125

static int fail(const char *what) {
    fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
    return FAILED;
}

/* syscall NUMBER [ARG...]: "ok N" or the error's text */
static int cmd_syscall(char **argv) {
    long arg[6] = {0};
    for (int i = 0; i < 6 && argv[1 + i] != NULL; i++)
        arg[i] = strtol(argv[1 + i], NULL, 0);
    long got = syscall(strtol(argv[0], NULL, 0), arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
    if (got < 0)
        printf("%s\n", strerror(errno));
    else
        printf("ok %ld\n", got);
    return 0;
}

/* privileges: the two lines of the process's own status that a set-uid program may change */
static int cmd_privileges(char **argv) {
    (void)argv;
    char line[256];
    FILE *status = fopen("/proc/self/status", "re");
    if (status == NULL)
        return fail("/proc/self/status");
    while (fgets(line, sizeof(line), status) != NULL)
        if (strncmp(line, "CapEff:", 7) == 0 || strncmp(line, "NoNewPrivs:", 11) == 0)
            fputs(line, stdout);
    fclose(status);
    return 0;
}

/* scheduler: the attributes of sched_getattr(2) */
static int cmd_scheduler(char **argv) {
    (void)argv;
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attr = {0};
    if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0) < 0)
        return fail("sched_getattr");
    printf("policy %u nice %d priority %u flags %llu runtime %llu deadline %llu period %llu\n", attr.policy, attr.nice,
           attr.priority, (unsigned long long)attr.flags, (unsigned long long)attr.runtime,
           (unsigned long long)attr.deadline, (unsigned long long)attr.period);
    return 0;
}

/* mempolicy: mode (with its flags) and first word of the nodes */
static int cmd_mempolicy(char **argv) {
    (void)argv;
    int mode = 0;
    unsigned long nodes[16] = {0};
    if (syscall(SYS_get_mempolicy, &mode, nodes, 1024, NULL, 0) < 0)
        return fail("get_mempolicy");
    printf("mode %#x nodes %#lx\n", (unsigned)mode, nodes[0]);
    return 0;
}

/* clocks: whole seconds of the clocks that a time namespace shifts */
static int cmd_clocks(char **argv) {
    (void)argv;
    struct timespec monotonic, boottime;
    if (clock_gettime(CLOCK_MONOTONIC, &monotonic) < 0 || clock_gettime(CLOCK_BOOTTIME, &boottime) < 0)
        return fail("clock_gettime");
    printf("%lld %lld\n", (long long)monotonic.tv_sec, (long long)boottime.tv_sec);
    return 0;
}

/* keyring: the description of the session keyring, and its serial number */
static int cmd_keyring(char **argv) {
    (void)argv;
    char text[256] = "";
    long serial = syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -3 /* session */, 0);
    if (serial < 0 || syscall(SYS_keyctl, 6 /* DESCRIBE */, serial, text, sizeof(text)) < 0)
        return fail("keyctl");
    const char *name = strrchr(text, ';');
    printf("%s %ld\n", name == NULL ? text : name + 1, serial);
    return 0;
}

/* tty: whether the three are terminals, the name and owner of the first, its size */
static int cmd_tty(char **argv) {
    (void)argv;
    struct stat info = {0};
    struct winsize size = {0};
    const char *name = ttyname(0);
    printf("tty %d%d%d", isatty(0), isatty(1), isatty(2));
    if (name != NULL && fstat(0, &info) == 0 && ioctl(0, TIOCGWINSZ, &size) == 0)
        printf(" %s owner %u:%u rows %d columns %d", name, info.st_uid, info.st_gid, size.ws_row, size.ws_col);
    printf("\n");
    return 0;
}

static int listen_at(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
        return -1;
    strcpy(address.sun_path, path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(path, 0777) < 0 || listen(fd, 64) < 0)
        return -1;
    printf("listening\n");
    fflush(stdout);
    return fd;
}

/* Whether a JSON object is complete: peers may keep the connection open. Any other text counts as complete. */
static int is_whole(const char *text, size_t size) {
    int depth = 0, quoted = 0;
    if (size == 0 || text[0] != '{')
        return 1;
    for (size_t i = 0; i < size; i++) {
        if (quoted && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
        else if (!quoted)
            depth += (text[i] == '{') - (text[i] == '}');
    }
    return depth == 0 && !quoted;
}

/* Receives one message: its bytes into `text`, its one descriptor as the result. */
static int receive(int listener, char *text, size_t size) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return -1;
    union {
        char bytes[CMSG_SPACE(sizeof(int) * 8)];
        struct cmsghdr align;
    } control;
    struct iovec data = {.iov_base = text, .iov_len = size - 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (got < 0)
        return -1;
    size_t used = (size_t)got;
    /* the rest of a longer text comes without descriptors */
    while (!is_whole(text, used) && used < size - 1 && (got = read(fd, text + used, size - 1 - used)) > 0)
        used += (size_t)got;
    text[used] = 0;
    close(fd);
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    if (part == NULL || part->cmsg_type != SCM_RIGHTS || part->cmsg_len < CMSG_LEN(sizeof(int)))
        return -1;
    int passed;
    memcpy(&passed, CMSG_DATA(part), sizeof(passed));
    return passed;
}

/* console SOCKET: receives a terminal's master and relays it both ways until the other side is closed */
static int cmd_console(char **argv) {
    char name[4096];
    int listener = listen_at(argv[0]);
    if (listener < 0)
        return fail("listen");
    int master = receive(listener, name, sizeof(name));
    if (master < 0)
        return fail("receive");
    printf("received %s\n", name);
    fflush(stdout);
    struct pollfd fds[2] = {{.fd = master, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    for (;;) {
        char data[4096];
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return fail("poll");
        if (fds[1].revents != 0) {
            ssize_t got = read(0, data, sizeof(data));
            if (got <= 0)
                fds[1].fd = -1;
            else if (write(master, data, (size_t)got) < 0)
                return fail("write");
        }
        if (fds[0].revents != 0) {
            ssize_t got = read(master, data, sizeof(data));
            if (got <= 0)
                return 0;
            if (write(1, data, (size_t)got) < 0)
                return fail("write");
        }
    }
}

/* pidfd SOCKET: receives a pidfd and prints the message and the process that it names */
static int cmd_pidfd(char **argv) {
    char text[4096], path[64], line[256];
    int listener = listen_at(argv[0]);
    if (listener < 0)
        return fail("listen");
    int pidfd = receive(listener, text, sizeof(text));
    if (pidfd < 0)
        return fail("receive");
    printf("message %s\n", text);
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
    FILE *info = fopen(path, "re");
    if (info == NULL)
        return fail(path);
    while (fgets(line, sizeof(line), info) != NULL)
        if (strncmp(line, "Pid:", 4) == 0)
            printf("pid %d\n", atoi(line + 4));
    fclose(info);
    return 0;
}

/* Answers every notification of a listener: with an errno, or (0) by letting the call go on. */
static void serve(int listener, int error, pid_t agent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* killed before we asked for that */
    if (getppid() != agent)
        _exit(0);
    union {
        struct seccomp_notif notif;
        uint8_t room[512];
    } call;
    union {
        struct seccomp_notif_resp resp;
        uint8_t room[512];
    } answer;
    for (;;) {
        memset(&call, 0, sizeof(call));
        memset(&answer, 0, sizeof(answer));
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0) {
            struct pollfd state = {.fd = listener, .events = POLLIN};
            if (errno == EINTR || (errno == ENOENT && poll(&state, 1, 0) >= 0 && (state.revents & POLLHUP) == 0))
                continue;
            _exit(0);
        }
        printf("call %d\n", call.notif.data.nr);
        fflush(stdout);
        answer.resp.id = call.notif.id;
        if (error == 0)
            answer.resp.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        else
            answer.resp.error = -error;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
}

/* agent SOCKET ERRNO: prints each state document, and answers the calls of its listener, until it is killed */
static int cmd_agent(char **argv) {
    static char text[1 << 20];
    int listener = listen_at(argv[0]);
    if (listener < 0)
        return fail("listen");
    signal(SIGCHLD, SIG_IGN);
    pid_t agent = getpid();
    for (;;) {
        int notify = receive(listener, text, sizeof(text));
        if (notify < 0)
            return fail("receive");
        printf("%s\n", text);
        fflush(stdout);
        if (fork() == 0)
            serve(notify, atoi(argv[1]), agent);
        close(notify);
    }
}

static const struct command {
    const char *name;
    int (*run)(char **argv);
    int needed; /* arguments */
} COMMANDS[] = {
    {"syscall", cmd_syscall, 1}, {"scheduler", cmd_scheduler, 0}, {"mempolicy", cmd_mempolicy, 0}, {"clocks", cmd_clocks, 0},
    {"keyring", cmd_keyring, 0}, {"tty", cmd_tty, 0},             {"console", cmd_console, 1},     {"pidfd", cmd_pidfd, 1},
    {"agent", cmd_agent, 2},     {"privileges", cmd_privileges, 0},
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < sizeof(COMMANDS) / sizeof(COMMANDS[0]); i++)
        if (strcmp(argv[1], COMMANDS[i].name) == 0 && argc - 2 >= COMMANDS[i].needed)
            return COMMANDS[i].run(argv + 2);
    fputs("probe: bad usage\n", stderr);
    return FAILED;
}
