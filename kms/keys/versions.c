/* Versions of KEKs: new ones by hand, by schedule and before the limit of wraps; enabled and disabled ones. */
#include "keys/build.h"
#include "keys/create.h"
#include "keys/plan.h"
#include "keys/rekey.h"
#include "keys/tree.h"

#include "core/log.h"

#include <stdlib.h>

enum {
    DUE_SCAN = 20000, /* customers looked through at once, in about 10 ms */
    PURPOSES_AT_ONCE = 64
};

/* Whose key it is, and what the rows say of it under the writer's lock. */
struct subject {
    const struct kms_uuid *tenant_uuid, *customer;
    const char *purpose;
    struct kms_tenant_record tenant;
    struct kms_kek_record latest;  /* the highest version, whatever its state */
    struct kms_kek_record primary; /* version 0: none is enabled */
    bool shredded;                 /* no version lives */
};

/* Tenant, purpose and customer are there and open. */
static enum kms_status check_open(struct kms_txn *txn, struct subject *subject, struct kms_error *err)
{
    const struct kms_store_ops *store = txn->store->ops;
    struct kms_purpose_record purpose;
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    enum kms_status status = store->tenant_by_uuid(txn->txn, subject->tenant_uuid, &subject->tenant, err);
    if (status == KMS_OK)
        status = store->purpose_get(txn->txn, subject->tenant_uuid, subject->purpose, &purpose, err);
    if (status == KMS_OK)
        status = store->customer_by_uuid(txn->txn, subject->customer, &customer, err);
    if (status == KMS_OK && !kms_uuid_equal(&customer.tenant, subject->tenant_uuid))
        status = KMS_NOT_FOUND;
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(err, status, "no such tenant, purpose or customer");
    KMS_TRY(status);
    return kms_create_check_open(&subject->tenant, &purpose, customer.state, err);
}

/* All versions of the subject's key. */
static enum kms_status read_versions(struct kms_txn *txn, struct subject *subject, struct kms_error *err)
{
    KMS_FREE struct kms_kek_record *keks = NULL;
    size_t count = 0;
    KMS_TRY(txn->store->ops->kek_list(txn->txn, subject->customer, subject->purpose, 0, SIZE_MAX, &keks,
                                      &count, err));
    subject->shredded = count > 0;
    for (size_t i = 0; i < count; i++) {
        subject->latest = keks[i];
        if (keks[i].state == KMS_KEK_ENABLED)
            subject->primary = keks[i];
        subject->shredded = subject->shredded && keks[i].state == KMS_KEK_SHREDDED;
    }
    return KMS_OK;
}

static enum kms_status read_subject(struct kms_keys *keys, struct subject *subject, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    KMS_TRY(check_open(&txn, subject, err));
    KMS_TRY(read_versions(&txn, subject, err));
    if (subject->latest.version == 0)
        return kms_fail_public(err, KMS_NOT_FOUND, "the customer has no key for purpose '%s' yet",
                               subject->purpose);
    if (subject->shredded)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "the customer's keys for purpose '%s' were shredded", subject->purpose);
    if (subject->latest.version == UINT32_MAX)
        return kms_fail_public(err, KMS_RESOURCE_EXHAUSTED, "the customer's key has no more version numbers");
    return KMS_OK;
}

/* The new version in the tree, and its row. */
static enum kms_status add_version(struct kms_keys_work *work, const struct subject *subject,
                                   struct kms_kek_record *kek, struct kms_error *err)
{
    struct kms_store *store = work->keys->store;
    KMS_CLEANUP(kms_cleanup_build) struct kms_build *build = NULL;
    KMS_TRY(kms_build_new(work, &subject->tenant, 1, &build, err));
    KMS_TRY(kms_build_add(build, kek, err));
    KMS_TRY(kms_build_finish(build, err));
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(store, true, &txn, err));
    KMS_TRY(kms_build_write(build, txn.txn, err));
    KMS_TRY(store->ops->kek_insert(txn.txn, kek, err));
    return kms_txn_commit(&txn, err);
}

/* Rotate, if the primary version is still `version` (0: whatever it is). The cached handle of the older one goes: not primary. */
static enum kms_status rotate(struct kms_keys_work *work, struct subject *subject, uint32_t version,
                              struct kms_kek_record *ret_kek, struct kms_error *err)
{
    struct kms_keys *keys = work->keys;
    {
        KMS_CLEANUP(kms_work_unlock_writer) struct kms_mutex *writer = NULL;
        KMS_TRY(kms_work_lock_writer(work, subject->tenant_uuid, &writer, err));
        kms_keys_begin_reading(work);
        KMS_TRY(read_subject(keys, subject, err));
        *ret_kek = subject->primary;
        if (version != 0 && subject->primary.version != version)
            return KMS_OK;
        kms_create_describe(keys, subject->customer, subject->purpose, ret_kek);
        ret_kek->version = subject->latest.version + 1;
        KMS_TRY(add_version(work, subject, ret_kek, err));
    }
    atomic_fetch_add_explicit(&keys->keks_created, 1, memory_order_relaxed);
    kms_keys_forget_key(keys, subject->tenant_uuid, subject->customer, subject->purpose);
    KMS_LOCKED(&keys->lock);
    kms_wraps_keep_id_locked(keys, ret_kek->kek_id, ret_kek->wraps_reserved);
    return KMS_OK;
}

enum kms_status kms_versions_replace(struct kms_keys_work *work, const struct kms_uuid *tenant,
                                     const struct kms_uuid *customer, const char *purpose, uint32_t version,
                                     struct kms_error *err)
{
    struct subject subject = {.tenant_uuid = tenant, .customer = customer, .purpose = purpose};
    struct kms_kek_record kek;
    KMS_TRY(rotate(work, &subject, version, &kek, err));
    char uuid[KMS_UUID_TEXT_SIZE];
    kms_log_info("keys",
                 "version %u of customer %s, purpose '%s', has used up its wraps; version %u is primary",
                 version, kms_uuid_format(customer, uuid), purpose, kek.version);
    return KMS_OK;
}

/* For kms_work_run(). */
struct rotation {
    struct subject subject;
    uint32_t version;
    struct kms_kek_record kek;
};

static enum kms_status attempt_rotate(struct kms_keys_work *work, void *arguments, struct kms_error *err)
{
    struct rotation *rotation = arguments;
    struct subject subject = {.tenant_uuid = rotation->subject.tenant_uuid,
                              .customer = rotation->subject.customer,
                              .purpose = rotation->subject.purpose};
    return rotate(work, &subject, rotation->version, &rotation->kek, err);
}

enum kms_status kms_keys_rotate_kek(struct kms_keys *keys, const struct kms_uuid *tenant,
                                    const struct kms_uuid *customer, const char *purpose,
                                    struct kms_kek_record *ret_kek, struct kms_error *err)
{
    struct rotation rotation = {.subject = {.tenant_uuid = tenant, .customer = customer, .purpose = purpose}};
    KMS_CLEANUP(kms_cleanup_work) struct kms_keys_work *work = NULL;
    KMS_TRY(kms_keys_control_begin(keys, &work, err));
    KMS_TRY(kms_work_run(work, attempt_rotate, &rotation, err));
    *ret_kek = rotation.kek;
    return KMS_OK;
}

/* The purpose behind the cursor's that has a period; NOT_FOUND behind the last one. */
static enum kms_status next_purpose(struct kms_txn *txn, const struct kms_uuid *tenant,
                                    const struct kms_rotation_cursor *cursor,
                                    struct kms_purpose_record *ret_purpose, struct kms_error *err)
{
    const struct kms_store_ops *store = txn->store->ops;
    char after[KMS_PURPOSE_ID_MAX + 1];
    if (cursor->after != 0) { /* in the middle of one */
        const enum kms_status status =
            store->purpose_get(txn->txn, tenant, cursor->purpose, ret_purpose, err);
        if (status != KMS_OK || ret_purpose->rotation_seconds > 0)
            return status;
    }
    memcpy(after, cursor->purpose, sizeof after);
    for (size_t count = PURPOSES_AT_ONCE; count == PURPOSES_AT_ONCE;) {
        KMS_FREE struct kms_purpose_record *list = NULL;
        KMS_TRY(store->purpose_list(txn->txn, tenant, after, PURPOSES_AT_ONCE, &list, &count, err));
        for (size_t i = 0; i < count; i++) {
            memcpy(after, list[i].id, sizeof after);
            if (list[i].rotation_seconds == 0)
                continue;
            *ret_purpose = list[i];
            return KMS_OK;
        }
    }
    return KMS_NOT_FOUND;
}

/* One portion of the search; the cursor is where the next one begins. */
static enum kms_status find_due(struct kms_keys *keys, const struct kms_uuid *tenant, int64_t now_ns,
                                size_t limit, struct kms_rotation_cursor *cursor,
                                struct kms_kek_record **ret_list, size_t *ret_count, struct kms_error *err)
{
    struct kms_purpose_record purpose;
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    const enum kms_status found = next_purpose(&txn, tenant, cursor, &purpose, err);
    if (found == KMS_NOT_FOUND) {
        *cursor = (struct kms_rotation_cursor){0}; /* from the start again */
        return KMS_OK;
    }
    KMS_TRY(found);
    int64_t period_ns = 0;
    if (__builtin_mul_overflow(purpose.rotation_seconds, INT64_C(1000000000), &period_ns))
        period_ns = INT64_MAX;
    int64_t before_ns = 0;
    if (__builtin_sub_overflow(now_ns, period_ns, &before_ns))
        before_ns = INT64_MIN;
    memcpy(cursor->purpose, purpose.id, sizeof cursor->purpose);
    return keys->store->ops->rekey.keks_due(txn.txn, tenant, purpose.id, before_ns, cursor->after, DUE_SCAN,
                                            limit, ret_list, ret_count, &cursor->after, err);
}

enum kms_status kms_keys_rotate_due(struct kms_keys *keys, const struct kms_uuid *tenant, int64_t now_ns,
                                    size_t limit, struct kms_rotation_cursor *cursor, size_t *ret_rotated,
                                    struct kms_error *err)
{
    KMS_FREE struct kms_kek_record *due = NULL;
    size_t count = 0;
    *ret_rotated = 0;
    if (limit == 0)
        return KMS_OK;
    KMS_TRY(find_due(keys, tenant, now_ns, limit, cursor, &due, &count, err));
    for (size_t i = 0; i < count; i++) {
        struct rotation rotation = {
            .subject = {.tenant_uuid = tenant, .customer = &due[i].customer, .purpose = due[i].purpose},
            .version = due[i].version};
        KMS_CLEANUP(kms_cleanup_work) struct kms_keys_work *work = NULL;
        KMS_TRY(kms_keys_background_begin(keys, &work, err));
        const enum kms_status status = kms_work_run(work, attempt_rotate, &rotation, err);
        if (status == KMS_FAILED_PRECONDITION || status == KMS_NOT_FOUND)
            continue; /* closed or shredded since the search */
        KMS_TRY(status);
        *ret_rotated += rotation.kek.version > due[i].version;
    }
    return KMS_OK;
}

/* A version whose state changes. */
struct change {
    const struct kms_uuid *tenant, *customer;
    const char *purpose;
    uint32_t version;
    enum kms_kek_state state;
    struct kms_tenant_record record;
    struct kms_kek_record kek;
};

/* The version's row, and the tenant. */
static enum kms_status read_version(struct kms_keys *keys, struct change *change, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    KMS_FREE struct kms_kek_record *list = NULL;
    size_t count = 0;
    enum kms_status status = keys->store->ops->tenant_by_uuid(txn.txn, change->tenant, &change->record, err);
    if (status == KMS_OK)
        status = keys->store->ops->kek_list(txn.txn, change->customer, change->purpose, change->version - 1,
                                            1, &list, &count, err);
    if (status == KMS_NOT_FOUND || (status == KMS_OK && (count == 0 || list[0].version != change->version ||
                                                         !kms_uuid_equal(&list[0].tenant, change->tenant))))
        return kms_fail_public(err, KMS_NOT_FOUND, "the customer's key for purpose '%s' has no version %u",
                               change->purpose, change->version);
    KMS_TRY(status);
    change->kek = list[0];
    if (change->kek.state == KMS_KEK_SHREDDED)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "version %u of the customer's key was shredded",
                               change->version);
    return KMS_OK;
}

/* The page with the version's new state. */
static enum kms_status change_page(struct kms_keys_work *work, const struct change *change,
                                   struct kms_page_record *ret_record, uint8_t bytes[KMS_PAGE_BODY_MAX],
                                   struct kms_error *err)
{
    struct kms_page page;
    const uint64_t index = kms_shape_page(change->kek.slot, 0);
    KMS_TRY(kms_tree_read(work, &change->record, 0, index, &page, err));
    struct kms_page_slot *slot = &page.slots[kms_shape_slot(change->kek.slot, 0)];
    if (!kms_tree_slot_is(slot, &change->kek))
        return kms_tree_tampered(err, change->tenant, 0, index,
                                 "its slot and the KEK's row do not belong together");
    slot->state = change->state;
    page.generation++;
    *ret_record = (struct kms_page_record){
        .tenant = page.tenant, .index = index, .body = bytes, .body_len = kms_page_encode(&page, bytes)};
    return kms_tree_mac(work, kms_slice_of(bytes, ret_record->body_len), ret_record->mac, err);
}

static enum kms_status attempt_change(struct kms_keys_work *work, void *arguments, struct kms_error *err)
{
    struct change *change = arguments;
    const struct kms_store_ops *store = work->keys->store->ops;
    KMS_CLEANUP(kms_work_unlock_writer) struct kms_mutex *writer = NULL;
    KMS_TRY(kms_work_lock_writer(work, change->tenant, &writer, err));
    KMS_TRY(read_version(work->keys, change, err));
    struct kms_page_record record;
    uint8_t bytes[KMS_PAGE_BODY_MAX];
    KMS_TRY(change_page(work, change, &record, bytes, err));
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(work->keys->store, true, &txn, err));
    KMS_TRY(store->page_put(txn.txn, &record, err));
    KMS_TRY(store->kek_set_state(txn.txn, change->kek.kek_id, change->state, err));
    return kms_txn_commit(&txn, err);
}

enum kms_status kms_keys_set_version_state(struct kms_keys *keys, const struct kms_uuid *tenant,
                                           const struct kms_uuid *customer, const char *purpose,
                                           uint32_t version, enum kms_kek_state state, struct kms_error *err)
{
    if (version == 0 || (state != KMS_KEK_ENABLED && state != KMS_KEK_DISABLED))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "a version can be enabled or disabled");
    struct change change = {
        .tenant = tenant, .customer = customer, .purpose = purpose, .version = version, .state = state};
    struct kms_keys_work *work = NULL;
    KMS_TRY(kms_keys_control_begin(keys, &work, err));
    const enum kms_status status = kms_work_run(work, attempt_change, &change, err);
    kms_keys_work_end(work);
    KMS_TRY(status);
    kms_keys_forget_key(keys, tenant, customer,
                        purpose); /* an older version may be primary now, or not be any more */
    return KMS_OK;
}

/* Which of the ids have a tombstone. */
static enum kms_status look_up(struct kms_keys *keys, const struct kms_uuid *tenant,
                               const uint8_t (*macs)[KMS_TOMBSTONE_MAC_SIZE], size_t count,
                               bool *ret_shredded, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    for (size_t i = 0; i < count; i++) {
        struct kms_tombstone_record tombstone;
        const enum kms_status status =
            keys->store->ops->rekey.tombstone_by_mac(txn.txn, tenant, macs[i], &tombstone, err);
        if (status != KMS_NOT_FOUND)
            KMS_TRY(status);
        ret_shredded[i] = status == KMS_OK;
    }
    return KMS_OK;
}

static enum kms_status has_tombstones(struct kms_keys *keys, const struct kms_uuid *tenant, bool *ret_any,
                                      struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    return keys->store->ops->rekey.tombstone_any(txn.txn, tenant, ret_any, err);
}

enum kms_status kms_keys_shredded_ids(struct kms_keys *keys, const struct kms_uuid *tenant,
                                      const char *const *customer_ids, size_t count, bool *ret_shredded,
                                      struct kms_error *err)
{
    bool any = false;
    KMS_TRY(has_tombstones(keys, tenant, &any, err));
    for (size_t i = 0; i < count; i++)
        ret_shredded[i] = false;
    if (!any || count == 0)
        return KMS_OK;
    KMS_FREE uint8_t(*macs)[KMS_TOMBSTONE_MAC_SIZE] = calloc(count, sizeof *macs);
    if (macs == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to look for tombstones");
    struct kms_keys_work *work = NULL;
    KMS_TRY(kms_keys_control_begin(keys, &work, err));
    enum kms_status status = KMS_OK;
    for (size_t i = 0; i < count && status == KMS_OK; i++)
        status = kms_plan_id_mac(work, tenant, customer_ids[i], macs[i], err);
    kms_keys_work_end(work);
    KMS_TRY(status);
    return look_up(keys, tenant, (const uint8_t(*)[KMS_TOMBSTONE_MAC_SIZE])macs, count, ret_shredded, err);
}
