/*
 * Paths inside the container's root, and files of procfs. The image, or another container that
 * shares a volume, chooses what lies below the root and may change it at any time.
 *
 * Invariants: a path inside the root is resolved only by openat2 with RESOLVE_IN_ROOT, and what was
 * found is then used by its fd, never by its path again. Missing parts are made one at a time below
 * an fd, through no symlink. Settings in procfs are written only through the handle that stage 0
 * opened and verified, so that no mount of the container can stand in for them.
 */
#include "init.h"

#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#define INSIDE ((uint64_t)(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS))
#define MAX_LINKS 40

int path_open(int root, const char *path, int flags)
{
    return sys_openat2(root, path[0] == 0 ? "/" : path, flags, 0, INSIDE);
}

/*
 * Rewrites `path` without symlinks and without "..", following the links as they are now. Parts
 * that do not exist are kept as written. walk() does not trust the result: it fails at a part that
 * has become a symlink meanwhile.
 */
static int expand(int root, const char *path, char out[PATH_MAX])
{
    char rest[PATH_MAX], link[PATH_MAX], joined[PATH_MAX];
    size_t used = 0;
    int links = 0;
    if (strlen(path) >= sizeof rest)
        return -ENAMETOOLONG;
    strcpy(rest, path);
    out[0] = 0;
    for (char *p = rest;;) {
        p += strspn(p, "/");
        size_t n = strcspn(p, "/");
        if (n == 0)
            return 0;
        if (n == 1 && p[0] == '.') {
            p += n;
            continue;
        }
        if (n == 2 && p[0] == '.' && p[1] == '.') {
            while (used > 0 && out[--used] != '/')
                ;
            out[used] = 0;
            p += n;
            continue;
        }
        if (used + n + 2 > PATH_MAX)
            return -ENAMETOOLONG;
        size_t parent = used;
        out[used++] = '/';
        memcpy(out + used, p, n);
        used += n;
        out[used] = 0;
        p += n;

        cleanup_fd int fd = sys_openat2(root, out, O_PATH | O_NOFOLLOW, 0, INSIDE | RESOLVE_NO_SYMLINKS);
        struct stat st;
        if (fd == -ENOENT)
            continue;
        int err = fd < 0 ? fd : sys_fstat(fd, &st);
        if (err < 0)
            return err;
        if (!S_ISLNK(st.st_mode))
            continue;
        if (++links > MAX_LINKS)
            return -ELOOP;
        ssize_t size = readlinkat(fd, "", link, sizeof link - 1);
        if (size <= 0)
            return size < 0 ? -errno : -ENOENT;
        link[size] = 0;
        if ((size_t)snprintf(joined, sizeof joined, "%s%s", link, p) >= sizeof joined)
            return -ENAMETOOLONG;
        strcpy(rest, joined);
        p = rest;
        used = link[0] == '/' ? 0 : parent;
        out[used] = 0;
    }
}

/*
 * Attacker: the image and every sharer of a volume choose each name on the way, at any time.
 * Privilege held: root in the container's user namespace, with the host's file systems in reach.
 * Order matters because: each component is opened below the fd of the one before, with O_NOFOLLOW
 *   and without "..". A name that is swapped meanwhile ends below `root`, or fails
 *   (CVE-2024-45310).
 */
static int walk(int root, char *path, enum last last, bool *ret_made)
{
    cleanup_fd int at = sys_openat(root, ".", O_PATH | O_DIRECTORY, 0);
    if (at < 0)
        return take_fd(&at);
    bool made = false;
    for (char *save = NULL, *name = strtok_r(path, "/", &save); name;) {
        char *next_name = strtok_r(NULL, "/", &save);
        bool file = !next_name && last == LAST_FILE;
        int flags = O_PATH | O_NOFOLLOW | (file ? 0 : O_DIRECTORY);
        int next = sys_openat(at, name, flags, 0);
        if (next == -ENOENT) {
            int made_fd = file ? sys_openat(at, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, 0644) :
                                 sys_result(mkdirat(at, name, 0755));
            if (made_fd < 0 && made_fd != -EEXIST)
                return made_fd;
            made = made_fd >= 0;
            if (file && made_fd >= 0)
                close_fd(&made_fd);
            next = sys_openat(at, name, flags, 0);
        }
        if (next < 0)
            return next;
        close_fd(&at);
        at = next;
        name = next_name;
    }
    if (ret_made)
        *ret_made = made;
    return take_fd(&at);
}

/*
 * Returns an O_PATH fd of what `path` names in the root. A missing one is made: a directory or an
 * empty file. What exists is returned whatever its type.
 */
int path_make(int root, const char *path, enum last last, bool *ret_made)
{
    if (ret_made)
        *ret_made = false;
    int fd = path_open(root, path, O_PATH);
    if (fd != -ENOENT)
        return fd;
    char plain[PATH_MAX];
    int err = expand(root, path, plain);
    return err < 0 ? err : walk(root, plain, last, ret_made);
}

/*
 * Returns an fd of the directory that holds `path`, made if missing, and the last component. That
 * one may be a symlink, so callers use O_NOFOLLOW.
 */
int path_parent(int root, const char *path, char ret_name[NAME_MAX + 1])
{
    char parent[PATH_MAX];
    size_t size = strlen(path);
    while (size > 0 && path[size - 1] == '/')
        size--;
    size_t name = size;
    while (name > 0 && path[name - 1] != '/')
        name--;
    if (size - name > NAME_MAX || name >= sizeof parent)
        return -ENAMETOOLONG;
    memcpy(ret_name, path + name, size - name);
    ret_name[size - name] = 0;
    if (ret_name[0] == 0 || strcmp(ret_name, ".") == 0 || strcmp(ret_name, "..") == 0)
        return -EINVAL;
    memcpy(parent, path, name);
    parent[name] = 0;
    return path_make(root, parent, LAST_DIRECTORY, NULL);
}

/*
 * For proc and sysfs the target must itself be a directory. A hostile symlink would otherwise
 * decide where the real file system goes (CVE-2019-19921).
 */
int path_make_plain_directory(int root, const char *path, bool *ret_made)
{
    char name[NAME_MAX + 1];
    *ret_made = false;
    cleanup_fd int parent = path_parent(root, path, name);
    return parent < 0 ? take_fd(&parent) : walk(parent, name, LAST_DIRECTORY, ret_made);
}

/*
 * The runtime decides by the text of a path what may be mounted over procfs, so no symlink of the
 * image may lead there. The path without symlinks must name the very file of `fd`; otherwise a link
 * was used, or was swapped between the two lookups.
 */
bool path_reaches_procfs_by_symlink(int root, const char *path, int fd)
{
    struct stat used, named;
    if (sys_fs_type(fd) != PROC_SUPER_MAGIC)
        return false;
    cleanup_fd int direct = sys_openat2(root, path, O_PATH, 0, INSIDE | RESOLVE_NO_SYMLINKS);
    if (direct < 0 || sys_fstat(fd, &used) < 0 || sys_fstat(direct, &named) < 0)
        return true;
    return used.st_dev != named.st_dev || used.st_ino != named.st_ino;
}

bool is_null_device(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3);
}

/*
 * The image provides the root's /dev/null. It is used only if it is the device 1:3
 * (CVE-2025-31133).
 */
int path_null_device(struct inside *inside)
{
    if (inside->null >= 0)
        return inside->null;
    struct stat st;
    cleanup_fd int fd = path_open(inside->root, "/dev/null", O_PATH);
    int err = fd < 0 ? fd : sys_fstat(fd, &st);
    if (err < 0)
        return err;
    if (!is_null_device(&st))
        return -ENODEV;
    inside->null = take_fd(&fd);
    return inside->null;
}

#define PROC_ROOT_INODE 1

/* Only a procfs has this type, and only its root directory has this inode. */
static int check_proc(int fd)
{
    struct stat st;
    int err = fd < 0 ? fd : sys_fstat(fd, &st);
    return err == 0 && (sys_fs_type(fd) != PROC_SUPER_MAGIC || st.st_ino != PROC_ROOT_INODE) ? -ENODEV : err;
}

/*
 * Called before any namespace is entered: the handle goes on showing the host's procfs, whatever is
 * mounted later.
 */
int proc_open(struct ctx *c)
{
    cleanup_fd int fd = sys_openat(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
    int err = check_proc(fd);
    if (err < 0)
        return fail_if(c, err, "use \"/proc\": a procfs must be mounted there");
    c->procfs.host = take_fd(&fd);
    return 0;
}

/*
 * Attacker: the plan gives some names (sysctl). A container may mount over parts of a shared /proc.
 * Privilege held: the caller's; writes here configure the host or label this process.
 * Order matters because: RESOLVE_NO_XDEV refuses what is mounted over, and RESOLVE_BENEATH every
 *   way out, in the same call that opens the file (CVE-2025-52881).
 */
int proc_open_at(int directory, const char *path, int flags)
{
    return sys_openat2(directory, path, flags, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
}

int proc_write(int directory, const char *path, const char *text, size_t size)
{
    cleanup_fd int fd = proc_open_at(directory, path, O_WRONLY);
    if (fd < 0)
        return take_fd(&fd);
    int wrote = sys_retry(write(fd, text, size));
    if (wrote < 0)
        return wrote;
    return (size_t)wrote == size ? 0 : -EIO;
}

/*
 * Writes a file below "self/". The kernel gives those of an undumpable process to root of the user
 * namespace in which ts-init was executed (proc(5)). Any other user gets EACCES until it is
 * dumpable.
 *
 * Attacker: while it is dumpable, processes with power over its user namespace can trace this one.
 *   In a joined namespace they may be hostile, so the write fails there. In a new one they are the
 *   processes of its owner: the user of a rootless runtime. Those of a root runtime are kept out,
 *   because such a plan has the host agent, which writes instead.
 * Privilege held: what the user already has; the handle of the host's procfs.
 * Order matters because: it is undumpable again right after the write.
 */
int proc_write_own(const struct ctx *c, const char *path, const char *text, size_t size)
{
    int err = proc_write(c->procfs.host, path, text, size);
    if (err != -EACCES || c->strangers)
        return err;
    err = sys_prctl(PR_SET_DUMPABLE, 1, 0);
    if (err == 0)
        err = proc_write(c->procfs.host, path, text, size);
    int undo = sys_prctl(PR_SET_DUMPABLE, 0, 0);
    return err < 0 ? err : undo;
}

/*
 * Opens a namespace of a process, or of "self". The directory is looked up without links; only its
 * entry is the wanted magic link.
 */
int proc_open_ns(int proc, const char *pid, const char *name)
{
    char path[32];
    (void)snprintf(path, sizeof path, "%s/ns", pid);
    cleanup_fd int directory = proc_open_at(proc, path, O_PATH | O_DIRECTORY);
    return directory < 0 ? take_fd(&directory) : sys_openat(directory, name, O_RDONLY, 0);
}

static int open_own_fds(int proc)
{
    return proc_open_at(proc, "self/fd", O_PATH | O_DIRECTORY);
}

/* The path of a directory's fd below the current root. */
int proc_own_path(int proc, int fd, char path[PATH_MAX])
{
    char name[16];
    (void)snprintf(name, sizeof name, "%d", fd);
    cleanup_fd int directory = open_own_fds(proc);
    ssize_t size = directory < 0 ? directory : sys_result((int)readlinkat(directory, name, path, PATH_MAX));
    if (size < 0 || size == PATH_MAX)
        return size < 0 ? (int)size : -ENAMETOOLONG;
    path[size] = 0;
    return 0;
}

/*
 * The directory of this process's fds in the container's procfs, if that is usable.
 *
 * Attacker: the container decides what its /proc is.
 * Privilege held: root in the container's user namespace.
 * Order matters because: the type and the inode are checked before "self" is looked up. The procfs
 *   of an unrelated pid namespace has no "self" for this process. RESOLVE_NO_XDEV refuses mounts
 *   over parts.
 */
static int container_own_fds(int root)
{
    cleanup_fd int own = path_open(root, "/proc", O_PATH | O_DIRECTORY);
    return check_proc(own) < 0 ? -ENODEV : open_own_fds(own);
}

/*
 * Prepares own_fds for a container without a usable /proc, from a new procfs that is mounted
 * nowhere and shows only processes. In a user namespace the kernel allows that only while a fully
 * visible procfs is mounted, so this is called before the host's goes out of sight.
 */
void proc_prepare(struct ctx *c)
{
    cleanup_fd int usable = container_own_fds(c->inside.root);
    if (usable >= 0 || c->procfs.fds >= 0)
        return;
    cleanup_fd int fs = sys_fsopen("proc");
    int err = fs < 0 ? fs : sys_fsconfig(fs, FSCONFIG_SET_STRING, "subset", "pid");
    if (err == 0)
        err = sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL);
    cleanup_fd int tree = err < 0 ? err : sys_fsmount(fs, 0);
    c->procfs.fds = tree < 0 ? -1 : open_own_fds(tree);
}

/*
 * Closes the host's procfs, because a created container waits for its start with the fds that are
 * open now. If neither the container's procfs nor a new one is usable, own_fds stays one of the
 * host's.
 */
void proc_narrow(struct ctx *c)
{
    proc_prepare(c);
    int own = container_own_fds(c->inside.root);
    if (own >= 0) {
        close_fd(&c->procfs.fds);
        c->procfs.fds = own;
    }
    if (c->procfs.fds >= 0)
        close_fd(&c->procfs.host);
    else
        c->procfs.fds = open_own_fds(c->procfs.host);
}

/*
 * Opens the file of an O_PATH fd for use. The directory is looked up without links; only its entry
 * is the wanted magic link. After proc_narrow this is one openat.
 */
int proc_reopen(const struct procfs *procfs, int fd, int flags)
{
    char name[16];
    (void)snprintf(name, sizeof name, "%d", fd);
    cleanup_fd int directory = procfs->fds >= 0 ? -1 : open_own_fds(procfs->host);
    if (procfs->fds < 0 && directory < 0)
        return take_fd(&directory);
    return sys_openat(procfs->fds >= 0 ? procfs->fds : directory, name, flags, 0);
}
