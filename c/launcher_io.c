/*
 * Errors, whole-file reading and writing, and the two cleanups: what every file of the launcher needs from libc, with
 * EINTR, short counts and errno handled in one place.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_CHUNK_BYTES 4096u

int fail(struct failure *failure, int errnum, const char *format, ...)
{
    size_t used;
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(failure->text, sizeof(failure->text), format, args);
    va_end(args);
    if (errnum != 0) {
        used = n < 0 ? 0 : (size_t)n < sizeof(failure->text) ? (size_t)n : sizeof(failure->text) - 1;
        (void)snprintf(failure->text + used, sizeof(failure->text) - used, ": %s", strerror(errnum));
    }
    return -1;
}

#ifdef FAILPOINTS
void failpoint(const char *name)
{
    const char *wanted = getenv("RUNTS_FAIL_AT");

    if (wanted && strcmp(wanted, name) == 0)
        (void)raise(SIGKILL);
}
#endif

void close_fd(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
    errno = saved;
}

int take_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

void free_bytes(void *pointer)
{
    void **owner = pointer;
    int saved = errno;

    free(*owner);
    *owner = NULL;
    errno = saved;
}

/* Our fds block, but an inherited stdin may have been made non-blocking by its other owner. */
static int wait_for(int fd, short events)
{
    struct pollfd pollfd = {.fd = fd, .events = events};

    return poll(&pollfd, 1, -1) < 0 && errno != EINTR ? -1 : 0;
}

int read_whole(int fd, const char *what, size_t limit, uint8_t **ret_bytes, size_t *ret_size, struct failure *failure)
{
    cleanup_free uint8_t *bytes = NULL;
    size_t size = 0, used = 0;

    for (;;) {
        ssize_t n;

        /* one byte more than the limit is asked for, to tell "just fits" from "too long" */
        if (used == size) {
            size_t larger = size == 0 ? FIRST_CHUNK_BYTES : size * 2;
            uint8_t *moved;

            if (larger > limit + 1)
                larger = limit + 1;
            moved = realloc(bytes, larger);
            if (!moved)
                return fail(failure, ENOMEM, "cannot read %s", what);
            bytes = moved;
            size = larger;
        }
        n = read(fd, bytes + used, size - used);
        if (n == 0)
            break;
        if (n < 0) {
            if (errno == EINTR || (errno == EAGAIN && wait_for(fd, POLLIN) == 0))
                continue;
            return fail(failure, errno, "cannot read %s", what);
        }
        used += (size_t)n;
        if (used > limit)
            return fail(failure, 0, "cannot read %s: it is longer than %zu bytes", what, limit);
    }
    *ret_bytes = bytes;
    *ret_size = used;
    bytes = NULL;
    return 0;
}

int read_file(const char *path, size_t limit, uint8_t **ret_bytes, size_t *ret_size, struct failure *failure)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    char what[PATH_MAX + 2];

    (void)snprintf(what, sizeof(what), "\"%s\"", path);
    if (fd < 0)
        return fail(failure, errno, "cannot read %s", what);
    return read_whole(fd, what, limit, ret_bytes, ret_size, failure);
}

int write_whole(int fd, const void *bytes, size_t size)
{
    const char *at = bytes;

    while (size > 0) {
        ssize_t n = write(fd, at, size);

        if (n < 0) {
            if (errno == EINTR || (errno == EAGAIN && wait_for(fd, POLLOUT) == 0))
                continue;
            return -1;
        }
        at += n;
        size -= (size_t)n;
    }
    return 0;
}
