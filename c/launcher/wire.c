/*
 * The few protobuf messages that the launcher reads and writes, by hand. A client may have chosen
 * the bytes. So the cursor compares a length with what is left before it uses it, and trusts no
 * terminator. A message that does not parse to its end yields nothing. Pure: no system call, no
 * allocation.
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
        /* the tenth byte carries the last one of 64 bits */
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
    bool ok = false; /* groups: no message here has one */

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

/* A wanted field. If it comes several times, the last one counts. */
struct want {
    uint32_t number;
    enum wire_type type;
    union {
        struct slice *slice;
        uint64_t *value;
    };
    bool text; /* without a NUL in it */
};

/* Reads a whole message. Other fields than the wanted ones are skipped if `others` are allowed. */
static bool take_fields(struct slice from, bool others, const struct want *wants, size_t count)
{
    struct field field;
    int more;
    while ((more = next_field(&from, &field)) > 0) {
        const struct want *want = wants;
        while (want < wants + count && want->number != field.number)
            want++;
        if (want == wants + count) {
            if (!others)
                return false;
            continue;
        }
        if (want->type != field.type ||
            (want->text && field.slice.size > 0 && memchr(field.slice.bytes, '\0', field.slice.size)))
            return false;
        if (field.type == WIRE_VARINT)
            *want->value = field.value;
        else
            *want->slice = field.slice;
    }
    return more == 0;
}

#define TAKE_FIELDS(from, others, wants) take_fields(from, others, wants, sizeof wants / sizeof((wants)[0]))

static bool slice_is(struct slice slice, const char *word)
{
    size_t size = strlen(word);
    return slice.size == size && (size == 0 || memcmp(slice.bytes, word, size) == 0);
}

static bool take_any(struct slice from, struct slice *ret_type_url, struct slice *ret_value)
{
    const struct want wants[] = {{1, WIRE_BYTES, {ret_type_url}, false}, {2, WIRE_BYTES, {ret_value}, false}};
    return TAKE_FIELDS(from, true, wants);
}

bool wire_is_any(struct slice message)
{
    struct slice type_url, value;
    return take_any(message, &type_url, &value);
}

bool wire_is_delete_response(struct slice message)
{
    /*
     * The time must be the last field. Without this check an empty record would read as a clean
     * exit of process 0.
     */
    struct slice exited_at = {0}, rest = message;
    struct field last = {0};
    uint64_t number;
    const struct want wants[] = {
        {1, WIRE_VARINT, {.value = &number}, false}, /* pid */
        {2, WIRE_VARINT, {.value = &number}, false}, /* exit_status */
        {3, WIRE_BYTES, {&exited_at}, false},
    };

    while (next_field(&rest, &last) > 0)
        ;
    return TAKE_FIELDS(message, false, wants) && last.number == 3 && take_fields(exited_at, false, wants, 2);
}

/*
 * Number of the field with the shim's cgroup, or 0 for options of another type. The shim warns
 * about unknown ones.
 */
static uint32_t shim_cgroup_field(struct slice type_url)
{
    /* a URL may have a host before the name of the message */
    const uint8_t *slash = type_url.size > 0 ? memrchr(type_url.bytes, '/', type_url.size) : NULL;
    if (slash) {
        type_url.size -= (size_t)(slash + 1 - type_url.bytes);
        type_url.bytes = slash + 1;
    }
    if (slice_is(type_url, "containerd.runc.v1.Options"))
        return 3;
    return slice_is(type_url, "containerd.linux.runc.CreateOptions") ? 9 : 0;
}

static bool take_options(struct slice any, struct bootstrap *into)
{
    struct slice type_url = {0}, value = {0};
    struct want group = {0, WIRE_BYTES, {&into->shim_cgroup}, true};
    if (!take_any(any, &type_url, &value))
        return false;
    group.number = shim_cgroup_field(type_url);
    return group.number == 0 || take_fields(value, true, &group, 1);
}

/*
 * Old daemons send an Any, new ones BootstrapParams, and both begin with two length-delimited
 * fields. A BootstrapParams has this container's id in field 1, where an Any has a type URL, or a
 * field above 2, which an Any has not.
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
    uint64_t log_level = 0;
    struct slice extension, any;
    struct field field;
    /* left out: the daemon's version and path, and fields of later versions */
    const struct want params[] = {
        {1, WIRE_BYTES, {&ret->id}, true},
        {2, WIRE_BYTES, {&ret->namespace}, true},
        {3, WIRE_VARINT, {.value = &log_level}, false},
        {5, WIRE_BYTES, {&ret->ttrpc_address}, true},
        {6, WIRE_BYTES, {&ret->grpc_address}, true},
        {8, WIRE_BYTES, {&extension}, false},
        {9, WIRE_BYTES, {&ret->socket_dir}, true},
    };
    const struct want value = {1, WIRE_BYTES, {&any}, false};

    *ret = (struct bootstrap){0};
    if (!is_params(message, id))
        return take_options(message, ret);
    if (!TAKE_FIELDS(message, true, params))
        return false;
    ret->debug = (int64_t)log_level <= -4; /* INFO is 0, DEBUG is -4, TRACE is -8 */
    while (next_field(&message, &field) > 0) {
        any = (struct slice){0};
        if (field.number == 8 && !(take_fields(field.slice, true, &value, 1) && take_options(any, ret)))
            return false;
    }
    return true;
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
