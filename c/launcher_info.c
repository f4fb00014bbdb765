/*
 * What this shim is: `-v` for people, `-info` for the daemon, which asks before the first container and before it
 * relies on a feature. Both only print what the build has put into the lib folder.
 */
#include "launcher.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RUNTIME_NAME "io.containerd.ts.v2"
#define FEATURES_TYPE "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
#define VERSION_LIMIT_BYTES 64u
#define FEATURES_LIMIT_BYTES (1u << 20)
/* tags and lengths of all the messages around the pieces */
#define OVERHEAD_BYTES 256u

struct piece {
    uint8_t *bytes;
    size_t size;
};

static int read_lib_file(const char *name, size_t limit, struct piece *ret, struct failure *failure)
{
    char path[PATH_MAX];

    if (lib_path(name, path, failure) < 0)
        return -1;
    return read_file(path, limit, &ret->bytes, &ret->size, failure);
}

static int read_version(struct piece *ret, struct failure *failure)
{
    if (read_lib_file("VERSION", VERSION_LIMIT_BYTES, ret, failure) < 0)
        return -1;
    while (ret->size > 0 && strchr("\r\n ", ret->bytes[ret->size - 1]))
        ret->size--;
    return 0;
}

int launcher_version(struct failure *failure)
{
    struct piece version = {0};
    int r = read_version(&version, failure);

    if (r == 0 && (printf("%s:\n  Version:  %.*s\n", PROGRAM, (int)version.size, (const char *)version.bytes) < 0 ||
                   fflush(stdout) != 0))
        r = fail(failure, errno, "cannot print the version");
    free(version.bytes);
    return r;
}

/* RuntimeInfo{name=1, version=2 {version=1}, options=3 Any, features=4 Any {type_url=1, value=2}} */
static int print_info(struct piece version, struct piece features, struct piece options, struct failure *failure)
{
    size_t size = version.size + features.size + options.size + OVERHEAD_BYTES;
    cleanup_free uint8_t *inner = malloc(size), *outer = malloc(size);
    struct wire_writer part = {.bytes = inner, .size = size, .ok = inner != NULL};
    struct wire_writer info = {.bytes = outer, .size = size, .ok = outer != NULL};

    wire_put_bytes(&info, 1, RUNTIME_NAME, strlen(RUNTIME_NAME));
    wire_put_bytes(&part, 1, version.bytes, version.size);
    wire_put_bytes(&info, 2, inner, part.used);
    if (options.size > 0)
        wire_put_bytes(&info, 3, options.bytes, options.size);
    part.used = 0;
    wire_put_bytes(&part, 1, FEATURES_TYPE, strlen(FEATURES_TYPE));
    wire_put_bytes(&part, 2, features.bytes, features.size);
    wire_put_bytes(&info, 4, inner, part.used);
    if (!part.ok || !info.ok)
        return fail(failure, ENOMEM, "cannot encode the runtime's information");
    if (write_whole(STDOUT_FILENO, outer, info.used) < 0)
        return fail(failure, errno, "cannot print the runtime's information");
    return 0;
}

static int read_options(struct piece *ret, struct failure *failure)
{
    if (isatty(STDIN_FILENO))
        return 0;
    if (read_whole(STDIN_FILENO, "the options on stdin", STDIN_LIMIT_BYTES, &ret->bytes, &ret->size, failure) < 0)
        return -1;
    if (!wire_is_any(ret->bytes, ret->size))
        return fail(failure, 0, "cannot read the options on stdin: they are no google.protobuf.Any");
    return 0;
}

int launcher_info(struct failure *failure)
{
    struct piece version = {0}, features = {0}, options = {0};
    int r = -1;

    if (read_version(&version, failure) == 0 &&
        read_lib_file("features.json", FEATURES_LIMIT_BYTES, &features, failure) == 0 &&
        read_options(&options, failure) == 0)
        r = print_info(version, features, options, failure);
    free(version.bytes);
    free(features.bytes);
    free(options.bytes);
    return r;
}
