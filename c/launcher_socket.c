/*
 * The socket that a shim serves on: its name, its folder, and who may take it. Invariant: it is listening, with mode
 * 0600, before anybody is told its address, so that containerd's connect cannot come too early.
 *
 * Two starts of one id at the same moment would race for the name; containerd makes the bundle folder exclusively
 * before it runs us, so there is one start per id at a time.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_SOCKET_DIR "/run/containerd/s"

_Static_assert(SOCKET_PATH_LIMIT < sizeof(((struct sockaddr_un *)NULL)->sun_path), "the path must fit with its NUL");

int socket_name(const struct settings *settings, const char *dir, struct socket_name *ret, struct failure *failure)
{
    const char *identity[] = {settings->address, settings->namespace, settings->id};
    const char *place[] = {dir ? dir : DEFAULT_SOCKET_DIR, NULL};
    char joined[2 * PATH_MAX], path[2 * PATH_MAX];
    struct socket_name name;

    if (place[0][0] != '/')
        return fail(failure, 0, "cannot use the socket folder \"%s\": it is not an absolute path", place[0]);
    if (path_join(joined, sizeof(joined), identity, 3, failure) < 0)
        return -1;
    sha256_hex(joined, strlen(joined), name.hash);
    place[1] = name.hash;
    if (path_join(path, sizeof(path), place, 2, failure) < 0)
        return -1;
    if (strlen(path) > SOCKET_PATH_LIMIT)
        return fail(failure, 0, "cannot use the socket folder \"%s\": the socket's path has %zu bytes, %d are allowed",
                    place[0], strlen(path), SOCKET_PATH_LIMIT);
    (void)snprintf(name.path, sizeof(name.path), "%.*s", SOCKET_PATH_LIMIT, path);
    (void)snprintf(name.address, sizeof(name.address), UNIX_SCHEME "%s", name.path);
    *ret = name;
    return 0;
}

static int make_dir(const char *path, mode_t mode, struct failure *failure)
{
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        return fail(failure, errno, "cannot create the socket folder \"%s\"", path);
    return 0;
}

/*
 * The folder decides who may put a socket at our name, and containerd connects to whatever is there. It comes from the
 * daemon's configuration and may lie below /tmp, so an existing one is checked: it must belong to us or to root, and
 * nobody else may write to it unless its sticky bit keeps our entry ours (a foreign entry is refused by `take_over`).
 */
static int prepare_dir(const char *socket_path, struct failure *failure)
{
    char dir[SOCKET_PATH_LIMIT + 1];
    struct stat st;
    char *end;

    (void)snprintf(dir, sizeof(dir), "%s", socket_path);
    end = strrchr(dir, '/');
    if (!end || end == dir)
        return 0; /* the root folder itself */
    *end = '\0';
    for (char *slash = strchr(dir + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (make_dir(dir, 0711, failure) < 0)
            return -1;
        *slash = '/';
    }
    if (make_dir(dir, 0700, failure) < 0)
        return -1;
    if (stat(dir, &st) < 0)
        return fail(failure, errno, "cannot use the socket folder \"%s\"", dir);
    if (!S_ISDIR(st.st_mode))
        return fail(failure, ENOTDIR, "cannot use the socket folder \"%s\"", dir);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return fail(failure, 0, "cannot use the socket folder \"%s\": it belongs to user %u", dir, st.st_uid);
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) && !(st.st_mode & S_ISVTX))
        return fail(failure, 0, "cannot use the socket folder \"%s\": other users may change its entries", dir);
    return 0;
}

static void fill_address(const char *path, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    (void)snprintf(ret->sun_path, sizeof(ret->sun_path), "%s", path);
}

static int bind_private(int fd, const char *path)
{
    struct sockaddr_un address;
    mode_t before;
    int r, saved;

    fill_address(path, &address);
    before = umask(0177); /* the mode is right from birth */
    r = bind(fd, (const struct sockaddr *)&address, sizeof(address));
    saved = errno;
    (void)umask(before);
    errno = saved;
    return r;
}

/* 1: somebody listens at the path, 0: nobody does. Never waits: a full backlog is an answer too. */
static int is_alive(const char *path, struct failure *failure)
{
    cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address;

    if (fd < 0)
        return fail(failure, errno, "cannot create a socket");
    fill_address(path, &address);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 || errno == EAGAIN)
        return 1;
    if (errno == ECONNREFUSED || errno == ENOENT)
        return 0;
    return fail(failure, errno, "cannot connect to the socket \"%s\" that another shim left", path);
}

/*
 * The name is taken. What is there decides: a living shim of ours (its name says that it serves this very id), a stale
 * socket that a killed shim left, which goes, or something that is not ours to touch.
 */
static int take_over(const char *path, bool *ret_alive, struct failure *failure)
{
    struct stat st;
    int alive;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : fail(failure, errno, "cannot inspect the socket \"%s\"", path);
    if (!S_ISSOCK(st.st_mode))
        return fail(failure, 0, "cannot bind the socket \"%s\": something else has this name", path);
    if (st.st_uid != geteuid())
        return fail(failure, 0, "cannot bind the socket \"%s\": user %u has one of this name", path, st.st_uid);
    alive = is_alive(path, failure);
    if (alive < 0)
        return -1;
    if (!alive && unlink(path) < 0 && errno != ENOENT)
        return fail(failure, errno, "cannot remove the stale socket \"%s\"", path);
    *ret_alive = alive;
    return 0;
}

int socket_listen(const struct socket_name *name, int *ret_fd, struct failure *failure)
{
    cleanup_fd int fd = -1;
    bool alive = false;
    int r;

    if (prepare_dir(name->path, failure) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(failure, errno, "cannot create a socket");
    r = bind_private(fd, name->path);
    if (r < 0 && errno == EADDRINUSE) {
        if (take_over(name->path, &alive, failure) < 0)
            return -1;
        if (alive) {
            *ret_fd = -1;
            return 0;
        }
        r = bind_private(fd, name->path);
    }
    if (r < 0)
        return fail(failure, errno, "cannot bind the socket \"%s\"", name->path);
    if (listen(fd, SOMAXCONN) < 0) {
        (void)fail(failure, errno, "cannot listen on the socket \"%s\"", name->path);
        socket_remove(name->path);
        return -1;
    }
    *ret_fd = take_fd(&fd);
    return 0;
}

void socket_remove(const char *path)
{
    struct stat st;

    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        (void)unlink(path);
}

static bool is_later(struct timespec one, struct timespec other)
{
    return one.tv_sec != other.tv_sec ? one.tv_sec > other.tv_sec : one.tv_nsec > other.tv_nsec;
}

void socket_remove_of(const char *path, struct timespec last_word)
{
    struct failure ignored;
    struct stat st;

    /* the time alone does not decide, because clocks are set; nor does a listener, who may be dying */
    if (lstat(path, &st) < 0 || (is_later(st.st_mtim, last_word) && is_alive(path, &ignored) != 0))
        return;
    socket_remove(path);
}
