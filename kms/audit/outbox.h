/*
 * Purpose:   takes checkpoints out of the reach of whoever can write the audit log: to the system log and into a second
 *            directory.
 * Owns:      lines that wait, and one thread.
 * Threads:   put and status from any thread; free from one.
 * Never:     makes anybody wait, or fails a call: what cannot be delivered is told, kept and tried again.
 *
 * The second directory holds one file, `checkpoints.jsonl`, to which each line is appended and made durable. It must
 * exist: one that has been unmounted is not made anew on the disk below. While it cannot be written the newest
 * KMS_AUDIT_OUTBOX_MAX lines are kept; older ones are dropped, which loses nothing but history, because each checkpoint
 * covers everything before it. The same is true of what waited when the process ended.
 */
#ifndef KMS_AUDIT_OUTBOX_H
#define KMS_AUDIT_OUTBOX_H

#include "audit/audit.h"

enum { KMS_AUDIT_OUTBOX_MAX = 256 };
#define KMS_AUDIT_OUTBOX_FILE "checkpoints.jsonl"

struct kms_audit_outbox;

struct kms_audit_outbox_config {
    const char *syslog_socket; /* "/dev/log"; NULL: not to the system log */
    const char *directory;     /* NULL: none */
    int64_t retry_ns;          /* between attempts on a directory that fails; 0: 5 s */
    struct kms_audit *audit;   /* gets an alert record when the directory fails, and when it works again */
};

struct kms_audit_outbox_status {
    uint64_t delivered; /* lines in the second directory since the start */
    uint64_t waiting;   /* for the second directory */
    uint64_t dropped;
    char failure[320];        /* why the second directory cannot be written; "": it can */
    char syslog_failure[320]; /* the same of the system log */
};

/** Start. `config`'s strings and audit log live longer. NO_MEMORY, RESOURCE_EXHAUSTED. Nothing is opened yet. */
enum kms_status kms_audit_outbox_new(const struct kms_audit_outbox_config *config,
                                     struct kms_audit_outbox **ret_outbox,
                                     struct kms_error *err) KMS_MUST_USE;
/** Hand over one line without a newline, up to KMS_AUDIT_CHECKPOINT_MAX bytes; a longer one is a programming error. */
void kms_audit_outbox_put(struct kms_audit_outbox *outbox, struct kms_slice line);
void kms_audit_outbox_status(struct kms_audit_outbox *outbox, struct kms_audit_outbox_status *ret_status);
/**
 * Try once more to deliver what waits, then end, NULL-safe. False when the thread hangs in a directory that does not
 * answer within `patience_ns`: then it keeps what it uses, the audit log among it, until the process ends.
 */
bool kms_audit_outbox_free(struct kms_audit_outbox *outbox, int64_t patience_ns);

#endif
