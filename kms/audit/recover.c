#define _GNU_SOURCE /* memrchr */
#include "audit/recover.h"

#include "audit/reader.h"
#include "audit/record.h"
#include "core/cleanup.h"

#include <errno.h>
#include <inttypes.h>

/* What one walk through a segment needs. */
struct walk {
    const char *name;
    uint64_t first_seq;
    struct kms_audit_chain *chain;
    struct kms_audit_reader *reader;
    struct kms_audit_head head;           /* the last intact record */
    struct kms_audit_head before;         /* as the first record states it */
    int64_t begun_ns;                     /* as well */
    char newest_time[KMS_AUDIT_TIME_LEN]; /* of the last intact record */
    bool lost;
    uint64_t end;
};

static void clear_walk(struct walk *walk)
{
    kms_audit_chain_free(walk->chain);
    kms_audit_reader_free(walk->reader);
}

/* Every refusal names the place, so that the operator can look at it. */
static enum kms_status refuse(struct kms_error *err, const char *name, uint64_t line, const char *why)
{
    return kms_fail(err, KMS_FAILED_PRECONDITION,
                    "the audit log is damaged: '%s' line %" PRIu64
                    " %s; run `kmsctl audit verify`, keep the files "
                    "as evidence, and start with an empty audit directory",
                    name, line, why);
}

/* The first record says where the chain comes from; nothing comes before record 1. */
static bool take_first(struct walk *walk, const struct kms_audit_line *line)
{
    static const uint8_t nothing[KMS_AUDIT_HASH_SIZE];
    if (line->seq != walk->first_seq ||
        !kms_audit_record_parse_segment(line->body, &walk->begun_ns, walk->before.hash, &walk->lost) ||
        (line->seq == 1 && memcmp(walk->before.hash, nothing, sizeof nothing) != 0))
        return false;
    walk->before.seq = line->seq - 1;
    walk->head = walk->before;
    return true;
}

/* One whole line must be the next link. */
static enum kms_status take_line(struct walk *walk, const struct kms_audit_item *item, struct kms_error *err)
{
    struct kms_audit_line line;
    if (!kms_audit_chain_parse(item->text, &line))
        return refuse(err, walk->name, item->line, "is not an audit record");
    if (item->line == 1 && !take_first(walk, &line))
        return refuse(err, walk->name, item->line, "is not the first record of this segment");
    if (line.seq != walk->head.seq + 1)
        return refuse(err, walk->name, item->line,
                      "is out of sequence: records were removed, added or reordered");
    uint8_t hash[KMS_AUDIT_HASH_SIZE];
    kms_audit_chain_hash(walk->chain, walk->head.hash, line.hashed, hash);
    if (memcmp(hash, line.stated, sizeof hash) != 0)
        return refuse(err, walk->name, item->line, "was changed: it does not match its hash");
    walk->head.seq = line.seq;
    memcpy(walk->head.hash, hash, sizeof hash);
    if (line.body.len >= KMS_AUDIT_TIME_AT + KMS_AUDIT_TIME_LEN)
        memcpy(walk->newest_time, line.body.data + KMS_AUDIT_TIME_AT, KMS_AUDIT_TIME_LEN);
    walk->end = item->offset + item->text.len + 1;
    return KMS_OK;
}

/* What lies behind the last whole line: a crash explains only so much. */
static enum kms_status take_tail(const struct walk *walk, const struct kms_audit_item *item,
                                 uint64_t *ret_torn, struct kms_error *err)
{
    const uint64_t torn = item->data_end - walk->end;
    if (torn > KMS_AUDIT_TORN_MAX)
        return refuse(err, walk->name, item->line, "begins a hole larger than a crash can leave");
    *ret_torn = torn;
    return KMS_OK;
}

enum kms_status kms_audit_recover_segment(int fd, const char *name, uint64_t first_seq,
                                          struct kms_audit_recovery *ret_recovery,
                                          struct kms_audit_head *ret_before, bool *ret_lost,
                                          struct kms_error *err)
{
    KMS_CLEANUP(clear_walk) struct walk walk = {.name = name, .first_seq = first_seq};
    KMS_TRY(kms_audit_chain_new(&walk.chain));
    KMS_TRY(kms_audit_reader_new(&walk.reader));
    kms_audit_reader_start(walk.reader, fd);
    for (;;) {
        struct kms_audit_item item;
        if (kms_audit_reader_next(walk.reader, &item) != KMS_OK)
            return kms_fail(err, KMS_IO, "cannot read audit segment '%s': %m", name);
        if (item.kind == KMS_AUDIT_ITEM_LONG)
            return refuse(err, name, item.line, "is longer than any audit record");
        if (item.kind == KMS_AUDIT_ITEM_LINE) {
            KMS_TRY(take_line(&walk, &item, err));
            continue;
        }
        uint64_t torn = 0;
        KMS_TRY(take_tail(&walk, &item, &torn, err));
        *ret_recovery = (struct kms_audit_recovery){.head = walk.head,
                                                    .segment = first_seq,
                                                    .segment_begun_ns = walk.begun_ns,
                                                    .end = walk.end,
                                                    .torn_bytes = torn,
                                                    .torn_segment = torn > 0 ? first_seq : 0};
        (void)kms_audit_time_parse(walk.newest_time, &ret_recovery->newest_ns);
        *ret_before = walk.before;
        *ret_lost = walk.lost;
        return KMS_OK;
    }
}

/* Offset behind the last byte that is not zero, read from the end. */
static enum kms_status find_data_end(int fd, uint64_t *ret_end)
{
    const off_t size = lseek(fd, 0, SEEK_END);
    if (size < 0)
        return KMS_IO;
    uint64_t end = (uint64_t)size;
    while (end > 0) {
        uint8_t chunk[16384];
        const size_t want = end < sizeof chunk ? (size_t)end : sizeof chunk;
        if (pread(fd, chunk, want, (off_t)(end - want)) != (ssize_t)want)
            return KMS_IO;
        size_t left = want;
        while (left > 0 && chunk[left - 1] == 0)
            left--;
        end -= want - left;
        if (left > 0)
            break;
    }
    *ret_end = end;
    return KMS_OK;
}

/* What the last line of a file says of itself. False when it is no record. */
static enum kms_status last_record(int fd, struct kms_audit_head *ret_head, bool *ret_found)
{
    uint64_t end;
    KMS_TRY(find_data_end(fd, &end));
    KMS_FREE uint8_t *tail = malloc((size_t)KMS_AUDIT_LINE_MAX + 2);
    if (tail == NULL)
        return KMS_NO_MEMORY;
    const size_t want = end < (size_t)KMS_AUDIT_LINE_MAX + 2 ? (size_t)end : (size_t)KMS_AUDIT_LINE_MAX + 2;
    if (pread(fd, tail, want, (off_t)(end - want)) != (ssize_t)want)
        return KMS_IO;
    *ret_found = false;
    if (want < 2 || tail[want - 1] != '\n')
        return KMS_OK;
    const uint8_t *newline = memrchr(tail, '\n', want - 1);
    const size_t start = newline == NULL ? 0 : (size_t)(newline - tail) + 1;
    struct kms_audit_line line;
    if (kms_audit_chain_parse(kms_slice_of(tail + start, want - 1 - start), &line)) {
        ret_head->seq = line.seq;
        memcpy(ret_head->hash, line.stated, sizeof ret_head->hash);
        *ret_found = true;
    }
    return KMS_OK;
}

/* The segment before must end where this one says that it begins. */
static enum kms_status check_joint(const char *directory, uint64_t earlier, uint64_t later,
                                   const struct kms_audit_head *before, struct kms_error *err)
{
    char earlier_name[KMS_AUDIT_NAME_SIZE];
    char later_name[KMS_AUDIT_NAME_SIZE];
    KMS_CLOSE int fd = -1;
    KMS_TRY(kms_audit_segment_open_to_read(directory, earlier, earlier_name, &fd, err));
    struct kms_audit_head last = {0};
    bool found = false;
    const enum kms_status status = last_record(fd, &last, &found);
    if (status != KMS_OK)
        return kms_fail(err, status, "cannot read audit segment '%s': %m", earlier_name);
    if (found && last.seq == before->seq && memcmp(last.hash, before->hash, sizeof last.hash) == 0)
        return KMS_OK;
    char why[128];
    (void)snprintf(why, sizeof why, "does not continue where '%s' ends", earlier_name);
    return refuse(err, kms_audit_segment_name(later, later_name), 1, why);
}

/* Recover from the segment at `index` (the last one, or the last but one when that is empty). */
static enum kms_status recover_at(const char *directory, const struct kms_audit_segments *segments,
                                  size_t index, struct kms_audit_recovery *ret_recovery,
                                  struct kms_error *err)
{
    const uint64_t first_seq = segments->first_seqs[index];
    char name[KMS_AUDIT_NAME_SIZE];
    KMS_CLOSE int fd = -1;
    KMS_TRY(kms_audit_segment_open_to_read(directory, first_seq, name, &fd, err));
    struct kms_audit_recovery found = {0};
    struct kms_audit_head before = {0};
    bool lost = false;
    KMS_TRY(kms_audit_recover_segment(fd, name, first_seq, &found, &before, &lost, err));
    if (found.end > 0 && index > 0 && !lost)
        KMS_TRY(check_joint(directory, segments->first_seqs[index - 1], first_seq, &before, err));
    *ret_recovery = found;
    return KMS_OK;
}

static void clear_segments(struct kms_audit_segments *segments)
{
    free(segments->first_seqs);
}

enum kms_status kms_audit_recover(const char *directory, struct kms_audit_recovery *ret_recovery,
                                  struct kms_error *err)
{
    KMS_CLEANUP(clear_segments) struct kms_audit_segments segments = {0};
    KMS_TRY(kms_audit_segment_list(directory, NULL, NULL, &segments, err));
    struct kms_audit_recovery found = {0};
    if (segments.count > 0)
        KMS_TRY(recover_at(directory, &segments, segments.count - 1, &found, err));
    if (segments.count == 0 || found.end > 0) {
        *ret_recovery = found;
        return KMS_OK;
    }
    /* The newest file has no intact record: a stop just after it was made. The one before must have some. */
    const struct kms_audit_recovery empty = found;
    char name[KMS_AUDIT_NAME_SIZE];
    (void)kms_audit_segment_name(empty.segment, name);
    found = (struct kms_audit_recovery){0};
    if (segments.count > 1)
        KMS_TRY(recover_at(directory, &segments, segments.count - 2, &found, err));
    if (found.head.seq + 1 != empty.segment || (segments.count > 1 && found.end == 0))
        return refuse(err, name, 1, "is missing, and the segment before does not end there");
    found.empty_segment = empty.segment;
    if (empty.torn_bytes > 0) {
        found.torn_bytes = empty.torn_bytes;
        found.torn_segment = empty.segment;
    }
    *ret_recovery = found;
    return KMS_OK;
}
