/*
 * What the files of the launcher share. The launcher lives for a millisecond: it frees nothing, and its one way out of an
 * error is die(), which takes back what the run has made and says in one sentence what could not be done.
 */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define PROGRAM "containerd-shim-ts-v2"

/* How a container's address starts; the rest is the absolute path of the socket. */
#define UNIX_SCHEME "unix://"

/* The file in the bundle that containerd reads to find a shim again after its own restart. */
#define ADDRESS_FILE "address"

/* Where the serving process finds its socket; main sees to it that no other file of ours is opened there. */
#define LISTEN_FD 3

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
    const char *socket; /* listening, and nobody has been told; the `address` file goes with it */
    pid_t shim;
};

extern struct made made;

/* Ends the program with "cannot ...: reason" (no reason for errnum 0). */
__attribute__((format(printf, 2, 3))) _Noreturn void die(int errnum, const char *format, ...);

/* Dies unless -id and -namespace are what containerd accepts. */
void check_identity(const struct settings *settings, const char *action);

/* ---- text, files and paths (io.c) ---- */

__attribute__((format(printf, 1, 2))) char *text(const char *format, ...);

/* NULL for an empty one. */
char *text_of(struct slice slice);

/* Reads to the end of the file, or until there is no room left; how much that was, or -1. */
ssize_t read_up_to(int fd, void *bytes, size_t size);
/* Reads to the end of the file; `what` names it in errors. */
struct slice read_whole(int fd, const char *what, size_t limit);
struct slice read_stdin(void); /* nothing when that is a terminal */
int write_whole(int fd, const void *bytes, size_t size);

/* Writes to stdout. */
void print(const char *what, const void *bytes, size_t size);

/* Cleans a path, which must not be empty, in place and by text alone, as Go's path joining does: the socket's name depends on it. */
char *path_clean(char *path);

/* The file of that name of the installation: in the folder of SHIM_TS_LIB, <folder of this program>/../lib/containerd-shim-ts, or the recorded one. */
char *lib_path(const char *name);

/* Where a test build dies when RUNTS_FAIL_AT says so, as if by kill -9; nothing in the product. */
#ifdef FAILPOINTS
void failpoint(const char *name);
#else
#define failpoint(name) ((void)0)
#endif

/* ---- protobuf (wire.c); pure, so that random bytes can be thrown at it ---- */

/* What `start` learns from stdin: parts of it, without a NUL in them, and empty when absent. */
struct bootstrap {
    struct slice id, namespace, ttrpc_address, grpc_address, socket_dir, shim_cgroup;
    bool debug;
};

/* `id` is the -id flag or NULL. */
bool wire_parse_bootstrap(struct slice message, const char *id, struct bootstrap *ret);

/* Whether it is a google.protobuf.Any, as far as its two fields go. */
bool wire_is_any(struct slice message);

/* Whether it is a DeleteResponse with a time in it. */
bool wire_is_delete_response(struct slice message);

#define WIRE_HEAD_BYTES 15

/* Writes what stands before `size` bytes that are a field of a message; returns how many bytes that takes. */
size_t wire_head(uint8_t ret[static WIRE_HEAD_BYTES], uint32_t field, size_t size);

/* ---- the socket (socket.c) ---- */

/* `dir` NULL means the default folder. */
char *socket_path(const struct settings *settings, const char *dir);

/* Makes the socket's folder and listens; -1 when a living shim of this id listens there already. */
int socket_listen(const char *path);

/* Removes the socket of a shim whose last word is so old; one that is younger and listened on is another shim's. A missing file is fine. */
void socket_remove_of(const char *path, struct timespec last_word);

/* ---- Node (node.c) ---- */

/* Everything that tells one Node from another; `ttrpc` and `socket` are NULL for `delete`. */
struct node_call {
    const struct settings *settings;
    const char *bundle, *ttrpc, *socket;
    const char *action;
};

/* Replaces this process. */
_Noreturn void node_exec(const struct node_call *call);

/* Returns when Node has been executed, as a child with /dev/null, the log and the socket as its files. */
void node_spawn(const struct node_call *call, int log_fd, int listen_fd);

/* ---- the others ---- */

/* Moves this process into the group, in every hierarchy that has it (cgroup.c). */
void cgroup_enter(const char *group);

#define SHA256_HEX_SIZE 65

void sha256_hex(const void *message, size_t size, char ret_hex[static SHA256_HEX_SIZE]);

void launcher_start(struct settings *settings);
void launcher_delete(const struct settings *settings);
void launcher_info(void);
void launcher_version(void);

#endif
