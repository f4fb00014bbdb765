/*
 * The program that tests run inside containers (and, for `pty`, outside): one static binary, a sub-command per thing
 * to observe. Each prints what it saw in a form that a test compares whole. It exits with a status of its own if it
 * cannot do its part.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define FAILED 125

static int fail(const char *what) {
    fprintf(stderr, "payload: %s: %s\n", what, strerror(errno));
    return FAILED;
}

static int write_all(int fd, const uint8_t *data, size_t size) {
    while (size > 0) {
        ssize_t done = write(fd, data, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        data += done;
        size -= (size_t)done;
    }
    return 0;
}

/* exit N */
static int cmd_exit(char **argv) {
    return atoi(argv[0]);
}

/* crash: dies by SIGILL: a signal of the kernel's own, which reaches a container's first process too */
static int cmd_crash(char **argv) {
    (void)argv;
    __builtin_trap();
}

/* both N TEXT: TEXT on stdout, the same on stderr, status N */
static int cmd_both(char **argv) {
    printf("out:%s\n", argv[1]);
    fflush(stdout);
    fprintf(stderr, "err:%s\n", argv[1]);
    return atoi(argv[0]);
}

/* bytes COUNT [text]: a stream that support/stream.ts computes too; `text` maps it to lines of printable characters */
static int cmd_bytes(char **argv) {
    static uint8_t chunk[65536];
    uint64_t left = strtoull(argv[0], NULL, 10);
    int text = argv[1] != NULL;
    uint32_t x = 2463534242u;
    while (left > 0) {
        for (size_t i = 0; i < sizeof(chunk); i += 4) {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            chunk[i] = (uint8_t)x;
            chunk[i + 1] = (uint8_t)(x >> 8);
            chunk[i + 2] = (uint8_t)(x >> 16);
            chunk[i + 3] = (uint8_t)(x >> 24);
        }
        if (text)
            for (size_t i = 0; i < sizeof(chunk); i++)
                chunk[i] = i % 64 == 63 ? '\n' : (uint8_t)('a' + chunk[i] % 26);
        size_t size = left < sizeof(chunk) ? (size_t)left : sizeof(chunk);
        if (write_all(1, chunk, size) < 0)
            return fail("write");
        left -= size;
    }
    return 0;
}

/* pour COUNT BLOCK: zeros in writes of that size; on stderr, the nanoseconds from the first to the end of the last */
static int cmd_pour(char **argv) {
    static uint8_t block[1 << 20];
    uint64_t left = strtoull(argv[0], NULL, 10);
    size_t size = strtoull(argv[1], NULL, 10);
    struct timespec from, to;
    if (size == 0 || size > sizeof(block))
        return FAILED;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (; left >= size; left -= size)
        if (write_all(1, block, size) < 0)
            return fail("write");
    clock_gettime(CLOCK_MONOTONIC, &to);
    fprintf(stderr, "%lld\n", (to.tv_sec - from.tv_sec) * 1000000000LL + (to.tv_nsec - from.tv_nsec));
    return 0;
}

/* orphans COUNT: makes children that lose their parent and end at once; then "done", and waits for the end of input */
static int cmd_orphans(char **argv) {
    int count = atoi(argv[0]);
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0)
            return fail("fork");
        if (pid == 0) {
            pid_t grandchild = fork();
            if (grandchild == 0)
                usleep(1000); /* so that its parent is gone first */
            _exit(grandchild < 0 ? 1 : 0);
        }
        int status;
        if (waitpid(pid, &status, 0) < 0 || status != 0)
            return fail("waitpid");
    }
    puts("done");
    fflush(stdout);
    if (argv[1] != NULL) /* reap: as an init has to */
        while (wait(NULL) > 0 || errno == EINTR)
            continue;
    char byte;
    while (read(0, &byte, 1) > 0)
        continue;
    return 0;
}

/* eat BYTES: touches that much memory, then says so */
static int cmd_eat(char **argv) {
    size_t size = strtoull(argv[0], NULL, 10);
    uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return fail("mmap");
    for (size_t i = 0; i < size; i += 4096)
        memory[i] = 1;
    puts("eaten");
    return 0;
}

/* background SECONDS: leaves a child that holds stdout open, and ends */
static int cmd_background(char **argv) {
    pid_t pid = fork();
    if (pid < 0)
        return fail("fork");
    if (pid == 0) {
        sleep((unsigned)atoi(argv[0]));
        _exit(0);
    }
    puts("left a child");
    return 0;
}

/* fds: the open file descriptors, one line each */
static int cmd_fds(char **argv) {
    (void)argv;
    for (int fd = 0; fd < 1024; fd++) {
        char path[64], target[4096];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t size = readlink(path, target, sizeof(target) - 1);
        if (size < 0)
            continue;
        target[size] = 0;
        printf("%d %s\n", fd, target);
    }
    return 0;
}

/* limits: what getrlimit says, as "NAME soft hard" */
static int cmd_limits(char **argv) {
    (void)argv;
    static const struct {
        const char *name;
        int which;
    } LIMITS[] = {{"nofile", RLIMIT_NOFILE}, {"core", RLIMIT_CORE}, {"nproc", RLIMIT_NPROC}, {"stack", RLIMIT_STACK}};
    for (size_t i = 0; i < sizeof(LIMITS) / sizeof(LIMITS[0]); i++) {
        struct rlimit limit;
        if (getrlimit(LIMITS[i].which, &limit) < 0)
            return fail("getrlimit");
        printf("%s %lld %lld\n", LIMITS[i].name, (long long)limit.rlim_cur, (long long)limit.rlim_max);
    }
    return 0;
}

static volatile sig_atomic_t last_signal;

static void on_signal(int number) {
    last_signal = number;
}

static void catch_signal(int number) {
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(number, &action, NULL);
}

/* trap: says "ready", then names each signal that comes; TERM ends it with status 7 */
static int cmd_trap(char **argv) {
    (void)argv;
    static const int SIGNALS[] = {SIGHUP, SIGINT, SIGUSR1, SIGUSR2, SIGTERM};
    sigset_t blocked, open;
    sigemptyset(&open);
    sigfillset(&blocked);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    for (size_t i = 0; i < sizeof(SIGNALS) / sizeof(SIGNALS[0]); i++)
        catch_signal(SIGNALS[i]);
    puts("ready");
    fflush(stdout);
    for (;;) {
        sigsuspend(&open);
        printf("signal %d\n", (int)last_signal);
        fflush(stdout);
        if (last_signal == SIGTERM)
            return 7;
    }
}

static void print_size(void) {
    struct winsize size = {0};
    if (ioctl(0, TIOCGWINSZ, &size) < 0)
        printf("no terminal\r\n");
    else
        printf("size %d %d\r\n", size.ws_row, size.ws_col);
    fflush(stdout);
}

/* winsize: the terminal's size now and after each change, until a line of input */
static int cmd_winsize(char **argv) {
    (void)argv;
    sigset_t blocked, open;
    sigemptyset(&open);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGWINCH);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    catch_signal(SIGWINCH);
    printf("tty %d%d%d\r\n", isatty(0), isatty(1), isatty(2));
    print_size();
    for (;;) {
        struct pollfd in = {.fd = 0, .events = POLLIN};
        int ready = ppoll(&in, 1, NULL, &open);
        if (ready > 0)
            return 0;
        print_size();
    }
}

/*
 * pty ROWS COLS -- PROGRAM ARG...: outside the container: runs a program on a terminal of that size, and relays stdin
 * and stdout. Every line "ROWS COLS" on fd 3 resizes the terminal. Ends with the program's status after the end of
 * the output.
 */
static int on_terminal(char **argv, int stock) {
    struct winsize size = {.ws_row = (unsigned short)atoi(argv[0]), .ws_col = (unsigned short)atoi(argv[1])};
    int control = fcntl(3, F_GETFD) < 0 ? -1 : 3;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0)
        return fail("posix_openpt");
    ioctl(master, TIOCSWINSZ, &size);
    /* no output processing: the inner terminal has done it */
    struct termios modes;
    if (tcgetattr(master, &modes) < 0)
        return fail("tcgetattr");
    if (!stock)
        modes.c_oflag &= ~(tcflag_t)(OPOST | ONLCR);
    if (tcsetattr(master, TCSANOW, &modes) < 0)
        return fail("tcsetattr");
    pid_t pid = fork();
    if (pid < 0)
        return fail("fork");
    if (pid == 0) {
        setsid();
        int slave = open(ptsname(master), O_RDWR);
        if (slave < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
            _exit(fail("open the terminal"));
        for (int fd = 0; fd < 3; fd++)
            dup2(slave, fd);
        if (slave > 2)
            close(slave);
        if (control >= 0)
            close(control);
        execvp(argv[3], argv + 3);
        _exit(fail(argv[3]));
    }
    struct pollfd fds[3] = {{.fd = master, .events = POLLIN}, {.fd = 0, .events = POLLIN}, {.fd = control, .events = POLLIN}};
    static uint8_t data[65536];
    for (;;) {
        if (poll(fds, 3, -1) < 0 && errno != EINTR)
            return fail("poll");
        if (fds[2].revents != 0) {
            ssize_t got = read(control, data, sizeof(data) - 1);
            if (got <= 0) {
                fds[2].fd = -1;
            } else {
                int rows = 0, cols = 0;
                data[got] = 0;
                if (sscanf((char *)data, "%d %d", &rows, &cols) == 2) {
                    size = (struct winsize){.ws_row = (unsigned short)rows, .ws_col = (unsigned short)cols};
                    ioctl(master, TIOCSWINSZ, &size);
                }
            }
        }
        if (fds[1].revents != 0) {
            ssize_t got = read(0, data, sizeof(data));
            if (got <= 0)
                fds[1].fd = -1;
            else if (write_all(master, data, (size_t)got) < 0)
                fds[1].fd = -1;
        }
        if (fds[0].revents != 0) {
            ssize_t got = read(master, data, sizeof(data));
            if (got <= 0) /* EIO: no process has the terminal open any more */
                break;
            if (write_all(1, data, (size_t)got) < 0)
                return fail("write");
        }
    }
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return fail("waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int cmd_pty(char **argv) {
    return on_terminal(argv, 0);
}

/* terminal ROWS COLUMNS -- COMMAND...: the same on a terminal with output processing: a newline comes out as "\r\n" */
static int cmd_terminal(char **argv) {
    return on_terminal(argv, 1);
}

/*
 * notify TEXT...: each TEXT as a datagram to $NOTIFY_SOCKET, as sd_notify(3) sends it; then sleeps until it is killed
 */
static int cmd_notify(char **argv) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || strlen(path) >= sizeof(address.sun_path))
        return fail("NOTIFY_SOCKET");
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail("socket");
    for (; *argv != NULL; argv++)
        if (sendto(fd, *argv, strlen(*argv), 0, (struct sockaddr *)&address, sizeof(address)) < 0)
            return fail("sendto");
    for (;;)
        pause();
}

/* crowd COUNT: makes that many children, prints "ready", and all sleep until they are killed */
static int cmd_crowd(char **argv) {
    for (int left = atoi(argv[0]); left > 0; left--) {
        pid_t pid = fork();
        if (pid < 0)
            return fail("fork");
        while (pid == 0)
            pause();
    }
    puts("ready");
    fflush(stdout);
    for (;;)
        pause();
}

/* reaper: reaps orphans, as the first process of a pid namespace has to, until the end of input */
static int cmd_reaper(char **argv) {
    (void)argv;
    signal(SIGCHLD, SIG_IGN);
    puts("ready");
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0)
        continue;
    return 0;
}

static const struct command {
    const char *name;
    int (*run)(char **argv);
    int needed; /* arguments */
} COMMANDS[] = {
    {"exit", cmd_exit, 1}, {"crash", cmd_crash, 0}, {"both", cmd_both, 2},     {"bytes", cmd_bytes, 1}, {"orphans", cmd_orphans, 1},
    {"eat", cmd_eat, 1},       {"fds", cmd_fds, 0},       {"limits", cmd_limits, 0}, {"trap", cmd_trap, 0},
    {"winsize", cmd_winsize, 0}, {"pty", cmd_pty, 4},     {"terminal", cmd_terminal, 4}, {"background", cmd_background, 1},
    {"notify", cmd_notify, 1},  {"pour", cmd_pour, 2},    {"crowd", cmd_crowd, 1},  {"reaper", cmd_reaper, 0},
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < sizeof(COMMANDS) / sizeof(COMMANDS[0]); i++)
        if (strcmp(argv[1], COMMANDS[i].name) == 0 && argc - 2 >= COMMANDS[i].needed)
            return COMMANDS[i].run(argv + 2);
    fputs("payload: bad usage\n", stderr);
    return FAILED;
}
