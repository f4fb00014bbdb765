/*
 * `delete`: containerd runs it after every container, inside its client's call. A shim that has cleaned up leaves the
 * record `shim-exit` in the bundle, one line `PID STATUS SECONDS NANOS`; then the answer needs no Node. Without the
 * record (the shim was killed, or something went wrong) Node does the cleaning. Works without a current folder,
 * without a bundle, and any number of times.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_FILE "shim-exit"
#define RECORD_LIMIT_BYTES 128

/* google.protobuf.Timestamp's own range: the years 1 to 9999 */
#define SECONDS_MIN (-62135596800)
#define SECONDS_MAX 253402300799
#define NANOS_MAX 999999999

struct exit_record {
    uint32_t pid;
    uint32_t status;
    int64_t seconds;
    uint32_t nanos;
};

/* One number and the one byte after it. */
static bool take_number(const char **at, long long min, long long max, char after, long long *ret)
{
    long long value;
    char *end;

    if (**at != '-' && (**at < '0' || **at > '9'))
        return false;
    errno = 0;
    value = strtoll(*at, &end, 10);
    if (errno != 0 || end == *at || *end != after || value < min || value > max)
        return false;
    *at = end + 1;
    *ret = value;
    return true;
}

static bool parse_record(const char *text, struct exit_record *ret)
{
    long long pid, status, seconds, nanos;

    if (!take_number(&text, 0, UINT32_MAX, ' ', &pid) || !take_number(&text, 0, UINT32_MAX, ' ', &status) ||
        !take_number(&text, SECONDS_MIN, SECONDS_MAX, ' ', &seconds) ||
        !take_number(&text, 0, NANOS_MAX, '\n', &nanos) || *text != '\0')
        return false;
    *ret = (struct exit_record){
        .pid = (uint32_t)pid, .status = (uint32_t)status, .seconds = seconds, .nanos = (uint32_t)nanos};
    return true;
}

/* Fills `text` with a small regular file of the bundle; false when it is absent or anything but that. */
static bool read_small_file(const char *bundle, const char *name, char *text, size_t size, struct timespec *ret_written)
{
    const char *parts[] = {bundle, name};
    cleanup_fd int fd = -1;
    struct failure ignored; /* whatever is wrong with the file, the answer is the same: Node looks after it */
    char path[PATH_MAX];
    struct stat st;
    ssize_t n;

    if (path_join(path, sizeof(path), parts, 2, &ignored) < 0)
        return false;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    n = read(fd, text, size);
    if (n < 0 || (size_t)n >= size || memchr(text, '\0', (size_t)n))
        return false;
    text[n] = '\0';
    *ret_written = st.st_mtim;
    return true;
}

/*
 * The shim unlinks its socket when it ends; this is for the one that could not. A socket that is younger than the record
 * and listened on stays: the same id has been started again meanwhile, since a daemon also cleans up when it notices
 * that a connection ended. The default folder may not be where it was, so the `address` file is asked too, but believed
 * only about a socket of this container's name.
 */
static void remove_sockets(const struct settings *settings, const char *bundle, struct timespec recorded)
{
    char address[sizeof(UNIX_SCHEME) + SOCKET_PATH_LIMIT + 1];
    struct failure ignored;
    struct timespec unused;
    struct socket_name name;
    const char *base;

    if (!settings->address || socket_name(settings, NULL, &name, &ignored) < 0)
        return;
    socket_remove_of(name.path, recorded);
    if (!read_small_file(bundle, ADDRESS_FILE, address, sizeof(address), &unused) ||
        strncmp(address, UNIX_SCHEME "/", strlen(UNIX_SCHEME "/")) != 0)
        return;
    address[strcspn(address, "\n")] = '\0';
    base = strrchr(address, '/') + 1;
    if (strcmp(base, name.hash) == 0)
        socket_remove_of(address + strlen(UNIX_SCHEME), recorded);
}

/* DeleteResponse{pid=1, exit_status=2, exited_at=3 Timestamp{seconds=1, nanos=2}}; field 3 keeps it from being empty,
 * which would read as a clean exit of process 0. */
static int print_response(const struct exit_record *record, struct failure *failure)
{
    uint8_t time_bytes[32], bytes[64];
    struct wire_writer time = {.bytes = time_bytes, .size = sizeof(time_bytes), .ok = true};
    struct wire_writer response = {.bytes = bytes, .size = sizeof(bytes), .ok = true};

    wire_put_number(&time, 1, (uint64_t)record->seconds);
    wire_put_number(&time, 2, record->nanos);
    wire_put_number(&response, 1, record->pid);
    wire_put_number(&response, 2, record->status);
    wire_put_bytes(&response, 3, time_bytes, time.used);
    if (!time.ok || !response.ok)
        return fail(failure, ENOBUFS, "cannot encode the answer");
    if (write_whole(STDOUT_FILENO, bytes, response.used) < 0)
        return fail(failure, errno, "cannot print the answer");
    return 0;
}

/* *ret_bundle stays NULL when there is neither a flag nor a current folder. */
static int find_bundle(const struct settings *settings, char buffer[static PATH_MAX], const char **ret_bundle,
                       struct failure *failure)
{
    const char *given = settings->bundle ? settings->bundle : "";
    char cwd[PATH_MAX];
    const char *parts[] = {cwd, given};

    *ret_bundle = NULL;
    if (*given == '/')
        cwd[0] = '\0';
    else if (!getcwd(cwd, sizeof(cwd)))
        return 0;
    if (path_join(buffer, PATH_MAX, parts, 2, failure) < 0)
        return -1;
    *ret_bundle = buffer;
    return 0;
}

int launcher_delete(const struct settings *settings, struct failure *failure)
{
    struct node_call call = {.settings = settings, .action = "delete"};
    char buffer[PATH_MAX], text[RECORD_LIMIT_BYTES];
    struct exit_record record;
    struct timespec recorded;

    if (!settings->id || !is_identifier(settings->id))
        return fail(failure, 0, "cannot delete: -id \"%s\" is not a container id", settings->id ? settings->id : "");
    if (!settings->namespace || !is_identifier(settings->namespace))
        return fail(failure, 0, "cannot delete: -namespace \"%s\" is not a namespace",
                    settings->namespace ? settings->namespace : "");
    if (find_bundle(settings, buffer, &call.bundle, failure) < 0)
        return -1;
    if (call.bundle && read_small_file(call.bundle, RECORD_FILE, text, sizeof(text), &recorded) &&
        parse_record(text, &record)) {
        remove_sockets(settings, call.bundle, recorded);
        return print_response(&record, failure);
    }
    /* Node refuses to start in a folder that has been removed */
    if (chdir("/") < 0)
        return fail(failure, errno, "cannot change to \"/\"");
    return node_exec(&call, failure);
}
