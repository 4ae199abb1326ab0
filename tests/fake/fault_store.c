#include "fake/fault_store.h"

#include "fake/fake_hsm.h"

#include <stdatomic.h>
#include <stdlib.h>

struct fault_store {
    struct kms_store base;
    struct kms_store *inner;
    atomic_uint fail_in;
    enum kms_status fail_with;
    void (*edit)(struct kms_kek_record *kek, void *context);
    void *edit_context;
    struct kms_hsm *dies_with; /* NULL: lives for ever */
    atomic_uint die_in;
    void (*before_read)(void *context);
    void *before_read_context;
};

struct kms_store_txn {
    struct fault_store *store;
    struct kms_store_txn *inner;
};

static struct fault_store *fault_of(struct kms_store *store)
{
    return (struct fault_store *)store;
}

/* Whether the process died before this call, or does in it. */
static bool is_dead(struct fault_store *store)
{
    if (store->dies_with == NULL)
        return false;
    if (atomic_load(&store->die_in) > 0 && atomic_fetch_sub(&store->die_in, 1) == 1)
        kms_fake_hsm_die(store->dies_with);
    return kms_fake_hsm_is_dead(store->dies_with);
}

/* Count one call; true when it is the one that fails. */
static bool breaks(struct fault_store *store)
{
    if (is_dead(store)) {
        store->fail_with = KMS_STORE_UNAVAILABLE;
        return true;
    }
    unsigned left = atomic_load(&store->fail_in);
    while (left > 0 && !atomic_compare_exchange_weak(&store->fail_in, &left, left - 1))
        ;
    return left == 1;
}

#define FAULT_CHECK(store_, err_)                                                                            \
    do {                                                                                                     \
        if (breaks(store_))                                                                                  \
            return kms_fail(err_, (store_)->fail_with, "ordered failure of the store");                      \
    } while (0)

/* A function of the vtable that only passes its arguments on. */
#define FAULT_PASS(name, parameters, arguments)                                                              \
    static enum kms_status fault_##name parameters                                                           \
    {                                                                                                        \
        FAULT_CHECK(txn->store, err);                                                                        \
        return txn->store->inner->ops->name arguments;                                                       \
    }

static void fault_free(struct kms_store *store)
{
    kms_store_free(fault_of(store)->inner);
    free(store);
}

static enum kms_status fault_begin(struct kms_store *store, bool write, struct kms_store_txn **ret_txn,
                                   struct kms_error *err)
{
    struct fault_store *fault = fault_of(store);
    if (!write && fault->before_read != NULL)
        fault->before_read(fault->before_read_context);
    FAULT_CHECK(fault, err);
    struct kms_store_txn *inner = NULL;
    KMS_TRY(fault->inner->ops->begin(fault->inner, write, &inner, err));
    struct kms_store_txn *txn = calloc(1, sizeof *txn);
    KMS_ASSERT(txn != NULL);
    txn->store = fault;
    txn->inner = inner;
    *ret_txn = txn;
    return KMS_OK;
}

static void fault_rollback(struct kms_store_txn *txn)
{
    if (txn == NULL)
        return;
    txn->store->inner->ops->rollback(txn->inner);
    free(txn);
}

static enum kms_status fault_commit(struct kms_store_txn *txn, struct kms_error *err)
{
    struct fault_store *fault = txn->store;
    if (breaks(fault)) {
        fault_rollback(txn);
        return kms_fail(err, fault->fail_with, "ordered failure of the store");
    }
    enum kms_status status = fault->inner->ops->commit(txn->inner, err);
    free(txn);
    if (is_dead(fault)) /* committed, but nobody learns of it */
        status = kms_fail(err, KMS_STORE_UNAVAILABLE, "the process died in a commit");
    return status;
}

FAULT_PASS(tenant_insert,
           (struct kms_store_txn * txn, const struct kms_tenant_record *tenant, struct kms_error *err),
           (txn->inner, tenant, err))
FAULT_PASS(tenant_update,
           (struct kms_store_txn * txn, const struct kms_tenant_record *tenant, struct kms_error *err),
           (txn->inner, tenant, err))
FAULT_PASS(tenant_by_id,
           (struct kms_store_txn * txn, const char *id, struct kms_tenant_record *ret, struct kms_error *err),
           (txn->inner, id, ret, err))
FAULT_PASS(tenant_by_uuid,
           (struct kms_store_txn * txn, const struct kms_uuid *uuid, struct kms_tenant_record *ret,
            struct kms_error *err),
           (txn->inner, uuid, ret, err))
FAULT_PASS(tenant_list,
           (struct kms_store_txn * txn, const char *after, size_t limit, struct kms_tenant_record **ret_list,
            size_t *ret_count, struct kms_error *err),
           (txn->inner, after, limit, ret_list, ret_count, err))
FAULT_PASS(purpose_insert,
           (struct kms_store_txn * txn, const struct kms_purpose_record *purpose, struct kms_error *err),
           (txn->inner, purpose, err))
FAULT_PASS(purpose_update,
           (struct kms_store_txn * txn, const struct kms_purpose_record *purpose, struct kms_error *err),
           (txn->inner, purpose, err))
FAULT_PASS(purpose_get,
           (struct kms_store_txn * txn, const struct kms_uuid *tenant, const char *id,
            struct kms_purpose_record *ret, struct kms_error *err),
           (txn->inner, tenant, id, ret, err))
FAULT_PASS(purpose_list,
           (struct kms_store_txn * txn, const struct kms_uuid *tenant, const char *after, size_t limit,
            struct kms_purpose_record **ret_list, size_t *ret_count, struct kms_error *err),
           (txn->inner, tenant, after, limit, ret_list, ret_count, err))
FAULT_PASS(customer_insert,
           (struct kms_store_txn * txn, const struct kms_customer_record *customer, struct kms_error *err),
           (txn->inner, customer, err))
FAULT_PASS(customer_update,
           (struct kms_store_txn * txn, const struct kms_customer_record *customer, struct kms_error *err),
           (txn->inner, customer, err))
FAULT_PASS(customer_by_id,
           (struct kms_store_txn * txn, const struct kms_uuid *tenant, const char *id,
            struct kms_customer_record *ret, struct kms_error *err),
           (txn->inner, tenant, id, ret, err))
FAULT_PASS(customer_by_uuid,
           (struct kms_store_txn * txn, const struct kms_uuid *uuid, struct kms_customer_record *ret,
            struct kms_error *err),
           (txn->inner, uuid, ret, err))
FAULT_PASS(customer_list,
           (struct kms_store_txn * txn, const struct kms_uuid *tenant,
            const struct kms_customer_filter *filter, const char *after, size_t limit,
            kms_customer_visit visit, void *context, struct kms_error *err),
           (txn->inner, tenant, filter, after, limit, visit, context, err))
FAULT_PASS(kek_insert, (struct kms_store_txn * txn, const struct kms_kek_record *kek, struct kms_error *err),
           (txn->inner, kek, err))
FAULT_PASS(kek_set_state,
           (struct kms_store_txn * txn, const uint8_t kek_id[KMS_KEK_ID_SIZE], enum kms_kek_state state,
            struct kms_error *err),
           (txn->inner, kek_id, state, err))
FAULT_PASS(kek_reserve,
           (struct kms_store_txn * txn, const uint8_t kek_id[KMS_KEK_ID_SIZE], uint64_t count,
            uint64_t *ret_first, struct kms_error *err),
           (txn->inner, kek_id, count, ret_first, err))
FAULT_PASS(kek_list,
           (struct kms_store_txn * txn, const struct kms_uuid *customer, const char *purpose, uint32_t after,
            size_t limit, struct kms_kek_record **ret_list, size_t *ret_count, struct kms_error *err),
           (txn->inner, customer, purpose, after, limit, ret_list, ret_count, err))
FAULT_PASS(page_get,
           (struct kms_store_txn * txn, const struct kms_uuid *tenant, uint32_t level, uint64_t index,
            struct kms_page_record *ret, struct kms_error *err),
           (txn->inner, tenant, level, index, ret, err))
FAULT_PASS(page_put, (struct kms_store_txn * txn, const struct kms_page_record *page, struct kms_error *err),
           (txn->inner, page, err))
FAULT_PASS(request_get,
           (struct kms_store_txn * txn, const char *request_id, const char *identity,
            struct kms_request_record *ret, struct kms_error *err),
           (txn->inner, request_id, identity, ret, err))
FAULT_PASS(request_put,
           (struct kms_store_txn * txn, const struct kms_request_record *request, struct kms_error *err),
           (txn->inner, request, err))

/* The same for the function of a topic. */
#define FAULT_PASS_IN(topic, name, parameters, arguments)                                                    \
    static enum kms_status fault_##topic##_##name parameters                                                 \
    {                                                                                                        \
        FAULT_CHECK(txn->store, err);                                                                        \
        return txn->store->inner->ops->topic.name arguments;                                                 \
    }

FAULT_PASS_IN(operation, insert,
              (struct kms_store_txn * txn, const struct kms_operation_record *operation,
               struct kms_error *err),
              (txn->inner, operation, err))
FAULT_PASS_IN(operation, update,
              (struct kms_store_txn * txn, const struct kms_operation_record *operation,
               enum kms_operation_state expected, struct kms_error *err),
              (txn->inner, operation, expected, err))
FAULT_PASS_IN(operation, get,
              (struct kms_store_txn * txn, const struct kms_uuid *uuid, struct kms_operation_record *ret,
               struct kms_error *err),
              (txn->inner, uuid, ret, err))
FAULT_PASS_IN(operation, list,
              (struct kms_store_txn * txn, const struct kms_operation_filter *filter,
               const struct kms_operation_place *after, size_t limit, kms_operation_visit visit,
               void *context, struct kms_error *err),
              (txn->inner, filter, after, limit, visit, context, err))
FAULT_PASS_IN(operation, expired,
              (struct kms_store_txn * txn, int64_t now_ns, size_t limit, kms_operation_visit visit,
               void *context, struct kms_error *err),
              (txn->inner, now_ns, limit, visit, context, err))
FAULT_PASS_IN(operation, old,
              (struct kms_store_txn * txn, int64_t before_ns, size_t limit, kms_operation_visit visit,
               void *context, struct kms_error *err),
              (txn->inner, before_ns, limit, visit, context, err))
FAULT_PASS_IN(operation, next,
              (struct kms_store_txn * txn, int64_t now_ns, struct kms_operation_record *ret,
               struct kms_error *err),
              (txn->inner, now_ns, ret, err))
FAULT_PASS_IN(operation, count_open, (struct kms_store_txn * txn, uint64_t *ret_count, struct kms_error *err),
              (txn->inner, ret_count, err))
FAULT_PASS_IN(operation, remove,
              (struct kms_store_txn * txn, const struct kms_uuid *uuid, struct kms_error *err),
              (txn->inner, uuid, err))
FAULT_PASS_IN(operation, approve,
              (struct kms_store_txn * txn, const struct kms_approval_record *approval, struct kms_error *err),
              (txn->inner, approval, err))
FAULT_PASS_IN(operation, approvals,
              (struct kms_store_txn * txn, const struct kms_uuid *operation,
               struct kms_approval_record **ret_list, size_t *ret_count, struct kms_error *err),
              (txn->inner, operation, ret_list, ret_count, err))
/* The same for the functions of a topic. */
#define FAULT_PASS_SHRED(name, parameters, arguments)                                                        \
    static enum kms_status fault_shred_##name parameters                                                     \
    {                                                                                                        \
        FAULT_CHECK(txn->store, err);                                                                        \
        return txn->store->inner->ops->shred.name arguments;                                                 \
    }
FAULT_PASS_SHRED(job_put,
                 (struct kms_store_txn * txn, const struct kms_shred_job_record *job, struct kms_error *err),
                 (txn->inner, job, err))
FAULT_PASS_SHRED(job_get,
                 (struct kms_store_txn * txn, const struct kms_uuid *uid,
                  struct kms_shred_job_record *ret_job, struct kms_error *err),
                 (txn->inner, uid, ret_job, err))
FAULT_PASS_SHRED(job_list,
                 (struct kms_store_txn * txn, const struct kms_uuid *tenant, enum kms_shred_job_state state,
                  const struct kms_uuid *after, size_t limit, kms_shred_job_visit visit, void *context,
                  struct kms_error *err),
                 (txn->inner, tenant, state, after, limit, visit, context, err))
FAULT_PASS_SHRED(target_put,
                 (struct kms_store_txn * txn, const struct kms_shred_target_record *target,
                  struct kms_error *err),
                 (txn->inner, target, err))
FAULT_PASS_SHRED(target_get,
                 (struct kms_store_txn * txn, const struct kms_uuid *job, const struct kms_uuid *customer,
                  struct kms_shred_target_record *ret_target, struct kms_error *err),
                 (txn->inner, job, customer, ret_target, err))
FAULT_PASS_SHRED(target_list,
                 (struct kms_store_txn * txn, const struct kms_shred_target_filter *filter,
                  const struct kms_uuid *after, size_t limit, kms_shred_target_visit visit, void *context,
                  struct kms_error *err),
                 (txn->inner, filter, after, limit, visit, context, err))
FAULT_PASS_SHRED(target_count,
                 (struct kms_store_txn * txn, const struct kms_uuid *job,
                  uint64_t ret_counts[KMS_SHRED_TARGET_STATES], struct kms_error *err),
                 (txn->inner, job, ret_counts, err))
FAULT_PASS_SHRED(hold_put,
                 (struct kms_store_txn * txn, const struct kms_hold_record *hold, struct kms_error *err),
                 (txn->inner, hold, err))
FAULT_PASS_SHRED(hold_get,
                 (struct kms_store_txn * txn, const struct kms_uuid *uid, struct kms_hold_record *ret_hold,
                  struct kms_error *err),
                 (txn->inner, uid, ret_hold, err))
FAULT_PASS_SHRED(hold_on,
                 (struct kms_store_txn * txn, const struct kms_uuid *customer,
                  struct kms_hold_record *ret_hold, struct kms_error *err),
                 (txn->inner, customer, ret_hold, err))
FAULT_PASS_SHRED(hold_list,
                 (struct kms_store_txn * txn, const struct kms_uuid *tenant, const struct kms_uuid *customer,
                  bool released, const struct kms_uuid *after, size_t limit, kms_hold_visit visit,
                  void *context, struct kms_error *err),
                 (txn->inner, tenant, customer, released, after, limit, visit, context, err))
FAULT_PASS_SHRED(certificate_insert,
                 (struct kms_store_txn * txn, const struct kms_certificate_record *certificate,
                  struct kms_error *err),
                 (txn->inner, certificate, err))
FAULT_PASS_SHRED(certificate_get,
                 (struct kms_store_txn * txn, const struct kms_uuid *uid_or_batch,
                  struct kms_certificate_record *ret_certificate, struct kms_error *err),
                 (txn->inner, uid_or_batch, ret_certificate, err))
FAULT_PASS_SHRED(certificate_list,
                 (struct kms_store_txn * txn, const struct kms_uuid *tenant, const struct kms_uuid *after,
                  size_t limit, kms_certificate_visit visit, void *context, struct kms_error *err),
                 (txn->inner, tenant, after, limit, visit, context, err))
FAULT_PASS_SHRED(setting_put,
                 (struct kms_store_txn * txn, const struct kms_shred_setting_record *setting,
                  struct kms_error *err),
                 (txn->inner, setting, err))
FAULT_PASS_SHRED(setting_get,
                 (struct kms_store_txn * txn, const struct kms_uuid *tenant,
                  struct kms_shred_setting_record *ret_setting, struct kms_error *err),
                 (txn->inner, tenant, ret_setting, err))
FAULT_PASS_SHRED(retention_put,
                 (struct kms_store_txn * txn, const struct kms_retention_record *retention,
                  struct kms_error *err),
                 (txn->inner, retention, err))
FAULT_PASS_SHRED(retention_list,
                 (struct kms_store_txn * txn, const struct kms_uuid *customer, int64_t due_until_ns,
                  size_t limit, kms_retention_visit visit, void *context, struct kms_error *err),
                 (txn->inner, customer, due_until_ns, limit, visit, context, err))
FAULT_PASS_SHRED(clock_put,
                 (struct kms_store_txn * txn, const struct kms_shred_clock_record *clock,
                  struct kms_error *err),
                 (txn->inner, clock, err))
FAULT_PASS_SHRED(clock_get,
                 (struct kms_store_txn * txn, struct kms_shred_clock_record *ret_clock,
                  struct kms_error *err),
                 (txn->inner, ret_clock, err))
FAULT_PASS_IN(rekey, batch_insert,
              (struct kms_store_txn * txn, const struct kms_batch_record *batch, struct kms_error *err),
              (txn->inner, batch, err))
FAULT_PASS_IN(rekey, batch_update,
              (struct kms_store_txn * txn, const struct kms_batch_record *batch, struct kms_error *err),
              (txn->inner, batch, err))
FAULT_PASS_IN(rekey, batch_get,
              (struct kms_store_txn * txn, const struct kms_uuid *uuid, struct kms_batch_record *ret_batch,
               struct kms_error *err),
              (txn->inner, uuid, ret_batch, err))
FAULT_PASS_IN(rekey, batch_unfinished,
              (struct kms_store_txn * txn, const struct kms_uuid *tenant, struct kms_batch_record *ret_batch,
               struct kms_error *err),
              (txn->inner, tenant, ret_batch, err))
FAULT_PASS_IN(rekey, batch_list,
              (struct kms_store_txn * txn, const struct kms_uuid *tenant, uint64_t after_epoch, size_t limit,
               kms_batch_visit visit, void *context, struct kms_error *err),
              (txn->inner, tenant, after_epoch, limit, visit, context, err))
FAULT_PASS_IN(rekey, tombstone_put,
              (struct kms_store_txn * txn, const struct kms_tombstone_record *tombstone,
               struct kms_error *err),
              (txn->inner, tombstone, err))
FAULT_PASS_IN(rekey, tombstone_by_mac,
              (struct kms_store_txn * txn, const struct kms_uuid *tenant,
               const uint8_t id_mac[KMS_TOMBSTONE_MAC_SIZE], struct kms_tombstone_record *ret_tombstone,
               struct kms_error *err),
              (txn->inner, tenant, id_mac, ret_tombstone, err))
FAULT_PASS_IN(rekey, tombstone_for,
              (struct kms_store_txn * txn, const struct kms_uuid *customer, const char *purpose,
               struct kms_tombstone_record *ret_tombstone, struct kms_error *err),
              (txn->inner, customer, purpose, ret_tombstone, err))
FAULT_PASS_IN(rekey, tombstone_list,
              (struct kms_store_txn * txn, const struct kms_uuid *batch, kms_tombstone_visit visit,
               void *context, struct kms_error *err),
              (txn->inner, batch, visit, context, err))
FAULT_PASS_IN(rekey, tombstone_any,
              (struct kms_store_txn * txn, const struct kms_uuid *tenant, bool *ret_any,
               struct kms_error *err),
              (txn->inner, tenant, ret_any, err))
FAULT_PASS_IN(rekey, free_slots,
              (struct kms_store_txn * txn, const struct kms_uuid *tenant, size_t limit, uint64_t **ret_slots,
               size_t *ret_count, struct kms_error *err),
              (txn->inner, tenant, limit, ret_slots, ret_count, err))
FAULT_PASS_IN(rekey, free_slot_put,
              (struct kms_store_txn * txn, const struct kms_uuid *tenant, uint64_t slot,
               struct kms_error *err),
              (txn->inner, tenant, slot, err))
FAULT_PASS_IN(rekey, free_slot_take,
              (struct kms_store_txn * txn, const struct kms_uuid *tenant, uint64_t slot,
               struct kms_error *err),
              (txn->inner, tenant, slot, err))
FAULT_PASS_IN(rekey, kek_shred, (struct kms_store_txn * txn, const uint8_t kek_id[16], struct kms_error *err),
              (txn->inner, kek_id, err))
FAULT_PASS_IN(rekey, customer_remove,
              (struct kms_store_txn * txn, const struct kms_uuid *customer, struct kms_error *err),
              (txn->inner, customer, err))
FAULT_PASS_IN(rekey, keks_in_slots,
              (struct kms_store_txn * txn, const struct kms_uuid *tenant, uint64_t first, uint64_t count,
               struct kms_kek_record **ret_list, size_t *ret_count, struct kms_error *err),
              (txn->inner, tenant, first, count, ret_list, ret_count, err))
FAULT_PASS_IN(rekey, keks_due,
              (struct kms_store_txn * txn, const struct kms_uuid *tenant, const char *purpose,
               int64_t created_before_ns, uint64_t after, uint64_t scan, size_t limit,
               struct kms_kek_record **ret_list, size_t *ret_count, uint64_t *ret_next,
               struct kms_error *err),
              (txn->inner, tenant, purpose, created_before_ns, after, scan, limit, ret_list, ret_count,
               ret_next, err))
FAULT_PASS_IN(rekey, kek_add_rewrapped,
              (struct kms_store_txn * txn, const uint8_t kek_id[16], uint64_t count, struct kms_error *err),
              (txn->inner, kek_id, count, err))

FAULT_PASS_IN(policy, insert,
              (struct kms_store_txn * txn, const struct kms_policy_record *policy, struct kms_error *err),
              (txn->inner, policy, err))
FAULT_PASS_IN(policy, get,
              (struct kms_store_txn * txn, uint64_t version, struct kms_policy_record *ret,
               struct kms_error *err),
              (txn->inner, version, ret, err))
FAULT_PASS_IN(policy, list,
              (struct kms_store_txn * txn, uint64_t before, size_t limit, kms_policy_visit visit,
               void *context, struct kms_error *err),
              (txn->inner, before, limit, visit, context, err))
FAULT_PASS_IN(freeze, insert,
              (struct kms_store_txn * txn, const struct kms_freeze_record *freeze, struct kms_error *err),
              (txn->inner, freeze, err))
FAULT_PASS_IN(freeze, remove,
              (struct kms_store_txn * txn, enum kms_freeze_scope scope, const char *tenant, const char *name,
               struct kms_error *err),
              (txn->inner, scope, tenant, name, err))
FAULT_PASS_IN(freeze, list,
              (struct kms_store_txn * txn, const struct kms_freeze_record *after, size_t limit,
               kms_freeze_visit visit, void *context, struct kms_error *err),
              (txn->inner, after, limit, visit, context, err))

static enum kms_status fault_kek_by_id(struct kms_store_txn *txn, const uint8_t kek_id[KMS_KEK_ID_SIZE],
                                       struct kms_kek_record *ret_kek, struct kms_error *err)
{
    FAULT_CHECK(txn->store, err);
    KMS_TRY(txn->store->inner->ops->kek_by_id(txn->inner, kek_id, ret_kek, err));
    if (txn->store->edit != NULL)
        txn->store->edit(ret_kek, txn->store->edit_context);
    return KMS_OK;
}

static enum kms_status fault_kek_primary(struct kms_store_txn *txn, const struct kms_uuid *customer,
                                         const char *purpose, struct kms_kek_record *ret_kek,
                                         struct kms_error *err)
{
    FAULT_CHECK(txn->store, err);
    KMS_TRY(txn->store->inner->ops->kek_primary(txn->inner, customer, purpose, ret_kek, err));
    if (txn->store->edit != NULL)
        txn->store->edit(ret_kek, txn->store->edit_context);
    return KMS_OK;
}

/* The change log has no failures of its own to inject: what matters is that its numbers are the inner store's. */
static uint64_t fault_changes_committed(struct kms_store *store)
{
    return fault_of(store)->inner->ops->changes.committed(fault_of(store)->inner);
}

static uint64_t fault_changes_take_mine(struct kms_store *store)
{
    return fault_of(store)->inner->ops->changes.take_mine(fault_of(store)->inner);
}

static enum kms_status fault_changes_prune(struct kms_store_txn *txn, uint64_t up_to, size_t limit,
                                           size_t *ret_removed, struct kms_error *err)
{
    FAULT_CHECK(txn->store, err);
    return txn->store->inner->ops->changes.prune(txn->inner, up_to, limit, ret_removed, err);
}

static const struct kms_store_ops fault_ops = {
    .free = fault_free,
    .begin = fault_begin,
    .commit = fault_commit,
    .rollback = fault_rollback,
    .tenant_insert = fault_tenant_insert,
    .tenant_update = fault_tenant_update,
    .tenant_by_id = fault_tenant_by_id,
    .tenant_by_uuid = fault_tenant_by_uuid,
    .tenant_list = fault_tenant_list,
    .purpose_insert = fault_purpose_insert,
    .purpose_update = fault_purpose_update,
    .purpose_get = fault_purpose_get,
    .purpose_list = fault_purpose_list,
    .customer_insert = fault_customer_insert,
    .customer_update = fault_customer_update,
    .customer_by_id = fault_customer_by_id,
    .customer_by_uuid = fault_customer_by_uuid,
    .customer_list = fault_customer_list,
    .kek_insert = fault_kek_insert,
    .kek_set_state = fault_kek_set_state,
    .kek_reserve = fault_kek_reserve,
    .kek_by_id = fault_kek_by_id,
    .kek_primary = fault_kek_primary,
    .kek_list = fault_kek_list,
    .page_get = fault_page_get,
    .page_put = fault_page_put,
    .request_get = fault_request_get,
    .request_put = fault_request_put,
    .changes =
        {
            .committed = fault_changes_committed,
            .take_mine = fault_changes_take_mine,
            .prune = fault_changes_prune,
        },
    .operation =
        {
            .insert = fault_operation_insert,
            .update = fault_operation_update,
            .get = fault_operation_get,
            .list = fault_operation_list,
            .expired = fault_operation_expired,
            .old = fault_operation_old,
            .next = fault_operation_next,
            .count_open = fault_operation_count_open,
            .remove = fault_operation_remove,
            .approve = fault_operation_approve,
            .approvals = fault_operation_approvals,
        },
    .policy =
        {
            .insert = fault_policy_insert,
            .get = fault_policy_get,
            .list = fault_policy_list,
        },
    .freeze =
        {
            .insert = fault_freeze_insert,
            .remove = fault_freeze_remove,
            .list = fault_freeze_list,
        },
    .shred =
        {
            .job_put = fault_shred_job_put,
            .job_get = fault_shred_job_get,
            .job_list = fault_shred_job_list,
            .target_put = fault_shred_target_put,
            .target_get = fault_shred_target_get,
            .target_list = fault_shred_target_list,
            .target_count = fault_shred_target_count,
            .hold_put = fault_shred_hold_put,
            .hold_get = fault_shred_hold_get,
            .hold_on = fault_shred_hold_on,
            .hold_list = fault_shred_hold_list,
            .certificate_insert = fault_shred_certificate_insert,
            .certificate_get = fault_shred_certificate_get,
            .certificate_list = fault_shred_certificate_list,
            .setting_put = fault_shred_setting_put,
            .setting_get = fault_shred_setting_get,
            .retention_put = fault_shred_retention_put,
            .retention_list = fault_shred_retention_list,
            .clock_put = fault_shred_clock_put,
            .clock_get = fault_shred_clock_get,
        },
    .rekey =
        {
            .batch_insert = fault_rekey_batch_insert,
            .batch_update = fault_rekey_batch_update,
            .batch_get = fault_rekey_batch_get,
            .batch_unfinished = fault_rekey_batch_unfinished,
            .batch_list = fault_rekey_batch_list,
            .tombstone_put = fault_rekey_tombstone_put,
            .tombstone_by_mac = fault_rekey_tombstone_by_mac,
            .tombstone_for = fault_rekey_tombstone_for,
            .tombstone_list = fault_rekey_tombstone_list,
            .tombstone_any = fault_rekey_tombstone_any,
            .free_slots = fault_rekey_free_slots,
            .free_slot_put = fault_rekey_free_slot_put,
            .free_slot_take = fault_rekey_free_slot_take,
            .kek_shred = fault_rekey_kek_shred,
            .customer_remove = fault_rekey_customer_remove,
            .keks_in_slots = fault_rekey_keks_in_slots,
            .keks_due = fault_rekey_keks_due,
            .kek_add_rewrapped = fault_rekey_kek_add_rewrapped,
        },
};

struct kms_store *kms_fault_store_new(struct kms_store *inner)
{
    struct fault_store *fault = calloc(1, sizeof *fault);
    KMS_ASSERT(fault != NULL);
    fault->base.ops = &fault_ops;
    fault->inner = inner;
    return &fault->base;
}

void kms_fault_store_fail_after(struct kms_store *store, unsigned n, enum kms_status status)
{
    fault_of(store)->fail_with = status;
    atomic_store(&fault_of(store)->fail_in, n);
}

bool kms_fault_store_failure_is_pending(const struct kms_store *store)
{
    return atomic_load(&((const struct fault_store *)store)->fail_in) > 0;
}

void kms_fault_store_die_with(struct kms_store *store, struct kms_hsm *fake, unsigned n)
{
    fault_of(store)->dies_with = fake;
    atomic_store(&fault_of(store)->die_in, n);
}

void kms_fault_store_edit_keks(struct kms_store *store,
                               void (*edit)(struct kms_kek_record *kek, void *context), void *context)
{
    fault_of(store)->edit = edit;
    fault_of(store)->edit_context = context;
}

void kms_fault_store_before_read(struct kms_store *store, void (*hook)(void *context), void *context)
{
    fault_of(store)->before_read = hook;
    fault_of(store)->before_read_context = context;
}
