/*
 * Purpose:   recovery keys, one for each recovery epoch, and which tenants' master keys each of them can open.
 * Owns:      nothing.
 * Threads:   as store.h.
 * Never:     removes a record: what a retired key covered is what certificates are made of.
 */
#ifndef KMS_STORE_STORE_RECOVERY_H
#define KMS_STORE_STORE_RECOVERY_H

#include "core/ids.h"

struct kms_store_txn;

enum {
    KMS_RECOVERY_FINGERPRINT_SIZE = 65, /* SHA-256 in hex, with its NUL */
    KMS_RECOVERY_IDENTITY_MAX = 256,    /* bytes of printable UTF-8 */
    KMS_RECOVERY_TEXT_MAX = 500         /* the same */
};

/* Stored: never renumber. */
enum kms_recovery_state {
    KMS_RECOVERY_ACTIVE = 1,   /* capsules are made under it */
    KMS_RECOVERY_RETIRING = 2, /* none any more; those that there are, are being removed */
    KMS_RECOVERY_RETIRED = 3   /* none is left in a target */
};

struct kms_recovery_key_record {
    uint64_t epoch;                                  /* from 1, without gaps */
    char fingerprint[KMS_RECOVERY_FINGERPRINT_SIZE]; /* lower-case hex; no two keys have one */
    enum kms_recovery_state state;
    int64_t enrolled_ns;                                /* wall clock */
    char enrolled_by[KMS_RECOVERY_IDENTITY_MAX + 1];    /* who has asked for it */
    struct kms_uuid enroll_operation, retire_operation; /* zero: none yet */
    int64_t retired_ns;                                 /* 0: it is not RETIRED */
    char retired_by[KMS_RECOVERY_IDENTITY_MAX + 1];
    char statement[KMS_RECOVERY_TEXT_MAX + 1]; /* of the custodians: what became of the private key */
    bool object_left;                          /* retired, but the public key is still in the token */
    int64_t drill_ns;                          /* when it was last rehearsed that it opens; 0: never */
    int64_t drill_took_ns;
    char drill_by[KMS_RECOVERY_IDENTITY_MAX + 1];
    uint64_t drill_customers; /* whose keys were checked */
};

/** The master keys of a tenant from this epoch on have been wrapped under the recovery key, while it was ACTIVE. */
struct kms_recovery_cover_record {
    uint64_t recovery_epoch;
    struct kms_uuid tenant;
    uint64_t first_epoch;
};

/** Another status than OK ends the list and is returned. */
typedef enum kms_status (*kms_recovery_key_visit)(void *context, const struct kms_recovery_key_record *key);

struct kms_store_recovery_ops {
    /** Insert the next epoch (ABORTED for any other new one), or replace; ALREADY_EXISTS: another epoch has that fingerprint. */
    enum kms_status (*key_put)(struct kms_store_txn *txn, const struct kms_recovery_key_record *key,
                               struct kms_error *err);
    /** By fingerprint. NOT_FOUND. */
    enum kms_status (*key_get)(struct kms_store_txn *txn, const char *fingerprint,
                               struct kms_recovery_key_record *ret_key, struct kms_error *err);
    /** In the order of their epochs. The visitor may use the transaction, but not for this list. */
    enum kms_status (*key_list)(struct kms_store_txn *txn, kms_recovery_key_visit visit, void *context,
                                struct kms_error *err);
    /** Insert, or lower first_epoch; one that is not lower changes nothing. NOT_FOUND: no such key or tenant. */
    enum kms_status (*cover_put)(struct kms_store_txn *txn, const struct kms_recovery_cover_record *cover,
                                 struct kms_error *err);
    /** NOT_FOUND: it opens no master key of that tenant. */
    enum kms_status (*cover_get)(struct kms_store_txn *txn, uint64_t recovery_epoch,
                                 const struct kms_uuid *tenant, uint64_t *ret_first_epoch,
                                 struct kms_error *err);
};

/** NULL when the record may be stored, else what is wrong with it. */
const char *kms_recovery_key_problem(const struct kms_recovery_key_record *key);
const char *kms_recovery_cover_problem(const struct kms_recovery_cover_record *cover);

#endif
