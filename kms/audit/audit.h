/*
 * Purpose:   the audit log: JSON lines in a hash chain, group-committed before any reply leaves.
 * Owns:      its directory of segments and the chain's head.
 * Threads:   append and commit from any thread.
 * Never:     drops a record, blocks longer than its write deadline, or contains a secret.
 *
 * A segment `audit-<first seq, 20 digits>.jsonl` holds one record a line:
 *
 *     {"seq":N,"time":"...","type":"...", ... ,"hash":"<64 hex>"}\n
 *
 * hash(N) = SHA-256(hash(N-1) as 32 bytes || the line's bytes before `,"hash":`); hash of the record before
 * the first one is 32 zero bytes. A segment's first record is of type "segment" and repeats the last hash of
 * the segment before it. Space may be allocated ahead: zero bytes after the last line end a segment that was
 * not closed.
 *
 * When something happens to the disk (the write deadline is 2 s unless configured):
 *
 *     what                              data plane                      afterwards
 *     slow, within the deadline         slower                          nothing to do
 *     slower than the deadline, hung    UNAVAILABLE after the deadline, by itself when the disk answers; what was
 *                                       then at once                    appended meanwhile is written first
 *     full, over quota, read-only, EIO  UNAVAILABLE at once             by itself, in a new segment whose first
 *                                                                       record says why ("reason")
 *     file deleted, replaced, cut       UNAVAILABLE once                the same, and "lost" names the file
 *     directory gone                    UNAVAILABLE until it is back    the same
 *     at start                          the daemon does not start; it says which file and why
 *     chain broken while it was stopped the daemon does not start; `kmsctl audit verify` shows where
 *     HSM cannot sign checkpoints       goes on                         see checkpoints.h
 *     second directory, system log gone goes on                         see outbox.h
 *
 * Meanwhile health says NOT_SERVING, and a control operation that changes something is not begun: its intent could not be
 * recorded. tests/integration/test_audit_faults.py does each of these to a running daemon.
 */
#ifndef KMS_AUDIT_AUDIT_H
#define KMS_AUDIT_AUDIT_H

#include "core/bytes.h"
#include "core/ids.h"

struct kms_audit;

struct kms_audit_config {
    const char *directory;     /* created with mode 0700 when missing */
    uint64_t segment_bytes;    /* a new segment begins after this size; 0: 256 MiB */
    int64_t segment_age_ns;    /* and after this time; 0: only after the size */
    int64_t write_deadline_ns; /* a commit that takes longer fails closed; 0: 2 s */
};

/** One record. NULL strings and zero members are left out. Strings may hold hostile text: they are escaped.
 */
struct kms_audit_event {
    const char *type;   /* "call", "intent", "outcome", "start", "stop", "alert", "checkpoint" */
    const char *action; /* "datakey.generate" */
    const char *request_id;
    const char *identity;
    const char *peer;
    const char *tenant;       /* tenant id as named by the caller */
    struct kms_uuid customer; /* zero: none */
    const char *purpose;
    uint32_t kek_version; /* 0: none */
    const char *outcome;  /* name of the status, "OK" */
    const char *reason;   /* why denied or failed; for the auditor, never sent to the caller */
    uint32_t items;       /* of a batch; 0: none */
    uint32_t items_failed;
    const char *detail_json; /* a ready JSON object with more (trusted, made by our own code), or NULL */
};

enum { KMS_AUDIT_TEXT_MAX = 512 /* bytes of the longest text in a record, before escaping */ };
/**
 * A text from outside as it may stand between quotes in detail_json, cut at KMS_AUDIT_TEXT_MAX bytes before escaping;
 * `out` has room for six times as much and eight. Returns the length; no NUL follows.
 */
size_t kms_audit_record_escape(const char *text, char *out);

/**
 * Open the directory (locked: one writer), find the last intact record (a half-written tail after a crash is cut off and noted in
 * a record of type "recovered"), continue the chain in a new or the last segment. AUDIT_UNAVAILABLE (cannot
 * write), FAILED_PRECONDITION (chain broken before the tail: the text says which file and line; or another
 * process has the directory; or others may write into it). Starts the writer thread: not before a fork.
 */
enum kms_status kms_audit_open(const struct kms_audit_config *config, struct kms_audit **ret_audit,
                               struct kms_error *err) KMS_MUST_USE;
/** Commit what is left and close, within the write deadline; NULL-safe. */
void kms_audit_free(struct kms_audit *audit);

/**
 * Add a record to the group. Not durable before kms_audit_commit(). Does not wait for the disk, unless 4 MiB
 * of records wait for it: then for room, up to the write deadline. AUDIT_UNAVAILABLE while the disk does not
 * answer, and when that buffer is full after another failure; until then records are taken even while the log
 * fails, so that the next commit writes them all. TOO_LARGE: detail_json is over 304 KiB; INTERNAL: it is no
 * object on one line.
 */
enum kms_status kms_audit_append(struct kms_audit *audit, const struct kms_audit_event *event,
                                 struct kms_error *err) KMS_MUST_USE;
/**
 * Make every record appended so far durable (one write, one fdatasync; callers at the same time share one).
 * AUDIT_UNAVAILABLE when that fails or takes longer than the write deadline; the file deleted, replaced or
 * shortened from outside counts as failure. Later calls try again by themselves, and so does the writer
 * thread, four times a second; nothing that was appended is lost meanwhile. After a failure the records go
 * into a new segment, whose first record says why ("reason") and whether the file before was lost ("lost").
 */
enum kms_status kms_audit_commit(struct kms_audit *audit, struct kms_error *err) KMS_MUST_USE;

/**
 * The two halves of kms_audit_commit(), for a caller that has something else to do meanwhile: the first asks
 * the writer to write every record appended so far and returns at once; the second waits for what the first
 * returned, with the deadline counted from here, and fails like kms_audit_commit(). A failure between the two
 * is tried again by the second.
 */
uint64_t kms_audit_commit_start(struct kms_audit *audit);
enum kms_status kms_audit_commit_wait(struct kms_audit *audit, uint64_t ticket,
                                      struct kms_error *err) KMS_MUST_USE;
/**
 * Wait for the same, but no longer than `ns`, however often: OK with *ret_done false when that was not enough. AUDIT_UNAVAILABLE when an
 * attempt with these records has failed, although another one may make them durable.
 */
enum kms_status kms_audit_commit_await(struct kms_audit *audit, uint64_t ticket, int64_t ns, bool *ret_done,
                                       struct kms_error *err) KMS_MUST_USE;
/** Whether kms_audit_commit_wait() would return OK at once. */
bool kms_audit_is_durable(struct kms_audit *audit, uint64_t ticket);

/** `last_seq` counts the records that wait for the disk; `durable_seq` and `head_hash` do not. */
struct kms_audit_status {
    uint64_t last_seq, durable_seq;
    uint64_t commits;  /* groups written */
    uint64_t failures; /* attempts that failed, and deadlines that passed */
    bool failing;
    char failure[256]; /* why, for the operator; "" when not failing */
    char head_hash[65];
    int64_t found_ns; /* wall time of the newest record that was there when the log was opened; 0: none */
};
void kms_audit_status(struct kms_audit *audit, struct kms_audit_status *ret_status);

#endif
