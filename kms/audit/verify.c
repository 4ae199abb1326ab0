#include "audit/verify.h"

#include "audit/chain.h"
#include "audit/reader.h"
#include "audit/record.h"
#include "audit/segment.h"
#include "audit/witness.h"
#include "core/cleanup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

enum { PROGRESS_STEP = 4 * 1024 * 1024 };

static const struct {
    const char *name;
    const char *meaning;
} kinds[] = {
#define KMS_AUDIT_FINDING_ROW(name, json, what) [KMS_AUDIT_FINDING_##name] = {json, what},
    KMS_AUDIT_FINDING_TABLE(KMS_AUDIT_FINDING_ROW)
#undef KMS_AUDIT_FINDING_ROW
};

const char *kms_audit_finding_name(enum kms_audit_finding_kind kind)
{
    return (unsigned)kind < KMS_AUDIT_FINDING_COUNT ? kinds[kind].name : "unknown";
}

const char *kms_audit_finding_meaning(enum kms_audit_finding_kind kind)
{
    return (unsigned)kind < KMS_AUDIT_FINDING_COUNT ? kinds[kind].meaning : "unknown";
}

/* The walk over all segments. */
struct walk {
    const struct kms_audit_verify_options *options;
    struct kms_audit_verify_result *result;
    struct kms_audit_chain *chain;
    struct kms_audit_reader *reader;
    struct kms_audit_segments segments;
    uint64_t bytes_all;
    uint64_t progress_at; /* bytes at which the next call is due */
    struct kms_audit_witness *witness;

    /* the file that is being read */
    const char *file; /* `name`, or a foreign one */
    char name[KMS_AUDIT_NAME_SIZE];
    uint64_t first_seq;
    uint64_t bytes_before; /* of the files before it */
    bool newest;

    /* the chain so far */
    bool begun;                 /* some record was read */
    struct kms_audit_head head; /* the record before, as it states itself */
    bool hash_known;       /* false after a line that could not be read: the next hash is taken as it is */
    bool computed_differs; /* the record before did not match: its hash may have been edited, not its text */
    uint8_t computed[KMS_AUDIT_HASH_SIZE];
};

static void clear_walk(struct walk *walk)
{
    kms_audit_chain_free(walk->chain);
    kms_audit_reader_free(walk->reader);
    kms_audit_witness_free(walk->witness);
    free(walk->segments.first_seqs);
}

/* A name from a hostile directory, for people's eyes. */
static void copy_printable(char *out, size_t size, const char *name)
{
    size_t len = strnlen(name, size - 1);
    for (size_t i = 0; i < len; i++)
        out[i] = name[i] >= 0x20 && name[i] < 0x7f ? name[i] : '?';
    out[len] = '\0';
}

/* Count and report one finding; `item` and `line` may be NULL. */
static void report(struct walk *walk, enum kms_audit_finding_kind kind, const struct kms_audit_item *item,
                   const struct kms_audit_line *line, const char *fmt, ...) KMS_PRINTF(5, 6);
static void report(struct walk *walk, enum kms_audit_finding_kind kind, const struct kms_audit_item *item,
                   const struct kms_audit_line *line, const char *fmt, ...)
{
    struct kms_audit_finding finding = {.kind = kind,
                                        .line = item == NULL ? 0 : item->line,
                                        .offset = item == NULL ? 0 : item->offset,
                                        .seq = line == NULL ? 0 : line->seq};
    copy_printable(finding.file, sizeof finding.file, walk->file);
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(finding.reason, sizeof finding.reason, fmt, args);
    va_end(args);
    if (walk->result->findings++ == 0)
        walk->result->first = finding;
    if (walk->options->finding != NULL)
        walk->options->finding(walk->options->context, &finding);
}

/* A name that does not belong into the directory. */
static void report_foreign(void *context, const char *name)
{
    struct walk *walk = context;
    walk->file = name;
    report(walk, KMS_AUDIT_FINDING_FOREIGN, NULL, NULL, "this is no file of the audit log");
}

/* The first line of a segment says which record comes before it. */
static void take_first(struct walk *walk, const struct kms_audit_item *item,
                       const struct kms_audit_line *line)
{
    uint8_t previous[KMS_AUDIT_HASH_SIZE];
    int64_t time_ns;
    bool lost;
    if (!kms_audit_record_parse_segment(line->body, &time_ns, previous, &lost)) {
        report(walk, KMS_AUDIT_FINDING_START, item, line,
               "the file does not begin with a record of type segment");
        return;
    }
    if (line->seq != walk->first_seq) {
        report(walk, KMS_AUDIT_FINDING_START, item, line,
               "the file begins with record %" PRIu64 ", its name says %" PRIu64, line->seq, walk->first_seq);
        return;
    }
    if (lost)
        walk->result->losses++;
    const bool follows = walk->hash_known && line->seq == walk->head.seq + 1;
    if (follows && memcmp(previous, walk->head.hash, sizeof previous) != 0)
        report(walk, KMS_AUDIT_FINDING_START, item, line,
               "the file does not repeat the hash of the record before, %" PRIu64, walk->head.seq);
    if (!walk->begun && line->seq > 1 && !walk->options->archived)
        report(walk, KMS_AUDIT_FINDING_MISSING, item, line,
               "the log begins here: records 1 to %" PRIu64 " are not in the directory", line->seq - 1);
    if (!follows && line->seq > 1) {
        /* What it states is all there is to go on from. */
        if (walk->begun && line->seq > walk->head.seq + 1)
            report(walk, KMS_AUDIT_FINDING_MISSING, item, line,
                   "records %" PRIu64 " to %" PRIu64 " are missing%s", walk->head.seq + 1, line->seq - 1,
                   lost ? "; the log itself says that they were lost" : "");
        if (!walk->begun || line->seq > walk->head.seq) {
            walk->head.seq = line->seq - 1;
            memcpy(walk->head.hash, previous, sizeof previous);
            walk->hash_known = true;
            walk->computed_differs = false;
        }
    }
}

/* Does the line match its hash, taken over the record before? */
static bool hash_matches(struct walk *walk, const struct kms_audit_line *line,
                         uint8_t computed[KMS_AUDIT_HASH_SIZE])
{
    kms_audit_chain_hash(walk->chain, walk->head.hash, line->hashed, computed);
    if (memcmp(computed, line->stated, KMS_AUDIT_HASH_SIZE) == 0)
        return true;
    if (!walk->computed_differs)
        return false;
    uint8_t other[KMS_AUDIT_HASH_SIZE];
    kms_audit_chain_hash(walk->chain, walk->computed, line->hashed, other);
    return memcmp(other, line->stated, KMS_AUDIT_HASH_SIZE) == 0;
}

/* What the summary tells of a record. Time texts are kept as they are and judged at the end. */
static struct kms_slice note_record(struct walk *walk, const struct kms_audit_line *line)
{
    struct kms_audit_verify_result *result = walk->result;
    result->records++;
    if (result->first_seq == 0)
        result->first_seq = line->seq;
    result->last_seq = line->seq;
    const struct kms_slice type = kms_audit_record_type(line->body);
    if (type.data == NULL)
        return type;
    const uint8_t *time_text = line->body.data + KMS_AUDIT_TIME_AT;
    if (result->first_time[0] == '\0')
        memcpy(result->first_time, time_text, KMS_AUDIT_TIME_LEN);
    memcpy(result->last_time, time_text, KMS_AUDIT_TIME_LEN);
    return type;
}

/* What is known besides the chain. */
static void check_witness(struct walk *walk, const struct kms_audit_item *item,
                          const struct kms_audit_line *line, struct kms_slice type)
{
    if (!kms_audit_witness_record(walk->witness, line->seq, line->stated))
        report(walk, KMS_AUDIT_FINDING_TRUNCATED, item, line,
               "this is not the record %" PRIu64 " that is known: the log was written anew", line->seq);
    if (kms_slice_equal(type, kms_slice_str("recovered")))
        walk->result->recoveries++;
    if (!kms_slice_equal(type, kms_slice_str("checkpoint")))
        return;
    struct kms_error err = {0};
    const enum kms_audit_verdict verdict =
        kms_audit_witness_checkpoint(walk->witness, line->seq, line->body, &err);
    if (verdict != KMS_AUDIT_CHECKPOINT_GOOD)
        report(walk,
               verdict == KMS_AUDIT_CHECKPOINT_BAD ? KMS_AUDIT_FINDING_BAD_CHECKPOINT
                                                   : KMS_AUDIT_FINDING_REWRITTEN,
               item, line, "%s", err.cause);
}

/* One whole line. */
static void take_line(struct walk *walk, const struct kms_audit_item *item)
{
    struct kms_audit_line line;
    if (!kms_audit_chain_parse(item->text, &line)) {
        report(walk, KMS_AUDIT_FINDING_NOT_A_RECORD, item, NULL,
               "the line has not the form of an audit record");
        walk->head.seq++; /* it stands where a record stood */
        walk->hash_known = false;
        return;
    }
    if (item->line == 1)
        take_first(walk, item, &line);
    const uint64_t expected = walk->head.seq + 1;
    if (walk->begun && line.seq < expected) {
        report(walk, KMS_AUDIT_FINDING_REPEATED, item, &line,
               "record %" PRIu64 " is a copy or in the wrong place: "
               "%" PRIu64 " should follow",
               line.seq, expected);
        return;
    }
    if (line.seq > expected) {
        report(walk, KMS_AUDIT_FINDING_MISSING, item, &line, "records %" PRIu64 " to %" PRIu64 " are missing",
               expected, line.seq - 1);
        walk->hash_known = false;
    }
    uint8_t computed[KMS_AUDIT_HASH_SIZE];
    walk->computed_differs = walk->hash_known && !hash_matches(walk, &line, computed);
    if (walk->computed_differs) {
        report(walk, KMS_AUDIT_FINDING_EDITED, item, &line,
               "record %" PRIu64 " does not match its hash: it was changed", line.seq);
        memcpy(walk->computed, computed, sizeof computed);
    }
    walk->head.seq = line.seq;
    memcpy(walk->head.hash, line.stated, sizeof line.stated);
    walk->begun = walk->hash_known = true;
    check_witness(walk, item, &line, note_record(walk, &line));
}

/* The end of a file. */
static void take_end(struct walk *walk, const struct kms_audit_item *item)
{
    const bool may_be_open = walk->newest && walk->options->live;
    if (walk->newest)
        walk->result->tail_bytes = item->data_end - item->offset;
    if (may_be_open)
        return;
    if (item->data_after_zeros)
        report(walk, KMS_AUDIT_FINDING_AFTER_ZEROS, item, NULL,
               "zero bytes end the records here, and %" PRIu64 " bytes up to offset %" PRIu64 " follow",
               item->data_end - item->offset, item->data_end);
    else if (item->text.len > 0)
        report(walk, KMS_AUDIT_FINDING_UNFINISHED, item, NULL, "the last line has no end (%zu bytes)",
               item->text.len);
    else if (item->line == 1)
        report(walk, KMS_AUDIT_FINDING_EMPTY, item, NULL, "the file has no record");
}

/* Ask whether to go on. */
static bool go_on(struct walk *walk, uint64_t offset, bool at_end)
{
    const uint64_t done = walk->bytes_before + offset;
    if (walk->options->progress == NULL || (!at_end && done < walk->progress_at))
        return true;
    walk->progress_at = done + PROGRESS_STEP;
    const struct kms_audit_progress progress = {.file = walk->file,
                                                .bytes_done = done < walk->bytes_all ? done : walk->bytes_all,
                                                .bytes_all = walk->bytes_all,
                                                .records = walk->result->records};
    return walk->options->progress(walk->options->context, &progress);
}

/* One segment from its first byte to its last. */
static enum kms_status read_segment(struct walk *walk, int fd, uint64_t size, struct kms_error *err)
{
    kms_audit_reader_start(walk->reader, fd);
    for (;;) {
        struct kms_audit_item item;
        if (kms_audit_reader_next(walk->reader, &item) != KMS_OK) {
            report(walk, KMS_AUDIT_FINDING_UNREADABLE, NULL, NULL, "the file cannot be read: %m");
            walk->hash_known = false;
            return KMS_OK;
        }
        if (item.kind == KMS_AUDIT_ITEM_END) {
            take_end(walk, &item);
            walk->result->bytes += item.data_end;
            return go_on(walk, size, true) ? KMS_OK : kms_fail(err, KMS_CANCELLED, "stopped");
        }
        if (item.kind == KMS_AUDIT_ITEM_LONG) {
            report(walk, KMS_AUDIT_FINDING_TOO_LONG, &item, NULL,
                   "the line is over %d bytes, longer than any record", KMS_AUDIT_LINE_MAX);
            walk->head.seq++;
            walk->hash_known = false;
        } else {
            take_line(walk, &item);
        }
        if (!go_on(walk, item.offset, false))
            return kms_fail(err, KMS_CANCELLED, "stopped");
    }
}

/* Open, read and close one segment; a file that cannot be opened is a finding. */
static enum kms_status take_segment(struct walk *walk, const char *directory, size_t index,
                                    struct kms_error *err)
{
    KMS_CLOSE int fd = -1;
    struct kms_error failure = {0};
    walk->first_seq = walk->segments.first_seqs[index];
    walk->newest = index + 1 == walk->segments.count;
    const enum kms_status status =
        kms_audit_segment_open_to_read(directory, walk->first_seq, walk->name, &fd, &failure);
    walk->file = walk->name;
    struct stat now = {0};
    if (status == KMS_OK && fstat(fd, &now) == 0) {
        walk->result->segments++;
        KMS_TRY(read_segment(walk, fd, (uint64_t)now.st_size, err));
    } else {
        report(walk, KMS_AUDIT_FINDING_UNREADABLE, NULL, NULL, "%s", failure.cause);
        walk->hash_known = false;
    }
    walk->bytes_before += (uint64_t)now.st_size;
    return KMS_OK;
}

/* A time text as some line states it, for people's eyes. */
static void keep_time(char text[KMS_AUDIT_TIME_LEN + 1])
{
    int64_t ns;
    if (!kms_audit_time_parse(text, &ns))
        text[0] = '\0';
}

/* What shows only when everything was read. */
static void check_end(struct walk *walk)
{
    struct kms_audit_verify_result *result = walk->result;
    struct kms_audit_testimony testimony;
    kms_audit_witness_end(walk->witness, walk->options->archived ? result->first_seq : 0, &testimony);
    result->checkpoints = testimony.checkpoints;
    result->brought = testimony.brought;
    result->covered_seq = testimony.covered_seq;
    memcpy(result->covered_time, testimony.covered_time, sizeof result->covered_time);
    if (result->records > 0)
        kms_hex_encode(walk->head.hash, sizeof walk->head.hash, result->head_hash);
    keep_time(result->first_time);
    keep_time(result->last_time);
    walk->file = "";
    if (testimony.missing > 0)
        report(walk, KMS_AUDIT_FINDING_TRUNCATED, NULL, NULL,
               "record %" PRIu64
               " is known to have existed and is not there; the log ends with record %" PRIu64,
               testimony.missing_newest, result->last_seq);
    if (walk->options->key_count > 0 && result->records > 0 && testimony.checkpoints == 0)
        report(
            walk, KMS_AUDIT_FINDING_NO_CHECKPOINT, NULL, NULL,
            "no checkpoint in the log is signed by a key that was given: nothing shows that the log was not "
            "written anew");
}

/* Keys, brought checkpoints and the known record. */
static enum kms_status call_witness(struct walk *walk, struct kms_error *err)
{
    const struct kms_audit_verify_options *options = walk->options;
    KMS_TRY(kms_audit_witness_new(&walk->witness));
    for (size_t i = 0; i < options->key_count; i++)
        KMS_TRY(kms_audit_witness_add_key(walk->witness, options->keys[i], err));
    for (size_t i = 0; i < options->brought_count; i++)
        KMS_TRY(kms_audit_witness_bring(walk->witness, options->brought[i], err));
    uint8_t hash[KMS_AUDIT_HASH_SIZE];
    const char *hex = options->known_hash;
    if (hex[0] != '\0' &&
        kms_hex_decode(hex, strnlen(hex, sizeof options->known_hash), hash, sizeof hash) != KMS_OK)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the known hash is not 64 hexadecimal digits");
    if (options->known_seq != 0)
        KMS_TRY(
            kms_audit_witness_bring_record(walk->witness, options->known_seq, hex[0] != '\0' ? hash : NULL));
    kms_audit_witness_begin(walk->witness);
    return KMS_OK;
}

enum kms_status kms_audit_verify(const char *directory, const struct kms_audit_verify_options *options,
                                 struct kms_audit_verify_result *ret_result, struct kms_error *err)
{
    static const struct kms_audit_verify_options defaults;
    struct kms_audit_verify_result result = {0};
    KMS_CLEANUP(clear_walk)
    struct walk walk = {.options = options != NULL ? options : &defaults,
                        .result = &result,
                        .progress_at = PROGRESS_STEP,
                        .hash_known = true};
    KMS_TRY(call_witness(&walk, err));
    KMS_TRY(kms_audit_chain_new(&walk.chain));
    KMS_TRY(kms_audit_reader_new(&walk.reader));
    KMS_TRY(kms_audit_segment_list(directory, report_foreign, &walk, &walk.segments, err));
    if (walk.options->progress != NULL)
        walk.bytes_all = kms_audit_segments_bytes(directory, &walk.segments);
    for (size_t i = 0; i < walk.segments.count; i++)
        KMS_TRY(take_segment(&walk, directory, i, err));
    check_end(&walk);
    *ret_result = result;
    if (result.findings == 0)
        return KMS_OK;
    return kms_fail_public(err, KMS_TAMPERED, "%" PRIu64 " findings; the first: '%s' line %" PRIu64 ": %s",
                           result.findings, result.first.file, result.first.line, result.first.reason);
}
