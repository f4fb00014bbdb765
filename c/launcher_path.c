/*
 * Names: the two syntaxes that decide what a socket is called. Both follow containerd to the letter, because others
 * (`ctr shim`, an older shim) compute the same names by themselves.
 */
#include "launcher.h"

#include <errno.h>
#include <string.h>

#define IDENTIFIER_LIMIT 76

static bool is_alphanumeric(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Words of letters and digits with exactly one of `.`, `_`, `-` between two of them. */
bool is_identifier(const char *text)
{
    size_t size = strlen(text);

    if (size == 0 || size > IDENTIFIER_LIMIT)
        return false;
    for (size_t i = 0; i < size; i++) {
        if (is_alphanumeric(text[i]))
            continue;
        if (!strchr("._-", text[i]) || i == 0 || !is_alphanumeric(text[i - 1]) || i + 1 == size)
            return false;
    }
    return true;
}

struct path_builder {
    char *path;
    size_t size, used;
    size_t floor; /* `..` takes nothing away below this: the leading "/" or a row of leading ".." */
    bool rooted;
};

static bool append(struct path_builder *builder, const char *name, size_t size)
{
    bool slash = builder->used > (builder->rooted ? 1u : 0u);

    if (builder->used + slash + size >= builder->size)
        return false;
    if (slash)
        builder->path[builder->used++] = '/';
    memcpy(builder->path + builder->used, name, size);
    builder->used += size;
    return true;
}

static bool step(struct path_builder *builder, const char *name, size_t size)
{
    if (size == 0 || (size == 1 && name[0] == '.'))
        return true;
    if (size != 2 || name[0] != '.' || name[1] != '.')
        return append(builder, name, size);
    if (builder->used > builder->floor) {
        while (builder->used > builder->floor && builder->path[--builder->used] != '/')
            ;
        return true;
    }
    if (builder->rooted)
        return true;
    if (!append(builder, name, size))
        return false;
    builder->floor = builder->used;
    return true;
}

int path_join(char *ret_path, size_t size, const char *const *parts, size_t count, struct failure *failure)
{
    struct path_builder builder = {.path = ret_path, .size = size};
    bool started = false;

    for (size_t i = 0; i < count; i++) {
        const char *at = parts[i];

        if (*at == '\0')
            continue;
        if (!started && *at == '/' && size > 1) {
            builder.rooted = true;
            builder.path[builder.used++] = '/';
            builder.floor = builder.used;
        }
        started = true;
        for (;;) {
            size_t name_size = strcspn(at, "/");

            if (!step(&builder, at, name_size))
                return fail(failure, ENAMETOOLONG, "cannot join \"%s\" and what follows", parts[0]);
            at += name_size;
            if (*at == '\0')
                break;
            at++;
        }
    }
    if (started && builder.used == 0 && !append(&builder, ".", 1))
        return fail(failure, ENAMETOOLONG, "cannot join \"%s\" and what follows", parts[0]);
    ret_path[builder.used] = '\0';
    return 0;
}
