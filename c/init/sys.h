/*
 * Cleanup attributes and wrappers of system calls. Invariants: a wrapper returns 0, a count or a
 * new fd, or a negative errno, so the sign is decided here only. Every new fd has O_CLOEXEC. Raw
 * system calls are used where libc has no wrapper, where its wrapper does more (setresuid of all
 * threads), or where glibc and the kernel's headers clash (sys/mount.h).
 */
#ifndef SYS_H
#define SYS_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/types.h>
#include <unistd.h>

#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>

#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif

#define NAMESPACE_FLAGS                                                                                      \
    ((uint64_t)(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | \
                CLONE_NEWNET | CLONE_NEWTIME))

/*
 * Closes an fd at the end of its variable's scope and keeps errno. close is never retried: after
 * EINTR the fd is closed.
 */
static inline void close_fd(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        (void)close(*fd);
        errno = saved;
        *fd = -1;
    }
}
#define cleanup_fd __attribute__((cleanup(close_fd)))

static inline int take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

static inline int sys_result(long result)
{
    return result < 0 ? -errno : (int)result;
}

/* Makes a call again as long as signals interrupt it; its result, or a negative errno. */
#define sys_retry(call)                        \
    ({                                         \
        long result_;                          \
        do                                     \
            result_ = (call);                  \
        while (result_ < 0 && errno == EINTR); \
        sys_result(result_);                   \
    })

/*
 * openat2 returns EAGAIN when a rename or a mount races with ".." (openat2(2)), so it is retried.
 */
static inline int sys_openat2(int dir, const char *path, int flags, unsigned mode, uint64_t resolve)
{
    struct open_how how = {.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC), .mode = mode, .resolve = resolve};
    int fd = -EAGAIN;
    for (int i = 0; i < 128 && (fd == -EAGAIN || fd == -EINTR); i++)
        fd = sys_result(syscall(__NR_openat2, dir, path, &how, sizeof how));
    return fd;
}

static inline int sys_openat(int dir, const char *path, int flags, mode_t mode)
{
    return sys_retry(openat(dir, path, flags | O_CLOEXEC, mode));
}

static inline int sys_fstat(int fd, struct stat *ret)
{
    return sys_result(fstat(fd, ret));
}

/* The type of an fd's file system (a *_MAGIC of linux/magic.h), or a negative errno. */
static inline int64_t sys_fs_type(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) < 0 ? -(int64_t)errno : (int64_t)(uint32_t)fs.f_type;
}

static inline int sys_close_range(unsigned first, unsigned last, unsigned flags)
{
    return sys_result(syscall(__NR_close_range, first, last, flags));
}

/* Closes all fds from `first` on. If a filter refuses close_range, closes those below 1024. */
static inline void sys_close_from(unsigned first)
{
    if (sys_close_range(first, ~0U, 0) < 0)
        for (unsigned fd = first; fd < 1024; fd++)
            (void)close((int)fd);
}

/* Clones the mount at `path` as a detached tree. */
static inline int sys_clone_tree(int dir, const char *path, unsigned flags)
{
    return sys_result(syscall(__NR_open_tree, dir, path, flags | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
}

/* Clones the mount of `fd` as a detached tree, with its submounts if `recursive`. */
static inline int sys_clone_mount(int fd, bool recursive)
{
    return sys_clone_tree(fd, "", (unsigned)AT_EMPTY_PATH | (recursive ? (unsigned)AT_RECURSIVE : 0));
}

static inline int sys_fsopen(const char *type)
{
    return sys_result(syscall(__NR_fsopen, type, FSOPEN_CLOEXEC));
}

static inline int sys_fsconfig(int fs, unsigned command, const char *key, const char *value)
{
    return sys_result(syscall(__NR_fsconfig, fs, command, key, value, 0));
}

static inline int sys_fsmount(int fs, unsigned attributes)
{
    return sys_result(syscall(__NR_fsmount, fs, FSMOUNT_CLOEXEC, attributes));
}

/*
 * Attaches the detached tree `tree` to the file or directory of `target`, without resolving a path.
 */
static inline int sys_attach(int tree, int target)
{
    return sys_result(
        syscall(__NR_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

/* Changes the mount whose root is `fd`, with its submounts if `recursive`. */
static inline int sys_mount_attr(int fd, bool recursive, struct mount_attr attr)
{
    unsigned flags = (unsigned)AT_EMPTY_PATH | (recursive ? (unsigned)AT_RECURSIVE : 0);
    return sys_result(syscall(__NR_mount_setattr, fd, "", flags, &attr, sizeof attr));
}

/* The same for attributes or propagation. */
static inline int sys_mount_setattr(int fd, bool recursive, uint64_t set, uint64_t clear, uint64_t propagation)
{
    return sys_mount_attr(fd, recursive, (struct mount_attr){set, clear, propagation, 0});
}

/* Moves a mount, or changes a propagation. */
static inline int sys_mount(const char *source, const char *target, unsigned long flags)
{
    return sys_result(syscall(__NR_mount, source, target, NULL, flags, NULL));
}

static inline int sys_clone3(struct clone_args *args)
{
    return sys_result(syscall(__NR_clone3, args, sizeof *args));
}

static inline int sys_setns(int fd, uint64_t type)
{
    return sys_result(syscall(__NR_setns, fd, (int)type));
}

static inline int sys_unshare(uint64_t flags)
{
    return sys_result(syscall(__NR_unshare, (unsigned long)flags));
}

static inline int sys_setresuid(uint32_t uid)
{
    return sys_result(syscall(__NR_setresuid, uid, uid, uid));
}

static inline int sys_setresgid(uint32_t gid)
{
    return sys_result(syscall(__NR_setresgid, gid, gid, gid));
}

/* `groups` is an array of u32 that need not be aligned. */
static inline int sys_setgroups(size_t count, const void *groups)
{
    return sys_result(syscall(__NR_setgroups, (long)count, groups));
}

static inline int sys_capget(struct __user_cap_data_struct data[2])
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    return sys_result(syscall(__NR_capget, &header, data));
}

static inline int sys_capset(struct __user_cap_data_struct data[2])
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    return sys_result(syscall(__NR_capset, &header, data));
}

static inline int sys_prctl(int option, unsigned long a, unsigned long b)
{
    return sys_result(prctl(option, a, b, 0UL, 0UL));
}

static inline int sys_keyctl(int operation, unsigned long a, unsigned long b, unsigned long c)
{
    return sys_result(syscall(__NR_keyctl, operation, a, b, c, 0UL));
}

/* Raw, because libcs disagree about the type of the request. */
static inline int sys_ioctl(int fd, unsigned request, void *argument)
{
    return sys_result(syscall(__NR_ioctl, fd, request, argument));
}

/* The control data of a message with at most two fds. */
union sys_fds {
    struct cmsghdr head;
    uint8_t bytes[CMSG_SPACE(2 * sizeof(int))];
};

/* Sends bytes and at most two fds in one message. */
static inline int sys_send_fds(int socket, const void *bytes, size_t size, const int *fds, size_t count)
{
    union sys_fds control = {.head = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec data = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (count > 0) {
        control.head.cmsg_len = (socklen_t)CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(&control.head), fds, count * sizeof(int));
        message.msg_control = &control;
        message.msg_controllen = (socklen_t)CMSG_SPACE(count * sizeof(int));
    }
    int sent = sys_retry(sendmsg(socket, &message, MSG_NOSIGNAL));
    return sent < 0 ? sent : 0;
}

/*
 * Receives what sys_send_fds sent. Returns the count of bytes; entries of `fds` without an fd keep
 * their value.
 */
static inline ssize_t sys_receive_fds(int socket, void *bytes, size_t size, int fds[2])
{
    union sys_fds control;
    struct iovec data = {.iov_base = bytes, .iov_len = size};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    int got = sys_retry(recvmsg(socket, &message, MSG_CMSG_CLOEXEC));
    if (got < 0)
        return got;
    const struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len <= CMSG_LEN(2 * sizeof(int)))
        memcpy(fds, CMSG_DATA(head), head->cmsg_len - CMSG_LEN(0));
    return got;
}

static inline int sys_write_all(int fd, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    while (size > 0) {
        int wrote = sys_retry(write(fd, at, size));
        if (wrote <= 0)
            return wrote < 0 ? wrote : -EIO;
        at += wrote;
        size -= (size_t)wrote;
    }
    return 0;
}

/* Reads until `size` bytes or the end of the file; returns the count. */
static inline ssize_t sys_read_full(int fd, void *bytes, size_t size)
{
    size_t have = 0;
    while (have < size) {
        int got = sys_retry(read(fd, (uint8_t *)bytes + have, size - have));
        if (got < 0)
            return got;
        if (got == 0)
            break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

#endif
