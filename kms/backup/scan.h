/*
 * Purpose:   read one backup file from beginning to end, and the chain of logs of a target.
 * Owns:      nothing; a record is lent to the visitor for the time of its call.
 * Threads:   no shared state.
 * Never:     needs more memory than one frame; goes on behind what is not authentic.
 */
#ifndef KMS_BACKUP_SCAN_H
#define KMS_BACKUP_SCAN_H

#include "backup/target.h"

/** What is done with what is read. Members may be NULL. */
struct kms_backup_visitor {
    void *context;
    /** Called with the header, before any record; may refuse the file. */
    enum kms_status (*opened)(void *context, const struct kms_backup_header *header, struct kms_error *err);
    /** Another status than OK ends the reading and is returned. */
    enum kms_status (*record)(void *context, const struct kms_backup_record *record, struct kms_error *err);
    /** Called after each frame with its size in the file; false ends the reading (CANCELLED). */
    bool (*progress)(void *context, uint64_t bytes);
};

struct kms_backup_scan {
    struct kms_backup_place place; /* where the good part ends */
    uint64_t records;
    uint64_t last_seq; /* a log: of its last record, or the header's seq when there is none */
    bool torn;         /* it ends within a frame, or within its header */
};

/**
 * Read a file. OK also for one that is torn. TAMPERED with the file's name and what is wrong: not authentic, not of the kind or
 * seq that its name says, changes of a log not numbered one after the other. FAILED_PRECONDITION: of another deployment;
 * STORE_NEWER; IO.
 */
enum kms_status kms_backup_scan(const struct kms_backup_keeper *keeper, const char *directory,
                                const struct kms_backup_file *file, const struct kms_backup_visitor *visitor,
                                struct kms_backup_scan *ret_scan, struct kms_error *err) KMS_MUST_USE;

/** Where the logs of a target lead. */
struct kms_backup_chain {
    uint64_t last_seq;         /* the newest change that can be reached from the start */
    struct kms_backup_end end; /* of the last log that holds a frame; zero: none */
    uint64_t logs;             /* files used */
    uint64_t empty;            /* files that hold no frame: begun and never used */
    bool torn;                 /* the last one ends within a frame */
};

/**
 * Read the logs that lead on from change `from` (a base's seq), each checked against where the one before it ended; the visitor
 * sees only records after `from`. Ends with the newest log: the chain may not break off before it. TAMPERED names the file that is
 * missing, cut or foreign to the chain. `from` = 0 without a base: from the first log on.
 */
enum kms_status kms_backup_chain_read(const struct kms_backup_keeper *keeper, const char *directory,
                                      const struct kms_backup_listing *listing, uint64_t from,
                                      const struct kms_backup_visitor *visitor,
                                      struct kms_backup_chain *ret_chain, struct kms_error *err) KMS_MUST_USE;

#endif
