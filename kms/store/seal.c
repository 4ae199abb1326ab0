#include "store/seal.h"

#include "store/changelog_rekey.h"

#include <stdio.h>

/* FNV-1a over kind and scope: it spreads the entries, nothing rests on it. */
static unsigned bucket_of(const uint8_t *scope)
{
    uint32_t hash = UINT32_C(2166136261);
    for (size_t i = 0; i < KMS_SEAL_SCOPE_SIZE; i++)
        hash = (hash ^ scope[i]) * UINT32_C(16777619);
    return (hash ^ (hash >> 16)) % KMS_SEAL_BUCKETS;
}

void kms_seal_scope(enum kms_change_kind kind, const struct kms_uuid *scope, struct kms_seal *ret_scope)
{
    *ret_scope = (struct kms_seal){.key = {(uint8_t)kind}, .key_len = KMS_SEAL_SCOPE_SIZE, .present = true};
    if (scope != NULL)
        memcpy(ret_scope->key + 1, scope->bytes, KMS_UUID_SIZE);
    ret_scope->bucket = bucket_of(ret_scope->key);
}

/* The rest of a key; every part has its limit in the record, and KMS_SEAL_KEY_MAX room for the longest. */
static void append(struct kms_seal *seal, const void *bytes, size_t len)
{
    KMS_ASSERT(len <= sizeof seal->key - seal->key_len);
    memcpy(seal->key + seal->key_len, bytes, len);
    seal->key_len += len;
}

static void of_freeze(const struct kms_freeze_record *freeze, struct kms_seal *seal)
{
    const uint8_t scope = (uint8_t)freeze->scope;
    kms_seal_scope(KMS_CHANGE_FREEZE, NULL, seal);
    append(seal, &scope, sizeof scope);
    append(seal, freeze->tenant, strlen(freeze->tenant) + 1);
    append(seal, freeze->name, strlen(freeze->name));
}

static void of_policy(const struct kms_policy_record *policy, struct kms_seal *seal)
{
    uint8_t version[8];
    kms_put_be64(version, policy->version);
    kms_seal_scope(KMS_CHANGE_POLICY, NULL, seal);
    append(seal, version, sizeof version);
}

/* Recovery keys are few: they have one scope. What they cover belongs to the tenant. */
static void of_recovery(const struct kms_change *change, struct kms_seal *seal)
{
    const bool is_key = change->kind == KMS_CHANGE_RECOVERY_KEY;
    uint8_t epoch[8];
    kms_put_be64(epoch, is_key ? change->recovery_key.epoch : change->recovery_cover.recovery_epoch);
    kms_seal_scope(change->kind, is_key ? NULL : &change->recovery_cover.tenant, seal);
    append(seal, epoch, sizeof epoch);
}

/* The records of store/store_shred.h. */
static bool of_shredding(const struct kms_change *change, struct kms_seal *seal)
{
    switch (change->kind) {
    case KMS_CHANGE_SHRED_JOB:
        kms_seal_scope(change->kind, &change->shred_job.uid, seal);
        return true;
    case KMS_CHANGE_SHRED_TARGET: /* the hash of the list binds who is on it, but not who was taken out */
        kms_seal_scope(change->kind, &change->shred_target.customer, seal);
        append(seal, change->shred_target.job.bytes, KMS_UUID_SIZE);
        seal->present = change->shred_target.state == KMS_SHRED_TARGET_CANCELLED;
        return true;
    case KMS_CHANGE_HOLD:
        kms_seal_scope(change->kind, &change->hold.customer, seal);
        append(seal, change->hold.uid.bytes, KMS_UUID_SIZE);
        return true;
    case KMS_CHANGE_SHRED_SETTING:
        kms_seal_scope(change->kind, &change->shred_setting.tenant, seal);
        return true;
    case KMS_CHANGE_RETENTION:
        kms_seal_scope(change->kind, &change->retention.customer, seal);
        append(seal, change->retention.purpose, strlen(change->retention.purpose));
        seal->present = change->retention.due_ns != 0;
        return true;
    case KMS_CHANGE_SHRED_CLOCK:
        kms_seal_scope(change->kind, NULL, seal);
        return true;
    default:
        return false;
    }
}

bool kms_seal_of(const struct kms_change *change, struct kms_seal *ret_seal)
{
    switch (change->kind) {
    case KMS_CHANGE_TENANT:
        kms_seal_scope(change->kind, &change->tenant.uuid, ret_seal);
        return true;
    case KMS_CHANGE_PURPOSE:
        kms_seal_scope(change->kind, &change->purpose.tenant, ret_seal);
        append(ret_seal, change->purpose.id, strlen(change->purpose.id));
        return true;
    case KMS_CHANGE_CUSTOMER: /* millions are active, and being active gives nobody a reason to destroy anything */
        kms_seal_scope(change->kind, &change->customer.uuid, ret_seal);
        ret_seal->present = change->customer.state != KMS_CUSTOMER_ACTIVE;
        return true;
    case KMS_CHANGE_CUSTOMER_REMOVED:
        kms_seal_scope(KMS_CHANGE_CUSTOMER, &change->customer_removed, ret_seal);
        ret_seal->present = false;
        return true;
    case KMS_CHANGE_OPERATION:
    case KMS_CHANGE_OPERATION_STATE:
        kms_seal_scope(change->kind, &change->operation.uuid, ret_seal);
        return true;
    case KMS_CHANGE_OPERATION_REMOVED:
        kms_seal_scope(KMS_CHANGE_OPERATION, &change->operation_removed, ret_seal);
        ret_seal->present = false;
        return true;
    case KMS_CHANGE_BATCH:
    case KMS_CHANGE_BATCH_STATE:
        kms_seal_scope(KMS_CHANGE_BATCH_STATE, &change->batch.uuid, ret_seal);
        return true;
    case KMS_CHANGE_POLICY:
        of_policy(&change->policy, ret_seal);
        return true;
    case KMS_CHANGE_FREEZE:
    case KMS_CHANGE_UNFREEZE:
        of_freeze(&change->freeze, ret_seal);
        ret_seal->present = change->kind == KMS_CHANGE_FREEZE;
        return true;
    case KMS_CHANGE_RECOVERY_KEY:
    case KMS_CHANGE_RECOVERY_COVER:
        of_recovery(change, ret_seal);
        return true;
    default:
        return of_shredding(change, ret_seal);
    }
}

enum kms_status kms_seal_content(const struct kms_change *change, struct kms_buf *scratch)
{
    scratch->len = 0;
    if (change->kind == KMS_CHANGE_BATCH)
        return kms_changelog_batch_state(&change->batch, scratch);
    if (change->kind != KMS_CHANGE_TENANT)
        return kms_changelog_encode((struct kms_change *)(uintptr_t)change,
                                    scratch); /* sorts reservations only */
    /* the tree changes with every new key, under MACs of its own; its height only now and then, and says where its top is */
    struct kms_tenant_record tenant = change->tenant;
    memset(tenant.root_blob, 0, sizeof tenant.root_blob);
    tenant.next_slot = 0;
    return kms_changelog_tenant(&tenant, scratch);
}

/* The word for a kind. */
static const char *kind_name(unsigned kind)
{
    switch (kind) {
    case KMS_CHANGE_TENANT:
        return "tenant";
    case KMS_CHANGE_PURPOSE:
        return "purpose of tenant";
    case KMS_CHANGE_CUSTOMER:
        return "state of customer";
    case KMS_CHANGE_OPERATION:
    case KMS_CHANGE_OPERATION_STATE:
        return "operation";
    case KMS_CHANGE_SHRED_JOB:
        return "shred job";
    case KMS_CHANGE_SHRED_TARGET:
        return "cancellation of the shred of customer";
    case KMS_CHANGE_HOLD:
        return "legal hold on customer";
    case KMS_CHANGE_SHRED_SETTING:
        return "shred setting of tenant";
    case KMS_CHANGE_RETENTION:
        return "retention of customer";
    case KMS_CHANGE_SHRED_CLOCK:
        return "clock of waiting windows";
    case KMS_CHANGE_BATCH_STATE:
        return "batch";
    case KMS_CHANGE_POLICY:
        return "policy version";
    case KMS_CHANGE_RECOVERY_KEY:
        return "recovery key of epoch";
    case KMS_CHANGE_RECOVERY_COVER:
        return "what a recovery key opens of tenant";
    default:
        return "freeze";
    }
}

void kms_seal_name(const struct kms_seal *seal, char ret_name[KMS_SEAL_NAME_MAX])
{
    const unsigned kind = seal->key[0];
    struct kms_uuid scope;
    char text[KMS_UUID_TEXT_SIZE] = "";
    memcpy(scope.bytes, seal->key + 1, KMS_UUID_SIZE);
    if (!kms_uuid_is_zero(&scope))
        (void)kms_uuid_format(&scope, text);
    else if ((kind == KMS_CHANGE_POLICY || kind == KMS_CHANGE_RECOVERY_KEY) &&
             seal->key_len > KMS_SEAL_SCOPE_SIZE)
        (void)snprintf(text, sizeof text, "%llu",
                       (unsigned long long)kms_get_be64(seal->key + KMS_SEAL_SCOPE_SIZE));
    (void)snprintf(ret_name, KMS_SEAL_NAME_MAX, "%s%s%s", kind_name(kind), text[0] != '\0' ? " " : "", text);
}
