/*
 * Shows a plan as the helper reads it, and tries to break the reader. Linked with c/init/plan_read.c only, and built
 * with the sanitizers: a read outside of the plan or an overflow ends it.
 * Invariant: each candidate lies in an allocation of exactly its size.
 *
 *   plan_dump FILE      a line per operation: name and arguments in wire order; or "refused: why" and exit status 2
 *   plan_dump -f FILE   each truncation, each value of each byte, random mutations of FILE: all are refused or valid
 *   plan_dump -s        the same with a plan that holds every operation of the schema once
 */
#include "plan_read.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANDOM_ROUNDS 20000 /* scripts/fuzz does more of this, and better */

static void show_text(FILE *out, const char *text, size_t size)
{
    (void)fputc('"', out);
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (byte < 0x20 || byte == '"' || byte == '\\' || byte == 0x7f)
            (void)fprintf(out, "\\x%02x", byte);
        else
            (void)fputc(byte, out);
    }
    (void)fputc('"', out);
}

static void show_arg(FILE *out, uint8_t kind, const uint8_t *slot)
{
    const struct plan_str *str = (const void *)slot;
    const struct plan_bytes *bytes = (const void *)slot;
    const struct plan_strs *strs = (const void *)slot;
    const struct plan_u32s *u32s = (const void *)slot;
    switch ((enum arg_kind)kind) {
    case ARG_U32:
        (void)fprintf(out, "%u", *(const uint32_t *)(const void *)slot);
        break;
    case ARG_I32:
        (void)fprintf(out, "%d", *(const int32_t *)(const void *)slot);
        break;
    case ARG_U64:
        (void)fprintf(out, "%llu", (unsigned long long)*(const uint64_t *)(const void *)slot);
        break;
    case ARG_STR:
        show_text(out, str->s, str->len);
        break;
    case ARG_BYTES:
        (void)fputs("0x", out);
        for (uint32_t i = 0; i < bytes->len; i++)
            (void)fprintf(out, "%02x", bytes->p[i]);
        break;
    case ARG_STRS:
        (void)fputc('[', out);
        for (uint32_t i = 0; i < strs->count; i++) {
            (void)fputs(i > 0 ? "," : "", out);
            show_text(out, strs->v[i], strlen(strs->v[i]));
        }
        (void)fputc(']', out);
        if (strs->v[strs->count] != NULL || strs->v[strs->count + 1] != NULL)
            abort();
        break;
    case ARG_U32S:
        (void)fputc('[', out);
        for (uint32_t i = 0; i < u32s->count; i++)
            (void)fprintf(out, "%s%u", i > 0 ? "," : "", plan_u32_at(u32s, i));
        (void)fputc(']', out);
        break;
    default:
        abort();
    }
}

static void show(FILE *out, const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct op_schema *schema = plan_schema(plan->ops[i].code);
        (void)fputs(schema->name, out);
        for (uint8_t arg = 0; arg < schema->nargs; arg++) {
            (void)fputc(' ', out);
            show_arg(out, schema->args[arg].kind, (const uint8_t *)&plan->ops[i] + schema->args[arg].offset);
        }
        (void)fputc('\n', out);
    }
}

static void touch(const void *bytes, size_t size)
{
    const volatile uint8_t *at = bytes;
    for (size_t i = 0; i < size; i++)
        (void)at[i];
}

/* Reads all that an accepted plan leads to. */
static void touch_all(const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct op_schema *schema = plan_schema(plan->ops[i].code);
        for (uint8_t arg = 0; arg < schema->nargs; arg++) {
            const void *slot = (const uint8_t *)&plan->ops[i] + schema->args[arg].offset;
            const struct plan_str *str = slot;
            const struct plan_bytes *bytes = slot;
            const struct plan_strs *strs = slot;
            const struct plan_u32s *u32s = slot;
            uint8_t kind = schema->args[arg].kind;
            if (kind == ARG_STR)
                touch(str->s, (size_t)str->len + 1);
            if (kind == ARG_BYTES)
                touch(bytes->p, bytes->len);
            for (uint32_t n = 0; kind == ARG_STRS && n < strs->count; n++)
                touch(strs->v[n], strlen(strs->v[n]) + 1);
            if (kind == ARG_STRS && (strs->v[strs->count] != NULL || strs->v[strs->count + 1] != NULL))
                abort();
            for (uint32_t n = 0; kind == ARG_U32S && n < u32s->count; n++)
                (void)plan_u32_at(u32s, n);
        }
    }
}

/* Parses a copy of exactly this size; what is accepted is read to its last byte. */
static bool accepted(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    struct plan plan;
    const char *why = NULL;
    if (copy == NULL)
        abort();
    memcpy(copy, bytes, size);
    int err = plan_parse(size > 0 ? copy : bytes, size, &plan, &why);
    if (err == 0) {
        touch_all(&plan);
        plan_free(&plan);
    } else if (why == NULL) {
        abort();
    }
    free(copy);
    return err == 0;
}

static int torture(uint8_t *bytes, size_t size)
{
    size_t valid = 0, tried = 0;
    if (!accepted(bytes, size)) {
        (void)fputs("the plan itself is refused\n", stderr);
        return 1;
    }
    for (size_t cut = 0; cut < size; cut++, tried++)
        if (accepted(bytes, cut)) {
            (void)fprintf(stderr, "a plan cut at %zu is accepted\n", cut);
            return 1;
        }
    for (size_t at = 0; at < size; at++) {
        uint8_t was = bytes[at];
        for (unsigned value = 0; value < 256; value++, tried++) {
            bytes[at] = (uint8_t)value;
            bool ok = accepted(bytes, size);
            if (ok && value != was && at < 16) {
                (void)fprintf(stderr, "a header with byte %zu changed is accepted\n", at);
                return 1;
            }
            valid += ok;
        }
        bytes[at] = was;
    }
    uint64_t state = 88172645463325252u; /* xorshift64 with a fixed seed: a failure can be repeated */
    uint8_t *scratch = malloc(size);
    if (scratch == NULL)
        abort();
    for (unsigned round = 0; round < RANDOM_ROUNDS; round++, tried++) {
        memcpy(scratch, bytes, size);
        for (unsigned change = 0; change < 2 + round % 6; change++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            scratch[16 + state % (size - 16)] = (uint8_t)(state >> 40);
        }
        valid += accepted(scratch, size);
    }
    free(scratch);
    (void)printf("%zu candidates of %zu bytes: %zu valid, the rest refused\n", tried, size, valid);
    return 0;
}

static size_t put(uint8_t *at, uint64_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++)
        at[i] = (uint8_t)(value >> (8 * i));
    return width;
}

static size_t put_str(uint8_t *at, const char *text)
{
    size_t size = strlen(text), used = put(at, size, 4);
    memcpy(at + used, text, size + 1);
    return used + size + 1;
}

static size_t put_arg(uint8_t *at, uint8_t kind)
{
    size_t used;
    switch ((enum arg_kind)kind) {
    case ARG_U32:
    case ARG_I32:
        return put(at, 7, 4);
    case ARG_U64:
        return put(at, 1ull << 40, 8);
    case ARG_STR:
        return put_str(at, "some/path");
    case ARG_BYTES:
        used = put(at, 8, 4);
        return used + put(at + used, 0x7fff000000000006u, 8);
    case ARG_STRS:
        used = put(at, 2, 4);
        used += put_str(at + used, "one");
        return used + put_str(at + used, "two");
    case ARG_U32S:
        used = put(at, 2, 4);
        used += put(at + used, 10, 4);
        return used + put(at + used, 20, 4);
    default:
        abort();
    }
}

/* The schema's own order is a valid order, but for the host agent, which is not needed first but must be. */
static size_t every_operation(uint8_t *bytes)
{
    size_t size = 16;
    size += put(bytes + size, OP_HOST_AGENT, 4);
    size += put(bytes + size, 8, 4);
    for (size_t i = 0; i < OP_SCHEMA_COUNT; i++) {
        if (OP_SCHEMAS[i].code == OP_HOST_AGENT)
            continue;
        size_t start = size;
        size += 8;
        for (uint8_t arg = 0; arg < OP_SCHEMAS[i].nargs; arg++)
            size += put_arg(bytes + size, OP_SCHEMAS[i].args[arg].kind);
        (void)put(bytes + start, OP_SCHEMAS[i].code, 4);
        (void)put(bytes + start + 4, size - start, 4);
    }
    (void)put(bytes, PLAN_MAGIC, 4);
    (void)put(bytes + 4, PLAN_SCHEMA_HASH, 4);
    (void)put(bytes + 8, size, 4);
    (void)put(bytes + 12, OP_SCHEMA_COUNT, 4);
    return size;
}

int main(int argc, char **argv)
{
    static uint8_t bytes[LIMIT_PLAN_MAX_BYTES + 1];
    if (argc == 2 && strcmp(argv[1], "-s") == 0)
        return torture(bytes, every_operation(bytes));
    bool fuzz = argc == 3 && strcmp(argv[1], "-f") == 0;
    FILE *file = argc < 2 ? NULL : fopen(argv[fuzz ? 2 : 1], "rb");
    if (file == NULL) {
        (void)fputs("usage: plan_dump [-f] FILE | -s\n", stderr);
        return 1;
    }
    size_t size = fread(bytes, 1, sizeof bytes, file);
    (void)fclose(file);
    if (fuzz)
        return torture(bytes, size);
    struct plan plan;
    const char *why = "";
    uint8_t *copy = malloc(size + 1);
    if (copy == NULL)
        return 1;
    memcpy(copy, bytes, size);
    int err = plan_parse(copy, size, &plan, &why);
    if (err < 0) {
        (void)printf("refused: %s\n", why);
    } else {
        show(stdout, &plan);
        plan_free(&plan);
    }
    free(copy);
    return err < 0 ? 2 : 0;
}
