/*
 * Purpose:   every committed change to every backup target; base snapshots; what is durable where.
 * Owns:      one lane (thread) for each target.
 * Threads:   every function from any thread, but for open and free.
 * Never:     sees a key of the tree that is not wrapped; lets a target that is slow or gone hold up another one.
 */
#ifndef KMS_BACKUP_BACKUP_H
#define KMS_BACKUP_BACKUP_H

#include "hsm/hsm.h"
#include "store/store.h"

enum { KMS_BACKUP_TARGETS_MAX = 8, KMS_BACKUP_TEXT_MAX = 256 };

struct kms_backup;

struct kms_backup_config {
    const char *const
        *directories;   /* targets; they exist, and are not on the database's disk if that can be helped */
    size_t count;       /* 1..KMS_BACKUP_TARGETS_MAX */
    uint64_t log_bytes; /* a new log file begins after this size; 0: 64 MiB */
    int64_t wait_ns;    /* how long a call waits for a target at most; 0: 5 s */
    int64_t hang_ns;    /* a target that does not answer for so long hangs; 0: 5 s */
    uint64_t
        keep_changes; /* shipped or not, so many changes are kept in the database at most; 0: 2,000,000 */
};

/** One target as it stands. */
struct kms_backup_target_status {
    char directory[KMS_BACKUP_TEXT_MAX];
    uint64_t shipped_seq;     /* every change up to this one is durable there */
    uint64_t newest_seq;      /* of the database */
    uint64_t base_seq;        /* of the newest base; 0: none */
    int64_t base_created_ns;  /* wall clock; 0: none */
    int64_t shipped_ns;       /* wall clock of the last success; 0: none since start */
    bool failing;             /* does not take changes: `failure` says why */
    bool hanging;             /* and that is because a system call does not come back */
    int64_t failing_since_ns; /* monotonic; 0: it does not */
    bool rolled_back; /* the target knows changes that the database does not: nothing is shipped there */
    bool same_disk;   /* on the file system of the database: the loss of that disk takes both */
    char failure[KMS_BACKUP_TEXT_MAX];      /* "" when not failing */
    char last_failure[KMS_BACKUP_TEXT_MAX]; /* since the start; "" when there was none */
    int64_t last_failure_ns;                /* wall clock */
    uint64_t failures;                      /* since the start */
};

/**
 * Begin to ship. A target that cannot be written, or hangs, is no failure here: it is tried again and again. FAILED_PRECONDITION: a target
 * knows newer changes than the database, which was rolled back: the text says what to do. HSM_UNAVAILABLE, HSM_REFUSED: the
 * backup key does not work. `database_path` tells whether a target shares its disk.
 */
enum kms_status kms_backup_open(const struct kms_backup_config *config, struct kms_hsm *hsm,
                                struct kms_store *store, const char *database_path,
                                struct kms_backup **ret_backup, struct kms_error *err) KMS_MUST_USE;
/**
 * Ship what is left, where that works at once, and end; NULL-safe. False: a target hangs. Nothing is freed then, and what `backup`
 * borrows must stay: the process should end without tidying up.
 */
bool kms_backup_close(struct kms_backup *backup) KMS_MUST_USE;

size_t kms_backup_targets(const struct kms_backup *backup);
void kms_backup_status(struct kms_backup *backup, size_t index, struct kms_backup_target_status *ret_status);

/**
 * Wait until every change up to `seq` is durable in at least one target. UNAVAILABLE with a public text when it is not within the
 * configured time, or at once when every target has failed for longer than that already.
 */
enum kms_status kms_backup_wait_any(struct kms_backup *backup, uint64_t seq,
                                    struct kms_error *err) KMS_MUST_USE;
/**
 * The same for every target that takes changes, of which there must be one: those that fail are not waited for. UNAVAILABLE names
 * a target in its cause.
 */
enum kms_status kms_backup_wait_working(struct kms_backup *backup, uint64_t seq,
                                        struct kms_error *err) KMS_MUST_USE;
/** The same for every target; `deadline_mono_ns` is for all of them. The text names a target that is behind. */
enum kms_status kms_backup_wait_all(struct kms_backup *backup, uint64_t seq, int64_t deadline_mono_ns,
                                    struct kms_error *err) KMS_MUST_USE;

/** Forget changes that every target has, a portion at a time; called by a timer. `*ret_more`: there may be more of them. */
enum kms_status kms_backup_prune_changes(struct kms_backup *backup, bool *ret_more,
                                         struct kms_error *err) KMS_MUST_USE;
/** The same up to `seq`, for a service without backup targets. */
enum kms_status kms_backup_prune_up_to(struct kms_store *store, uint64_t seq, bool *ret_more,
                                       struct kms_error *err) KMS_MUST_USE;

/** What a base came to. */
struct kms_backup_base_result {
    char name[64];
    uint64_t seq, records, bytes;
    size_t written; /* targets that have it */
    int64_t took_ns;
};
/**
 * A base snapshot in every target, without stopping writes. `progress` may be NULL; false ends it (CANCELLED). OK when at least
 * one target has it; failures of others are in their status.
 */
enum kms_status kms_backup_base(struct kms_backup *backup, bool (*progress)(void *context, uint64_t records),
                                void *context, struct kms_backup_base_result *ret_result,
                                struct kms_error *err) KMS_MUST_USE;

struct kms_backup_keeper;
/** What opens this deployment's backup files; valid until free. */
const struct kms_backup_keeper *kms_backup_keeper_of(const struct kms_backup *backup);

#endif
