/*
 * Purpose:   the change log for those who ship it, and the whole content of a store as change records.
 * Owns:      nothing; rows are lent to the visitor for the time of its call.
 * Threads:   that of the transaction.
 * Never:     is read by the service itself.
 */
#ifndef KMS_STORE_STORE_CHANGES_H
#define KMS_STORE_STORE_CHANGES_H

#include "core/bytes.h"

enum { KMS_STORE_LOAD_MAX = 4096 };

struct kms_store;
struct kms_store_txn;
struct kms_change; /* store/changelog.h */

/** One record; the payload is in the format of store/changelog.h. In a snapshot seq and time are 0. */
struct kms_change_row {
    uint64_t seq;
    int64_t time_ns; /* wall clock */
    struct kms_slice payload;
};

/** How much a store holds. */
struct kms_store_counts {
    uint64_t tenants, purposes, customers;
    uint64_t keks; /* versions that are not shredded */
    uint64_t pages;
};

/** What nobody has shipped yet. */
struct kms_store_waiting {
    uint64_t count, bytes; /* records, and their payloads */
    int64_t oldest_ns;     /* wall clock of the first; 0 without any */
};

/** Another status than OK ends the reading and is returned. The visitor may not use the transaction. */
typedef enum kms_status (*kms_change_visit)(void *context, const struct kms_change_row *row);

/*
 * last             the number of the newest change that there ever was; 0 when there was none. Numbers have no gaps.
 * read             rows with a number over `after`, in order, at most `limit`.
 * waiting          how many rows with a number over `after` there are, the first `limit` of them.
 * prune            forget rows up to `up_to`, at most `limit` of them; their numbers are never used again.
 * resume           in an empty log: the next change gets the number `seq` + 1, as after a restore.
 * snapshot         every record of the store, as payloads in an order in which kms_store_apply() can take them.
 * load             in a silent transaction on a draft (store/sqlite.h): customers and KEKs that are not there yet, at most
 *                  KMS_STORE_LOAD_MAX, several times as fast as one after the other. A KEK's `rewrapped` counts. Statuses as
 *                  customer_insert and kek_insert; after a failure the transaction cannot be committed.
 * counts           how many records of the main kinds there are.
 * committed        the newest change that is durable in this database; needs no transaction.
 * take_mine        the newest change that this thread has committed since it asked last; 0: none.
 * on_commit        call `notify` after each commit that made changes, on the thread that has committed, with no lock of the store
 *                  held; NULL ends that, and returns when no call is under way.
 * silence          from here to its end the transaction appends nothing to the change log: for a restore, whose changes are
 *                  in the backup already.
 */
struct kms_store_changes_ops {
    enum kms_status (*last)(struct kms_store_txn *txn, uint64_t *ret_seq, struct kms_error *err);
    enum kms_status (*read)(struct kms_store_txn *txn, uint64_t after, size_t limit, kms_change_visit visit,
                            void *context, struct kms_error *err);
    enum kms_status (*waiting)(struct kms_store_txn *txn, uint64_t after, size_t limit,
                               struct kms_store_waiting *ret_waiting, struct kms_error *err);
    enum kms_status (*prune)(struct kms_store_txn *txn, uint64_t up_to, size_t limit, size_t *ret_removed,
                             struct kms_error *err);
    enum kms_status (*resume)(struct kms_store_txn *txn, uint64_t seq, struct kms_error *err);
    enum kms_status (*snapshot)(struct kms_store_txn *txn, kms_change_visit visit, void *context,
                                struct kms_error *err);
    enum kms_status (*load)(struct kms_store_txn *txn, const struct kms_change *list, size_t count,
                            struct kms_error *err);
    void (*silence)(struct kms_store_txn *txn);
    enum kms_status (*counts)(struct kms_store_txn *txn, struct kms_store_counts *ret_counts,
                              struct kms_error *err);
    uint64_t (*committed)(struct kms_store *store);
    uint64_t (*take_mine)(struct kms_store *store);
    void (*on_commit)(struct kms_store *store, void (*notify)(void *context), void *context);
};

#endif
