/*
 * The bounds-checked reader of a plan. The runtime, which is trusted, sends the plan, but the image
 * and the client chose parts of its text. So the reader trusts no byte. The first pass checks
 * everything and counts what must be allocated; the second pass stores it. Invariant: the cursor
 * never passes `end`. A length is compared with what is left before it is added, so no sum
 * overflows.
 */
#include "plan_read.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

static size_t left(const struct cursor *in)
{
    return (size_t)(in->end - in->at);
}

static bool take_u32(struct cursor *in, uint32_t *ret)
{
    if (left(in) < 4)
        return false;
    *ret = (uint32_t)in->at[0] | (uint32_t)in->at[1] << 8 | (uint32_t)in->at[2] << 16 | (uint32_t)in->at[3] << 24;
    in->at += 4;
    return true;
}

static bool take_u64(struct cursor *in, uint64_t *ret)
{
    uint32_t low, high;
    if (left(in) < 8 || !take_u32(in, &low) || !take_u32(in, &high))
        return false;
    *ret = (uint64_t)high << 32 | low;
    return true;
}

static bool take_bytes(struct cursor *in, struct plan_bytes *ret)
{
    uint32_t size;
    if (!take_u32(in, &size) || left(in) < size)
        return false;
    *ret = (struct plan_bytes){.p = in->at, .len = size};
    in->at += size;
    return true;
}

/* A string: its length, its bytes without a NUL, and one NUL. So it is a C string in place. */
static bool take_str(struct cursor *in, struct plan_str *ret)
{
    struct plan_bytes text;
    if (!take_bytes(in, &text) || text.len > LIMIT_STRING_MAX_BYTES || left(in) < 1 || *in->at != 0)
        return false;
    if (memchr(text.p, 0, text.len))
        return false;
    in->at++;
    *ret = (struct plan_str){.s = (const char *)text.p, .len = text.len};
    return true;
}

/*
 * Without `pointers` only checks; otherwise stores the vector at *pointers and advances that. Each
 * vector has two slots more than strings: one for the HOME that op_program may add, and the NULL at
 * the end. A string takes at least 5 bytes: its length and a NUL. The cast is there because execve
 * takes char *.
 */
static bool take_strs(struct cursor *in, struct plan_strs *ret, char ***pointers, size_t *count_pointers)
{
    uint32_t count;
    if (!take_u32(in, &count) || left(in) / 5 < count)
        return false;
    char **vector = pointers ? *pointers : NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct plan_str item;
        if (!take_str(in, &item))
            return false;
        if (vector)
            vector[i] = (char *)(uintptr_t)item.s;
    }
    *ret = (struct plan_strs){.v = vector, .count = count};
    *count_pointers += (size_t)count + 2;
    if (pointers)
        *pointers += (size_t)count + 2;
    return true;
}

static bool take_u32s(struct cursor *in, struct plan_u32s *ret)
{
    uint32_t count;
    if (!take_u32(in, &count) || left(in) / 4 < count)
        return false;
    *ret = (struct plan_u32s){.p = in->at, .count = count};
    in->at += (size_t)count * 4;
    return true;
}

uint32_t plan_u32_at(const struct plan_u32s *list, uint32_t index)
{
    struct cursor in = {list->p + (size_t)index * 4, list->p + (size_t)index * 4 + 4};
    uint32_t value = 0;
    (void)take_u32(&in, &value);
    return value;
}

const struct op_schema *plan_schema(uint16_t code)
{
    for (size_t i = 0; i < OP_SCHEMA_COUNT; i++)
        if (OP_SCHEMAS[i].code == code)
            return &OP_SCHEMAS[i];
    return NULL;
}

static bool take_arg(struct cursor *in, uint8_t kind, uint8_t *slot, char ***pointers, size_t *count_pointers)
{
    switch ((enum arg_kind)kind) {
    case ARG_U32:
    case ARG_I32:
        return take_u32(in, (uint32_t *)(void *)slot);
    case ARG_U64:
        return take_u64(in, (uint64_t *)(void *)slot);
    case ARG_STR:
        return take_str(in, (struct plan_str *)(void *)slot);
    case ARG_BYTES:
        return take_bytes(in, (struct plan_bytes *)(void *)slot);
    case ARG_STRS:
        return take_strs(in, (struct plan_strs *)(void *)slot, pointers, count_pointers);
    case ARG_U32S:
        return take_u32s(in, (struct plan_u32s *)(void *)slot);
    default:
        return false;
    }
}

/*
 * Takes one operation: its head, then its arguments, which must fill the record exactly. Returns
 * its schema, or NULL.
 */
static const struct op_schema *take_op(struct cursor *in, struct op *ret, char ***pointers, size_t *count_pointers)
{
    uint32_t head, size;
    const uint8_t *start = in->at;
    if (!take_u32(in, &head) || !take_u32(in, &size) || size < 8 || size - 8 > left(in) || head > UINT16_MAX)
        return NULL;
    const struct op_schema *schema = plan_schema((uint16_t)head);
    if (!schema)
        return NULL;
    struct cursor args = {in->at, start + size};
    *ret = (struct op){.code = (uint16_t)head};
    for (uint8_t i = 0; i < schema->nargs; i++)
        if (!take_arg(&args, schema->args[i].kind, (uint8_t *)ret + schema->args[i].offset, pointers, count_pointers))
            return NULL;
    in->at = args.end;
    return args.at == args.end ? schema : NULL;
}

/*
 * What has come before, so that the order of init.c's diagram can be checked. The checks return
 * what is wrong, or NULL.
 */
struct order {
    uint32_t seen[OP_CODE_MAX + 1]; /* by code */
    uint32_t joined;                /* how many opened namespaces the joins have covered */
};

static const char *check_mount(const uint32_t *seen, const struct op_mount *op)
{
    bool host = (op->how & MOUNT_HOW_HOST_SOURCE) != 0, idmap = (op->how & MOUNT_HOW_IDMAP) != 0;
    if (seen[OP_PIVOT] > 0)
        return "mount must come before the pivot";
    if (host && (seen[OP_HOST_AGENT] == 0 || (op->how & MOUNT_HOW_BIND) == 0))
        return "a source of the host is for a bind and needs the host agent";
    if ((idmap && !host) || (!idmap && (op->how & MOUNT_HOW_IDMAP_RECURSIVE) != 0))
        return "ids are mapped by the host agent only";
    return idmap && (op->uid_map.len == 0) != (op->gid_map.len == 0) ? "one of two id maps is missing" : NULL;
}

static const char *check_op(struct order *order, const struct op *op, const struct op_schema *schema, bool last)
{
    uint32_t *seen = order->seen;
    if ((schema->stage == STAGE_HOST) != (seen[OP_CLONE] == 0))
        return "an operation is on the wrong side of the clone";
    if ((op->code == OP_EXEC) != last)
        return "exec must be the last operation, and only that";
    seen[op->code]++;
    if (schema->most > 0 && seen[op->code] > schema->most)
        return schema->too_often;
    if (schema->needs != 0 && seen[schema->needs] == 0)
        return schema->unmet;
    switch (op->code) {
    case OP_CLONE:
        return order->joined < seen[OP_OPEN_NS] ? "namespaces were opened but not joined" : NULL;
    case OP_JOIN:
        order->joined = seen[OP_OPEN_NS];
        return NULL;
    case OP_HOST_AGENT:
        return seen[OP_JOIN] + seen[OP_JOIN_PROCESS] > 0 ? "host_agent must come before any join" : NULL;
    case OP_MOUNT:
        return check_mount(seen, &op->mount);
    case OP_PROGRAM:
        return op->program.args.count == 0 ? "the program has no arguments" : NULL;
    case OP_EXEC:
        if (op->exec.fds > LIMIT_EXTRA_FDS_MAX)
            return "the program is to have too many fds";
        if (seen[OP_CGROUP_DIR] + seen[OP_CGROUP_TASKS] > 0 && seen[OP_WAIT_CGROUP] == 0)
            return "a cgroup is joined but never waited for";
        return NULL;
    default:
        return NULL; /* the others may come anywhere on their side of the clone */
    }
}

static int refuse(const char **ret_why, const char *why, int err)
{
    *ret_why = why;
    return err;
}

int plan_parse(const uint8_t *bytes, size_t size, struct plan *ret, const char **ret_why)
{
    struct cursor in = {bytes, bytes + size};
    uint32_t magic, hash, total, count;
    if (size > LIMIT_PLAN_MAX_BYTES)
        return refuse(ret_why, "the plan is too large", -E2BIG);
    bool head = take_u32(&in, &magic) && take_u32(&in, &hash) && take_u32(&in, &total) && take_u32(&in, &count);
    if (!head || magic != PLAN_MAGIC)
        return refuse(ret_why, "this is no plan", -EINVAL);
    if (hash != PLAN_SCHEMA_HASH)
        return refuse(ret_why, "the plan is of another version than this helper", -EPROTONOSUPPORT);
    if (total != size)
        return refuse(ret_why, "the plan is cut short or has a tail", -EINVAL);
    if (count > LIMIT_PLAN_MAX_OPS || count > left(&in) / 8)
        return refuse(ret_why, "the plan has too many operations", -EINVAL);

    struct cursor check = in;
    struct order order = {0};
    size_t pointer_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct op op;
        const struct op_schema *schema = take_op(&check, &op, NULL, &pointer_count);
        if (!schema)
            return refuse(ret_why, "an operation of the plan is malformed", -EINVAL);
        const char *wrong = check_op(&order, &op, schema, i == count - 1);
        if (wrong)
            return refuse(ret_why, wrong, -EINVAL);
    }
    if (check.at != check.end || order.seen[OP_PROGRAM] == 0)
        return refuse(ret_why, "the plan has a tail or no program", -EINVAL);

    struct plan plan = {.count = count};
    plan.ops = calloc(count, sizeof *plan.ops);
    plan.pointers = calloc(pointer_count, sizeof *plan.pointers);
    if (!plan.ops || !plan.pointers) {
        plan_free(&plan);
        return refuse(ret_why, "no memory for the plan", -ENOMEM);
    }
    char **next = plan.pointers;
    size_t again = 0;
    for (uint32_t i = 0; i < count; i++)
        (void)take_op(&in, &plan.ops[i], &next, &again);
    *ret = plan;
    return 0;
}

void plan_free(struct plan *plan)
{
    free(plan->ops);
    free(plan->pointers);
    free(plan->bytes);
    *plan = (struct plan){0};
}
