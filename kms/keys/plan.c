#include "keys/plan.h"

#include "core/clock.h"

#include <stdio.h>
#include <stdlib.h>

/* While the plan is made: what grows, and the names that become MACs outside of the transaction. */
struct draft {
    struct kms_txn txn;
    struct kms_plan *plan;
    struct kms_rekey_target **targets; /* by customer, purpose and version: what covers others comes first */
    size_t target_count;
    struct kms_buf ids;                     /* KEK ids */
    struct kms_buf slots;                   /* of the same */
    char (*names)[KMS_CUSTOMER_ID_MAX + 1]; /* of the tombstones' customers */
    enum kms_status refused;                /* of the first target that is not OK */
};

static void draft_clear(struct draft *draft)
{
    kms_txn_clear(&draft->txn);
    kms_buf_clear(&draft->ids);
    kms_buf_clear(&draft->slots);
    free(draft->targets);
    free(draft->names);
}

void kms_plan_clear(struct kms_plan *plan)
{
    free(plan->kek_ids);
    free(plan->slots);
    free(plan->tombstones);
    *plan = (struct kms_plan){0};
}

/* The one failure of every allocation here. */
static enum kms_status no_memory(struct kms_error *err)
{
    return kms_fail(err, KMS_NO_MEMORY, "no memory to plan a shred");
}

/* "" is before every purpose, as 0 is before every version. */
static const char *purpose_of(const struct kms_rekey_target *target)
{
    return target->purpose != NULL ? target->purpose : "";
}

static int compare_targets(const void *left, const void *right)
{
    const struct kms_rekey_target *a = *(struct kms_rekey_target *const *)left;
    const struct kms_rekey_target *b = *(struct kms_rekey_target *const *)right;
    int order = memcmp(a->customer.bytes, b->customer.bytes, KMS_UUID_SIZE);
    if (order == 0)
        order = strcmp(purpose_of(a), purpose_of(b));
    return order != 0 ? order : (a->version > b->version) - (a->version < b->version);
}

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, KMS_KEK_ID_SIZE);
}

static int compare_slots(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left;
    const uint64_t b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* A tombstone covers what comes behind it in the order of targets. */
static bool covers(const struct kms_tombstone_record *tombstone, const struct kms_rekey_target *target)
{
    if (!kms_uuid_equal(&tombstone->customer, &target->customer))
        return false;
    if (tombstone->purpose[0] == '\0')
        return true;
    return strcmp(tombstone->purpose, purpose_of(target)) == 0 &&
           (tombstone->version == 0 || tombstone->version == target->version);
}

/* The customer's KEKs that the target means and that still live. `*ret_named` is how many it means at all. */
static enum kms_status doom_keks(struct draft *draft, const struct kms_rekey_target *target,
                                 size_t *ret_named, size_t *ret_doomed, struct kms_error *err)
{
    KMS_FREE struct kms_kek_record *keks = NULL;
    size_t count = 0;
    KMS_TRY(draft->txn.store->ops->kek_list(draft->txn.txn, &target->customer, target->purpose, 0, SIZE_MAX,
                                            &keks, &count, err));
    for (size_t i = 0; i < count; i++) {
        if (target->version != 0 && keks[i].version != target->version)
            continue;
        ++*ret_named;
        if (keks[i].state == KMS_KEK_SHREDDED)
            continue;
        if (kms_buf_append(&draft->ids, keks[i].kek_id, KMS_KEK_ID_SIZE) != KMS_OK ||
            kms_buf_append(&draft->slots, &keks[i].slot, sizeof keks[i].slot) != KMS_OK)
            return no_memory(err);
        ++*ret_doomed;
    }
    return KMS_OK;
}

/* What is said of a target whose customer is there. */
static enum kms_status plan_keys(struct draft *draft, const struct kms_rekey_target *target,
                                 enum kms_status *ret_status, struct kms_error *err)
{
    const struct kms_store_ops *store = draft->txn.store->ops;
    size_t named = 0;
    size_t doomed = 0;
    KMS_TRY(doom_keks(draft, target, &named, &doomed, err));
    *ret_status = KMS_OK;
    if (target->purpose == NULL || doomed > 0)
        return KMS_OK;
    if (named > 0) {
        *ret_status = KMS_FAILED_PRECONDITION;
        return KMS_OK;
    }
    if (target->version != 0) {
        *ret_status = KMS_NOT_FOUND;
        return KMS_OK;
    }
    struct kms_purpose_record purpose;
    struct kms_tombstone_record tombstone;
    enum kms_status status =
        store->purpose_get(draft->txn.txn, &draft->plan->tenant.uuid, target->purpose, &purpose, err);
    if (status == KMS_OK) /* a purpose that was never used can be shredded once */
        status =
            store->rekey.tombstone_for(draft->txn.txn, &target->customer, target->purpose, &tombstone, err);
    else if (status == KMS_NOT_FOUND)
        *ret_status = KMS_NOT_FOUND;
    if (status == KMS_OK)
        *ret_status = KMS_FAILED_PRECONDITION;
    return status == KMS_NOT_FOUND ? KMS_OK : status;
}

/* One target, unless another one covers it. */
static enum kms_status plan_target(struct draft *draft, struct kms_rekey_target *target,
                                   struct kms_error *err)
{
    struct kms_plan *plan = draft->plan;
    target->ret_status = KMS_OK;
    for (size_t i = plan->tombstone_count;
         i-- > 0 && kms_uuid_equal(&plan->tombstones[i].customer, &target->customer);) {
        if (covers(&plan->tombstones[i], target))
            return KMS_OK;
    }
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    const enum kms_status found =
        draft->txn.store->ops->customer_by_uuid(draft->txn.txn, &target->customer, &customer, err);
    if (found != KMS_OK && found != KMS_NOT_FOUND)
        return found;
    if (found == KMS_NOT_FOUND || !kms_uuid_equal(&customer.tenant, &plan->tenant.uuid))
        target->ret_status = KMS_NOT_FOUND;
    else
        KMS_TRY(plan_keys(draft, target, &target->ret_status, err));
    if (target->ret_status != KMS_OK) {
        draft->refused = draft->refused == KMS_OK ? target->ret_status : draft->refused;
        return KMS_OK;
    }
    memcpy(draft->names[plan->tombstone_count], customer.id, sizeof customer.id);
    struct kms_tombstone_record *tombstone = &plan->tombstones[plan->tombstone_count++];
    *tombstone = (struct kms_tombstone_record){
        .tenant = plan->tenant.uuid, .customer = target->customer, .version = target->version};
    (void)snprintf(tombstone->purpose, sizeof tombstone->purpose, "%s", purpose_of(target));
    plan->customers += target->purpose == NULL;
    return KMS_OK;
}

/* The form of the request. */
static enum kms_status check_targets(const struct kms_rekey_request *request, struct kms_error *err)
{
    if (request->target_count > KMS_REKEY_TARGETS_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "at most %d targets can be shredded in one batch",
                               KMS_REKEY_TARGETS_MAX);
    for (size_t i = 0; i < request->target_count; i++) {
        const struct kms_rekey_target *target = &request->targets[i];
        if ((target->purpose == NULL && target->version != 0) ||
            (target->purpose != NULL &&
             (target->purpose[0] == '\0' || strlen(target->purpose) > KMS_PURPOSE_ID_MAX)))
            return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                                   "target %zu: a version needs a purpose, and a purpose has 1 to %d bytes",
                                   i + 1, KMS_PURPOSE_ID_MAX);
    }
    return KMS_OK;
}

/* Everything that is read, in one snapshot. */
static enum kms_status read_all(struct kms_keys *keys, struct kms_rekey_request *request, struct draft *draft,
                                struct kms_error *err)
{
    KMS_TRY(kms_txn_begin(keys->store, false, &draft->txn, err));
    const enum kms_status found =
        keys->store->ops->tenant_by_uuid(draft->txn.txn, &request->tenant, &draft->plan->tenant, err);
    if (found == KMS_NOT_FOUND)
        return kms_fail_public(err, found, "no such tenant");
    KMS_TRY(found);
    for (size_t i = 0; i < draft->target_count; i++)
        KMS_TRY(plan_target(draft, draft->targets[i], err));
    kms_txn_clear(&draft->txn);
    if (draft->refused != KMS_OK)
        return kms_fail_public(
            err, draft->refused,
            "some targets are no customers of the tenant, or are shredded already: nothing was done");
    return KMS_OK;
}

enum kms_status kms_plan_id_mac(struct kms_keys_work *work, const struct kms_uuid *tenant,
                                const char *customer_id, uint8_t ret_mac[KMS_TOMBSTONE_MAC_SIZE],
                                struct kms_error *err)
{
    static const char tag[8] = {'K', 'M', 'S', 'T', 'O', 'M', 'B', '1'};
    uint8_t message[sizeof tag + KMS_UUID_SIZE + KMS_CUSTOMER_ID_MAX];
    const size_t len = strnlen(customer_id, KMS_CUSTOMER_ID_MAX + 1);
    if (len == 0 || len > KMS_CUSTOMER_ID_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "a customer's id has 1 to %d bytes",
                               KMS_CUSTOMER_ID_MAX);
    memcpy(message, tag, sizeof tag);
    memcpy(message + sizeof tag, tenant->bytes, KMS_UUID_SIZE);
    memcpy(message + sizeof tag + KMS_UUID_SIZE, customer_id, len);
    _Static_assert((int)KMS_TOMBSTONE_MAC_SIZE == (int)KMS_HSM_MAC_SIZE, "a tombstone's MAC is the HSM's");
    return work->keys->hsm->ops->mac(work->session, kms_slice_of(message, sizeof tag + KMS_UUID_SIZE + len),
                                     ret_mac, err);
}

/* The HSM's part, and both orders of the doomed. */
static enum kms_status complete(struct kms_keys_work *work, struct draft *draft, struct kms_error *err)
{
    struct kms_plan *plan = draft->plan;
    const int64_t now_ns = kms_clock_wall_ns();
    for (size_t i = 0; i < plan->tombstone_count; i++) {
        struct kms_tombstone_record *tombstone = &plan->tombstones[i];
        tombstone->epoch = plan->tenant.epoch;
        tombstone->created_ns = now_ns;
        KMS_TRY(kms_plan_id_mac(work, &plan->tenant.uuid, draft->names[i], tombstone->id_mac, err));
    }
    plan->kek_count = draft->slots.len / sizeof *plan->slots;
    plan->kek_ids = (void *)KMS_TAKE(draft->ids.data);
    plan->slots = (uint64_t *)(void *)KMS_TAKE(draft->slots.data);
    if (plan->kek_count > 0) {
        qsort(plan->kek_ids, plan->kek_count, KMS_KEK_ID_SIZE, compare_ids);
        qsort(plan->slots, plan->kek_count, sizeof *plan->slots, compare_slots);
    }
    return KMS_OK;
}

enum kms_status kms_plan_make(struct kms_keys_work *work, struct kms_rekey_request *request,
                              struct kms_plan *ret_plan, struct kms_error *err)
{
    KMS_TRY(check_targets(request, err));
    KMS_CLEANUP(kms_plan_clear) struct kms_plan plan = {0};
    KMS_CLEANUP(draft_clear) struct draft draft = {.plan = &plan, .target_count = request->target_count};
    const size_t room = request->target_count + 1;
    draft.targets = calloc(room, sizeof *draft.targets);
    draft.names = calloc(room, sizeof *draft.names);
    plan.tombstones = calloc(room, sizeof *plan.tombstones);
    if (draft.targets == NULL || draft.names == NULL || plan.tombstones == NULL)
        return no_memory(err);
    for (size_t i = 0; i < request->target_count; i++)
        draft.targets[i] = &request->targets[i];
    qsort(draft.targets, draft.target_count, sizeof *draft.targets, compare_targets);
    KMS_TRY(read_all(work->keys, request, &draft, err));
    KMS_TRY(complete(work, &draft, err));
    *ret_plan = plan;
    plan = (struct kms_plan){0};
    return KMS_OK;
}

enum kms_status kms_plan_write(const struct kms_plan *plan, struct kms_store *store,
                               struct kms_store_txn *txn, const struct kms_batch_record *batch,
                               struct kms_error *err)
{
    for (size_t i = 0; i < plan->kek_count; i++)
        KMS_TRY(store->ops->rekey.kek_shred(txn, plan->kek_ids[i], err));
    for (size_t i = 0; i < plan->tombstone_count; i++) {
        struct kms_tombstone_record tombstone = plan->tombstones[i];
        tombstone.batch = batch->uuid;
        KMS_TRY(store->ops->rekey.tombstone_put(txn, &tombstone, err));
        if (tombstone.purpose[0] == '\0')
            KMS_TRY(store->ops->rekey.customer_remove(txn, &tombstone.customer, err));
    }
    return KMS_OK;
}
