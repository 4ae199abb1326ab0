/*
 * Purpose:   find records of an audit log: by whom, about whom, what, when, with what outcome.
 * Owns:      nothing.
 * Threads:   no shared state; may run beside a daemon that writes.
 * Never:     proves anything (that is verify.h), follows a link, or needs more memory than one segment's index, whatever lies in
 *            the directory.
 *
 * Of finished segments only the blocks are read that may hold a match (see index.h); an index that is missing or does not
 * fit is made by the way and kept when its directory can be written. The newest segment is always read to its end.
 */
#ifndef KMS_AUDIT_QUERY_H
#define KMS_AUDIT_QUERY_H

#include "audit/fields.h"
#include "audit/verify.h"

/** A record that matches; everything is valid during the call only. */
struct kms_audit_found {
    const char *file;
    uint64_t offset, seq;
    struct kms_slice text; /* the whole line, without its newline */
    const struct kms_audit_fields *fields;
};

/** Something in the directory that is no record. */
struct kms_audit_problem {
    char file[256]; /* printable */
    uint64_t offset;
    const char *text;
};

struct kms_audit_query_options {
    struct kms_audit_filter filter;
    const char *index_directory; /* NULL: the log's own */
    /** Called for each match, in the order of the log; false stops the query (CANCELLED). */
    bool (*found)(void *context, const struct kms_audit_found *found);
    /** May be NULL. */
    void (*problem)(void *context, const struct kms_audit_problem *problem);
    /** As in verify.h; may be NULL. */
    bool (*progress)(void *context, const struct kms_audit_progress *progress);
    void *context;
};

struct kms_audit_query_result {
    uint64_t found;
    uint64_t segments, segments_read; /* there are, and were looked into beyond their index's header */
    uint64_t records_read, bytes_read;
    uint64_t indexes_made, indexes_kept;
    char index_failure[320]; /* why an index could not be kept; "": none had to be, or it was */
    uint64_t problems;
};

/** OK, also when nothing is found. NOT_FOUND, IO: the directory; NO_MEMORY, CANCELLED. `*ret_result` is always written. */
enum kms_status kms_audit_query(const char *directory, const struct kms_audit_query_options *options,
                                struct kms_audit_query_result *ret_result,
                                struct kms_error *err) KMS_MUST_USE;

#endif
