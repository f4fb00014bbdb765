/*
 * The fuzz target of the plan reader: one input is one plan.
 * It checks an invariant: plan_parse refuses a plan with a reason, or its result can be read to the last byte and
 * holds what the operations rely on. Under the sanitizers a read outside of the plan ends the program.
 *
 * Built with clang's -fsanitize=fuzzer, which chooses inputs by the code that they reach. Without clang, any compiler
 * builds it with -DSTANDALONE, as a loop of mutations: plan_fuzz SECONDS SEED FILE...
 */
#include "plan_read.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink; /* so that no read is left out */

static void touch(const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        sink += ((const uint8_t *)bytes)[i];
}

static void use_arg(uint8_t kind, const uint8_t *slot)
{
    const struct plan_str *str = (const void *)slot;
    const struct plan_bytes *bytes = (const void *)slot;
    const struct plan_strs *strs = (const void *)slot;
    const struct plan_u32s *u32s = (const void *)slot;
    switch ((enum arg_kind)kind) {
    case ARG_U32:
    case ARG_I32:
        touch(slot, 4);
        break;
    case ARG_U64:
        touch(slot, 8);
        break;
    case ARG_STR:
        if (strlen(str->s) != str->len || str->len > LIMIT_STRING_MAX_BYTES)
            abort();
        break;
    case ARG_BYTES:
        touch(bytes->p, bytes->len);
        break;
    case ARG_STRS:
        for (uint32_t i = 0; i < strs->count; i++)
            touch(strs->v[i], strlen(strs->v[i]));
        if (strs->v[strs->count] != NULL || strs->v[strs->count + 1] != NULL)
            abort();
        break;
    case ARG_U32S:
        for (uint32_t i = 0; i < u32s->count; i++)
            sink += plan_u32_at(u32s, i);
        break;
    default:
        abort();
    }
}

static void use_plan(const struct plan *plan)
{
    uint32_t clones = 0, programs = 0;
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct op *op = &plan->ops[i];
        const struct op_schema *schema = plan_schema(op->code);
        if (schema == NULL || (schema->stage == STAGE_HOST) != (clones == 0) || (op->code == OP_EXEC) != (i == plan->count - 1))
            abort();
        clones += op->code == OP_CLONE;
        programs += op->code == OP_PROGRAM;
        if (op->code == OP_PROGRAM && (op->program.args.count == 0 || op->program.args.v[0] == NULL))
            abort();
        for (uint8_t arg = 0; arg < schema->nargs; arg++)
            use_arg(schema->args[arg].kind, (const uint8_t *)op + schema->args[arg].offset);
    }
    if (clones != 1 || programs != 1)
        abort();
}

static void put_u32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

/* The head is made right, unless its first byte was changed: otherwise hardly an input would get past it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    struct plan plan;
    const char *why = NULL;
    if (copy == NULL)
        abort();
    memcpy(copy, data, size);
    if (size >= 16 && copy[0] == (uint8_t)PLAN_MAGIC) {
        put_u32(copy, PLAN_MAGIC);
        put_u32(copy + 4, PLAN_SCHEMA_HASH);
        put_u32(copy + 8, (uint32_t)size);
    }
    int err = plan_parse(copy, size, &plan, &why);
    if (err == 0) {
        use_plan(&plan);
        plan_free(&plan);
    } else if (err > 0 || why == NULL || *why == 0) {
        abort();
    }
    free(copy);
    return 0;
}

#ifdef STANDALONE
#include <sanitizer/common_interface_defs.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define MOST_BYTES (256 * 1024)
#define MOST_FILES 64
#define INPUT_SECONDS 10

static uint64_t state;
static unsigned long long rounds, seed;

static size_t below(size_t bound) /* xorshift64: a failure can be repeated */
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return bound == 0 ? 0 : (size_t)(state >> 11) % bound;
}

static void say_where(void)
{
    (void)fprintf(stderr, "plan: seed %llu, input %llu\n", seed, rounds);
}

static void say_hang(int signal_number)
{
    (void)signal_number;
    say_where();
    _exit(1);
}

static size_t mutate(uint8_t *bytes, size_t size, const uint8_t *other, size_t other_size)
{
    static const uint32_t odd[] = { 0, 1, 7, 8, 9, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff8, 0x10000, 0x100001, 0x40000000 };
    size_t at = below(size), length = 1 + below(below(4) == 0 ? 4096 : 16);
    switch (below(7)) {
    case 0:
        bytes[at] = (uint8_t)below(256);
        break;
    case 1:
        bytes[at] ^= (uint8_t)(1u << below(8));
        break;
    case 2:
        if (at + 4 <= size)
            put_u32(bytes + at, odd[below(sizeof odd / sizeof *odd)]);
        break;
    case 3: /* cut out */
        length = length < size - at ? length : size - at;
        memmove(bytes + at, bytes + at + length, size - at - length);
        size -= length;
        break;
    case 4: /* again */
        length = length < size - at ? length : size - at;
        if (size + length <= MOST_BYTES) {
            memmove(bytes + at + length, bytes + at, size - at);
            size += length;
        }
        break;
    case 5: /* a part of another */
        length = length < other_size ? length : other_size;
        if (size + length <= MOST_BYTES) {
            memmove(bytes + at + length, bytes + at, size - at);
            memcpy(bytes + at, other + below(other_size - length + 1), length);
            size += length;
        }
        break;
    default:
        if (below(8) == 0)
            size = at + 1;
        else if (size >= 16)
            put_u32(bytes + 12, (uint32_t)below(64));
    }
    return size > 0 ? size : 1;
}

int main(int argc, char **argv)
{
    static uint8_t scratch[MOST_BYTES], files[MOST_FILES][MOST_BYTES];
    size_t sizes[MOST_FILES], count = 0;
    if (argc < 4) {
        (void)fputs("usage: plan_fuzz SECONDS SEED FILE...\n", stderr);
        return 2;
    }
    for (int i = 3; i < argc && count < MOST_FILES; i++) {
        FILE *file = fopen(argv[i], "rb");
        sizes[count] = file == NULL ? 0 : fread(files[count], 1, MOST_BYTES, file);
        if (sizes[count] == 0)
            return 2;
        (void)fclose(file);
        (void)LLVMFuzzerTestOneInput(files[count], sizes[count]);
        count++;
    }
    time_t until = time(NULL) + atol(argv[1]);
    seed = strtoull(argv[2], NULL, 10);
    state = seed * 2654435761u + 88172645463325252u;
    __sanitizer_set_death_callback(say_where);
    (void)signal(SIGALRM, say_hang);
    for (; (rounds & 1023) != 0 || time(NULL) < until; rounds++) {
        size_t which = below(count), other = below(count), size = sizes[which];
        if ((rounds & 1023) == 0)
            (void)alarm(INPUT_SECONDS); /* for a thousand inputs, which take some milliseconds */
        memcpy(scratch, files[which], size);
        for (size_t changes = 1 + below(6); changes > 0; changes--)
            size = mutate(scratch, size, files[other], sizes[other]);
        (void)LLVMFuzzerTestOneInput(scratch, size);
    }
    (void)printf("plan: seed %llu, %llu inputs: nothing found\n", seed, rounds);
    return 0;
}
#endif
