/*
 * The few protobuf messages that the launcher meets, read and written by hand. Reading is a bounds-checked cursor over
 * bytes that a client may have chosen: a length is compared with what is left before it is used, nothing is trusted to
 * be terminated, and a message that does not parse to its end yields nothing. Pure: no system call.
 */
#include "launcher.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIELD_NUMBER_LIMIT ((1u << 29) - 1)

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct slice {
    const uint8_t *bytes;
    size_t size;
};

struct field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;     /* WIRE_VARINT */
    struct slice slice; /* WIRE_BYTES */
};

static bool take_varint(struct slice *from, uint64_t *ret)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 70 && from->size > 0; shift += 7) {
        uint8_t byte = *from->bytes++;

        from->size--;
        /* the tenth byte carries the one bit that is left of 64 */
        if (shift == 63 && byte > 1)
            return false;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret = value;
            return true;
        }
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
    struct field field = {0};
    struct slice skipped;
    uint64_t tag, size;

    if (from->size == 0)
        return 0;
    if (!take_varint(from, &tag) || tag >> 3 == 0 || tag >> 3 > FIELD_NUMBER_LIMIT)
        return -1;
    field.number = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case WIRE_VARINT:
        field.type = WIRE_VARINT;
        if (!take_varint(from, &field.value))
            return -1;
        break;
    case WIRE_BYTES:
        field.type = WIRE_BYTES;
        if (!take_varint(from, &size) || !take_bytes(from, size, &field.slice))
            return -1;
        break;
    case WIRE_FIXED64:
        field.type = WIRE_FIXED64;
        if (!take_bytes(from, 8, &skipped))
            return -1;
        break;
    case WIRE_FIXED32:
        field.type = WIRE_FIXED32;
        if (!take_bytes(from, 4, &skipped))
            return -1;
        break;
    default: /* groups: none of our messages has ever had one */
        return -1;
    }
    *ret = field;
    return 1;
}

static bool slice_is(struct slice slice, const char *text)
{
    size_t size = strlen(text);

    return slice.size == size && (size == 0 || memcmp(slice.bytes, text, size) == 0);
}

/* Replaces *owner; an empty string counts as absent, as everywhere in proto3. */
static bool take_string(struct slice slice, char **owner)
{
    char *copy = NULL;

    if (slice.size > 0) {
        if (memchr(slice.bytes, '\0', slice.size))
            return false;
        copy = strndup((const char *)slice.bytes, slice.size);
        if (!copy)
            return false;
    }
    free(*owner);
    *owner = copy;
    return true;
}

struct any {
    struct slice type_url;
    struct slice value;
};

static bool parse_any(struct slice from, struct any *ret)
{
    struct any any = {0};
    struct field field;
    int more;

    while ((more = next_field(&from, &field)) > 0) {
        if (field.number > 2)
            continue;
        if (field.type != WIRE_BYTES)
            return false;
        *(field.number == 1 ? &any.type_url : &any.value) = field.slice;
    }
    if (more < 0)
        return false;
    *ret = any;
    return true;
}

bool wire_is_any(const uint8_t *bytes, size_t size)
{
    struct any any;

    return parse_any((struct slice){.bytes = bytes, .size = size}, &any);
}

/* Options of a type that we do not know are none of the launcher's business: the shim warns about them. */
static uint32_t shim_cgroup_field(struct slice type_url)
{
    /* a URL may carry a host in front of the message's name */
    for (size_t i = type_url.size; i > 0; i--) {
        if (type_url.bytes[i - 1] != '/')
            continue;
        type_url.bytes += i;
        type_url.size -= i;
        break;
    }
    if (slice_is(type_url, "containerd.runc.v1.Options"))
        return 3;
    if (slice_is(type_url, "containerd.linux.runc.CreateOptions"))
        return 9;
    return 0;
}

static bool parse_options(struct any any, struct bootstrap *into)
{
    uint32_t number = shim_cgroup_field(any.type_url);
    struct field field;
    int more;

    if (number == 0)
        return true;
    while ((more = next_field(&any.value, &field)) > 0) {
        if (field.number == number && (field.type != WIRE_BYTES || !take_string(field.slice, &into->shim_cgroup)))
            return false;
    }
    return more == 0;
}

static bool parse_extension(struct slice from, struct bootstrap *into)
{
    struct field field;
    struct any any;
    int more;

    while ((more = next_field(&from, &field)) > 0) {
        if (field.number != 1)
            continue;
        if (field.type != WIRE_BYTES || !parse_any(field.slice, &any) || !parse_options(any, into))
            return false;
    }
    return more == 0;
}

static bool parse_params_field(const struct field *field, struct bootstrap *into)
{
    /* log_level counts downwards from INFO = 0: DEBUG is -4, TRACE -8 */
    if (field->number == 3) {
        into->debug = (int64_t)field->value <= -4;
        return field->type == WIRE_VARINT;
    }
    if (field->type != WIRE_BYTES)
        return field->number > 9 || field->number == 4 || field->number == 7;
    switch (field->number) {
    case 1:
        return take_string(field->slice, &into->id);
    case 2:
        return take_string(field->slice, &into->namespace);
    case 5:
        return take_string(field->slice, &into->ttrpc_address);
    case 6:
        return take_string(field->slice, &into->grpc_address);
    case 8:
        return parse_extension(field->slice, into);
    case 9:
        return take_string(field->slice, &into->socket_dir);
    default: /* the daemon's version and path, and what later versions add */
        return true;
    }
}

/*
 * Old daemons send an Any, new ones BootstrapParams, and both begin with two length-delimited fields. A BootstrapParams
 * names this container in field 1, where an Any has a type URL, or has a field that no Any has.
 */
static int is_params(struct slice from, const char *id)
{
    bool params = false;
    struct field field;
    int more;

    while ((more = next_field(&from, &field)) > 0) {
        if (field.number > 2)
            params = true;
        else if (field.number == 1 && field.type == WIRE_BYTES && id && slice_is(field.slice, id))
            params = true;
    }
    return more < 0 ? -1 : params;
}

static bool parse_stdin(struct slice from, const char *id, struct bootstrap *into)
{
    struct field field;
    struct any any;
    int more, params = is_params(from, id);

    if (params < 0)
        return false;
    if (!params)
        return parse_any(from, &any) && parse_options(any, into);
    while ((more = next_field(&from, &field)) > 0) {
        if (!parse_params_field(&field, into))
            return false;
    }
    return more == 0;
}

int bootstrap_parse(const uint8_t *bytes, size_t size, const char *id, struct bootstrap *ret, struct failure *failure)
{
    struct bootstrap bootstrap = {0};

    if (!parse_stdin((struct slice){.bytes = bytes, .size = size}, id, &bootstrap)) {
        bootstrap_free(&bootstrap);
        return fail(failure, 0, "cannot read the options on stdin: neither BootstrapParams nor google.protobuf.Any");
    }
    *ret = bootstrap;
    return 0;
}

void bootstrap_free(struct bootstrap *bootstrap)
{
    free(bootstrap->id);
    free(bootstrap->namespace);
    free(bootstrap->ttrpc_address);
    free(bootstrap->grpc_address);
    free(bootstrap->socket_dir);
    free(bootstrap->shim_cgroup);
    *bootstrap = (struct bootstrap){0};
}

static void put_raw(struct wire_writer *writer, const void *bytes, size_t size)
{
    if (!writer->ok || size > writer->size - writer->used) {
        writer->ok = false;
        return;
    }
    if (size > 0)
        memcpy(writer->bytes + writer->used, bytes, size);
    writer->used += size;
}

static void put_varint(struct wire_writer *writer, uint64_t value)
{
    uint8_t byte;

    for (; value >= 0x80; value >>= 7) {
        byte = (uint8_t)(value | 0x80);
        put_raw(writer, &byte, 1);
    }
    byte = (uint8_t)value;
    put_raw(writer, &byte, 1);
}

void wire_put_number(struct wire_writer *writer, uint32_t field, uint64_t value)
{
    if (value == 0) /* proto3 leaves defaults out */
        return;
    put_varint(writer, (uint64_t)field << 3 | WIRE_VARINT);
    put_varint(writer, value);
}

void wire_put_bytes(struct wire_writer *writer, uint32_t field, const void *bytes, size_t size)
{
    put_varint(writer, (uint64_t)field << 3 | WIRE_BYTES);
    put_varint(writer, size);
    put_raw(writer, bytes, size);
}
