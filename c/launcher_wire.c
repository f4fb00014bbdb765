/*
 * The few protobuf messages that the launcher meets, read and written by hand. Reading is a bounds-checked cursor over
 * bytes that a client may have chosen: a length is compared with what is left before it is used, nothing is trusted to
 * be terminated, and a message that does not parse to its end yields nothing. Pure: no system call, no memory.
 */
#include "launcher.h"

#include <string.h>

#define FIELD_NUMBER_LIMIT ((1u << 29) - 1)

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;     /* WIRE_VARINT */
    struct slice slice; /* the others */
};

static bool take_varint(struct slice *from, uint64_t *ret)
{
    *ret = 0;
    for (unsigned shift = 0; shift < 70 && from->size > 0; shift += 7) {
        uint8_t byte = *from->bytes++;

        from->size--;
        /* the tenth byte carries the one bit that is left of 64 */
        if (shift == 63 && byte > 1)
            return false;
        *ret |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool take_bytes(struct slice *from, uint64_t size, struct slice *ret)
{
    if (size > from->size)
        return false;
    *ret = (struct slice){.bytes = from->bytes, .size = (size_t)size};
    from->bytes += size;
    from->size -= (size_t)size;
    return true;
}

/* 1: a field was taken, 0: the message ended, -1: it is malformed. */
static int next_field(struct slice *from, struct field *ret)
{
    uint64_t tag, size;
    bool ok = false; /* groups: none of our messages has ever had one */

    if (from->size == 0)
        return 0;
    if (!take_varint(from, &tag) || tag >> 3 == 0 || tag >> 3 > FIELD_NUMBER_LIMIT)
        return -1;
    *ret = (struct field){.number = (uint32_t)(tag >> 3), .type = tag & 7};
    if (ret->type == WIRE_VARINT)
        ok = take_varint(from, &ret->value);
    else if (ret->type == WIRE_BYTES)
        ok = take_varint(from, &size) && take_bytes(from, size, &ret->slice);
    else if (ret->type == WIRE_FIXED64 || ret->type == WIRE_FIXED32)
        ok = take_bytes(from, ret->type == WIRE_FIXED64 ? 8 : 4, &ret->slice);
    return ok ? 1 : -1;
}

static bool slice_is(struct slice slice, const char *word)
{
    size_t size = strlen(word);

    return slice.size == size && (size == 0 || memcmp(slice.bytes, word, size) == 0);
}

static bool take_string(const struct field *field, struct slice *ret)
{
    if (field->type != WIRE_BYTES || (field->slice.size > 0 && memchr(field->slice.bytes, '\0', field->slice.size)))
        return false;
    *ret = field->slice;
    return true;
}

struct any {
    struct slice type_url;
    struct slice value;
};

static bool parse_any(struct slice from, struct any *ret)
{
    struct field field;
    int more;

    *ret = (struct any){0};
    while ((more = next_field(&from, &field)) > 0) {
        if (field.number > 2)
            continue;
        if (field.type != WIRE_BYTES)
            return false;
        *(field.number == 1 ? &ret->type_url : &ret->value) = field.slice;
    }
    return more == 0;
}

bool wire_is_any(struct slice message)
{
    struct any any;

    return parse_any(message, &any);
}

bool wire_is_delete_response(struct slice message)
{
    /* pid, exit_status, exited_at: the last keeps it from being empty, which would read as a clean exit of process 0 */
    static const enum wire_type types[] = {WIRE_VARINT, WIRE_VARINT, WIRE_BYTES};
    struct field field = {0}, part;
    int more;

    while ((more = next_field(&message, &field)) > 0) {
        if (field.number > 3 || field.type != types[field.number - 1])
            return false;
    }
    if (more < 0 || field.number != 3)
        return false;
    while ((more = next_field(&field.slice, &part)) > 0 && part.type == WIRE_VARINT)
        ;
    return more == 0;
}

/* Options of a type that we do not know are none of the launcher's business: the shim warns about them. */
static uint32_t shim_cgroup_field(struct slice type_url)
{
    /* a URL may carry a host in front of the message's name */
    const uint8_t *slash = type_url.size > 0 ? memrchr(type_url.bytes, '/', type_url.size) : NULL;

    if (slash) {
        type_url.size -= (size_t)(slash + 1 - type_url.bytes);
        type_url.bytes = slash + 1;
    }
    if (slice_is(type_url, "containerd.runc.v1.Options"))
        return 3;
    return slice_is(type_url, "containerd.linux.runc.CreateOptions") ? 9 : 0;
}

static bool parse_options(struct slice from, struct bootstrap *into)
{
    struct field field;
    struct any any;
    uint32_t number;
    int more;

    if (!parse_any(from, &any))
        return false;
    number = shim_cgroup_field(any.type_url);
    while (number != 0 && (more = next_field(&any.value, &field)) != 0) {
        if (more < 0 || (field.number == number && !take_string(&field, &into->shim_cgroup)))
            return false;
    }
    return true;
}

static bool parse_extension(const struct field *extension, struct bootstrap *into)
{
    struct slice from = extension->slice;
    struct field field;
    int more;

    if (extension->type != WIRE_BYTES)
        return false;
    while ((more = next_field(&from, &field)) > 0) {
        if (field.number == 1 && (field.type != WIRE_BYTES || !parse_options(field.slice, into)))
            return false;
    }
    return more == 0;
}

static bool parse_params_field(const struct field *field, struct bootstrap *into)
{
    switch (field->number) {
    case 1:
        return take_string(field, &into->id);
    case 2:
        return take_string(field, &into->namespace);
    case 3: /* log_level counts downwards from INFO = 0: DEBUG is -4, TRACE -8 */
        into->debug = (int64_t)field->value <= -4;
        return field->type == WIRE_VARINT;
    case 5:
        return take_string(field, &into->ttrpc_address);
    case 6:
        return take_string(field, &into->grpc_address);
    case 8:
        return parse_extension(field, into);
    case 9:
        return take_string(field, &into->socket_dir);
    default: /* the daemon's version and path, and what later versions add */
        return true;
    }
}

/*
 * Old daemons send an Any, new ones BootstrapParams, and both begin with two length-delimited fields. A BootstrapParams
 * names this container in field 1, where an Any has a type URL, or has a field that no Any has.
 */
static bool is_params(struct slice from, const char *id)
{
    struct field field;

    while (next_field(&from, &field) > 0) {
        if (field.number > 2 || (field.number == 1 && field.type == WIRE_BYTES && id && slice_is(field.slice, id)))
            return true;
    }
    return false;
}

bool wire_parse_bootstrap(struct slice message, const char *id, struct bootstrap *ret)
{
    struct field field;
    int more;

    *ret = (struct bootstrap){0};
    if (!is_params(message, id))
        return parse_options(message, ret);
    while ((more = next_field(&message, &field)) > 0) {
        if (!parse_params_field(&field, ret))
            return false;
    }
    return more == 0;
}

size_t wire_head(uint8_t ret[static WIRE_HEAD_BYTES], uint32_t field, size_t size)
{
    const uint64_t numbers[] = {(uint64_t)field << 3 | WIRE_BYTES, size};
    size_t used = 0;

    for (size_t i = 0; i < 2; i++) {
        uint64_t left = numbers[i];

        for (; left >= 0x80; left >>= 7)
            ret[used++] = (uint8_t)(left | 0x80);
        ret[used++] = (uint8_t)left;
    }
    return used;
}
