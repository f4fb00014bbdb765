/*
 * The decoded plan. Invariant: a struct plan that plan_parse filled has passed every check of form, so that the operations need no
 * checks of lengths, terminators or order; strings point into the bytes, which must outlive it.
 */
#ifndef PLAN_READ_H
#define PLAN_READ_H

#include <stddef.h>
#include <stdint.h>

#include "plan.gen.h"

struct plan {
    struct op *ops;
    uint32_t count;
    uint8_t *bytes;  /* set by a caller that gives the bytes away: they must live as long as the operations */
    char **pointers; /* the vectors of all strs arguments, each followed by one spare slot */
};

/* Decodes and checks a whole plan. On failure returns a negative errno and says why; makes no system calls besides malloc's. */
int plan_parse(const uint8_t *bytes, size_t size, struct plan *ret, const char **ret_why);
void plan_free(struct plan *plan);

const struct op_schema *plan_schema(uint16_t code);
uint32_t plan_u32_at(const struct plan_u32s *list, uint32_t index);

#endif
