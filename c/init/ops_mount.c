/*
 * The mount operation, by the fd-based mount API only. A tree is made or cloned while it is
 * attached nowhere, gets its attributes, and is then attached to the fd of a resolved target.
 * Invariants: no path is resolved between the check of a target and its use. A mount is never
 * visible with more rights than the plan gives it.
 */
#include "init.h"

#include <stdio.h>
#include <string.h>

/*
 * The kernel explains a refused option by lines on the context's fd, such as "e tmpfs: Bad value
 * for 'size'". The last error is kept.
 */
static void kernel_message(int fs, char ret_text[256])
{
    char line[256];
    ret_text[0] = 0;
    for (int i = 0; i < 16; i++) {
        ssize_t size = read(fs, line, sizeof line - 1);
        if (size <= 0)
            return;
        line[size] = 0;
        line[strcspn(line, "\n")] = 0;
        if (size > 2 && line[0] == 'e')
            (void)snprintf(ret_text, 256, ": %s", line + 2);
    }
}

static int refused(struct ctx *c, int fs, int err, const char *what, const char *doing)
{
    char text[256];
    kernel_message(fs, text);
    return fail_if(c, err, "mount %s%s%.90s%s", what, doing[0] == 0 ? "" : ": option ", doing, text);
}

/* Applies the options of a file system, each "key=value" or "flag". */
static int configure(struct ctx *c, int fs, const struct plan_strs *options, const char *what)
{
    char key[256]; /* the kernel accepts no longer key */
    for (uint32_t i = 0; i < options->count; i++) {
        const char *option = options->v[i], *value = strchr(option, '=');
        size_t size = strcspn(option, "=");
        int err = size >= sizeof key ? -ENAMETOOLONG : 0;
        if (err == 0) {
            memcpy(key, option, size);
            key[size] = 0;
            err = sys_fsconfig(fs, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key, value ? value + 1 : NULL);
        }
        if (err < 0)
            return refused(c, fs, err, what, option);
    }
    return 0;
}

/* Makes a file system that is mounted nowhere. Returns its fd. */
static int make_file_system(struct ctx *c, const char *type, const char *source, const struct plan_strs *options,
                            int mode, unsigned attributes, const char *what)
{
    char text[16];
    cleanup_fd int fs = sys_fsopen(type);
    if (fs < 0)
        return fail_if(c, fs, "mount %s: file system \"%s\"", what, type);
    int err = source[0] != 0 ? sys_fsconfig(fs, FSCONFIG_SET_STRING, "source", source) : 0;
    if (err < 0)
        return refused(c, fs, err, what, "source");
    err = configure(c, fs, options, what);
    if (err < 0)
        return err;
    if (mode >= 0) {
        (void)snprintf(text, sizeof text, "%o", (unsigned)mode);
        err = sys_fsconfig(fs, FSCONFIG_SET_STRING, "mode", text);
        if (err < 0)
            return refused(c, fs, err, what, "mode");
    }
    err = sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL);
    if (err < 0)
        return refused(c, fs, err, what, "");
    int tree = sys_fsmount(fs, attributes);
    return tree < 0 ? refused(c, fs, tree, what, "") : tree;
}

/* Makes a detached tmpfs that is and stays empty. */
int mount_empty_tmpfs(struct ctx *c, const char *what)
{
    static char *options[] = {"nr_blocks=1", "nr_inodes=1", "mode=755", NULL};
    const struct plan_strs list = {.v = options, .count = 3};
    return make_file_system(c, "tmpfs", "tmpfs", &list, -1,
                            MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, what);
}

/*
 * Attacker: the image and the sharers of volumes shape the target, and a source below an earlier
 *   mount.
 * Privilege held: root in the container's user namespace. The mount namespace is not pivoted yet,
 *   so host paths are in reach.
 * Order matters because: the source is opened after the mounts before it and before its own target.
 *   The target is resolved only inside the root.
 */
static int open_source(struct ctx *c, const struct op_mount *op, const char *what, bool *ret_directory)
{
    struct stat st;
    unsigned recursive = (op->how & MOUNT_HOW_RECURSIVE) != 0 ? (unsigned)AT_RECURSIVE : 0;
    bool host = (op->how & MOUNT_HOW_HOST_SOURCE) != 0;
    cleanup_fd int tree = host ? host_source(c, op) : sys_clone_tree(AT_FDCWD, op->source.s, recursive);
    if (tree < 0 && host)
        return take_fd(&tree);
    int err = tree < 0 ? tree : sys_fstat(tree, &st);
    if (err < 0)
        return fail_if(c, err, "mount %s: source", what);
    *ret_directory = S_ISDIR(st.st_mode);
    return take_fd(&tree);
}

static int open_target(struct ctx *c, const struct op_mount *op, const char *what, bool directory, bool *ret_made)
{
    struct stat st, root = {0};
    bool plain = (op->how & MOUNT_HOW_PLAIN_DIRECTORY) != 0;
    cleanup_fd int target = plain ? path_make_plain_directory(c->inside.root, op->target.s, ret_made) :
                                    path_make(c->inside.root, op->target.s, directory ? LAST_DIRECTORY : LAST_FILE,
                                              ret_made);
    if (plain && (target == -ENOTDIR || target == -ELOOP))
        return fail_if(c, target, "mount %s: it must be mounted on ordinary directory", what);
    int err = target < 0 ? target : sys_fstat(target, &st);
    if (err == 0)
        err = sys_fstat(c->inside.root, &root);
    if (err < 0)
        return fail_if(c, err, "mount %s: target", what);
    if (st.st_dev == root.st_dev && st.st_ino == root.st_ino)
        return fail_if(c, -EBUSY, "mount %s: target is on the top of rootfs", what);
    if (S_ISDIR(st.st_mode) != directory) /* move_mount says EINVAL, but tools look for mount(2)'s word */
        return fail_if(c, -ENOTDIR, "mount %s", what);
    if (path_reaches_procfs_by_symlink(c->inside.root, op->target.s, target))
        return fail_if(c, -EPERM, "mount %s: a symlink leads inside /proc", what);
    return take_fd(&target);
}

/*
 * Flags that a mount brings from a more privileged user namespace are locked (mount_namespaces(7)).
 * The `dropped` ones are then kept; a failure to change any other one is an error.
 */
static int set_attributes(const struct op_mount *op, int tree)
{
    int err = op->dropped != 0 ? sys_mount_setattr(tree, false, op->set, op->clear | op->dropped, 0) : -EPERM;
    return err == -EPERM ? sys_mount_setattr(tree, false, op->set, op->clear, 0) : err;
}

static int finish(struct ctx *c, const struct op_mount *op, int tree, int target, const char *what)
{
    int err = set_attributes(op, tree);
    if (err == 0 && (op->rec_set | op->rec_clear) != 0)
        err = sys_mount_setattr(tree, true, op->rec_set, op->rec_clear, 0);
    if (err < 0) {
        c->failure = FAILURE_ATTRIBUTES;
        return fail_if(c, err, "mount %s: attributes", what);
    }
    err = sys_attach(tree, target);
    if (err < 0)
        return fail_if(c, err, "mount %s", what);
    for (uint32_t i = 0; i < op->propagation.count; i++) {
        uint32_t flags = plan_u32_at(&op->propagation, i);
        err = sys_mount_setattr(tree, (flags & MS_REC) != 0, 0, 0, flags & ~(uint32_t)MS_REC);
        if (err < 0)
            return fail_if(c, err, "mount %s: propagation 0x%x", what, flags);
    }
    return 0;
}

static int mount_new(struct ctx *c, const struct op_mount *op, int target, bool made, const char *what)
{
    struct stat st;
    int mode = -1;
    if ((op->how & MOUNT_HOW_INHERIT_MODE) != 0 && !made && sys_fstat(target, &st) == 0)
        mode = (int)(st.st_mode & 07777);
    cleanup_fd int tree = make_file_system(c, op->fstype.s, op->source.s, &op->options, mode, 0, what);
    if (tree < 0)
        return take_fd(&tree);
    if ((op->how & MOUNT_HOW_COPY_UP) != 0 && !made) {
        int err = copy_tree(target, tree);
        if (err < 0)
            return fail_if(c, err, "mount %s: copying the covered directory", what);
    }
    return finish(c, op, tree, target, what);
}

int op_mount(struct ctx *c, const struct op_mount *op)
{
    char what[1024];
    (void)snprintf(what, sizeof what, "\"%s\" on \"%s\"", op->source.s, op->target.s);
    bool bind = (op->how & MOUNT_HOW_BIND) != 0, directory = true, made = false;
    cleanup_fd int tree = -1;
    if (bind) {
        tree = open_source(c, op, what, &directory);
        if (tree < 0)
            return take_fd(&tree);
    }
    cleanup_fd int target = open_target(c, op, what, directory, &made);
    if (target < 0)
        return take_fd(&target);
    int err = bind ? finish(c, op, tree, target, what) : mount_new(c, op, target, made, what);
    if ((op->how & MOUNT_HOW_OPTIONAL) != 0 && (err == -EPERM || err == -EINVAL || err == -ENODEV)) {
        char text[64];
        report_warning(c, "%s: %s; left out", c->failed, reason(err, text));
        return 0;
    }
    return err;
}
