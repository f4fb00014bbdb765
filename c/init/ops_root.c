/*
 * The root directory: propagation, the bind of the rootfs on itself, the change of root in three
 * ways, and what covers or write-protects parts of it afterwards. Invariants: after op_pivot,
 * c->inside.root is the root directory of this process. PIVOT_MODE_PIVOT detaches all mounts of the
 * old root. With MOVE they stay below the new root, out of sight; with CHROOT they stay as they are.
 */
#include "init.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MOUNTINFO_BYTES (4 * 1024 * 1024)

/*
 * Before the rootfs operation the path is the runtime's own. Afterwards it is one of the container,
 * which the image may redirect, but only within the root.
 */
int op_propagation(struct ctx *c, const struct op_propagation *op)
{
    cleanup_fd int fd = !c->inside.root_path ? sys_openat(AT_FDCWD, op->path.s, O_PATH, 0) :
                                               path_open(c->inside.root, op->path.s, O_PATH);
    int err = fd < 0 ? fd : sys_mount_setattr(fd, (op->flags & MS_REC) != 0, 0, 0, op->flags & ~(uint32_t)MS_REC);
    return fail_if(c, err, "set the propagation of \"%s\" to 0x%x", op->path.s, op->flags);
}

/*
 * Only the root of a mount has a propagation, so this goes up from `fd` until the kernel accepts.
 */
static int set_propagation_of_mount(int fd, uint64_t propagation)
{
    cleanup_fd int at = sys_openat(fd, ".", O_PATH | O_DIRECTORY, 0);
    for (int depth = 0; at >= 0 && depth < PATH_MAX / 2; depth++) {
        int err = sys_mount_setattr(at, false, 0, 0, propagation);
        if (err != -EINVAL)
            return err;
        int up = sys_openat(at, "..", O_PATH | O_DIRECTORY, 0);
        close_fd(&at);
        at = up;
    }
    return at < 0 ? at : -EINVAL;
}

/*
 * Binds a root among the caller's own mounts, which the runtime unmounts later.
 *
 * Attacker: none; other mount namespaces may get these mounts by propagation.
 * Privilege held: the runtime's, in its own mount namespace.
 * Order matters because: two clones are mounted on the root. The first one (the cover) has no
 *   submounts. If the mount below it is shared, the kernel attaches copies of the cover in the
 *   peers. It removes them together with the cover, but only while nothing is mounted on them. So
 *   the cover becomes private before the second clone (the tree, with submounts) is attached to
 *   it, and the peers get no copies of that. The tree is a slave, so unmounting its parts leaves
 *   the originals in place.
 */
static int bind_among_callers(int fd)
{
    cleanup_fd int tree = sys_clone_mount(fd, true);
    cleanup_fd int cover = tree < 0 ? tree : sys_clone_mount(fd, false);
    int err = cover < 0 ? cover : sys_mount_setattr(tree, true, 0, 0, MS_SLAVE);
    if (err == 0)
        err = sys_attach(cover, fd);
    if (err == 0)
        err = sys_mount_setattr(cover, false, 0, 0, MS_PRIVATE);
    if (err == 0)
        err = sys_attach(tree, cover);
    return err < 0 ? err : take_fd(&tree);
}

/*
 * MS_SLAVE leaves an unbindable mount unbindable, so open_tree says EINVAL. The mount then becomes
 * private, like any other one without a master.
 */
static int bind_on_itself(int fd, uint32_t how)
{
    int err = set_propagation_of_mount(fd, how == ROOTFS_HOW_SLAVE ? MS_SLAVE : MS_PRIVATE);
    cleanup_fd int tree = err < 0 ? err : sys_clone_mount(fd, true);
    if (tree == -EINVAL && how == ROOTFS_HOW_SLAVE)
        return bind_on_itself(fd, ROOTFS_HOW_PRIVATE);
    err = tree < 0 ? tree : sys_attach(tree, fd);
    return err < 0 ? err : take_fd(&tree);
}

/*
 * Attacker: none; the path is the runtime's.
 * Privilege held: root in the container's user namespace, in its own copy of the mounts, if it has
 *   one.
 * Order matters because: the mount of the root stops being a peer before anything is attached below
 *   it. So no mount of the container propagates to the host, and pivot_root does not meet a shared
 *   parent.
 */
int op_rootfs(struct ctx *c, const struct op_rootfs *op)
{
    cleanup_fd int fd = sys_openat(AT_FDCWD, op->path.s, O_PATH | O_DIRECTORY, 0);
    if (fd < 0)
        return fail_if(c, fd, "open the root directory \"%s\"", op->path.s);
    if (op->how != ROOTFS_HOW_DIRECTORY) {
        int tree = op->how == ROOTFS_HOW_CALLERS ? bind_among_callers(fd) : bind_on_itself(fd, op->how);
        if (tree < 0)
            return fail_if(c, tree, "bind the root directory \"%s\" on itself", op->path.s);
        close_fd(&fd);
        fd = tree;
    }
    close_fd(&c->inside.root);
    c->inside.root = take_fd(&fd);
    c->inside.root_path = op->path.s;
    return 0;
}

/*
 * A runtime in a chroot has another root than its mount namespace. The pivot must replace that of
 * the namespace: a later process that joins it gets that root, and what lies outside of the chroot
 * must go out of reach. Joining one's own mount namespace enters its root. EPERM: the runtime lacks
 * CAP_SYS_CHROOT, so it cannot make a later process join the namespace either.
 */
static int enter_root_of_mounts(int proc)
{
    cleanup_fd int own = proc_open_ns(proc, "self", "mnt");
    int err = own < 0 ? own : sys_setns(own, CLONE_NEWNS);
    return err == -EPERM ? 0 : err;
}

static int pivot(int root)
{
    cleanup_fd int old = sys_openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0);
    int err = old < 0 ? old : sys_result(fchdir(root));
    /*
     * Puts the new root over the old one at the same place. The old one is then what lies under
     * ".".
     */
    if (err == 0)
        err = sys_result(syscall(__NR_pivot_root, ".", "."));
    if (err == 0)
        err = sys_result(fchdir(old));
    if (err == 0)
        /* a slave, so that the detach does not propagate to the host */
        err = sys_mount(NULL, ".", MS_SLAVE | MS_REC);
    if (err == 0)
        err = sys_result(syscall(__NR_umount2, ".", MNT_DETACH));
    return err;
}

/* Decodes \ooo of proc_pid_mountinfo(5) in place. */
static void unescape(char *text)
{
    char *out = text;
    for (const char *in = text; *in != 0;) {
        if (in[0] == '\\' && strspn(in + 1, "01234567") >= 3) {
            *out++ = (char)((in[1] - '0') * 64 + (in[2] - '0') * 8 + (in[3] - '0'));
            in += 4;
        } else {
            *out++ = *in++;
        }
    }
    *out = 0;
}

/*
 * Covers the mount of one line of mountinfo if it is a whole procfs or sysfs outside the root.
 * Field 4 is the mounted part of the file system, and the kernel cares only for whole ones. Field 5
 * is the mount point; the type follows " - ".
 *
 * Attacker: none, but the host may share these mounts.
 * Privilege held: root in the container's user namespace.
 * Order matters because: the mount becomes a slave before it is covered, so the cover reaches no
 *   peer of it. Detaching the mount instead would reach the peers of its parent. Besides, where
 *   mounts are stacked, no path leads to the lower one.
 */
static int hide_mount(struct ctx *c, char *line, const char *root)
{
    char *field[5];
    for (int i = 0; i < 5; i++)
        field[i] = strsep(&line, " ");
    const char *type = line ? strstr(line, " - ") : NULL;
    if (!type)
        return -EINVAL;
    if ((strncmp(type, " - proc ", 8) != 0 && strncmp(type, " - sysfs ", 9) != 0) || strcmp(field[3], "/") != 0)
        return 0;
    char *point = field[4];
    unescape(point);
    size_t size = strlen(root);
    if (strncmp(point, root, size) == 0 && (point[size] == '/' || point[size] == 0))
        return 0;
    cleanup_fd int target = sys_openat(AT_FDCWD, point, O_PATH, 0);
    int err = target < 0 ? target : sys_mount_setattr(target, false, 0, 0, MS_SLAVE);
    if (err == -ENOENT || err == -EINVAL)
        /* a cover, or a mount over a directory above, has hidden it */
        return 0;
    cleanup_fd int cover = err < 0 ? err : mount_empty_tmpfs(c, point);
    return cover < 0 ? take_fd(&cover) : sys_attach(cover, target);
}

/*
 * Without pivot_root the old mounts stay below the new root, out of sight. A whole procfs or sysfs
 * among them would let a nested user namespace mount a new one with everything in it. So each one
 * is covered; in the nested namespace the cover is locked.
 */
static int hide_host_mounts(struct ctx *c)
{
    static char text[MAX_MOUNTINFO_BYTES + 1]; /* unread pages of it cost no memory */
    /* mountinfo names paths below the present root, and so does the path of this fd */
    char root[PATH_MAX];
    int err = proc_own_path(c->procfs.host, c->inside.root, root);
    cleanup_fd int fd = err < 0 ? err : proc_open_at(c->procfs.host, "self/mountinfo", O_RDONLY);
    ssize_t size = fd < 0 ? fd : sys_read_full(fd, text, sizeof text);
    err = size < 0 ? (int)size : size > MAX_MOUNTINFO_BYTES ? -E2BIG : 0;
    /* an earlier call may have left a longer text */
    text[err == 0 ? size : 0] = 0;
    for (char *rest = text, *line; err == 0 && (line = strsep(&rest, "\n"));)
        err = line[0] != 0 ? hide_mount(c, line, root) : 0;
    return err;
}

/*
 * Attacker: none; only fds and fixed paths are used.
 * Privilege held: root in the container's user namespace.
 * Order matters because: this process enters the new root first, so "." is never the old one once
 *   "/" is the new one. "/" becomes a slave, so that a moved root is not mounted over the host's.
 *   Its submounts do not, because volumes may be shared on purpose.
 */
int op_pivot(struct ctx *c, const struct op_pivot *op)
{
    static const char *const names[] = {"pivot_root", "move the root", "chroot"};
    if (op->mode > PIVOT_MODE_CHROOT)
        return fail_if(c, -EINVAL, "change the root: unknown mode %u", op->mode);
    proc_prepare(c);
    /*
     * The mounts below the runtime's own root are covered first: if something is mounted over that
     * root, no path from the root of the mount namespace leads to them.
     */
    int err = op->mode == PIVOT_MODE_MOVE ? hide_host_mounts(c) : 0;
    if (err == 0 && op->mode != PIVOT_MODE_CHROOT)
        err = enter_root_of_mounts(c->procfs.host);
    if (err == 0 && op->mode == PIVOT_MODE_MOVE)
        err = sys_mount(NULL, "/", MS_SLAVE);
    if (err == 0 && op->mode == PIVOT_MODE_MOVE)
        err = hide_host_mounts(c);
    if (err == 0)
        err = op->mode == PIVOT_MODE_PIVOT ? pivot(c->inside.root) : sys_result(fchdir(c->inside.root));
    if (err == 0 && op->mode == PIVOT_MODE_MOVE)
        err = sys_mount(".", "/", MS_MOVE);
    if (err == 0 && op->mode != PIVOT_MODE_PIVOT)
        err = sys_result(chroot("."));
    if (err == 0)
        err = sys_result(chdir("/"));
    if (err < 0)
        return fail_if(c, err, "%s to \"%s\"", names[op->mode], c->inside.root_path);
    close_fd(&c->inside.root);
    close_fd(&c->inside.null);
    c->inside.root = sys_openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0);
    return fail_if(c, c->inside.root, "open the new root directory");
}

int op_readonly_mount(struct ctx *c, const struct op_readonly_mount *op)
{
    cleanup_fd int fd = path_open(c->inside.root, op->path.s, O_PATH);
    int err = fd < 0 ? fd : sys_mount_setattr(fd, false, MOUNT_ATTR_RDONLY, 0, 0);
    return fail_if(c, err, "make the mount \"%s\" read-only", op->path.s);
}

/*
 * Attacker: the image may have symlinks in the path. What they lead to inside the root is protected
 *   then.
 * Privilege held: root in the container's user namespace, after the pivot.
 * Order matters because: the fd that is cloned is the fd that is covered. The kernel keeps the
 *   other attributes of the mount.
 */
int op_readonly_path(struct ctx *c, const struct op_readonly_path *op)
{
    cleanup_fd int target = path_open(c->inside.root, op->path.s, O_PATH);
    if (target == -ENOENT)
        return 0;
    cleanup_fd int tree = target < 0 ? target : sys_clone_mount(target, true);
    int err = tree < 0 ? tree : sys_mount_setattr(tree, true, MOUNT_ATTR_RDONLY, 0, 0);
    if (err == 0)
        err = sys_attach(tree, target);
    return fail_if(c, err, "make \"%s\" read-only", op->path.s);
}

/* The first directory gets a new tmpfs, the others clones of it: one superblock for all. */
static int empty_directory(struct ctx *c, const char *path)
{
    if (c->inside.empty >= 0)
        return sys_clone_mount(c->inside.empty, false);
    return mount_empty_tmpfs(c, path);
}

/*
 * Attacker: the image provides /dev/null and shapes the path.
 * Privilege held: root in the container's user namespace, after the pivot.
 * Order matters because: the path is resolved once, inside the root, and the fd is what is covered.
 *   /dev/null is verified before it is cloned.
 */
int op_mask_path(struct ctx *c, const struct op_mask_path *op)
{
    struct stat st;
    cleanup_fd int target = path_open(c->inside.root, op->path.s, O_PATH);
    if (target == -ENOENT)
        return 0;
    int err = target < 0 ? target : sys_fstat(target, &st);
    if (err < 0)
        return fail_if(c, err, "mask \"%s\"", op->path.s);
    bool directory = S_ISDIR(st.st_mode);
    int null = directory ? -1 : path_null_device(&c->inside);
    if (!directory && null < 0)
        return fail_if(c, null, "mask \"%s\": no proper /dev/null", op->path.s);
    cleanup_fd int cover = directory ? empty_directory(c, op->path.s) : sys_clone_mount(null, false);
    err = cover < 0 ? cover : sys_attach(cover, target);
    if (err < 0)
        return fail_if(c, err, "mask \"%s\"", op->path.s);
    if (directory && c->inside.empty < 0)
        c->inside.empty = take_fd(&cover);
    return 0;
}
