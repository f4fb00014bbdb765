/*
 * Status records to the runtime. Invariants: a record is one write(2) of at most
 * LIMIT_RECORD_MAX_BYTES and its head, so that stage 0 and the container side can share the socket.
 * The container side reports nothing before stage 0 has announced it. Only write(2) is used,
 * because a seccomp filter may be loaded already. All records after the start fit into an empty
 * exec fifo.
 */
#include "init.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static size_t put_u32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
    return 4;
}

/*
 * Text of the plan may hold any byte. Control characters are escaped so that it cannot forge log
 * lines.
 */
static size_t put_text(uint8_t *at, size_t room, const char *text)
{
    static const char digits[] = "0123456789abcdef";
    size_t used = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p != 0 && used + 4 <= room; p++) {
        if (*p >= 0x20 && *p != 0x7f) {
            at[used++] = *p;
        } else {
            at[used++] = '\\';
            at[used++] = 'x';
            at[used++] = (uint8_t)digits[*p >> 4];
            at[used++] = (uint8_t)digits[*p & 15];
        }
    }
    return used;
}

static int send_record(struct ctx *c, enum record_type type, const uint32_t *words, size_t word_count, const char *text)
{
    uint8_t record[8 + LIMIT_RECORD_MAX_BYTES];
    int err = await_announced(c);
    if (err < 0)
        return err;
    size_t size = 8;
    for (size_t i = 0; i < word_count; i++)
        size += put_u32(record + size, words[i]);
    if (text)
        size += put_text(record + size, sizeof record - size, text);
    (void)put_u32(record, (uint32_t)type);
    (void)put_u32(record + 4, (uint32_t)(size - 8));
    return sys_write_all(c->status, record, size);
}

int report(struct ctx *c, enum record_type type)
{
    return send_record(c, type, NULL, 0, NULL);
}

int report_u32(struct ctx *c, enum record_type type, uint32_t value)
{
    return send_record(c, type, &value, 1, NULL);
}

/* A warning that cannot be delivered is dropped, because nothing has failed. */
void report_warning(struct ctx *c, const char *format, ...)
{
    char text[LIMIT_STEP_MAX_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)send_record(c, RECORD_LOG, &(uint32_t){1}, 1, text);
}

int report_failed(struct ctx *c, int err)
{
    uint32_t words[3] = {c->at, (uint32_t)-err, c->failure};
    return send_record(c, RECORD_FAILED, words, 3, c->failed);
}

/*
 * The same failure as a line on the program's standard error. Most texts are parts, see FAILURES.
 */
void report_line(const struct ctx *c, int err)
{
    char text[64];
    uint8_t line[LIMIT_STEP_MAX_BYTES + 256];
    bool complete = c->failure == FAILURE_PROGRAM || c->failure == FAILURE_HOOK;
    size_t used = put_text(line, 64, complete ? "" : "cannot set up the container: ");
    used += put_text(line + used, sizeof line - used - 80, c->failed);
    if (!complete) {
        used += put_text(line + used, 8, ": ");
        used += put_text(line + used, 68, reason(err, text));
    }
    line[used++] = '\n';
    (void)sys_write_all(STDERR_FILENO, line, used);
}

/*
 * `return fail_if(c, err, "mount ...")` is how operations end. If `err` is a negative errno, stores
 * the text of what failed and returns the errno; otherwise returns 0. c->failure says whether the
 * text is a part or a complete sentence.
 */
int fail_if(struct ctx *c, int err, const char *format, ...)
{
    va_list args;
    if (err >= 0)
        return 0;
    va_start(args, format);
    (void)vsnprintf(c->failed, sizeof c->failed, format, args);
    va_end(args);
    return err;
}

/* The text of an errno or a signal in lower case, as tools know it: "no such file or directory". */
const char *words(const char *name, char text[64])
{
    (void)snprintf(text, 64, "%s", name);
    if (text[0] >= 'A' && text[0] <= 'Z' && text[1] >= 'a' && text[1] <= 'z')
        text[0] = (char)(text[0] - 'A' + 'a');
    return text;
}

const char *reason(int err, char text[64])
{
    return words(strerror(err < 0 ? -err : err), text);
}
