/*
 * `-v` describes this shim to people, `-info` to the daemon, which asks before the first container
 * and before it relies on a feature. Both print files that the build has put into the lib folder.
 * The answer to -info is a protobuf RuntimeInfo; the options from stdin are appended as its field
 * for them.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define FILE_LIMIT_BYTES (1u << 20)
#define OPTIONS_FIELD 3

static struct slice read_lib_file(const char *name)
{
    const char *path = lib_path(name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die(errno, "cannot read \"%s\"", path);
    return read_whole(fd, text("\"%s\"", path), FILE_LIMIT_BYTES);
}

void launcher_version(void)
{
    struct slice version = read_lib_file(LIB_FILE_VERSION);
    print("the version", VERSION_HEAD, strlen(VERSION_HEAD));
    print("the version", version.bytes, version.size);
}

void launcher_info(void)
{
    static const char what[] = "the runtime's information";
    struct slice info = read_lib_file(LIB_FILE_RUNTIME_INFO), options = read_stdin();
    uint8_t head[WIRE_HEAD_BYTES];
    if (!wire_is_any(options))
        die(0, "cannot read the options on stdin: they are no google.protobuf.Any");
    print(what, info.bytes, info.size);
    if (options.size > 0) {
        print(what, head, wire_head(head, OPTIONS_FIELD, options.size));
        print(what, options.bytes, options.size);
    }
}
