/*
 * Purpose:   what is frozen, and how it is kept.
 * Owns:      nothing.
 * Threads:   as store.h.
 * Never:     decides what a freeze means.
 */
#ifndef KMS_STORE_STORE_FREEZE_H
#define KMS_STORE_STORE_FREEZE_H

#include "core/bytes.h"

struct kms_store_txn;

enum {
    KMS_FREEZE_TENANT_MAX = 63,
    KMS_FREEZE_NAME_MAX = 256,
    KMS_FREEZE_REASON_MAX = 256 /* bytes of printable UTF-8 */
};

/* Stored as these numbers: never renumber. */
enum kms_freeze_scope {
    KMS_FREEZE_TENANT = 1,
    KMS_FREEZE_CUSTOMER = 2,
    KMS_FREEZE_PURPOSE = 3,
    KMS_FREEZE_IDENTITY = 4
};

struct kms_freeze_record {
    enum kms_freeze_scope scope;
    char tenant[KMS_FREEZE_TENANT_MAX + 1]; /* id, for TENANT and PURPOSE; else "" */
    char name[KMS_FREEZE_NAME_MAX + 1];     /* customer's UUID, purpose's id, identity; "" for TENANT */
    char reason[KMS_FREEZE_REASON_MAX + 1];
    char identity[KMS_FREEZE_NAME_MAX + 1]; /* who has frozen it */
    int64_t created_ns;                     /* wall clock */
};

/** Another status than OK ends the list and is returned. */
typedef enum kms_status (*kms_freeze_visit)(void *context, const struct kms_freeze_record *freeze);

struct kms_store_freeze_ops {
    /** ALREADY_EXISTS: it is frozen, and the older record stays. INVALID_ARGUMENT when it breaks a limit. */
    enum kms_status (*insert)(struct kms_store_txn *txn, const struct kms_freeze_record *freeze,
                              struct kms_error *err);
    /** NOT_FOUND: it is not frozen. */
    enum kms_status (*remove)(struct kms_store_txn *txn, enum kms_freeze_scope scope, const char *tenant,
                              const char *name, struct kms_error *err);
    /** By scope, tenant and name, after `after` (NULL: from the start; only its first three members count), at most `limit`. */
    enum kms_status (*list)(struct kms_store_txn *txn, const struct kms_freeze_record *after, size_t limit,
                            kms_freeze_visit visit, void *context, struct kms_error *err);
};

/** NULL when the record may be stored, else what is wrong with it. The second looks at scope, tenant and name only. */
const char *kms_freeze_record_problem(const struct kms_freeze_record *freeze);
const char *kms_freeze_names_problem(const struct kms_freeze_record *freeze);
/** "tenant", "customer", "purpose", "identity"; never NULL. */
const char *kms_freeze_scope_text(enum kms_freeze_scope scope);

#endif
