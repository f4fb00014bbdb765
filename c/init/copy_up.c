/*
 * Copies the content of a directory of the image into a new, still detached tmpfs (the tmpcopyup
 * option). Owner, mode and times are kept; extended attributes are not. Invariants: a name is used
 * one component at a time below an fd and never followed through a symlink. The depth is bounded,
 * so the stack cannot overflow.
 *
 * Attacker: the image chooses all names and types below `from`, and sharers may change them
 *   meanwhile. Only this process can see `to`.
 * Privilege held: root in the container's user namespace.
 * Order matters because: a file is opened, then compared with what fstatat saw, then copied.
 */
#include "init.h"

#include <dirent.h>
#include <string.h>
#include <sys/sendfile.h>

#define MAX_DEPTH 64

_Static_assert(offsetof(struct dirent, d_name) == 19, "struct dirent is what getdents64 fills");

static int copy_directory(int from, int to, int depth);

static int copy_content(int in, int out)
{
    for (;;) {
        int sent = sys_retry(sendfile(out, in, NULL, 1 << 20));
        if (sent <= 0)
            return sent;
    }
}

/*
 * By name, because only this process can see `to`. Owner before mode, because chown clears the
 * set-id bits. A symlink has no mode.
 */
static int copy_attributes(int to, const char *name, const struct stat *st)
{
    const struct timespec times[2] = {st->st_atim, st->st_mtim};
    int err = sys_result(fchownat(to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW));
    if (err == 0 && !S_ISLNK(st->st_mode))
        err = sys_result(fchmodat(to, name, st->st_mode & 07777, 0));
    return err < 0 ? err : sys_result(utimensat(to, name, times, AT_SYMLINK_NOFOLLOW));
}

/* The name may mean another file by now. Only the file that was looked at is copied. */
static int copy_file(int from, int to, const char *name, const struct stat *st)
{
    struct stat opened;
    cleanup_fd int in = sys_openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
    int same = in < 0 ? in : sys_fstat(in, &opened);
    if (same < 0)
        return same;
    if (!S_ISREG(opened.st_mode) || opened.st_dev != st->st_dev || opened.st_ino != st->st_ino)
        return -ESTALE;
    cleanup_fd int out = sys_openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (out < 0)
        return take_fd(&out);
    return copy_content(in, out);
}

static int copy_link(int from, int to, const char *name)
{
    char target[PATH_MAX];
    ssize_t size = readlinkat(from, name, target, sizeof target - 1);
    if (size < 0)
        return -errno;
    target[size] = 0;
    return sys_result(symlinkat(target, to, name));
}

static int copy_subdirectory(int from, int to, const char *name, int depth)
{
    int err = sys_result(mkdirat(to, name, 0700));
    cleanup_fd int in = err < 0 ? err : sys_openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    cleanup_fd int out = in < 0 ? in : sys_openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    return out < 0 ? take_fd(&out) : copy_directory(in, out, depth + 1);
}

static int copy_entry(int from, int to, const char *name, int depth)
{
    struct stat st;
    int err = sys_result(fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW));
    if (err == 0 && S_ISREG(st.st_mode))
        err = copy_file(from, to, name, &st);
    else if (err == 0 && S_ISLNK(st.st_mode))
        err = copy_link(from, to, name);
    else if (err == 0 && S_ISDIR(st.st_mode))
        err = copy_subdirectory(from, to, name, depth);
    else if (err == 0)
        err = sys_result(mknodat(to, name, st.st_mode, st.st_rdev));
    return err < 0 ? err : copy_attributes(to, name, &st);
}

/* The raw getdents64, because opendir allocates. */
static int copy_directory(int from, int to, int depth)
{
    _Alignas(struct dirent) char buffer[4096];
    if (depth > MAX_DEPTH)
        return -ELOOP;
    for (;;) {
        int size = sys_result(syscall(__NR_getdents64, from, buffer, sizeof buffer));
        if (size <= 0)
            return size;
        for (int at = 0; at < size;) {
            const struct dirent *entry = (const struct dirent *)(const void *)(buffer + at);
            at += entry->d_reclen;
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                continue;
            int err = copy_entry(from, to, entry->d_name, depth);
            if (err < 0)
                return err;
        }
    }
}

int copy_tree(int from, int to)
{
    cleanup_fd int in = sys_openat(from, ".", O_RDONLY | O_DIRECTORY, 0);
    return in < 0 ? take_fd(&in) : copy_directory(in, to, 0);
}
