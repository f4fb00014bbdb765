/*
 * Paths inside the container's root, and files of procfs. An image, or another container that shares a volume, chooses what lies below
 * the root, and may change it while we work. Invariants: a path of the plan is resolved only by openat2 with RESOLVE_IN_ROOT, and what
 * was resolved is then used by its fd, never by its path again; missing parts are made step by step below an fd, through no symlink.
 * procfs is reached only through the handle that was opened and verified on the host side, so that nothing that is mounted in the
 * container can stand in for it.
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
 * Rewrites `path` without symlinks and without "..", as the links are now; parts that do not exist are kept as they are written. The
 * result is only a recipe for walk(), which does not trust it: should a part have become a symlink meanwhile, the walk fails.
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
 * Who can influence: the image and anyone who shares a volume with it choose every name on the way. Privilege: root in the container's
 * user namespace, host file systems still in reach. Therefore: one component at a time below the fd of the one before, O_NOFOLLOW, no
 * "..": whatever is swapped meanwhile, this can only end below `root` or fail (CVE-2024-45310).
 */
static int walk(int root, char *path, enum last last, bool *ret_made)
{
    cleanup_fd int at = sys_openat(root, ".", O_PATH | O_DIRECTORY, 0);
    if (at < 0)
        return take_fd(&at);
    bool made = false;
    for (char *save = NULL, *name = strtok_r(path, "/", &save); name != NULL;) {
        char *next_name = strtok_r(NULL, "/", &save);
        bool file = next_name == NULL && last == LAST_FILE;
        int flags = O_PATH | O_NOFOLLOW | (file ? 0 : O_DIRECTORY);
        int next = sys_openat(at, name, flags, 0);
        if (next == -ENOENT) {
            int made_fd = file ? sys_openat(at, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, 0644) : sys_result(mkdirat(at, name, 0755));
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
    if (ret_made != NULL)
        *ret_made = made;
    return take_fd(&at);
}

/*
 * An O_PATH fd of what `path` names in the root; where nothing is, a directory or an empty file is made. What exists is returned as it is,
 * whatever it is.
 */
int path_make(int root, const char *path, enum last last, bool *ret_made)
{
    if (ret_made != NULL)
        *ret_made = false;
    int fd = path_open(root, path, O_PATH);
    if (fd != -ENOENT)
        return fd;
    char plain[PATH_MAX];
    int err = expand(root, path, plain);
    return err < 0 ? err : walk(root, plain, last, ret_made);
}

/* An fd of the directory that `path` lies in, made when missing, and the last component; that one may be a symlink: use O_NOFOLLOW. */
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

/* For proc and sysfs: what is there must be a directory by itself, or a hostile link decides where the real one goes (CVE-2019-19921). */
int path_make_plain_directory(int root, const char *path, bool *ret_made)
{
    char name[NAME_MAX + 1];
    *ret_made = false;
    cleanup_fd int parent = path_parent(root, path, name);
    return parent < 0 ? take_fd(&parent) : walk(parent, name, LAST_DIRECTORY, ret_made);
}

/*
 * The runtime decides by the text of a path what may be mounted over procfs; so a symlink of the image must not lead there. What the text
 * leads to without links must be the very file that `fd` is, or links were swapped between the two lookups.
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

/* The root's /dev/null is the image's word for it: believed only when it is the character device 1:3 (CVE-2025-31133). */
int path_null_device(struct ctx *c)
{
    if (c->null >= 0)
        return c->null;
    struct stat st;
    cleanup_fd int fd = path_open(c->root, "/dev/null", O_PATH);
    int err = fd < 0 ? fd : sys_fstat(fd, &st);
    if (err < 0)
        return err;
    if (!is_null_device(&st))
        return -ENODEV;
    c->null = take_fd(&fd);
    return c->null;
}

#define PROC_ROOT_INODE 1

/* No other file system can claim this type; the inode is the root's. */
static int check_proc(int fd)
{
    struct stat st;
    int err = fd < 0 ? fd : sys_fstat(fd, &st);
    return err == 0 && (sys_fs_type(fd) != PROC_SUPER_MAGIC || st.st_ino != PROC_ROOT_INODE) ? -ENODEV : err;
}

/* Opened before any namespace is entered: the handle shows the host's procfs for as long as it lives, whatever is mounted later. */
int proc_open(struct ctx *c)
{
    cleanup_fd int fd = sys_openat(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
    int err = check_proc(fd);
    if (err < 0)
        return step(c, err, "use \"/proc\": a procfs must be mounted there");
    c->proc = take_fd(&fd);
    return 0;
}

/*
 * Who can influence: `path` is ours or comes from the plan (sysctl names); what is mounted over parts of procfs, an administrator or,
 * through shared mounts, a container. RESOLVE_NO_XDEV refuses all of that, RESOLVE_BENEATH the rest (CVE-2025-52881).
 */
int proc_open_at(int directory, const char *path, int flags)
{
    return sys_openat2(directory, path, flags, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
}

int proc_write_at(int directory, const char *path, const char *text, size_t size)
{
    cleanup_fd int fd = proc_open_at(directory, path, O_WRONLY);
    if (fd < 0)
        return take_fd(&fd);
    ssize_t wrote;
    do {
        wrote = write(fd, text, size);
    } while (wrote < 0 && errno == EINTR);
    if (wrote < 0)
        return -errno;
    return (size_t)wrote == size ? 0 : -EIO;
}

int proc_write(const struct ctx *c, const char *path, const char *text, size_t size)
{
    return proc_write_at(c->proc, path, text, size);
}

/*
 * Files of our own below "self/". Where we are not what procfs takes an undumpable process for, which is root where ts-init was executed,
 * they are ours only while we are dumpable. Who can influence meanwhile: processes with all power over our user namespace could trace us.
 * Where one was joined they may be hostile, and we do not. In a new one those are the processes of its owner's id: a rootless runtime's own
 * user. Of root's they may have little power elsewhere, but such a plan has the host agent, who is asked instead.
 */
int proc_write_own(const struct ctx *c, const char *path, const char *text, size_t size)
{
    int err = proc_write(c, path, text, size);
    if (err != -EACCES || c->strangers)
        return err;
    err = sys_prctl(PR_SET_DUMPABLE, 1, 0);
    if (err == 0)
        err = proc_write(c, path, text, size);
    int undo = sys_prctl(PR_SET_DUMPABLE, 0, 0);
    return err < 0 ? err : undo;
}

/* A namespace of a process, or of our "self". The directory is looked up without links, only its entry is the magic link that we want. */
int proc_open_ns(const struct ctx *c, const char *pid, const char *name)
{
    char path[32];
    (void)snprintf(path, sizeof path, "%s/ns", pid);
    cleanup_fd int directory = proc_open_at(c->proc, path, O_PATH | O_DIRECTORY);
    return directory < 0 ? take_fd(&directory) : sys_openat(directory, name, O_RDONLY, 0);
}

static int open_own_fds(int proc)
{
    return proc_open_at(proc, "self/fd", O_PATH | O_DIRECTORY);
}

/* What the path of a directory's fd is below the root that we have. */
int proc_own_path(const struct ctx *c, int fd, char path[PATH_MAX])
{
    char name[16];
    (void)snprintf(name, sizeof name, "%d", fd);
    cleanup_fd int directory = open_own_fds(c->proc);
    ssize_t size = directory < 0 ? directory : sys_result((int)readlinkat(directory, name, path, PATH_MAX));
    if (size < 0 || size == PATH_MAX)
        return size < 0 ? (int)size : -ENAMETOOLONG;
    path[size] = 0;
    return 0;
}

/*
 * Our own fds in the container's procfs. Who can influence: the container decides what its /proc is. A procfs that is not our pid
 * namespace's or an outer one's has no "self" for us, and RESOLVE_NO_XDEV refuses what is mounted over its parts: then it is no use.
 */
static int container_own_fds(const struct ctx *c)
{
    cleanup_fd int own = path_open(c->root, "/proc", O_PATH | O_DIRECTORY);
    return check_proc(own) < 0 ? -ENODEV : open_own_fds(own);
}

/*
 * For a container whose own /proc is no use: the same in a procfs of our pid namespace that is mounted nowhere and shows nothing but
 * processes. In a user namespace the kernel makes one only while a whole one is in sight, so this is called before the host's goes out of it.
 */
void proc_prepare(struct ctx *c)
{
    cleanup_fd int usable = container_own_fds(c);
    if (usable >= 0 || c->own_fds >= 0)
        return;
    cleanup_fd int fs = sys_fsopen("proc");
    int err = fs < 0 ? fs : sys_fsconfig(fs, FSCONFIG_SET_STRING, "subset", "pid");
    if (err == 0)
        err = sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL);
    cleanup_fd int tree = err < 0 ? err : sys_fsmount(fs, 0);
    c->own_fds = tree < 0 ? -1 : open_own_fds(tree);
}

/*
 * Lets go of the host's procfs, because a created container waits for its start with what is held now. Where neither the container's /proc
 * nor one of our own is to be had, it stays.
 */
void proc_narrow(struct ctx *c)
{
    proc_prepare(c);
    int own = container_own_fds(c);
    if (own >= 0) {
        close_fd(&c->own_fds);
        c->own_fds = own;
    }
    if (c->own_fds >= 0)
        close_fd(&c->proc);
    else
        c->own_fds = open_own_fds(c->proc);
}

/*
 * Opens the file of an O_PATH fd for use. The directory is looked up without links, only its entry is the magic link that we want. Once
 * proc_narrow was called this is one openat.
 */
int proc_reopen(const struct ctx *c, int fd, int flags)
{
    char name[16];
    (void)snprintf(name, sizeof name, "%d", fd);
    cleanup_fd int directory = c->own_fds >= 0 ? -1 : open_own_fds(c->proc);
    if (c->own_fds < 0 && directory < 0)
        return take_fd(&directory);
    return sys_openat(c->own_fds >= 0 ? c->own_fds : directory, name, flags, 0);
}
