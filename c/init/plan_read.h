/*
 * The decoded plan. Invariant: a plan that plan_parse has filled has passed every check of its
 * form. So the operations do not check lengths or terminators, nor the order that check_op demands.
 * Strings point into the bytes, which must outlive the plan.
 */
#ifndef PLAN_READ_H
#define PLAN_READ_H

#include <stddef.h>
#include <stdint.h>

#include "plan.gen.h"

struct plan {
    struct op *ops;
    uint32_t count;
    /* set by a caller that hands over the bytes; plan_free frees them */
    uint8_t *bytes;
    char **pointers; /* the vectors of all strs arguments, each with one spare slot */
};

/*
 * Decodes and checks a whole plan. On failure returns a negative errno and sets `ret_why`. Makes no
 * system calls besides malloc's.
 */
int plan_parse(const uint8_t *bytes, size_t size, struct plan *ret, const char **ret_why);
void plan_free(struct plan *plan);

const struct op_schema *plan_schema(uint16_t code);
uint32_t plan_u32_at(const struct plan_u32s *list, uint32_t index);

#endif
