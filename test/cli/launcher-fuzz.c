/*
 * Throws bytes at the launcher's reader of stdin: random ones, and real messages that were cut or changed in a few
 * places. Built with the sanitizers; each input lies in memory of exactly its size, so that one byte too far is seen.
 * Prints how many inputs were understood, so that the test can tell that the interesting paths were reached.
 */
#include "launcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_LIMIT 256

static size_t below(size_t limit)
{
    return (size_t)random() % limit;
}

struct message {
    uint8_t bytes[MESSAGE_LIMIT];
    size_t size;
};

static void put(struct message *to, uint32_t field, const void *bytes, size_t size)
{
    to->size += wire_head(to->bytes + to->size, field, size);
    memcpy(to->bytes + to->size, bytes, size);
    to->size += size;
}

static void put_text(struct message *to, uint32_t field, const char *text)
{
    put(to, field, text, strlen(text));
}

static size_t random_bytes(uint8_t *bytes)
{
    size_t size = below(MESSAGE_LIMIT);

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)random();
    return size;
}

/* An Any, or BootstrapParams that hold one. */
static size_t real_message(uint8_t *bytes)
{
    static const char *const types[] = {"containerd.runc.v1.Options", "host/containerd.linux.runc.CreateOptions", "c1", "other"};
    /* field 3: -4 */
    static const uint8_t log_level[] = {0x18, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    struct message options = {0}, any = {0}, extension = {0}, params = {0};

    put_text(&options, below(2) ? 3 : 9, "/group");
    put_text(&any, 1, types[below(4)]);
    put(&any, 2, options.bytes, options.size);
    if (below(2)) {
        memcpy(bytes, any.bytes, any.size);
        return any.size;
    }
    put_text(&params, 1, "c1");
    put_text(&params, 2, "default");
    memcpy(params.bytes + params.size, log_level, sizeof(log_level));
    params.size += sizeof(log_level);
    put_text(&params, 5, "/ttrpc");
    put(&extension, 1, any.bytes, any.size);
    put(&params, 8, extension.bytes, extension.size);
    put_text(&params, 9, "/sockets");
    memcpy(bytes, params.bytes, params.size);
    return params.size;
}

static size_t damage(uint8_t *bytes, size_t size)
{
    for (size_t times = below(4); times > 0 && size > 0; times--) {
        size_t at = below(size);

        if (below(3) == 0)
            size = at;
        else if (below(2) == 0)
            bytes[at] = (uint8_t)random();
        else
            bytes[at] = (uint8_t)(bytes[at] ^ 1u << below(8));
    }
    return size;
}

int main(int argc, char **argv)
{
    long count = argc > 1 ? atol(argv[1]) : 0, understood = 0, with_group = 0;

    srandom(1);
    for (long i = 0; i < count; i++) {
        uint8_t bytes[MESSAGE_LIMIT], *exact;
        size_t size = below(3) == 0 ? random_bytes(bytes) : damage(bytes, real_message(bytes));
        struct bootstrap bootstrap;
        struct slice message;

        exact = malloc(size > 0 ? size : 1);
        if (!exact)
            return 1;
        memcpy(exact, bytes, size);
        message = (struct slice){.bytes = exact, .size = size};
        (void)wire_is_any(message);
        (void)wire_is_delete_response(message);
        if (wire_parse_bootstrap(message, below(2) ? "c1" : NULL, &bootstrap)) {
            understood++;
            with_group += bootstrap.shim_cgroup.size > 0;
        }
        free(exact);
    }
    printf("%ld %ld\n", understood, with_group);
    return 0;
}
