/* Text, whole files and paths. EINTR, short counts and failed allocations are handled here only. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The limit of containerd's own library for stdin. */
#define STDIN_LIMIT_BYTES (10u << 20)

#define LOST "cannot find the installation: "
#define WAYS                                                           \
    "make this program a link to the installed one, set " VARIABLE_LIB \
    " to that folder, or install it with scripts/install"

char *text(const char *format, ...)
{
    va_list args;
    char *made_text;
    int size;
    va_start(args, format);
    size = vasprintf(&made_text, format, args);
    va_end(args);
    if (size < 0)
        die(ENOMEM, "cannot go on");
    return made_text;
}

char *text_of(struct slice slice)
{
    return slice.size > 0 ? text("%.*s", (int)slice.size, (const char *)slice.bytes) : NULL;
}

/*
 * Whether a failed read or write can be tried again. Inherited fds may be non-blocking, so it
 * waits.
 */
static bool may_go_on(int fd, short events)
{
    struct pollfd pollfd = {.fd = fd, .events = events};
    return errno == EINTR || (errno == EAGAIN && (poll(&pollfd, 1, -1) >= 0 || errno == EINTR));
}

ssize_t read_up_to(int fd, void *bytes, size_t size)
{
    size_t used = 0;
    ssize_t n;
    /* a short read is not the end of the file; an empty one is */
    while (used < size && (n = read(fd, (uint8_t *)bytes + used, size - used)) != 0) {
        if (n > 0)
            used += (size_t)n;
        else if (!may_go_on(fd, POLLIN))
            return -1;
    }
    return (ssize_t)used;
}

struct slice read_whole(int fd, const char *what, size_t limit)
{
    /* One byte above the limit tells "just fits" from "too long". Unread pages cost no memory. */
    uint8_t *bytes = malloc(limit + 1);
    ssize_t size = bytes ? read_up_to(fd, bytes, limit + 1) : -1;
    if (size < 0)
        die(errno, "cannot read %s", what);
    if ((size_t)size > limit)
        die(0, "cannot read %s: it is longer than %zu bytes", what, limit);
    return (struct slice){.bytes = bytes, .size = (size_t)size};
}

struct slice read_stdin(void)
{
    if (isatty(STDIN_FILENO))
        return (struct slice){0};
    return read_whole(STDIN_FILENO, "the options on stdin", STDIN_LIMIT_BYTES);
}

int write_whole(int fd, const void *bytes, size_t size)
{
    for (const char *at = bytes; size > 0;) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && !may_go_on(fd, POLLOUT))
            return -1;
        at += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

void print(const char *what, const void *bytes, size_t size)
{
    if (write_whole(STDOUT_FILENO, bytes, size) < 0)
        die(errno, "cannot print %s", what);
}

char *path_clean(char *path)
{
    const size_t root = path[0] == '/';
    size_t used = root, names = 0; /* how many names a ".." may still remove */
    char *rest = path, *name;
    /* the write position never passes the read position */
    while ((name = strsep(&rest, "/"))) {
        size_t size = strlen(name);
        bool up = strcmp(name, "..") == 0;
        if (size == 0 || strcmp(name, ".") == 0 || (up && names == 0 && root))
            continue;
        if (up && names > 0) {
            names--;
            while (used > root && path[--used] != '/')
                ;
            continue;
        }
        if (used > root)
            path[used++] = '/';
        memmove(path + used, name, size);
        used += size;
        names += !up;
    }
    if (root)
        path[0] = '/';
    else if (used == 0)
        path[used++] = '.';
    path[used] = '\0';
    return path;
}

/*
 * The folder in the last line of an installed program, which scripts/install writes after the ELF
 * file. A copy of the program elsewhere still has it.
 */
static const char *recorded_lib(void)
{
    char tail[PATH_MAX + sizeof LIB_RECORD], *line;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;
    if (fd >= 0 && lseek(fd, -(off_t)sizeof tail, SEEK_END) >= 0)
        n = read_up_to(fd, tail, sizeof tail);
    if (n <= 0 || tail[n - 1] != '\n')
        return NULL;
    tail[n - 1] = '\0';
    line = memrchr(tail, '\n', (size_t)n - 1);
    return line && strncmp(line + 1, LIB_RECORD "/", sizeof LIB_RECORD) == 0 ? text("%s", line + sizeof LIB_RECORD) :
                                                                               NULL;
}

/*
 * Attacker: none; the daemon's administrator set the environment, and the installer wrote the
 *   record. Both can run any program anyway.
 * Privilege held: the daemon's; what is found here is executed.
 * Order matters because: /proc/self/exe names this file whatever links or PATH led to it.
 */
static const char *find_lib(void)
{
    char program[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program);
    const char *given = secure_getenv(VARIABLE_LIB), *recorded, *beside;
    if (given && *given) {
        if (*given != '/' || access(given, F_OK) < 0)
            die(0, LOST VARIABLE_LIB " is \"%s\", where no such folder is; " WAYS, given);
        return given;
    }
    if (n < 0)
        die(errno, "cannot find this program: \"/proc/self/exe\"");
    beside = path_clean(text("%.*s/../../" LIB_FOLDER, (int)n, program));
    if (access(beside, F_OK) == 0)
        return beside;
    recorded = recorded_lib();
    if (!recorded || access(recorded, F_OK) < 0)
        die(0, LOST "\"%s\"%s%s%s is missing; " WAYS, beside, recorded ? " or \"" : "", recorded ? recorded : "",
            recorded ? "\"" : "");
    return recorded;
}

char *lib_path(const char *name)
{
    return text("%s/%s", find_lib(), name);
}

#ifdef FAILPOINTS
void failpoint(const char *name)
{
    const char *wanted = getenv(VARIABLE_FAIL_AT);
    if (wanted && strcmp(wanted, name) == 0)
        (void)raise(SIGKILL);
}
#endif
