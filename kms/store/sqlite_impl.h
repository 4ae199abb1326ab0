/*
 * Purpose:   what the files of the SQLite store share: its structs and its vtable's functions.
 * Owns:      the store owns its connections, each connection its statements and its one transaction.
 * Threads:   a connection is used by the thread that has its transaction, and by nobody else.
 * Never:     included outside this module.
 */
#ifndef KMS_STORE_SQLITE_IMPL_H
#define KMS_STORE_SQLITE_IMPL_H

#include "core/lock.h"
#include "store/changelog.h"
#include "store/sqlite.h"
#include "store/statements.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <sqlite3.h>

struct kms_sqlite;
struct kms_sqlite_conn;
struct kms_sqlite_rows; /* sqlite_load.c */
struct kms_query;
struct kms_sqlite_seals; /* sqlite_seal.c */

/* Where a customer's internal number was seen last in this transaction; saves looking it up again. */
struct kms_sqlite_memo {
    bool known;
    struct kms_uuid uuid;
    int64_t no;
};

/*
 * What a reading connection has read last, and in which state of the database (sqlite_recall.c). Every first use of a customer asks
 * for the same tenant and purpose.
 */
struct kms_sqlite_recall {
    unsigned version;
    bool has_tenant, has_purpose;
    int64_t tenant_no;
    struct kms_tenant_record tenant;
    struct kms_purpose_record purpose;
};

struct kms_store_txn {
    struct kms_sqlite *store;
    struct kms_sqlite_conn *conn;
    bool write;
    bool silent;            /* nothing is appended to the change log */
    bool listing;           /* customer_list's statement is in use */
    enum kms_status failed; /* a write was lost: the transaction cannot be committed any more */
    uint64_t logged_seq;    /* of the last change that was logged; 0: none */
    int64_t now_ns;         /* wall clock of a write transaction */
    unsigned version;       /* the state of the database that a read transaction sees; see sqlite_recall.c */
    struct kms_sqlite_memo tenant, customer;
    bool seal_trusts;               /* places are not checked */
    bool seal_anew;                 /* nothing is checked: what is there is being sealed */
    bool seal_seen;                 /* seal_generation is read */
    uint64_t seal_floor;            /* generation of the seals when it began */
    uint64_t seal_generation;       /* what a reader sees */
    uint8_t seal_checked[1024 / 8]; /* buckets whose entries are known to be good in this transaction */
};

struct kms_sqlite_conn {
    sqlite3 *db;
    sqlite3_stmt *statements[KMS_STATEMENT_COUNT]; /* those for writing only on the writing connection */
    bool taken;                                    /* readers: atomic; true while a transaction has it */
    struct kms_sqlite_recall recall;               /* readers only */
    struct kms_store_txn txn;
};

struct kms_sqlite {
    struct kms_store base; /* first: a kms_store is this */
    char *path;
    int lock_fd;
    unsigned busy_timeout_ms;

    struct kms_mutex lock; /* KMS_LOCK_STORE: the writer and what follows, for a whole write transaction */
    struct kms_sqlite_conn writer;
    int wal_frames;                              /* pages in the write-ahead log after the last commit */
    struct kms_buf payload;                      /* the change record being written */
    struct kms_sqlite_seals *seals;              /* NULL: records are not sealed */
    struct kms_change_reservation *reservations; /* of this transaction, not yet in the change log */
    _Atomic uint64_t committed_seq;              /* the newest change that is durable */
    pthread_rwlock_t notify_lock; /* held for reading while `notify` runs, for writing to change it */
    void (*notify)(void *context);
    void *notify_context;
    size_t reservation_count; /* at most KMS_CHANGELOG_RESERVATIONS_MAX */

    struct kms_sqlite_rows *rows; /* of a draft, else NULL; protected by lock */

    sem_t free_readers; /* as many as there are readers whose `taken` is false */
    unsigned reader_count;
    struct kms_sqlite_conn *readers;
};

/* sqlite_conn.c: opening and closing one connection. */
enum kms_sqlite_role { KMS_SQLITE_WRITER, KMS_SQLITE_READER };
/** Open and configure. On failure `conn` is left to kms_sqlite_conn_close() all the same. */
enum kms_status kms_sqlite_conn_open(const char *path, const struct kms_store_sqlite_config *config,
                                     enum kms_sqlite_role role, struct kms_sqlite_conn *conn,
                                     struct kms_error *err) KMS_MUST_USE;
/** Prepare the statements of its role; once, after the schema was checked. */
enum kms_status kms_sqlite_conn_prepare(struct kms_sqlite_conn *conn, enum kms_sqlite_role role,
                                        struct kms_error *err) KMS_MUST_USE;
void kms_sqlite_conn_close(struct kms_sqlite_conn *conn);

/* sqlite_txn.c */
enum kms_status kms_sqlite_begin(struct kms_store *store, bool write, struct kms_store_txn **ret_txn,
                                 struct kms_error *err);
enum kms_status kms_sqlite_commit(struct kms_store_txn *txn, struct kms_error *err);
void kms_sqlite_rollback(struct kms_store_txn *txn);
/** Append store->payload to the change log; after a failure the transaction cannot be committed. */
enum kms_status kms_sqlite_log(struct kms_store_txn *txn, enum kms_change_kind kind, enum kms_status encoded,
                               struct kms_error *err) KMS_MUST_USE;
/** The buffer for the next record, emptied. */
struct kms_buf *kms_sqlite_payload(struct kms_store_txn *txn);
/** Keep one reservation for the record that is written at commit. */
enum kms_status kms_sqlite_log_reservation(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                           uint64_t wraps_reserved, struct kms_error *err) KMS_MUST_USE;

/* checkpoint.c: after a commit, with the writer's lock held; moves the log into the database when it is long. */
void kms_sqlite_checkpoint_locked(struct kms_sqlite *store);

/*
 * sqlite_recall.c: rows that a connection need not read again while nothing in the database has changed. Only reading transactions that
 * take rows as they find them (kms_sqlite_seal_trust()) recall any: what has to be checked is read.
 */
/** The state of the database that this transaction sees, which it has read from: note it. An SQLite result code. */
int kms_sqlite_recall_begin(struct kms_store_txn *txn);
/** The tenant of that UUID or id (the other one is NULL) and its internal number; false: read it. */
bool kms_sqlite_recall_tenant(const struct kms_store_txn *txn, const struct kms_uuid *uuid, const char *id,
                              struct kms_tenant_record *ret_tenant, int64_t *ret_no);
void kms_sqlite_note_tenant(struct kms_store_txn *txn, const struct kms_tenant_record *tenant, int64_t no);
bool kms_sqlite_recall_purpose(const struct kms_store_txn *txn, const struct kms_uuid *tenant, const char *id,
                               struct kms_purpose_record *ret_purpose);
void kms_sqlite_note_purpose(struct kms_store_txn *txn, const struct kms_purpose_record *purpose);

/* sqlite_tenant.c */
enum kms_status kms_sqlite_tenant_insert(struct kms_store_txn *txn, const struct kms_tenant_record *tenant,
                                         struct kms_error *err);
enum kms_status kms_sqlite_tenant_update(struct kms_store_txn *txn, const struct kms_tenant_record *tenant,
                                         struct kms_error *err);
enum kms_status kms_sqlite_tenant_by_id(struct kms_store_txn *txn, const char *id,
                                        struct kms_tenant_record *ret_tenant, struct kms_error *err);
enum kms_status kms_sqlite_tenant_by_uuid(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                          struct kms_tenant_record *ret_tenant, struct kms_error *err);
enum kms_status kms_sqlite_tenant_list(struct kms_store_txn *txn, const char *after_id, size_t limit,
                                       struct kms_tenant_record **ret_list, size_t *ret_count,
                                       struct kms_error *err);
/** The internal number of a tenant; NOT_FOUND. */
enum kms_status kms_sqlite_tenant_no(struct kms_store_txn *txn, const struct kms_uuid *uuid, int64_t *ret_no,
                                     struct kms_error *err) KMS_MUST_USE;

/* sqlite_purpose.c */
enum kms_status kms_sqlite_purpose_insert(struct kms_store_txn *txn, const struct kms_purpose_record *purpose,
                                          struct kms_error *err);
enum kms_status kms_sqlite_purpose_update(struct kms_store_txn *txn, const struct kms_purpose_record *purpose,
                                          struct kms_error *err);
enum kms_status kms_sqlite_purpose_get(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                       const char *id, struct kms_purpose_record *ret_purpose,
                                       struct kms_error *err);
enum kms_status kms_sqlite_purpose_list(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                        const char *after_id, size_t limit,
                                        struct kms_purpose_record **ret_list, size_t *ret_count,
                                        struct kms_error *err);

/* sqlite_customer.c */
enum kms_status kms_sqlite_customer_insert(struct kms_store_txn *txn,
                                           const struct kms_customer_record *customer, struct kms_error *err);
enum kms_status kms_sqlite_customer_update(struct kms_store_txn *txn,
                                           const struct kms_customer_record *customer, struct kms_error *err);
enum kms_status kms_sqlite_customer_by_id(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                          const char *id, struct kms_customer_record *ret_customer,
                                          struct kms_error *err);
enum kms_status kms_sqlite_customer_by_uuid(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                            struct kms_customer_record *ret_customer, struct kms_error *err);
enum kms_status kms_sqlite_customer_list(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                         const struct kms_customer_filter *filter, const char *after_id,
                                         size_t limit, kms_customer_visit visit, void *context,
                                         struct kms_error *err);
/** One row of KMS_CUSTOMER_COLUMNS; remembers the internal number. `*ret_customer` is the caller's to clear. */
enum kms_status kms_sqlite_customer_take(struct kms_query *query, struct kms_customer_record *ret_customer,
                                         struct kms_error *err) KMS_MUST_USE;
/** The internal number of a customer; NOT_FOUND. */
enum kms_status kms_sqlite_customer_no(struct kms_store_txn *txn, const struct kms_uuid *uuid,
                                       int64_t *ret_no, struct kms_error *err) KMS_MUST_USE;

/* sqlite_kek.c */
enum kms_status kms_sqlite_kek_insert(struct kms_store_txn *txn, const struct kms_kek_record *kek,
                                      struct kms_error *err);
enum kms_status kms_sqlite_kek_set_state(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                         enum kms_kek_state state, struct kms_error *err);
enum kms_status kms_sqlite_kek_reserve(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                       uint64_t count, uint64_t *ret_first, struct kms_error *err);
enum kms_status kms_sqlite_kek_by_id(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                     struct kms_kek_record *ret_kek, struct kms_error *err);
enum kms_status kms_sqlite_kek_with_customer(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                             struct kms_kek_record *ret_kek,
                                             struct kms_kek_customer *ret_customer, struct kms_error *err);
enum kms_status kms_sqlite_kek_primary(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                       const char *purpose, struct kms_kek_record *ret_kek,
                                       struct kms_error *err);
enum kms_status kms_sqlite_kek_list(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                    const char *purpose, uint32_t after_version, size_t limit,
                                    struct kms_kek_record **ret_list, size_t *ret_count,
                                    struct kms_error *err);

/* sqlite_page.c */
enum kms_status kms_sqlite_page_get(struct kms_store_txn *txn, const struct kms_uuid *tenant, uint32_t level,
                                    uint64_t index, struct kms_page_record *ret_page, struct kms_error *err);
enum kms_status kms_sqlite_page_put(struct kms_store_txn *txn, const struct kms_page_record *page,
                                    struct kms_error *err);

/* sqlite_changes.c */
enum kms_status kms_sqlite_changes_last(struct kms_store_txn *txn, uint64_t *ret_seq, struct kms_error *err);
enum kms_status kms_sqlite_changes_read(struct kms_store_txn *txn, uint64_t after, size_t limit,
                                        kms_change_visit visit, void *context, struct kms_error *err);
enum kms_status kms_sqlite_changes_waiting(struct kms_store_txn *txn, uint64_t after, size_t limit,
                                           struct kms_store_waiting *ret_waiting, struct kms_error *err);
enum kms_status kms_sqlite_changes_prune(struct kms_store_txn *txn, uint64_t up_to, size_t limit,
                                         size_t *ret_removed, struct kms_error *err);
enum kms_status kms_sqlite_changes_resume(struct kms_store_txn *txn, uint64_t seq, struct kms_error *err);
enum kms_status kms_sqlite_changes_snapshot(struct kms_store_txn *txn, kms_change_visit visit, void *context,
                                            struct kms_error *err);
void kms_sqlite_changes_silence(struct kms_store_txn *txn);
enum kms_status kms_sqlite_changes_counts(struct kms_store_txn *txn, struct kms_store_counts *ret_counts,
                                          struct kms_error *err);
uint64_t kms_sqlite_changes_committed(struct kms_store *store);
uint64_t kms_sqlite_changes_take_mine(struct kms_store *store);
void kms_sqlite_changes_on_commit(struct kms_store *store, void (*notify)(void *context), void *context);
/** After a commit that has logged changes up to `seq`; the store's lock is not held any more. */
void kms_sqlite_changes_note(struct kms_sqlite *store, uint64_t seq);

/* sqlite_request.c */
enum kms_status kms_sqlite_request_get(struct kms_store_txn *txn, const char *request_id,
                                       const char *identity, struct kms_request_record *ret_request,
                                       struct kms_error *err);
enum kms_status kms_sqlite_request_put(struct kms_store_txn *txn, const struct kms_request_record *request,
                                       struct kms_error *err);

#endif
