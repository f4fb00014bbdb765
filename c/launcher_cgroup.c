/*
 * The option `shim_cgroup`: the shim process leaves the daemon's cgroup for one that an operator has made. The group
 * must exist; as containerd's own shim does, a v1 hierarchy that lacks it is passed over, unless all of them lack it.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The kernel writes space, tab, newline and backslash in mountinfo as a backslash and three octal digits. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *at = text; *at; to++) {
        if (at[0] == '\\' && at[1] >= '0' && at[1] <= '3' && at[2] >= '0' && at[2] <= '7' && at[3] >= '0' &&
            at[3] <= '7') {
            *to = (char)((at[1] - '0') << 6 | (at[2] - '0') << 3 | (at[3] - '0'));
            at += 4;
        } else {
            *to = *at++;
        }
    }
    *to = '\0';
}

/* The mount point of one line of mountinfo (proc_pid_mountinfo(5)) when it is a cgroup hierarchy, else NULL. */
static char *cgroup_mount_point(char *line)
{
    char *separator = strstr(line, " - ");
    char *field = line, *end;

    if (!separator || (strncmp(separator + 3, "cgroup ", 7) != 0 && strncmp(separator + 3, "cgroup2 ", 8) != 0))
        return NULL;
    for (int skipped = 0; skipped < 4; skipped++) {
        field = strchr(field, ' ');
        if (!field || field >= separator)
            return NULL;
        field++;
    }
    end = strchr(field, ' ');
    if (!end)
        return NULL;
    *end = '\0';
    unescape(field);
    return field;
}

/* 1: joined, 0: this hierarchy has no such group. */
static int enter_below(const char *mount_point, const char *group, struct failure *failure)
{
    const char *parts[] = {mount_point, group, "cgroup.procs"};
    cleanup_fd int fd = -1;
    char path[PATH_MAX];

    if (path_join(path, sizeof(path), parts, 3, failure) < 0)
        return -1;
    fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return 0;
    /* "0" is whoever writes */
    if (fd < 0 || write_whole(fd, "0", 1) < 0)
        return fail(failure, errno, "cannot move the shim into the cgroup \"%s\" (\"%s\")", group, path);
    return 1;
}

/* The group is a client's word: it must not lead out of a hierarchy. */
static bool leads_out(const char *group)
{
    for (const char *at = group; *at; at += strcspn(at, "/")) {
        at += strspn(at, "/");
        if (strncmp(at, "..", 2) == 0 && (at[2] == '/' || at[2] == '\0'))
            return true;
    }
    return false;
}

static int enter_all(FILE *mounts, const char *group, struct failure *failure)
{
    cleanup_free char *line = NULL;
    int joined = 0;
    size_t size = 0;

    while (getline(&line, &size, mounts) > 0) {
        const char *mount_point = cgroup_mount_point(line);
        int r = mount_point ? enter_below(mount_point, group, failure) : 0;

        if (r < 0)
            return -1;
        joined += r;
    }
    if (ferror(mounts))
        return fail(failure, errno, "cannot read \"/proc/self/mountinfo\"");
    if (joined == 0)
        return fail(failure, ENOENT, "cannot move the shim into the cgroup \"%s\"", group);
    return 0;
}

int cgroup_enter(const char *group, struct failure *failure)
{
    FILE *mounts;
    int r;

    if (leads_out(group))
        return fail(failure, 0, "cannot move the shim into the cgroup \"%s\": the path leads out of the hierarchy", group);
    mounts = fopen("/proc/self/mountinfo", "re");
    if (!mounts)
        return fail(failure, errno, "cannot read \"/proc/self/mountinfo\"");
    r = enter_all(mounts, group, failure);
    (void)fclose(mounts);
    return r;
}
