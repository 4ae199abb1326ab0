/* A capsule of a target, read and compared: what `kmsctl backup verify` looks at, and now and then a pass. */
#include "ops/escrow_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum kms_status ops_escrow_check_bytes(struct kms_slice file, struct kms_slice attestation,
                                       const struct kms_recovery_key_record *key,
                                       const struct ops_escrow_entry *entry, struct kms_error *err)
{
    KMS_CLEANUP(kms_capsule_clear) struct kms_capsule capsule = {0};
    KMS_TRY(kms_capsule_open(file, attestation, &capsule, err));
    const bool fits =
        strcmp(capsule.wrapping_key, key->fingerprint) == 0 && capsule.recovery_epoch == key->epoch &&
        kms_uuid_equal(&capsule.tenant, &entry->tenant) && capsule.epoch == entry->epoch &&
        (entry->epoch == 0 || memcmp(capsule.keys[0].id, entry->master_id, KMS_MASTER_ID_SIZE) == 0);
    if (!fits)
        return kms_fail_public(err, KMS_TAMPERED, "it is the capsule of another key, tenant or epoch");
    return KMS_OK;
}

/* Where findings go, and whose signatures count. */
struct checking {
    struct ops_escrow *escrow;
    const char *directory;
    struct kms_slice attestation;
    void (*finding)(void *context, const char *text);
    void *context;
};

/* Is a capsule's file what it must be? One that the attestation key of a lost HSM has signed is, until a pass makes it again. */
static enum kms_status check_file(const struct checking *checking, const struct kms_recovery_key_record *key,
                                  const struct ops_escrow_entry *entry, struct kms_error *err)
{
    char name[KMS_CAPSULE_NAME_SIZE];
    const struct ops_escrow *escrow = checking->escrow;
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    KMS_TRY(kms_shelf_read(checking->directory, key->fingerprint,
                           kms_capsule_name(&entry->tenant, entry->epoch, name), &file, err));
    enum kms_status status =
        ops_escrow_check_bytes(kms_buf_slice(&file), checking->attestation, key, entry, err);
    for (size_t i = 0; i < escrow->predecessor_count && status == KMS_TAMPERED; i++)
        status = ops_escrow_check_bytes(kms_buf_slice(&file), escrow->predecessors[i], key, entry, err);
    return status;
}

/* What was expected a while ago may have come to its end since. */
static enum kms_status is_still_wanted(struct ops_escrow *escrow, const struct kms_recovery_key_record *key,
                                       const struct ops_escrow_entry *entry, bool *ret_wanted,
                                       struct kms_error *err)
{
    struct kms_recovery_key_record now;
    struct kms_tenant_record tenant;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(escrow->store, false, &txn, err));
    KMS_TRY(escrow->store->ops->recovery.key_get(txn.txn, key->fingerprint, &now, err));
    if (now.state != KMS_RECOVERY_ACTIVE ||
        entry->epoch == 0) { /* the service's own keys stay what they are */
        *ret_wanted = now.state == KMS_RECOVERY_ACTIVE;
        return KMS_OK;
    }
    KMS_TRY(escrow->store->ops->tenant_by_uuid(txn.txn, &entry->tenant, &tenant, err));
    *ret_wanted = tenant.epoch == entry->epoch &&
                  memcmp(tenant.master_id, entry->master_id, sizeof tenant.master_id) == 0;
    return KMS_OK;
}

static enum kms_status check_entry(const struct checking *checking, const struct kms_recovery_key_record *key,
                                   const struct ops_escrow_entry *entry, struct kms_error *err)
{
    char text[512];
    char name[KMS_CAPSULE_NAME_SIZE];
    bool wanted = true;
    struct kms_error why = {0};
    const enum kms_status status = check_file(checking, key, entry, &why);
    if (status == KMS_OK)
        return KMS_OK;
    KMS_TRY(is_still_wanted(checking->escrow, key, entry, &wanted, err));
    if (!wanted)
        return KMS_OK;
    (void)snprintf(text, sizeof text, "recovery/%s/%s: %s", key->fingerprint,
                   kms_capsule_name(&entry->tenant, entry->epoch, name), kms_error_cause(&why, status));
    checking->finding(checking->context, text);
    return KMS_OK;
}

static enum kms_status check_key(const struct checking *checking, const struct kms_recovery_key_record *key,
                                 struct kms_error *err)
{
    KMS_CLEANUP(ops_escrow_entries_clear) struct ops_escrow_entries entries = {0};
    KMS_TRY(ops_escrow_expect(checking->escrow->store, key, &entries, err));
    for (size_t i = 0; i < entries.count; i++) {
        if (entries.list[i].wanted)
            KMS_TRY(check_entry(checking, key, &entries.list[i], err));
    }
    return KMS_OK;
}

enum kms_status ops_escrow_check_target(struct ops_escrow *escrow, const char *directory,
                                        void (*finding)(void *context, const char *text), void *context,
                                        struct kms_error *err)
{
    struct ops_escrow_keys keys;
    KMS_FREE char *attestation = NULL;
    KMS_TRY(kms_hsm_attestation_public_pem(escrow->hsm, &attestation, err));
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(escrow->store, false, &txn, err));
        KMS_TRY(ops_escrow_read_keys(escrow->store, txn.txn, &keys, err));
    }
    const struct checking checking = {escrow, directory, kms_slice_str(attestation), finding, context};
    for (size_t i = 0; i < keys.count; i++)
        KMS_TRY(check_key(&checking, &keys.list[i], err));
    return KMS_OK;
}
