/*
 * Purpose:   the records behind shredding as a service: jobs and their targets, legal holds, certificates, what a tenant has
 *            settled, retention, and the clock that waiting windows are measured with.
 * Owns:      records handed out are copies; what a certificate owns is freed by kms_certificate_record_clear().
 * Threads:   as store.h.
 * Never:     holds an external id: customers are UUIDs here, so that nothing of them stays when the directory forgets them.
 *
 * A job is one request for one customer or for a hundred thousand; its targets are its customers. States of a target that
 * follow from its batch (sealed, erased) are not kept here: they are read off the batch and what still opens it, so that
 * they can't claim more than is true.
 */
#ifndef KMS_STORE_STORE_SHRED_H
#define KMS_STORE_STORE_SHRED_H

#include "core/bytes.h"
#include "core/ids.h"

struct kms_store_txn;

enum {
    KMS_SHRED_PURPOSE_MAX = 63, /* as KMS_PURPOSE_ID_MAX */
    KMS_SHRED_REASON_MAX = 256, /* bytes of printable UTF-8, as all texts here */
    KMS_SHRED_IDENTITY_MAX = 256,
    KMS_HOLD_REFERENCE_MAX = 128,
    KMS_CERTIFICATE_MAX = 1 << 20, /* bytes of a document */
    KMS_CERTIFICATE_SIGNATURE_MAX = 80,
    KMS_SHRED_BOOT_ID_MAX = 36
};

/* Stored as these numbers: never renumber. */
enum kms_shred_origin { KMS_SHRED_BY_OPERATOR = 1, KMS_SHRED_BY_CLOSURE = 2, KMS_SHRED_BY_RETENTION = 3 };
enum kms_shred_job_state {
    KMS_SHRED_JOB_DRAFT = 1,     /* its list is being told */
    KMS_SHRED_JOB_REQUESTED = 2, /* waits for approvals */
    KMS_SHRED_JOB_SCHEDULED = 3, /* waits for due_ns, or is being carried out */
    KMS_SHRED_JOB_DONE = 4,      /* no target is left to do */
    KMS_SHRED_JOB_CANCELLED = 5  /* withdrawn, rejected or expired before it began */
};
enum kms_shred_target_state {
    KMS_SHRED_TARGET_PENDING = 1, /* nothing was done; whether it waits or is scheduled, its job says */
    KMS_SHRED_TARGET_SHREDDED = 3,
    KMS_SHRED_TARGET_CANCELLED = 4,
    KMS_SHRED_TARGET_FAILED = 5 /* `reason` says why */
};
enum { KMS_SHRED_TARGET_STATES = 6 };
enum kms_certificate_kind {
    KMS_CERTIFICATE_DESTRUCTION = 1,
    KMS_CERTIFICATE_SUPPLEMENT = 2 /* `batch` is no batch: it stands for an operation, a tenant and a part */
};

struct kms_shred_job_record {
    struct kms_uuid uid;
    struct kms_uuid tenant;
    enum kms_shred_origin origin;
    enum kms_shred_job_state state;
    char purpose[KMS_SHRED_PURPOSE_MAX + 1]; /* "": every purpose that the law lets go */
    uint32_t version;                        /* of the KEKs; 0: all. With a purpose only */
    char requested_by[KMS_SHRED_IDENTITY_MAX + 1];
    char reason[KMS_SHRED_REASON_MAX + 1];
    int64_t requested_ns;
    int64_t window_seconds;
    int64_t due_ns;            /* 0 until it is scheduled */
    struct kms_uuid operation; /* that was approved; zero: none */
    uint8_t list_hash[32];     /* over its targets, as ops/shred_list.h says; zero while a draft */
};

struct kms_shred_target_record {
    struct kms_uuid job;
    struct kms_uuid customer;
    enum kms_shred_target_state state;
    struct kms_uuid batch; /* in which it was shredded; zero before */
    int64_t changed_ns;
    char reason[KMS_SHRED_REASON_MAX + 1];
};

struct kms_hold_record {
    struct kms_uuid uid;
    struct kms_uuid tenant;
    struct kms_uuid customer;
    char reference[KMS_HOLD_REFERENCE_MAX + 1]; /* of the court, the authority, the case */
    char reason[KMS_SHRED_REASON_MAX + 1];
    char placed_by[KMS_SHRED_IDENTITY_MAX + 1];
    int64_t placed_ns;
    char released_by[KMS_SHRED_IDENTITY_MAX + 1]; /* "" while it holds */
    int64_t released_ns;                          /* 0 while it holds */
};

/** `document` is the exact bytes that were signed; on the heap when read. */
struct kms_certificate_record {
    struct kms_uuid uid;
    struct kms_uuid tenant;
    struct kms_uuid batch;
    enum kms_certificate_kind kind;
    int64_t created_ns;
    uint8_t *document;
    size_t document_len;
    uint8_t signature[KMS_CERTIFICATE_SIGNATURE_MAX];
    size_t signature_len;
};

/** What a tenant has settled; there is none until it is set. */
struct kms_shred_setting_record {
    struct kms_uuid tenant;
    int64_t window_seconds;
    bool shred_closed; /* closing a customer schedules what no law holds */
};

/** A purpose of a closed customer that is kept until `due_ns`. */
struct kms_retention_record {
    struct kms_uuid tenant;
    struct kms_uuid customer;
    char purpose[KMS_SHRED_PURPOSE_MAX + 1];
    int64_t due_ns;   /* as the purpose said when it began */
    int64_t began_ns; /* 0: not known, an older version made it */
};

/** A moment at which wall clock and machine's own clock were read together. */
struct kms_shred_clock_record {
    int64_t trusted_ns; /* wall clock that is believed */
    int64_t boot_ns;    /* CLOCK_BOOTTIME */
    char boot_id[KMS_SHRED_BOOT_ID_MAX + 1];
};

typedef enum kms_status (*kms_shred_target_visit)(void *context,
                                                  const struct kms_shred_target_record *target);
typedef enum kms_status (*kms_shred_job_visit)(void *context, const struct kms_shred_job_record *job);
typedef enum kms_status (*kms_hold_visit)(void *context, const struct kms_hold_record *hold);
typedef enum kms_status (*kms_certificate_visit)(void *context,
                                                 const struct kms_certificate_record *certificate);
typedef enum kms_status (*kms_retention_visit)(void *context, const struct kms_retention_record *retention);

/** Which targets a list shows; exactly one of job, customer and batch is set. */
struct kms_shred_target_filter {
    const struct kms_uuid *job, *customer, *batch;
    enum kms_shred_target_state state; /* 0: any */
};

struct kms_store_shred_ops {
    enum kms_status (*job_put)(struct kms_store_txn *txn, const struct kms_shred_job_record *job,
                               struct kms_error *err);
    enum kms_status (*job_get)(struct kms_store_txn *txn, const struct kms_uuid *uid,
                               struct kms_shred_job_record *ret_job, struct kms_error *err);
    enum kms_status (*job_list)(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                enum kms_shred_job_state state, const struct kms_uuid *after, size_t limit,
                                kms_shred_job_visit visit, void *context, struct kms_error *err);

    enum kms_status (*target_put)(struct kms_store_txn *txn, const struct kms_shred_target_record *target,
                                  struct kms_error *err);
    enum kms_status (*target_get)(struct kms_store_txn *txn, const struct kms_uuid *job,
                                  const struct kms_uuid *customer, struct kms_shred_target_record *ret_target,
                                  struct kms_error *err);
    enum kms_status (*target_list)(struct kms_store_txn *txn, const struct kms_shred_target_filter *filter,
                                   const struct kms_uuid *after, size_t limit, kms_shred_target_visit visit,
                                   void *context, struct kms_error *err);
    enum kms_status (*target_count)(struct kms_store_txn *txn, const struct kms_uuid *job,
                                    uint64_t ret_counts[KMS_SHRED_TARGET_STATES], struct kms_error *err);

    enum kms_status (*hold_put)(struct kms_store_txn *txn, const struct kms_hold_record *hold,
                                struct kms_error *err);
    enum kms_status (*hold_get)(struct kms_store_txn *txn, const struct kms_uuid *uid,
                                struct kms_hold_record *ret_hold, struct kms_error *err);
    enum kms_status (*hold_on)(struct kms_store_txn *txn, const struct kms_uuid *customer,
                               struct kms_hold_record *ret_hold, struct kms_error *err);
    enum kms_status (*hold_list)(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                 const struct kms_uuid *customer, bool released, const struct kms_uuid *after,
                                 size_t limit, kms_hold_visit visit, void *context, struct kms_error *err);

    enum kms_status (*certificate_insert)(struct kms_store_txn *txn,
                                          const struct kms_certificate_record *certificate,
                                          struct kms_error *err);
    enum kms_status (*certificate_get)(struct kms_store_txn *txn, const struct kms_uuid *uid_or_batch,
                                       struct kms_certificate_record *ret_certificate, struct kms_error *err);
    enum kms_status (*certificate_list)(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                        const struct kms_uuid *after, size_t limit,
                                        kms_certificate_visit visit, void *context, struct kms_error *err);

    enum kms_status (*setting_put)(struct kms_store_txn *txn, const struct kms_shred_setting_record *setting,
                                   struct kms_error *err);
    enum kms_status (*setting_get)(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                   struct kms_shred_setting_record *ret_setting, struct kms_error *err);

    enum kms_status (*retention_put)(struct kms_store_txn *txn, const struct kms_retention_record *retention,
                                     struct kms_error *err);
    enum kms_status (*retention_list)(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                      int64_t due_until_ns, size_t limit, kms_retention_visit visit,
                                      void *context, struct kms_error *err);

    enum kms_status (*clock_put)(struct kms_store_txn *txn, const struct kms_shred_clock_record *clock,
                                 struct kms_error *err);
    enum kms_status (*clock_get)(struct kms_store_txn *txn, struct kms_shred_clock_record *ret_clock,
                                 struct kms_error *err);
};

/*
 * *_put            inserts, or replaces the record of the same key (job, hold: uid; target: job and customer; setting: tenant;
 *                  retention: customer and purpose). NOT_FOUND when tenant or job is missing. INVALID_ARGUMENT for a record
 *                  that breaks a limit named here.
 * job_list         in the order in which they were made; tenant NULL: of all; state 0: in any; begins behind the job `after`.
 *                  `visit` of this and every list below may use the transaction, but not the same list.
 * target_list      ordered by job and customer; begins behind the customer `after`, with job or batch only.
 * target_count     how many targets of a job are in each state.
 * hold_on          the oldest hold that is not released of a customer; NOT_FOUND when nothing holds it.
 * hold_list        customer NULL: of the tenant; `released`: those too.
 * certificate_get  by its own uid, or the one of that batch. The caller clears it.
 * certificate_list without the documents: document is NULL, document_len 0.
 * retention_put    due_ns 0 removes the entry; NOT_FOUND when there is none.
 * retention_list   of one customer, or (customer NULL) those of all that end until due_until_ns, the earliest first.
 * setting_get, clock_get: NOT_FOUND until one was put.
 */

/* NULL when the record may be stored, else which member breaks which limit. */
const char *kms_shred_job_problem(const struct kms_shred_job_record *job);
const char *kms_shred_target_problem(const struct kms_shred_target_record *target);
const char *kms_hold_problem(const struct kms_hold_record *hold);
const char *kms_certificate_problem(const struct kms_certificate_record *certificate);
const char *kms_shred_setting_problem(const struct kms_shred_setting_record *setting);
const char *kms_retention_problem(const struct kms_retention_record *retention);
const char *kms_shred_clock_problem(const struct kms_shred_clock_record *clock);

/** Free what the record owns; accepts a zeroed one. */
void kms_certificate_record_clear(struct kms_certificate_record *certificate);

#endif
