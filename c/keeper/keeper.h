/*
 * What the files of the keeper share. There is one keeper in a process, and nothing is allocated
 * after its start, so its tables are static. Pages of them that were never used cost no memory.
 */
#ifndef KEEPER_H
#define KEEPER_H

#include "../launcher/launcher.h"
#include "keeper.gen.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * Turns the launcher's forked child, which leads a process group, into the keeper, until a worker
 * tells it to quit. It has /dev/null as fds 0 and 1, the log as 2, the listening socket as FD_LISTEN,
 * and `report`, a pipe: the errno if the first worker cannot be executed, else only its end. `node`
 * and `argv` are the worker's command.
 */
_Noreturn void keeper_run(const struct node_call *call, const char *node, char **argv, int report);
/* Nanoseconds. */
uint64_t clock_now(clockid_t clock);

/* ---- reading requests (read.c); pure, so that it can be fuzzed ---- */

union request {
    uint32_t code; /* each begins with it */
    struct request_keep keep;
    struct request_drop drop;
    struct request_spawn spawn;
    struct request_acknowledge acknowledge;
    struct request_status status;
};

/* Checks a message that came with `fds` descriptors. Returns 0 or an errno; `ret` is for the answer then. */
int request_read(const void *message, size_t size, size_t fds, union request *ret);

struct spawn {
    const char *path, *cwd;
    char **argv, **env;
    int program; /* AT_FDCWD: the path is executed */
    const int *streams;
    size_t stream_count;
    bool own_group;
    const char *oom_score; /* of a worker, else NULL */
};

/* Splits the texts of a spawn, which request_read has accepted. Returns 0 or an errno. */
int texts_read(const struct request_spawn *request, char *text, struct spawn *ret);

/* ---- starting processes (spawn.c) ---- */

extern struct rlimit inherited_files;

/* Returns the pid of a process that has executed the program, or a negative errno. */
pid_t spawn_process(const struct spawn *spawn);

/* ---- the worker, and what is kept for it (worker.c) ---- */

extern struct worker {
    pid_t pid;        /* 0: none lives */
    int socket, bell; /* -1: no connection */
    bool behind;      /* it has not taken everything that it is told */
    uint32_t taught;  /* the number of the last worker that was told `go` */
    struct request_status status;
    struct notice_go go;         /* its reasons: why the next worker is wanted; its workers: the number of this one */
    struct notice_answer answer; /* code 0: none is due */
} worker;

struct kept {
    uint32_t key, events;
    int fd;
    uint32_t told; /* the number of the last worker that knows it */
};

extern struct kept kept[KEPT_MAX];
extern uint32_t kept_count, process_count, ended_count;

/* Keeps an fd, which it takes over on success; -1: changes the events. Returns 0 or an errno. */
int keep(uint32_t key, int fd, uint32_t events, uint32_t told);
void process_ended(pid_t pid, int status);

int worker_start(struct spawn *command, int state); /* 0 or an errno */
/* Reads one request. 1: there may be more, 0: there is none yet, -1: the worker has ended. */
int worker_read(void);
/* Sends what the worker has not been told, as far as the socket takes it. */
void worker_tell(void);
/* Closes the connection. What the worker has sent before is lost. */
void worker_disconnect(void);

#endif
