/*
 * Files inside the container's root, its standard streams and its working directory. Invariants:
 * the last component of a name is not followed where a file is made, replaced or given an owner.
 * What was opened is compared with what it must be before it is used.
 */
#include "init.h"

#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <termios.h>

/*
 * Attacker: the image may have any file or symlink at the path.
 * Privilege held: mknod and chown.
 * Order matters because: the node is made below the fd of its parent. An existing file must be that
 *   very node. Its owner is not changed then, because it may be an inode of the host (a bound
 *   /dev).
 */
int op_device(struct ctx *c, const struct op_device *op)
{
    char name[NAME_MAX + 1];
    struct stat st;
    dev_t number = S_ISFIFO(op->mode) ? 0 : makedev(op->major, op->minor);
    cleanup_fd int parent = path_parent(c->inside.root, op->path.s, name);
    if (parent < 0)
        return fail_if(c, parent, "make device \"%s\"", op->path.s);
    mode_t mask = umask(0);
    int made = sys_result(mknodat(parent, name, op->mode, number));
    (void)umask(mask);
    if (made < 0 && made != -EEXIST)
        return fail_if(c, made, "make device \"%s\"", op->path.s);
    cleanup_fd int fd = sys_openat(parent, name, O_PATH | O_NOFOLLOW, 0);
    int err = fd < 0 ? fd : sys_fstat(fd, &st);
    if (err == 0 && ((st.st_mode & S_IFMT) != (op->mode & S_IFMT) || st.st_rdev != number))
        return fail_if(c, -EEXIST, "make device \"%s\": something else is there", op->path.s);
    if (err == 0 && made == 0 && (st.st_uid != op->uid || st.st_gid != op->gid))
        err = sys_result(fchownat(fd, "", op->uid, op->gid, AT_EMPTY_PATH));
    return fail_if(c, err, "make device \"%s\"", op->path.s);
}

/*
 * symlinkat and unlinkat use the fd of the parent. So a symlink at /dev in the image cannot turn
 * them against the host (CVE-2026-41579).
 */
int op_symlink(struct ctx *c, const struct op_symlink *op)
{
    char name[NAME_MAX + 1];
    cleanup_fd int parent = path_parent(c->inside.root, op->path.s, name);
    if (parent < 0)
        return fail_if(c, parent, "make symlink \"%s\"", op->path.s);
    int err = op->replace != 0 ? sys_result(unlinkat(parent, name, 0)) : 0;
    if (err == 0 || err == -ENOENT)
        err = sys_result(symlinkat(op->target.s, parent, name));
    if (err == -EEXIST && op->replace == 0)
        err = 0;
    return fail_if(c, err, "make symlink \"%s\" to \"%s\"", op->path.s, op->target.s);
}

/* An open device node of the host would give the container an inode of the host's file system. */
int op_reopen_null(struct ctx *c)
{
    struct stat st;
    cleanup_fd int own = -1;
    for (int fd = 0; fd <= 2; fd++) {
        int err = sys_fstat(fd, &st);
        if (err == 0 && !is_null_device(&st))
            continue;
        if (err == 0 && own < 0) {
            int null = path_null_device(&c->inside);
            own = null < 0 ? null : proc_reopen(&c->procfs, null, O_RDWR);
            err = own < 0 ? own : 0;
        }
        if (err == 0)
            err = sys_result(dup3(own, fd, 0));
        if (err < 0)
            return fail_if(c, err, "open the container's /dev/null for fd %d", fd);
    }
    return 0;
}

/* Opens /dev/pts/ptmx of the root, once it is known to be the multiplexer of a devpts. */
static int open_multiplexer(struct ctx *c)
{
    struct stat st;
    cleanup_fd int fd = sys_openat2(c->inside.root, "dev/pts/ptmx", O_PATH, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
    int err = fd < 0 ? fd : sys_fstat(fd, &st);
    if (err < 0)
        return err;
    if (sys_fs_type(fd) != DEVPTS_SUPER_MAGIC || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(5, 2))
        return -ENODEV;
    return proc_reopen(&c->procfs, fd, O_RDWR | O_NOCTTY);
}

/* Mounts the slave on /dev/console, both by fd, so that neither can be swapped (CVE-2025-52565). */
static int bind_console(struct ctx *c, int slave)
{
    struct stat st;
    char name[NAME_MAX + 1];
    cleanup_fd int parent = path_parent(c->inside.root, "/dev/console", name);
    if (parent < 0)
        return take_fd(&parent);
    cleanup_fd int target = sys_openat(parent, name, O_PATH | O_NOFOLLOW, 0);
    if (target == -ENOENT) {
        cleanup_fd int made = sys_openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
        target = made < 0 ? made : sys_openat(parent, name, O_PATH | O_NOFOLLOW, 0);
    }
    int err = target < 0 ? target : sys_fstat(target, &st);
    if (err == 0 && S_ISLNK(st.st_mode))
        err = -ELOOP;
    cleanup_fd int tree = err < 0 ? err : sys_clone_mount(slave, false);
    return tree < 0 ? take_fd(&tree) : sys_attach(tree, target);
}

/*
 * Attacker: the image shapes /dev; other processes of the container can open the same devpts.
 * Privilege held: root in the container's user namespace.
 * Order matters because: the slave comes from the master itself (TIOCGPTPEER), never by its name.
 *   Its owner and size are set before the runtime gets the master.
 */
int op_terminal(struct ctx *c, const struct op_terminal *op)
{
    char name[32];
    int unlock = 0;
    unsigned number = 0;
    struct stat st;
    cleanup_fd int master = open_multiplexer(c);
    if (master < 0)
        return fail_if(c, master, "open \"/dev/pts/ptmx\"");
    int err = sys_ioctl(master, TIOCSPTLCK, &unlock);
    if (err == 0)
        err = sys_ioctl(master, TIOCGPTN, &number);
    cleanup_fd int slave = err < 0 ? err :
                                     sys_ioctl(master, TIOCGPTPEER, (void *)(uintptr_t)(O_RDWR | O_NOCTTY | O_CLOEXEC));
    err = slave < 0 ? slave : sys_fstat(slave, &st);
    if (err == 0 && (!S_ISCHR(st.st_mode) || major(st.st_rdev) < 136 || major(st.st_rdev) > 143))
        err = -ENODEV;
    if (err < 0)
        return fail_if(c, err, "allocate a terminal");
    if (st.st_uid != op->uid && fchown(slave, op->uid, (gid_t)-1) < 0)
        return fail_if(c, -errno, "give the terminal to uid %u", op->uid);
    if (op->width != 0 && op->height != 0) {
        struct winsize window = {.ws_col = (unsigned short)op->width, .ws_row = (unsigned short)op->height};
        err = sys_ioctl(slave, TIOCSWINSZ, &window);
        if (err < 0)
            return fail_if(c, err, "size the terminal");
    }
    if (op->bare_newlines != 0) {
        struct termios settings;
        err = sys_result(tcgetattr(slave, &settings));
        settings.c_oflag &= ~(tcflag_t)ONLCR;
        err = err < 0 ? err : sys_result(tcsetattr(slave, TCSANOW, &settings));
        if (err < 0)
            return fail_if(c, err, "set up the terminal");
    }
    err = op->console != 0 ? bind_console(c, slave) : 0;
    if (err < 0)
        return fail_if(c, err, "mount the terminal on \"/dev/console\"");
    size_t size = (size_t)snprintf(name, sizeof name, "/dev/pts/%u", number);
    err = sys_send_fds(c->console, name, size, &master, 1);
    if (err < 0)
        return fail_if(c, err, "send the terminal's master");
    close_fd(&c->console);
    for (int fd = 0; fd <= 2; fd++)
        if (dup3(slave, fd, 0) < 0)
            return fail_if(c, -errno, "make the terminal fd %d", fd);
    err = sys_ioctl(0, TIOCSCTTY, NULL);
    if (err < 0)
        return fail_if(c, err, "make the terminal the controlling one");
    return report(c, RECORD_CONSOLE) < 0 ? STOP : 0;
}

/*
 * Lets the program open /dev/stdout again where its streams are pipes made for it. A file or a
 * terminal belongs to the caller and keeps its owner; opening it again is subject to the host's
 * permissions.
 */
int op_stdio_owner(struct ctx *c, const struct op_stdio_owner *op)
{
    for (int fd = 0; fd <= 2; fd++) {
        struct stat st;
        int err = sys_fstat(fd, &st);
        if (err == 0 && st.st_uid != op->uid && S_ISFIFO(st.st_mode))
            err = sys_result(fchown(fd, op->uid, (gid_t)-1));
        if (err < 0 && err != -EPERM && err != -EROFS && err != -EINVAL)
            return fail_if(c, err, "give fd %d to uid %u", fd, op->uid);
    }
    return 0;
}

int op_make_cwd(struct ctx *c, const struct op_make_cwd *op)
{
    cleanup_fd int fd = path_make(c->inside.root, op->path.s, LAST_DIRECTORY, NULL);
    return fail_if(c, fd, "make the working directory \"%s\"", op->path.s);
}

/*
 * Attacker: the client's path may lead out through a magic link such as /proc/self/fd/N
 *   (CVE-2024-21626).
 * Privilege held: before op_credentials the runtime's or the user namespace's root, afterwards the
 *   program's.
 * Order matters because: openat2 refuses magic links. After fchdir, getcwd must name the directory
 *   from the root.
 */
int op_chdir(struct ctx *c, const struct op_chdir *op)
{
    char where[PATH_MAX];
    if (c->inside.cwd_done)
        return 0;
    cleanup_fd int fd = path_open(c->inside.root, op->path.s, O_PATH | O_DIRECTORY);
    int err = fd < 0 ? fd : sys_result(fchdir(fd));
    if (err == -EACCES && op->tolerant != 0)
        return 0;
    if (err == 0) {
        int size = sys_result(syscall(__NR_getcwd, where, sizeof where));
        err = size < 0 ? size : where[0] != '/' ? -EXDEV : 0;
    }
    if (err < 0)
        return fail_if(c, err, "chdir to cwd (\"%s\") set in config.json failed", op->path.s);
    c->inside.cwd_done = true;
    return 0;
}
