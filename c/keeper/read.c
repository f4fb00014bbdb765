/*
 * Reads what a worker sends. Pure: no system call, no memory but the static list of pointers.
 *
 * Attacker: a worker that has gone wrong, or was taken over; it chooses every byte.
 * Privilege held: the daemon's, which the worker has too. So this protects the keeper's life, not
 *   the host.
 * Order matters because: a number is compared with its limit before it is used, and the last byte of
 *   the texts before the first string is measured.
 */
#include "keeper.h"

int request_read(const void *message, size_t size, size_t fds, union request *ret)
{
    const struct request_spawn *spawn = &ret->spawn;
    uint32_t code;
    memset(ret, 0, sizeof *ret);
    if (size < sizeof code)
        return EINVAL;
    memcpy(&code, message, sizeof code);
    if (code >= REQUEST_CODES || REQUEST_SCHEMAS[code].size == 0)
        return ENOSYS;
    ret->code = code;
    if (size != REQUEST_SCHEMAS[code].size)
        return EINVAL;
    memcpy(ret, message, size);
    if (fds < REQUEST_SCHEMAS[code].least_fds || fds > REQUEST_SCHEMAS[code].most_fds)
        return EINVAL;
    if (code != REQUEST_SPAWN)
        return 0;
    if ((spawn->flags & ~(SPAWN_PROGRAM_FD | SPAWN_OWN_GROUP)) != 0 || spawn->tag == 0 || spawn->text_bytes == 0)
        return EINVAL;
    if (spawn->argc > STRINGS_MAX || spawn->envc > STRINGS_MAX - spawn->argc || spawn->text_bytes > TEXT_MAX_BYTES)
        return E2BIG;
    /* at least one fd came; one less than is needed wraps to above the limit */
    return fds - (spawn->flags & SPAWN_PROGRAM_FD ? 2 : 1) > STREAMS_MAX ? EINVAL : 0;
}

int texts_read(const struct request_spawn *request, char *text, struct spawn *ret)
{
    static char *strings[STRINGS_MAX + 4]; /* path and folder, then two lists with NULL at their ends */
    const uint32_t all = 2 + request->argc + request->envc;
    const char *end = text + request->text_bytes;
    uint32_t count = 0;
    if (end[-1] != '\0')
        return EINVAL;
    for (char *at = text; at < end; at += strlen(at) + 1, count++) {
        if (count == all)
            return EINVAL;
        strings[count + (count >= 2 + request->argc ? 1 : 0)] = at;
    }
    if (count != all || (*strings[0] == '\0') != ((request->flags & SPAWN_PROGRAM_FD) != 0))
        return EINVAL;
    strings[2 + request->argc] = strings[all + 1] = NULL;
    *ret = (struct spawn){strings[0], strings[1], strings + 2, strings + 3 + request->argc, .program = AT_FDCWD};
    return 0;
}
