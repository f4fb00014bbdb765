/*
 * The socket that a shim serves on: its name, its folder, and who may take it. Invariant: it is listening, with mode
 * 0600, before anybody is told its address, so that containerd's connect cannot come too early.
 *
 * Two starts of one id at the same moment would race for the name; containerd makes the bundle folder exclusively
 * before it runs us, so there is one start per id at a time.
 */
#include "launcher.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_SOCKET_DIR "/run/containerd/s"

/* One byte less than sun_path holds with its NUL, because containerd's own library refuses longer ones. */
#define SOCKET_PATH_LIMIT 106

_Static_assert(SOCKET_PATH_LIMIT < sizeof(((struct sockaddr_un *)NULL)->sun_path), "the path must fit with its NUL");

char *socket_path(const struct settings *settings, const char *dir)
{
    const char *identity = path_clean(text("%s/%s/%s", settings->address, settings->namespace, settings->id));
    char hash[SHA256_HEX_SIZE], *path;

    if (!dir)
        dir = DEFAULT_SOCKET_DIR;
    if (dir[0] != '/')
        die(0, "cannot use the socket folder \"%s\": it is not an absolute path", dir);
    sha256_hex(identity, strlen(identity), hash);
    path = path_clean(text("%s/%s", dir, hash));
    if (strlen(path) > SOCKET_PATH_LIMIT)
        die(0, "cannot use the socket folder \"%s\": the socket's path has %zu bytes, %d are allowed", dir, strlen(path), SOCKET_PATH_LIMIT);
    return path;
}

/*
 * The folder decides who may put a socket at our name, and containerd connects to whatever is there. It comes from the
 * daemon's configuration and may lie below /tmp, so an existing one is checked: it must belong to us or to root, and
 * nobody else may write to it unless its sticky bit keeps our entry ours (a foreign entry is refused by `is_taken`).
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

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    return address;
}

static int bind_private(int fd, const char *path)
{
    struct sockaddr_un address = address_of(path);
    mode_t before = umask(0177); /* the mode is right from birth */
    int r = bind(fd, (const struct sockaddr *)&address, sizeof(address));

    (void)umask(before);
    return r;
}

/* 1: somebody listens at the path, 0: nobody does, -1: who knows. Never waits: a full backlog is an answer too. */
static int is_alive(const char *path)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address = address_of(path);
    int reason = fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : errno;

    if (fd >= 0)
        (void)close(fd);
    errno = reason;
    if (reason == 0 || reason == EAGAIN)
        return 1;
    return reason == ECONNREFUSED || reason == ENOENT ? 0 : -1;
}

/*
 * The name is in use. What is there decides: a living shim of ours (its name says that it serves this very id), a stale
 * socket that a killed shim left, which goes, or something that is not ours to touch.
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
    if (listen(fd, SOMAXCONN) < 0)
        die(errno, "cannot listen on the socket \"%s\"", path);
    return fd;
}

void socket_remove_of(const char *path, struct timespec last_word)
{
    struct stat st;
    bool later;

    if (strlen(path) > SOCKET_PATH_LIMIT || lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return;
    later = st.st_mtim.tv_sec != last_word.tv_sec ? st.st_mtim.tv_sec > last_word.tv_sec : st.st_mtim.tv_nsec > last_word.tv_nsec;
    /* the time alone does not decide, because clocks are set; nor does a listener, who may be dying */
    if (!later || is_alive(path) == 0)
        (void)unlink(path);
}
