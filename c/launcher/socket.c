/*
 * The socket of a shim: its name, its folder, and who may take it. Invariant: it listens, with mode
 * 0600, before its address is published, so containerd cannot connect too early. Two simultaneous
 * starts of one id would race for the name. containerd makes the bundle folder exclusively before
 * it runs the launcher, so there is only one start of an id at a time.
 */
#include "launcher.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/*
 * One byte less than sun_path can hold with its NUL: containerd's own library refuses longer paths.
 */
#define SOCKET_PATH_LIMIT 106

_Static_assert(SOCKET_PATH_LIMIT < sizeof(((struct sockaddr_un *)NULL)->sun_path), "the path must fit with its NUL");

char *socket_path(const struct settings *settings, const char *dir)
{
    const char *identity = path_clean(text("%s/%s/%s", settings->address, settings->namespace, settings->id));
    char hash[SHA256_HEX_SIZE], *path;
    if (!dir)
        dir = SOCKET_FOLDER;
    if (dir[0] != '/')
        die(0, "cannot use the socket folder \"%s\": it is not an absolute path", dir);
    sha256_hex(identity, strlen(identity), hash);
    path = path_clean(text("%s/%s", dir, hash));
    if (strlen(path) > SOCKET_PATH_LIMIT)
        die(0, "cannot use the socket folder \"%s\": the socket's path has %zu bytes, %d are allowed", dir,
            strlen(path), SOCKET_PATH_LIMIT);
    return path;
}

/*
 * Makes and checks the folder of the socket.
 *
 * Attacker: users who may write to the folder, which can lie below /tmp by the daemon's
 *   configuration. containerd connects to whatever socket has this name.
 * Privilege held: the daemon's.
 * Order matters because: an existing folder is checked before the bind. It must belong to this user
 *   or to root. If others may write to it, its sticky bit must protect this entry. is_taken refuses
 *   an entry of another user.
 */
static void prepare_dir(const char *path)
{
    char *dir = text("%s", path);
    char *end = strrchr(dir, '/');
    struct stat st;
    if (end == dir)
        return; /* the root folder itself */
    *end = '\0';
    for (char *slash = strchr(dir + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash)
            *slash = '\0';
        if (mkdir(dir, slash ? 0711 : 0700) < 0 && errno != EEXIST)
            die(errno, "cannot create the socket folder \"%s\"", dir);
        if (!slash)
            break;
        *slash = '/';
    }
    if (stat(dir, &st) < 0)
        die(errno, "cannot use the socket folder \"%s\"", dir);
    if (!S_ISDIR(st.st_mode))
        die(ENOTDIR, "cannot use the socket folder \"%s\"", dir);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        die(0, "cannot use the socket folder \"%s\": it belongs to user %u", dir, st.st_uid);
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) && !(st.st_mode & S_ISVTX))
        die(0, "cannot use the socket folder \"%s\": other users may change its entries", dir);
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    return address;
}

static int bind_private(int fd, const char *path)
{
    struct sockaddr_un address = address_of(path);
    mode_t before = umask(0177); /* the socket never has another mode */
    int r = bind(fd, (const struct sockaddr *)&address, sizeof address);
    (void)umask(before);
    return r;
}

/*
 * 1: a process listens at the path, 0: none does, -1: unknown. Never waits; EAGAIN, a full backlog,
 * means that a process listens.
 */
static int is_alive(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address = address_of(path);
    int reason = fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 ? 0 : errno;
    if (fd >= 0)
        (void)close(fd);
    errno = reason;
    if (reason == 0 || reason == EAGAIN)
        return 1;
    return reason == ECONNREFUSED || reason == ENOENT ? 0 : -1;
}

/*
 * The name is in use. A living shim keeps it: the name says that it serves this very id. The stale
 * socket of a killed shim is removed. Anything else is not the launcher's to touch.
 */
static bool is_taken(const char *path)
{
    struct stat st;
    int alive;
    if (lstat(path, &st) < 0) {
        if (errno == ENOENT)
            return false;
        die(errno, "cannot inspect the socket \"%s\"", path);
    }
    if (!S_ISSOCK(st.st_mode))
        die(0, "cannot bind the socket \"%s\": something else has this name", path);
    if (st.st_uid != geteuid())
        die(0, "cannot bind the socket \"%s\": user %u has one of this name", path, st.st_uid);
    alive = is_alive(path);
    if (alive < 0)
        die(errno, "cannot connect to the socket \"%s\" that another shim left", path);
    if (!alive && unlink(path) < 0 && errno != ENOENT)
        die(errno, "cannot remove the stale socket \"%s\"", path);
    return alive;
}

int socket_listen(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r;
    if (fd < 0)
        die(errno, "cannot create a socket");
    prepare_dir(path);
    r = bind_private(fd, path);
    if (r < 0 && errno == EADDRINUSE) {
        if (is_taken(path))
            return -1;
        r = bind_private(fd, path);
    }
    if (r < 0)
        die(errno, "cannot bind the socket \"%s\"", path);
    made.socket = path;
    if (listen(fd, LIMIT_BACKLOG) < 0)
        die(errno, "cannot listen on the socket \"%s\"", path);
    return fd;
}

void socket_remove_of(const char *path, struct timespec last_word)
{
    struct stat st;
    bool later;
    if (strlen(path) > SOCKET_PATH_LIMIT || lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return;
    later = st.st_mtim.tv_sec != last_word.tv_sec ? st.st_mtim.tv_sec > last_word.tv_sec :
                                                    st.st_mtim.tv_nsec > last_word.tv_nsec;
    /*
     * The time alone does not decide, because clocks are set. A listener alone does not either,
     * because it may be about to end.
     */
    if (!later || is_alive(path) == 0)
        (void)unlink(path);
}
