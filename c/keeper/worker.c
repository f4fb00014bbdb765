/*
 * The connection to the worker, and what is kept for it: descriptors under keys, and processes, whose
 * exits stay until they are acknowledged. Invariants: a new worker first hears all of that, then
 * `go`. The keeper neither waits for a worker nor queues for it, because the tables show what is
 * still to be told. A request is read only when the answer to the one before has been sent.
 */
#include "keeper.h"

#define FDS_MAX (STREAMS_MAX + 2)

struct worker worker = {.socket = -1};
struct kept kept[KEPT_MAX];
uint32_t kept_count, process_count, ended_count;

static struct process {
    struct notice_process notice;
    uint32_t told;
} processes[PROCESSES_MAX];

static struct kept *find_kept(uint32_t key)
{
    for (uint32_t i = 0; i < kept_count; i++) {
        if (kept[i].key == key)
            return &kept[i];
    }
    return NULL;
}

static void drop(uint32_t key)
{
    struct kept *entry = find_kept(key);
    if (!entry)
        return;
    (void)close(entry->fd);
    *entry = kept[--kept_count];
}

int keep(uint32_t key, int fd, uint32_t events, uint32_t told)
{
    struct kept *entry = find_kept(key);
    if ((events & ~(uint32_t)(POLLIN | POLLPRI | POLLOUT | POLLRDHUP)) != 0)
        return EINVAL;
    if (!entry && (fd < 0 || kept_count == KEPT_MAX))
        return fd < 0 ? ENOENT : ENOSPC;
    if (fd >= 0) {
        drop(key);
        entry = &kept[kept_count++];
        *entry = (struct kept){.key = key, .fd = fd, .told = told};
    }
    entry->events = events;
    return 0;
}

static struct process *add_process(pid_t pid, uint64_t tag)
{
    static uint64_t last;
    struct process *process = &processes[process_count++];
    process->notice = (struct notice_process){.code = NOTICE_PROCESS, .pid = pid, .tag = tag, .number = ++last};
    process->told = worker.go.workers;
    return process;
}

/* A living process by its pid, which may have been that of earlier ones, or one that has ended by its number. */
static struct process *find_process(pid_t pid, uint64_t number)
{
    for (struct process *process = processes; process < processes + process_count; process++) {
        if (process->notice.ended ? process->notice.number == number : process->notice.pid == pid)
            return process;
    }
    return NULL;
}

void process_ended(pid_t pid, int status)
{
    struct process *found = find_process(pid, 0), *process = found ? found : add_process(pid, 0);
    process->notice.time = clock_now(CLOCK_REALTIME);
    process->notice.status = (uint32_t)status;
    process->notice.ended = 1;
    process->told = 0;
    ended_count++;
}

/* False if the socket is full, or the worker gone, which its exit tells. */
static bool send_notice(const void *notice, size_t size, int fd)
{
    const struct cmsghdr head = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof fd)];
    struct iovec data = {.iov_base = (void *)(uintptr_t)notice, .iov_len = size};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control};
    memcpy(control, &head, sizeof head);
    memcpy(control + CMSG_LEN(0), &fd, sizeof fd);
    message.msg_controllen = fd >= 0 ? sizeof control : 0;
    return sendmsg(worker.socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 && eventfd_write(worker.bell, 1) == 0;
}

/* The answer comes first, because the tables may hold the exit of the process that it names. */
static bool tell_all(void)
{
    const uint32_t number = worker.go.workers;
    if (worker.answer.code != 0 && !send_notice(&worker.answer, sizeof worker.answer, -1))
        return false;
    worker.answer.code = 0;
    for (struct kept *entry = kept; entry < kept + kept_count; entry++) {
        struct notice_kept notice = {.code = NOTICE_KEPT, .key = entry->key, .events = entry->events};
        if (entry->told != number && !send_notice(&notice, sizeof notice, entry->fd))
            return false;
        entry->told = number;
    }
    for (struct process *process = processes; process < processes + process_count; process++) {
        if (process->told != number && !send_notice(&process->notice, sizeof process->notice, -1))
            return false;
        process->told = number;
    }
    if (worker.taught != number && !send_notice(&worker.go, sizeof worker.go, -1))
        return false;
    worker.taught = number;
    return true;
}

void worker_tell(void)
{
    worker.behind = worker.socket >= 0 && !tell_all();
}

void worker_disconnect(void)
{
    (void)close(worker.socket); /* or -1 */
    worker.socket = -1;
    worker.answer.code = 0;
}

int worker_start(struct spawn *command, int state)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return errno;
    const int streams[] = {
        0, 1, 2, [WORKER_FD_KEEPER] = ends[1], [WORKER_FD_BELL] = worker.bell, [WORKER_FD_STATE] = state};
    command->streams = streams;
    command->stream_count = sizeof streams / sizeof *streams;
    pid_t pid = spawn_process(command);
    (void)close(ends[1]);
    worker.socket = ends[0];
    worker.status = (struct request_status){0};
    if (pid < 0) {
        worker_disconnect();
        return -pid;
    }
    worker.pid = pid;
    worker.go.workers++;
    return 0;
}

/* Only a memory file is read, because another kind could keep the keeper waiting. */
static int start_process(const struct request_spawn *wishes, const int *fds, size_t count)
{
    static char text[TEXT_MAX_BYTES];
    struct spawn spawn;
    ssize_t n = fcntl(fds[0], F_GET_SEALS) < 0 ? -1 : pread(fds[0], text, wishes->text_bytes, 0);
    pid_t pid = n == (ssize_t)wishes->text_bytes ? -texts_read(wishes, text, &spawn) : -EINVAL;
    if (pid == 0) {
        spawn.own_group = wishes->flags & SPAWN_OWN_GROUP;
        spawn.program = wishes->flags & SPAWN_PROGRAM_FD ? fds[1] : AT_FDCWD;
        spawn.streams = fds + (wishes->flags & SPAWN_PROGRAM_FD ? 2 : 1);
        spawn.stream_count = count - (size_t)(spawn.streams - fds);
        pid = worker.pid == 0 || process_count == PROCESSES_MAX ? -EAGAIN : spawn_process(&spawn);
    }
    if (n > (ssize_t)MESSAGE_MAX_BYTES)
        (void)madvise(text, TEXT_MAX_BYTES, MADV_DONTNEED); /* gives whole pages back */
    if (pid > 0)
        (void)add_process(pid, wishes->tag);
    return pid;
}

/* Returns a pid, 0, or a negative errno. An fd that is taken over is -1 afterwards. */
static int obey(const union request *request, int *fds, size_t count)
{
    int r = 0;
    if (request->code == REQUEST_SPAWN)
        return start_process(&request->spawn, fds, count);
    if (request->code == REQUEST_ACKNOWLEDGE) {
        struct process *process = find_process(0, request->acknowledge.number);
        if (!process)
            return -ENOENT;
        *process = processes[--process_count];
        ended_count--;
    }
    if (request->code == REQUEST_DROP)
        drop(request->drop.key);
    if (request->code == REQUEST_KEEP) {
        r = -keep(request->keep.key, count > 0 ? fds[0] : -1, request->keep.events, worker.go.workers);
        fds[0] = r == 0 ? -1 : fds[0];
    }
    if (request->code == REQUEST_STATUS) {
        worker.status = request->status;
        worker.go.signals &= ~request->status.signals;
    }
    return r;
}

int worker_read(void)
{
    uint8_t bytes[MESSAGE_MAX_BYTES];
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(FDS_MAX * sizeof(int))];
    union request request;
    struct iovec data = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(worker.socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *head = size >= 0 ? CMSG_FIRSTHDR(&message) : NULL;
    /* a peer that ends with unread notices is reported once, before the rest of what it sent */
    if (size <= 0 && !head)
        return size == 0 ? -1 : errno == EAGAIN ? 0 : errno == ECONNRESET ? 1 : -1;
    int fds[FDS_MAX] = {-1}, r;
    size_t count = head ? (head->cmsg_len - CMSG_LEN(0)) / sizeof *fds : 0; /* nothing but SCM_RIGHTS comes */
    memcpy(fds, head ? CMSG_DATA(head) : bytes, count * sizeof *fds);
    r = -request_read(bytes, (size_t)size, count, &request);
    if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) /* descriptors are cut off when no more can be open */
        r = message.msg_flags & MSG_TRUNC ? -EMSGSIZE : -EMFILE;
    if (r == 0)
        r = obey(&request, fds, count);
    for (size_t i = 0; i < count; i++) {
        if (fds[i] >= 0)
            (void)close(fds[i]);
    }
    if (r != 0) {
        worker.answer = (struct notice_answer){.code = NOTICE_ANSWER, .request = request.code, .pid = r > 0 ? r : 0};
        worker.answer.tag = request.code == REQUEST_SPAWN ? request.spawn.tag : request.drop.key;
        worker.answer.error = r < 0 ? (uint32_t)-r : 0;
    }
    return 1;
}
