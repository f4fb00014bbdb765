/*
 * The option `shim_cgroup` moves the shim process out of the daemon's cgroup, into one that the
 * operator has made. Like containerd's own shim, this skips a v1 hierarchy without that group,
 * unless all lack it.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * Decodes space, tab, newline and backslash, which mountinfo has as a backslash and three octal
 * digits.
 */
static void unescape(char *field)
{
    char *to = field;
    unsigned byte;
    for (const char *at = field; *at; at++) {
        bool escaped = at[0] == '\\' && sscanf(at + 1, "%3o", &byte) == 1;
        *to++ = escaped ? (char)byte : *at;
        at += escaped ? 3 : 0;
    }
    *to = '\0';
}

/*
 * The mount point of a line of mountinfo (proc_pid_mountinfo(5)) for a cgroup hierarchy, else NULL.
 */
static char *cgroup_mount_point(const char *line)
{
    const char *type = strstr(line, " - cgroup");
    char *mount_point;
    if (!type || (strncmp(type, " - cgroup ", 10) != 0 && strncmp(type, " - cgroup2 ", 11) != 0) ||
        sscanf(line, "%*[^ ] %*[^ ] %*[^ ] %*[^ ] %m[^ ]", &mount_point) != 1) /* other blanks are not escaped */
        return NULL;
    unescape(mount_point);
    return mount_point;
}

/* Returns whether this hierarchy has the group. */
static bool enter_below(const char *mount_point, const char *group)
{
    const char *path = path_clean(text("%s/%s/cgroup.procs", mount_point, group));
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return false;
    /* "0" means the writing process */
    if (fd < 0 || write_whole(fd, "0", 1) < 0)
        die(errno, "cannot move the shim into the cgroup \"%s\" (\"%s\")", group, path);
    (void)close(fd);
    return true;
}

void cgroup_enter(const char *group)
{
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    size_t size = 0;
    char *line = NULL;
    bool joined = false;
    /* the group comes from a client and must not lead out of a hierarchy */
    if (strstr(text("/%s/", group), "/../"))
        die(0, "cannot move the shim into the cgroup \"%s\": the path leads out of the hierarchy", group);
    while (mounts && getline(&line, &size, mounts) > 0) {
        const char *mount_point = cgroup_mount_point(line);
        joined = (mount_point && enter_below(mount_point, group)) || joined;
    }
    if (!mounts || ferror(mounts))
        die(errno, "cannot read \"/proc/self/mountinfo\"");
    if (!joined)
        die(ENOENT, "cannot move the shim into the cgroup \"%s\"", group);
    (void)fclose(mounts);
}
