/*
 * What the files of the launcher share. The launcher lives for a millisecond, so it frees no
 * memory. An error ends it through die(), which takes back what the run has made and says what
 * failed.
 */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#include "launch.gen.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define OOM_SCORE_LIMIT 1000
#define FILE_TABLE_SLOTS 512

struct slice {
    const uint8_t *bytes;
    size_t size;
};

/* ---- the settings of one run, and its end (main.c) ---- */

struct settings {
    const char *namespace;
    const char *id;
    const char *address; /* containerd's gRPC socket, without a scheme */
    const char *bundle;
    bool debug, info, version, help;
};

/* What die() takes back. */
struct made {
    const char *socket; /* it listens, but its address is not printed yet; die() removes the file `address` too */
    pid_t shim;
};

extern struct made made;

/* Prints "cannot ...: reason" and ends the program; errnum 0 stands for no reason. */
__attribute__((format(printf, 2, 3))) _Noreturn void die(int errnum, const char *format, ...);

/* Dies unless containerd would accept -id and -namespace. */
void check_identity(const struct settings *settings, const char *action);

/* ---- text, files and paths (io.c) ---- */

__attribute__((format(printf, 1, 2))) char *text(const char *format, ...);

/* NULL for an empty slice. */
char *text_of(struct slice slice);

/* Reads to the end of the file, or until `size` bytes are there. Returns the count, or -1. */
ssize_t read_up_to(int fd, void *bytes, size_t size);
/*
 * Reads to the end of the file. Dies on more than `limit` bytes; `what` names the file in errors.
 */
struct slice read_whole(int fd, const char *what, size_t limit);
struct slice read_stdin(void); /* empty if stdin is a terminal */
int write_whole(int fd, const void *bytes, size_t size);

/* Writes to stdout. */
void print(const char *what, const void *bytes, size_t size);

/*
 * Cleans a non-empty path in place, by its text alone, as Go's path joining does. The name of the
 * socket depends on it.
 */
char *path_clean(char *path);

/*
 * The path of an installed file. The folder is $SHIM_TS_LIB, ../lib/containerd-shim-ts beside the
 * folder of this program, or the one that scripts/install has recorded.
 */
char *lib_path(const char *name);

/* A test build kills itself here when RUNTS_FAIL_AT names the place. The product does nothing. */
#ifdef FAILPOINTS
void failpoint(const char *name);
#else
#define failpoint(name) ((void)0)
#endif

/* ---- protobuf (wire.c); pure, so that it can be fuzzed ---- */

/*
 * What `start` learns from stdin. The slices point into the message, hold no NUL, and are empty if
 * absent.
 */
struct bootstrap {
    struct slice id, namespace, ttrpc_address, grpc_address, socket_dir, shim_cgroup;
    bool debug;
};

/* `id` is the -id flag, or NULL. False for a malformed message. */
bool wire_parse_bootstrap(struct slice message, const char *id, struct bootstrap *ret);

/* Whether the message parses as a google.protobuf.Any. */
bool wire_is_any(struct slice message);

/* Whether the message is a DeleteResponse with a time. */
bool wire_is_delete_response(struct slice message);

#define WIRE_HEAD_BYTES 15

/* Writes the head of a field of `size` bytes; returns the size of the head. */
size_t wire_head(uint8_t ret[static WIRE_HEAD_BYTES], uint32_t field, size_t size);

/* ---- the socket (socket.c) ---- */

/* `dir` NULL means the default folder. */
char *socket_path(const struct settings *settings, const char *dir);

/*
 * Makes the socket's folder and listens. Returns -1 if a living shim of this id listens there
 * already.
 */
int socket_listen(const char *path);

/*
 * Removes the socket of a shim that wrote its exit record at `last_word`. A younger one on which a
 * process listens is another shim's, and stays. A missing file is no error.
 */
void socket_remove_of(const char *path, struct timespec last_word);

/* ---- Node (node.c) ---- */

/* What differs between two starts of Node; `ttrpc` and `socket` are NULL for `delete`. */
struct node_call {
    const struct settings *settings;
    const char *bundle, *ttrpc, *socket;
    const char *action;
    int oom_score; /* the launcher's own */
};

/* Replaces this process by Node. */
_Noreturn void node_exec(const struct node_call *call);

/*
 * Starts Node as a child with /dev/null, the log and the socket. Returns once it has been executed.
 */
void node_spawn(const struct node_call *call, int log_fd, int listen_fd);

/* ---- the others ---- */

/* Moves this process into the cgroup, in every hierarchy that has it (cgroup.c). */
void cgroup_enter(const char *group);

#define SHA256_HEX_SIZE 65

void sha256_hex(const void *message, size_t size, char ret_hex[static SHA256_HEX_SIZE]);

/* Every signal at its default (node.c). */
void signals_by_default(void);

void launcher_start(struct settings *settings);
void launcher_delete(const struct settings *settings);
void launcher_info(void);
void launcher_version(void);

#endif
