/*
 * `delete`: containerd runs it after every container, inside its client's call. A shim that has
 * cleaned up leaves the answer, a protobuf DeleteResponse, in the bundle as `shim-exit`, so no Node
 * is needed. Without that file Node cleans up: the shim was killed, or something failed. Works
 * without a current folder or a bundle, and any number of times.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A small regular file of the bundle, and the time at which it was written. */
struct note {
    char bytes[256];
    size_t size;
    struct timespec written;
};

/* False for a file that is missing, too long or not regular: Node deals with it. */
static bool read_note(const char *bundle, const char *name, struct note *ret)
{
    int fd = open(text("%s/%s", bundle, name), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    ssize_t n = -1;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        n = read_up_to(fd, ret->bytes, sizeof ret->bytes);
    if (fd >= 0)
        (void)close(fd);
    if (n < 0 || (size_t)n >= sizeof ret->bytes)
        return false;
    ret->bytes[n] = '\0';
    ret->size = (size_t)n;
    ret->written = st.st_mtim;
    return true;
}

/*
 * Removes the sockets that the shim could not remove itself. A socket that is younger than the
 * record and has a listener stays: the same id runs again, because a daemon also cleans up when a
 * connection ends. The socket may lie in another folder than the default one, so the `address` file
 * is asked too. It is believed only about a socket of this container's name.
 */
static void remove_sockets(const struct settings *settings, const char *bundle, struct timespec recorded)
{
    struct note address;
    const char *path, *at;
    if (!settings->address || !*settings->address)
        return;
    path = socket_path(settings, NULL);
    socket_remove_of(path, recorded);
    if (!read_note(bundle, BUNDLE_FILE_ADDRESS, &address) ||
        strncmp(address.bytes, SOCKET_SCHEME "/", strlen(SOCKET_SCHEME "/")) != 0)
        return;
    address.bytes[strcspn(address.bytes, "\n")] = '\0';
    at = address.bytes + strlen(SOCKET_SCHEME);
    if (strcmp(strrchr(at, '/'), strrchr(path, '/')) == 0)
        socket_remove_of(at, recorded);
}

/* NULL if there is neither a flag nor a current folder. */
static const char *find_bundle(const char *given)
{
    const char *cwd;
    if (given && *given == '/')
        return path_clean(text("%s", given));
    cwd = getcwd(NULL, 0);
    return cwd ? path_clean(text("%s/%s", cwd, given ? given : "")) : NULL;
}

void launcher_delete(const struct settings *settings)
{
    struct node_call call = {.settings = settings, .bundle = find_bundle(settings->bundle), .action = ACTION_DELETE};
    struct note record;
    check_identity(settings, "delete");
    if (call.bundle && read_note(call.bundle, BUNDLE_FILE_EXIT, &record) &&
        wire_is_delete_response((struct slice){.bytes = (const uint8_t *)record.bytes, .size = record.size})) {
        remove_sockets(settings, call.bundle, record.written);
        print("the answer", record.bytes, record.size);
        return;
    }
    /* Node refuses to start in a removed folder */
    if (chdir("/") < 0)
        die(errno, "cannot change to \"/\"");
    node_exec(&call);
}
