#include "core/diff.h"

#include "core/cleanup.h"

#include <stdlib.h>
#include <string.h>

/* Pairs of lines that are compared at most; beyond it a change is shown as one block. */
enum { PAIRS_MAX = 4 << 20 };

/* A text as lines without their ends. */
struct lines {
    struct kms_slice *list;
    size_t count;
};

static void lines_clear(struct lines *lines)
{
    free(lines->list);
}

/* One mark for each line of either text, in the order of the difference. */
struct script {
    char *marks;
    size_t count;
};

static void script_clear(struct script *script)
{
    free(script->marks);
}

static enum kms_status split(struct kms_slice text, struct lines *ret_lines)
{
    size_t most = 1;
    for (size_t i = 0; i < text.len; i++)
        most += text.data[i] == '\n';
    struct kms_slice *list = calloc(most, sizeof *list);
    if (list == NULL)
        return KMS_NO_MEMORY;
    size_t count = 0;
    for (size_t at = 0; at < text.len; count++) {
        const uint8_t *end = memchr(text.data + at, '\n', text.len - at);
        const size_t len = end != NULL ? (size_t)(end - text.data) - at : text.len - at;
        list[count] = kms_slice_of(text.data + at, len);
        at += len + 1;
    }
    *ret_lines = (struct lines){list, count};
    return KMS_OK;
}

static void add_marks(struct script *script, char mark, size_t count)
{
    memset(script->marks + script->count, mark, count);
    script->count += count;
}

/*
 * The longest common subsequence of two lists (the table holds its length from each pair of places on), then the walk along it.
 * Callers have cut off what the lists begin and end with in common.
 */
static enum kms_status compare(const struct kms_slice *a, size_t a_count, const struct kms_slice *b,
                               size_t b_count, struct script *script)
{
    const size_t width = b_count + 1;
    if (a_count == 0 || b_count == 0 || a_count > PAIRS_MAX / b_count) {
        add_marks(script, '-', a_count);
        add_marks(script, '+', b_count);
        return KMS_OK;
    }
    KMS_FREE uint32_t *table = calloc((a_count + 1) * width, sizeof *table);
    if (table == NULL)
        return KMS_NO_MEMORY;
    for (size_t i = a_count; i-- > 0;) {
        for (size_t j = b_count; j-- > 0;) {
            const uint32_t down = table[(i + 1) * width + j];
            const uint32_t right = table[i * width + j + 1];
            table[i * width + j] = kms_slice_equal(a[i], b[j]) ? table[(i + 1) * width + j + 1] + 1
                                   : down >= right             ? down
                                                               : right;
        }
    }
    size_t i = 0;
    size_t j = 0;
    while (i < a_count && j < b_count) {
        const bool same = kms_slice_equal(a[i], b[j]);
        const bool drop = table[(i + 1) * width + j] >= table[i * width + j + 1];
        add_marks(script, same ? ' ' : drop ? '-' : '+', 1);
        i += same || drop;
        j += same || !drop;
    }
    add_marks(script, '-', a_count - i);
    add_marks(script, '+', b_count - j);
    return KMS_OK;
}

/* The whole script: common beginning, difference, common end. */
static enum kms_status make_script(const struct lines *a, const struct lines *b, struct script *script)
{
    const size_t least = a->count < b->count ? a->count : b->count;
    size_t head = 0;
    size_t tail = 0;
    script->marks = malloc(a->count + b->count + 1);
    if (script->marks == NULL)
        return KMS_NO_MEMORY;
    while (head < least && kms_slice_equal(a->list[head], b->list[head]))
        head++;
    while (tail < least - head && kms_slice_equal(a->list[a->count - 1 - tail], b->list[b->count - 1 - tail]))
        tail++;
    add_marks(script, ' ', head);
    KMS_TRY(compare(a->list + head, a->count - head - tail, b->list + head, b->count - head - tail, script));
    add_marks(script, ' ', tail);
    return KMS_OK;
}

/* Is there a change no further than `around` from this place? */
static bool is_near_change(const struct script *script, size_t at, size_t around)
{
    const size_t from = at > around ? at - around : 0;
    const size_t to = script->count - at > around ? at + around : script->count - 1;
    for (size_t i = from; i <= to; i++) {
        if (script->marks[i] != ' ')
            return true;
    }
    return false;
}

enum kms_status kms_diff_lines(struct kms_slice old_text, struct kms_slice new_text, size_t around,
                               kms_diff_visit visit, void *context)
{
    KMS_CLEANUP(lines_clear) struct lines a = {0};
    KMS_CLEANUP(lines_clear) struct lines b = {0};
    KMS_CLEANUP(script_clear) struct script script = {0};
    KMS_TRY(split(old_text, &a));
    KMS_TRY(split(new_text, &b));
    KMS_TRY(make_script(&a, &b, &script));
    size_t i = 0;
    size_t j = 0;
    bool left_out = false;
    for (size_t at = 0; at < script.count; at++) {
        const char mark = script.marks[at];
        const struct kms_slice line = mark == '+' ? b.list[j] : a.list[i];
        if (!is_near_change(&script, at, around)) {
            left_out = true;
        } else {
            if (left_out)
                KMS_TRY(visit(context, '@', (struct kms_slice){0}, j + 1));
            left_out = false;
            KMS_TRY(visit(context, mark, line, j + 1));
        }
        i += mark != '+';
        j += mark != '-';
    }
    return KMS_OK;
}
