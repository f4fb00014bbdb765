/*
 * What the files of the launcher share. A function that can fail takes a `struct failure`, returns -1 and has written
 * one sentence there; only main prints it. A `ret_` argument is set on success only.
 */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "sha256.h"

#define PROGRAM "containerd-shim-ts-v2"

/* containerd's own library reads no more than this from stdin. */
#define STDIN_LIMIT_BYTES (10u << 20)

/* One byte less than sun_path holds with its NUL, because containerd's own library refuses longer ones. */
#define SOCKET_PATH_LIMIT 106

/* How a container's address starts; the rest is the absolute path of the socket. */
#define UNIX_SCHEME "unix://"

/* The file in the bundle that containerd reads to find a shim again after its own restart. */
#define ADDRESS_FILE "address"

/* ---- errors and ownership (launcher_io.c) ---- */

struct failure {
    char text[PATH_MAX + 512];
};

/* Writes "cannot ...: reason" (no reason for errnum 0); always returns -1, so that it can be returned. */
__attribute__((format(printf, 3, 4))) int fail(struct failure *failure, int errnum, const char *format, ...);

void close_fd(int *fd);
int take_fd(int *fd); /* moves the ownership to the caller */
void free_bytes(void *pointer);

#define cleanup_fd __attribute__((cleanup(close_fd)))
#define cleanup_free __attribute__((cleanup(free_bytes)))

/* Reads to the end of the file into memory that the caller frees; `what` names it in errors. */
int read_whole(int fd, const char *what, size_t limit, uint8_t **ret_bytes, size_t *ret_size, struct failure *failure);
int read_file(const char *path, size_t limit, uint8_t **ret_bytes, size_t *ret_size, struct failure *failure);
int write_whole(int fd, const void *bytes, size_t size);

/* Where a test build dies when RUNTS_FAIL_AT says so, as if by kill -9; nothing in the product. */
#ifdef FAILPOINTS
void failpoint(const char *name);
#else
#define failpoint(name) ((void)0)
#endif

/* ---- paths (launcher_path.c) ---- */

/* Joins and cleans by text alone, as Go's path joining does: the socket's name depends on it. */
int path_join(char *ret_path, size_t size, const char *const *parts, size_t count, struct failure *failure);

/* A container id or a namespace as containerd accepts them. */
bool is_identifier(const char *text);

/* ---- protobuf (launcher_wire.c); pure, so that random bytes can be thrown at it ---- */

/* What `start` learns from stdin; strings are NULL when absent and belong to the caller. */
struct bootstrap {
    char *id;
    char *namespace;
    char *ttrpc_address;
    char *grpc_address;
    char *socket_dir;
    char *shim_cgroup;
    bool debug;
};

/* `id` is the -id flag or NULL. */
int bootstrap_parse(const uint8_t *bytes, size_t size, const char *id, struct bootstrap *ret, struct failure *failure);
void bootstrap_free(struct bootstrap *bootstrap);

/* Whether the bytes are a google.protobuf.Any, as far as its two fields go. */
bool wire_is_any(const uint8_t *bytes, size_t size);

/* A message under construction; `ok` turns false when memory or the buffer runs out, and stays so. */
struct wire_writer {
    uint8_t *bytes;
    size_t size, used;
    bool ok;
};

void wire_put_number(struct wire_writer *writer, uint32_t field, uint64_t value);
void wire_put_bytes(struct wire_writer *writer, uint32_t field, const void *bytes, size_t size);

/* ---- the settings of one run (launcher.c) ---- */

enum action { ACTION_NONE = 0, ACTION_START, ACTION_DELETE };

struct settings {
    enum action action;
    const char *namespace;
    const char *id;
    const char *address; /* containerd's gRPC socket, without a scheme */
    const char *bundle;
    bool debug, info, version, help;
};

/* ---- the socket (launcher_socket.c) ---- */

struct socket_name {
    char hash[SHA256_HEX_SIZE];
    char path[SOCKET_PATH_LIMIT + 1];
    char address[sizeof(UNIX_SCHEME) + SOCKET_PATH_LIMIT];
};

/* `dir` NULL means the default folder. */
int socket_name(const struct settings *settings, const char *dir, struct socket_name *ret, struct failure *failure);

/* Makes the socket's folder and listens; *ret_fd is -1 when a living shim of this id listens there already. */
int socket_listen(const struct socket_name *name, int *ret_fd, struct failure *failure);

/* Removes the socket when it is one; a missing file is fine. */
void socket_remove(const char *path);

/* The same for the socket of a shim whose last word is so old; one that is younger and listened on is another shim's. */
void socket_remove_of(const char *path, struct timespec last_word);

/* ---- Node (launcher_node.c) ---- */

/* Everything that tells one Node from another; `ttrpc` and `socket` are NULL for `delete`. */
struct node_call {
    const struct settings *settings;
    const char *bundle;
    const char *ttrpc;
    const char *socket;
    const char *action;
};

/* What the serving process is born with. The fds are borrowed. */
struct node_server {
    int null_fd;
    int log_fd;
    int listen_fd;
    int oom_score_adj;
    mode_t umask;
    const char *shim_cgroup; /* NULL: stay in the launcher's cgroup */
};

/* The folder of our other files: <folder of this program>/../lib/containerd-shim-ts/<name>. */
int lib_path(const char *name, char ret_path[static PATH_MAX], struct failure *failure);

/* Replaces this process; returns only when that failed. */
int node_exec(const struct node_call *call, struct failure *failure);

/* Returns when Node has been executed; *ret_pid is a child that nobody has waited for. */
int node_spawn(const struct node_call *call, const struct node_server *server, pid_t *ret_pid, struct failure *failure);

/* ---- cgroup (launcher_cgroup.c) ---- */

/* Moves the calling process into the group, in every hierarchy that has it. */
int cgroup_enter(const char *group, struct failure *failure);

/* ---- the actions ---- */

int launcher_start(struct settings *settings, struct failure *failure);
int launcher_delete(const struct settings *settings, struct failure *failure);
int launcher_info(struct failure *failure);
int launcher_version(struct failure *failure);

#endif
