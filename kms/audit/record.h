/*
 * Purpose:   the text of one audit record: an event becomes the middle of a JSON line.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     lets text from outside end a string, a line or a record, or grow beyond its limit.
 *
 * A body is what stands between `{"seq":N` and `,"hash":"..."}` of a line (see audit.h):
 *
 *     ,"time":"2026-01-31T12:00:00.000000Z","type":"call", ...
 *
 * It holds no byte below 0x20, so bodies can be kept one a line.
 */
#ifndef KMS_AUDIT_RECORD_H
#define KMS_AUDIT_RECORD_H

#include "audit/audit.h"
#include "core/clock.h"

enum {
    KMS_AUDIT_TIME_AT = 9,             /* offset of the time's text in any body */
    KMS_AUDIT_TIME_LEN = 27,           /* of the text of kms_clock_format() */
    KMS_AUDIT_DETAIL_MAX = 304 * 1024, /* bytes of detail_json: a batch of 1,000 items, each named */
    KMS_AUDIT_BODY_MAX = 320 * 1024,   /* of any body: all names at their limits and escaped, and a detail */
    KMS_AUDIT_SEGMENT_BODY_MAX = 8 * 1024, /* of a segment's first record, and of one about a recovery */
    KMS_AUDIT_LINE_MAX = 336 * 1024,       /* of any line without its newline; readers refuse longer ones */
    KMS_AUDIT_HASH_HEX = 64,
};

/**
 * TOO_LARGE when detail_json is over its limit, INTERNAL when it is no object on one line; else OK. Everything
 * else in an event is made to fit.
 */
enum kms_status kms_audit_record_check(const struct kms_audit_event *event,
                                       struct kms_error *err) KMS_MUST_USE;
/**
 * Write the body of a checked event into `out`, which has room for KMS_AUDIT_BODY_MAX bytes; returns its
 * length. Control characters (C0, DEL, C1), quotes and backslashes are escaped, every byte that is not UTF-8
 * becomes \ufffd, a text over its limit is cut and ends with \u2026. `time_text` has KMS_AUDIT_TIME_LEN
 * characters.
 */
size_t kms_audit_record_format(const struct kms_audit_event *event, const char *time_text, char *out);
/**
 * The same for the first record of a segment. `previous` is the hash of the record before in hex; `lost` and
 * `reason` (NULL: left out) say that the file before was lost, or why a new one was begun early.
 */
size_t kms_audit_record_format_segment(const char *time_text, const char previous[KMS_AUDIT_HASH_HEX + 1],
                                       const char *lost, const char *reason, char *out);
/**
 * Read back a body made by kms_audit_record_format_segment(). False when it is none; else the previous hash
 * is in `ret_previous` (32 bytes), its time in `*ret_time_ns`, and `*ret_lost` says whether a loss is declared.
 */
bool kms_audit_record_parse_segment(struct kms_slice body, int64_t *ret_time_ns, uint8_t ret_previous[32],
                                    bool *ret_lost);
/** The time of a record, as kms_clock_format() writes it, in nanoseconds since 1970. False for any other form. */
bool kms_audit_time_parse(const char text[KMS_AUDIT_TIME_LEN], int64_t *ret_ns);
/** The type of any body, borrowed from it; empty when it does not begin as one does. Looks at nothing else. */
struct kms_slice kms_audit_record_type(struct kms_slice body);
/**
 * Time and type that any body begins with. False when it does not begin so; else `ret_time` has the text and
 * `*ret_type` borrows from the body.
 */
bool kms_audit_record_parse_start(struct kms_slice body, char ret_time[KMS_AUDIT_TIME_LEN + 1],
                                  struct kms_slice *ret_type);

#endif
