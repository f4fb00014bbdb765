/*
 * The fuzz target of the keeper's reader: one input is one message of a worker. The count of its descriptors is in the
 * first byte, and the texts of a spawn are behind the message.
 * It checks an invariant: a request is refused, or all that it points to can be read and is within the limits. Under
 * the sanitizers a read outside of the input ends the program.
 *
 * Built with clang's -fsanitize=fuzzer, which chooses inputs by the code that they reach.
 */
#include "keeper.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile size_t sink; /* so that no read is left out */

/* Counts the strings of a list, and measures each. */
static size_t measure(char *const *list)
{
    size_t count = 0;
    for (; list[count]; count++)
        sink += strlen(list[count]);
    return count;
}

static void use_texts(struct request_spawn spawn, const uint8_t *data, size_t size)
{
    struct spawn ret;
    char *text;
    spawn.text_bytes = (uint32_t)size;
    if (size == 0 || size > TEXT_MAX_BYTES)
        return;
    text = malloc(size);
    if (!text)
        abort();
    memcpy(text, data, size);
    if (texts_read(&spawn, text, &ret) == 0) {
        sink += strlen(ret.path) + strlen(ret.cwd);
        if (measure(ret.argv) != spawn.argc || measure(ret.env) != spawn.envc)
            abort();
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    union request request;
    size_t fds, length;
    if (size < 1)
        return 0;
    fds = data[0] % 32;
    data++;
    size--;
    /* a spawn's message has a fixed size: what is behind it are the texts */
    length = size > sizeof request.spawn && data[0] == REQUEST_SPAWN ? sizeof request.spawn : size;
    if (request_read(data, length, fds, &request) == 0) {
        if (request.code == 0 || request.code >= REQUEST_CODES || fds > REQUEST_SCHEMAS[request.code].most_fds)
            abort();
        if (request.code == REQUEST_SPAWN && (request.spawn.argc > STRINGS_MAX || request.spawn.envc > STRINGS_MAX))
            abort();
    } else if (request.code >= REQUEST_CODES) {
        abort();
    }
    if (request.code == REQUEST_SPAWN && request.spawn.argc <= STRINGS_MAX &&
        request.spawn.envc <= STRINGS_MAX - request.spawn.argc)
        use_texts(request.spawn, data + length, size - length);
    return 0;
}
