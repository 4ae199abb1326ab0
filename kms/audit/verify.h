/*
 * Purpose:   check the audit log of a directory off-line: every line of every segment.
 * Owns:      nothing.
 * Threads:   no shared state; may run beside a daemon that writes (see `live`).
 * Never:     writes, follows a link, or needs more than 20 MiB of memory, whatever lies in the directory.
 *
 * What it can know: the chain shows every edit, removal, insertion and reordering between the first and the
 * last record that are there, unless whoever did it computed the chain anew from there on. That shows against the
 * checkpoints in the log (see checkpoint.h): their signatures cannot be made anew. That the log was cut at its end, its
 * checkpoints with it, shows only against a checkpoint kept elsewhere: see `brought`. That it was cut at its beginning
 * (archived) is a finding unless `archived` says that it may be.
 */
#ifndef KMS_AUDIT_VERIFY_H
#define KMS_AUDIT_VERIFY_H

#include "core/bytes.h"

/* what was found; name in JSON output, what it means */
#define KMS_AUDIT_FINDING_TABLE(X)                                                                           \
    X(FOREIGN, "foreign_file", "a name in the directory that no audit log makes")                            \
    X(UNREADABLE, "unreadable", "the file cannot be read or is no regular file")                             \
    X(EMPTY, "empty_segment", "a segment without any record")                                                \
    X(START, "bad_start", "the first line is no segment record, or not of this file")                        \
    X(TOO_LONG, "line_too_long", "a line longer than any record")                                            \
    X(NOT_A_RECORD, "not_a_record", "a line that has not the form of a record")                              \
    X(EDITED, "edited", "a record does not match its hash")                                                  \
    X(MISSING, "missing", "records were removed before this one")                                            \
    X(REPEATED, "repeated", "a record that is a copy, or out of its order")                                  \
    X(UNFINISHED, "unfinished", "the last line has no end")                                                  \
    X(AFTER_ZEROS, "data_after_zeros", "something stands behind the zero bytes that end a file")             \
    X(TRUNCATED, "truncated", "a record that is known from elsewhere is not there, or is another one")       \
    X(BAD_CHECKPOINT, "bad_checkpoint", "a checkpoint that is none, or is not signed by a key given")        \
    X(REWRITTEN, "rewritten", "the records are not those that a checkpoint signs")                           \
    X(NO_CHECKPOINT, "no_checkpoint", "a key was given, and no checkpoint in the log is signed by it")

enum kms_audit_finding_kind {
#define KMS_AUDIT_FINDING_ENUM(name, json, what) KMS_AUDIT_FINDING_##name,
    KMS_AUDIT_FINDING_TABLE(KMS_AUDIT_FINDING_ENUM)
#undef KMS_AUDIT_FINDING_ENUM
        KMS_AUDIT_FINDING_COUNT
};

/** Name for JSON output ("edited") and one sentence on the kind; never NULL. */
const char *kms_audit_finding_name(enum kms_audit_finding_kind kind);
const char *kms_audit_finding_meaning(enum kms_audit_finding_kind kind);

struct kms_audit_finding {
    enum kms_audit_finding_kind kind;
    char file[256];   /* name within the directory; printable */
    uint64_t line;    /* from 1; 0: the file as a whole */
    uint64_t offset;  /* of the line in the file */
    uint64_t seq;     /* that the line states; 0: none */
    char reason[512]; /* one sentence for people: what is wrong here */
};

struct kms_audit_progress {
    const char *file;               /* being read */
    uint64_t bytes_done, bytes_all; /* of all segments, as they were at the start */
    uint64_t records;
};

struct kms_audit_verify_options {
    bool live;           /* a daemon may be writing: an unfinished end of the last segment is no finding */
    bool archived;       /* the log may begin with a later record than number 1 */
    uint64_t known_seq;  /* a record that must be there; 0: none */
    char known_hash[65]; /* its hash in hex; "": any */
    const struct kms_slice
        *keys; /* PEM: the attestation keys that signed checkpoints; without one no signature is checked */
    size_t key_count;
    const char *const
        *brought; /* files of checkpoints kept elsewhere, or single lines: what they cover must be there */
    size_t brought_count;
    /** Called every few megabytes and at the end of each file; false stops (CANCELLED). May be NULL. */
    bool (*progress)(void *context, const struct kms_audit_progress *progress);
    /** Called for each finding, in the order of the files. May be NULL. */
    void (*finding)(void *context, const struct kms_audit_finding *finding);
    void *context;
};

struct kms_audit_verify_result {
    uint64_t segments, records, bytes;
    uint64_t findings;
    struct kms_audit_finding first;     /* valid when `findings` > 0 */
    uint64_t first_seq, last_seq;       /* 0 when there is no record */
    char first_time[28], last_time[28]; /* as the records state them; "" when there is none */
    char head_hash[65];                 /* of the last record */
    uint64_t recoveries;                /* records that say that a tail was cut off after a crash */
    uint64_t losses;                    /* segments that say that the file before them was lost */
    uint64_t tail_bytes;                /* unfinished bytes at the end of the last segment */
    uint64_t checkpoints;               /* good ones in the log */
    uint64_t brought;                   /* records that brought checkpoints cover and that are there */
    uint64_t covered_seq; /* newest record that a good checkpoint covers: until here nobody can have
                                           written the log anew */
    char covered_time[28];
};

/**
 * Verify a directory. OK: everything is in order. TAMPERED: at least one finding; `err` tells of the first.
 * `*ret_result` is written in both cases. NOT_FOUND, IO, NO_MEMORY, CANCELLED, INVALID_ARGUMENT:
 * it could not be done. INVALID_ARGUMENT: a key, a brought checkpoint or the known hash is not good; the text says which.
 * `options` may be NULL.
 */
enum kms_status kms_audit_verify(const char *directory, const struct kms_audit_verify_options *options,
                                 struct kms_audit_verify_result *ret_result,
                                 struct kms_error *err) KMS_MUST_USE;

#endif
