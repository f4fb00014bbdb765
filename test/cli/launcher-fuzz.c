/*
 * Throws bytes at the launcher's reader of stdin: random ones, and real messages that were cut or changed in a few places.
 * Built with the sanitizers; each input lies in memory of exactly its size, so that one byte too far is seen. Prints how
 * many inputs were understood, so that the test can tell that the interesting paths were reached.
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

static struct wire_writer writer(uint8_t *bytes)
{
    return (struct wire_writer){.bytes = bytes, .size = MESSAGE_LIMIT, .ok = true};
}

static void put_text(struct wire_writer *to, uint32_t field, const char *text)
{
    wire_put_bytes(to, field, text, strlen(text));
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
    uint8_t option_bytes[MESSAGE_LIMIT], any_bytes[MESSAGE_LIMIT], extension_bytes[MESSAGE_LIMIT];
    struct wire_writer options = writer(option_bytes), any = writer(any_bytes), extension = writer(extension_bytes);
    struct wire_writer params = writer(bytes);

    put_text(&options, below(2) ? 3 : 9, "/group");
    put_text(&any, 1, types[below(4)]);
    wire_put_bytes(&any, 2, option_bytes, options.used);
    if (below(2)) {
        memcpy(bytes, any_bytes, any.used);
        return any.used;
    }
    put_text(&params, 1, "c1");
    put_text(&params, 2, "default");
    wire_put_number(&params, 3, (uint64_t)-4);
    put_text(&params, 5, "/ttrpc");
    wire_put_bytes(&extension, 1, any_bytes, any.used);
    wire_put_bytes(&params, 8, extension_bytes, extension.used);
    put_text(&params, 9, "/sockets");
    return params.used;
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
        struct failure failure;

        exact = malloc(size > 0 ? size : 1);
        if (!exact)
            return 1;
        memcpy(exact, bytes, size);
        (void)wire_is_any(exact, size);
        if (bootstrap_parse(exact, size, below(2) ? "c1" : NULL, &bootstrap, &failure) == 0) {
            understood++;
            with_group += bootstrap.shim_cgroup != NULL;
            bootstrap_free(&bootstrap);
        }
        free(exact);
    }
    printf("%ld %ld\n", understood, with_group);
    return 0;
}
