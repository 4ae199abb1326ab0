#include "audit/query.h"

#include "audit/chain.h"
#include "audit/index.h"
#include "audit/reader.h"
#include "audit/segment.h"
#include "core/cleanup.h"

#include <errno.h>

/* One walk over a directory. */
struct walk {
    const struct kms_audit_query_options *options;
    struct kms_audit_query_result *result;
    const char *directory, *index_directory;
    struct kms_audit_matcher matcher;
    struct kms_audit_reader *reader;
    struct kms_audit_segments segments;
    uint64_t bytes_done, bytes_all;
    char name[KMS_AUDIT_NAME_SIZE]; /* of the segment that is read */
};

static void clear_walk(struct walk *walk)
{
    kms_audit_reader_free(walk->reader);
    free(walk->segments.first_seqs);
}

static void free_index(struct kms_audit_index **index)
{
    kms_audit_index_free(*index);
}

/* Count and tell. */
static void tell(struct walk *walk, const char *file, uint64_t offset, const char *text)
{
    walk->result->problems++;
    if (walk->options->problem == NULL)
        return;
    struct kms_audit_problem problem = {.offset = offset, .text = text};
    for (size_t i = 0; i + 1 < sizeof problem.file && file[i] != '\0'; i++)
        problem.file[i] = file[i] >= 0x20 && file[i] < 0x7f ? file[i] : '?';
    walk->options->problem(walk->options->context, &problem);
}

static void tell_foreign(void *context, const char *name)
{
    tell(context, name, 0, "this is no file of the audit log");
}

/* Of a segment that is being indexed. */
static void tell_line(void *context, uint64_t line, uint64_t offset, const char *text)
{
    (void)line;
    struct walk *walk = context;
    tell(walk, walk->name, offset, text);
}

/* One line: a match is handed on. */
static enum kms_status take_line(struct walk *walk, const struct kms_audit_item *item, struct kms_error *err)
{
    struct kms_audit_line line;
    struct kms_audit_fields fields;
    walk->result->records_read++;
    if (!kms_audit_matcher_may_match(&walk->matcher, item->text) ||
        !kms_audit_chain_parse(item->text, &line) || !kms_audit_fields_parse(line.body, &fields) ||
        !kms_audit_matcher_match(&walk->matcher, &fields))
        return KMS_OK;
    walk->result->found++;
    const struct kms_audit_found found = {walk->name, item->offset, line.seq, item->text, &fields};
    return walk->options->found(walk->options->context, &found) ? KMS_OK
                                                                : kms_fail(err, KMS_CANCELLED, "stopped");
}

/* Ask whether to go on; `done` is what was read of this segment. */
static enum kms_status go_on(struct walk *walk, uint64_t done, struct kms_error *err)
{
    const struct kms_audit_progress progress = {.file = walk->name,
                                                .bytes_done = walk->bytes_done + done,
                                                .bytes_all = walk->bytes_all,
                                                .records = walk->result->records_read};
    const bool go =
        walk->options->progress == NULL || walk->options->progress(walk->options->context, &progress);
    return go ? KMS_OK : kms_fail(err, KMS_CANCELLED, "stopped");
}

/* Read the lines that begin in a part of a segment. `tells`: nobody has told yet of lines that are none. */
static enum kms_status read_range(struct walk *walk, int fd, const struct kms_audit_range *range, bool tells,
                                  struct kms_error *err)
{
    kms_audit_reader_start_at(walk->reader, fd, range->begin);
    for (;;) {
        struct kms_audit_item item;
        if (kms_audit_reader_next(walk->reader, &item) != KMS_OK) {
            tell(walk, walk->name, range->begin, "the file cannot be read");
            return KMS_OK;
        }
        if (item.kind == KMS_AUDIT_ITEM_END || item.offset >= range->end) {
            walk->result->bytes_read += item.offset - range->begin;
            return go_on(walk, item.offset, err);
        }
        if (item.kind == KMS_AUDIT_ITEM_LINE)
            KMS_TRY(take_line(walk, &item, err));
        struct kms_audit_line line;
        if (tells && (item.kind == KMS_AUDIT_ITEM_LONG || !kms_audit_chain_parse(item.text, &line)))
            tell(walk, walk->name, item.offset, "the line is no audit record");
    }
}

/* The index of a finished segment: kept from earlier, or made now. NULL when the segment cannot hold a match. */
static enum kms_status find_index(struct walk *walk, int fd, uint64_t first_seq,
                                  struct kms_audit_index **ret_index, struct kms_error *err)
{
    const enum kms_status loaded =
        kms_audit_index_load(walk->index_directory, fd, first_seq, &walk->matcher, ret_index);
    if (loaded != KMS_NOT_FOUND)
        return loaded;
    KMS_TRY(kms_audit_index_build(fd, first_seq, tell_line, walk, ret_index, err));
    walk->result->indexes_made++;
    struct kms_error failure = {0};
    if (kms_audit_index_store(*ret_index, walk->index_directory, &failure) == KMS_OK)
        walk->result->indexes_kept++;
    else
        (void)snprintf(walk->result->index_failure, sizeof walk->result->index_failure, "%s", failure.cause);
    return KMS_OK;
}

/* The parts of a finished segment that matter. */
static enum kms_status read_finished(struct walk *walk, int fd, uint64_t first_seq, struct kms_error *err)
{
    KMS_CLEANUP(free_index) struct kms_audit_index *index = NULL;
    struct kms_error failure = {0};
    const enum kms_status status = find_index(walk, fd, first_seq, &index, &failure);
    if (status == KMS_NO_MEMORY)
        return status;
    if (status != KMS_OK) {
        tell(walk, walk->name, 0, kms_error_cause(&failure, status));
        return KMS_OK;
    }
    size_t cursor = 0;
    struct kms_audit_range range;
    walk->result->segments_read += index != NULL;
    while (index != NULL && kms_audit_index_next(index, &walk->matcher, &cursor, &range))
        KMS_TRY(read_range(walk, fd, &range, false, err));
    return KMS_OK;
}

/* One segment; one that cannot be opened is told of. */
static enum kms_status read_segment(struct walk *walk, size_t index, struct kms_error *err)
{
    static const struct kms_audit_range everything = {0, UINT64_MAX};
    const uint64_t first_seq = walk->segments.first_seqs[index];
    KMS_CLOSE int fd = -1;
    struct kms_error failure = {0};
    const enum kms_status status =
        kms_audit_segment_open_to_read(walk->directory, first_seq, walk->name, &fd, &failure);
    struct stat now = {0};
    if (status != KMS_OK || fstat(fd, &now) != 0) {
        tell(walk, walk->name, 0, kms_error_cause(&failure, status));
        return KMS_OK;
    }
    walk->result->segments++;
    const bool newest = index + 1 == walk->segments.count;
    walk->result->segments_read += newest;
    KMS_TRY(newest ? read_range(walk, fd, &everything, true, err) : read_finished(walk, fd, first_seq, err));
    walk->bytes_done += (uint64_t)now.st_size;
    return go_on(walk, 0, err);
}

enum kms_status kms_audit_query(const char *directory, const struct kms_audit_query_options *options,
                                struct kms_audit_query_result *ret_result, struct kms_error *err)
{
    *ret_result = (struct kms_audit_query_result){0};
    KMS_CLEANUP(clear_walk)
    struct walk walk = {.options = options,
                        .result = ret_result,
                        .directory = directory,
                        .index_directory =
                            options->index_directory != NULL ? options->index_directory : directory};
    kms_audit_matcher_init(&walk.matcher, &options->filter);
    KMS_TRY(kms_audit_reader_new(&walk.reader));
    KMS_TRY(kms_audit_segment_list(directory, tell_foreign, &walk, &walk.segments, err));
    walk.bytes_all = kms_audit_segments_bytes(directory, &walk.segments);
    for (size_t i = 0; i < walk.segments.count; i++)
        KMS_TRY(read_segment(&walk, i, err));
    return KMS_OK;
}
