/*
 * Starts a process by vfork, which copies no page table. Invariant: until it executes or ends, the
 * child writes to its own stack frames and to `reason` alone, because it shares all memory with the
 * keeper. Its descriptors, signals, limits and folder are its own.
 */
#include "keeper.h"

struct rlimit inherited_files;

/*
 * In the child. Returns, with the errno, if something has failed. No dup2 replaces a descriptor that
 * is still needed, because the keeper has those of others above the numbers of streams.
 */
static int execute(const struct spawn *spawn)
{
    static const sigset_t none; /* zeros are an empty mask */
    for (int i = 0; i < (int)spawn->stream_count; i++) {
        if (dup2(spawn->streams[i], i) < 0)
            return errno;
    }
    /*
     * A worker ends with its keeper, even one that is stopped, and the kernel's OOM killer prefers it.
     * Node need not enlarge a table of open files of this size, which takes long in a process with
     * threads.
     */
    if (spawn->oom_score && (fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, FILE_TABLE_SLOTS - 1) < 0 ||
                             write(open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC), spawn->oom_score,
                                   strlen(spawn->oom_score)) < 0 ||
                             prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0))
        return errno;
    /* the limit comes after the descriptors, which may need the keeper's higher one */
    if ((*spawn->cwd && chdir(spawn->cwd) < 0) || (spawn->own_group && setpgid(0, 0) < 0) ||
        setrlimit(RLIMIT_NOFILE, &inherited_files) < 0)
        return errno;
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)syscall(SYS_execveat, spawn->program, spawn->path, spawn->argv, spawn->env, *spawn->path ? 0 : AT_EMPTY_PATH);
    return errno;
}

pid_t spawn_process(const struct spawn *spawn)
{
    volatile int reason = 0;
    pid_t pid = vfork();
    if (pid == 0) {
        reason = execute(spawn);
        _exit(EXIT_FAILURE);
    }
    if (pid < 0 || reason == 0)
        return pid < 0 ? -errno : pid;
    (void)waitpid(pid, NULL, 0); /* no signal interrupts it, since all are blocked */
    return -reason;
}
