/* The functions of the topics of a store, which fail on command. */
#include "fake/fault_state.h"

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
              (struct kms_store_txn * txn, int64_t now_ns, const char *kinds, bool among,
               struct kms_operation_record *ret_operation, struct kms_error *err),
              (txn->inner, now_ns, kinds, among, ret_operation, err))
FAULT_PASS_IN(operation, count_open,
              (struct kms_store_txn * txn, const char *requester, uint64_t *ret_count,
               uint64_t *ret_of_requester, struct kms_error *err),
              (txn->inner, requester, ret_count, ret_of_requester, err))
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

FAULT_PASS_IN(shred, job_put,
              (struct kms_store_txn * txn, const struct kms_shred_job_record *job, struct kms_error *err),
              (txn->inner, job, err))
FAULT_PASS_IN(shred, job_get,
              (struct kms_store_txn * txn, const struct kms_uuid *uid, struct kms_shred_job_record *ret_job,
               struct kms_error *err),
              (txn->inner, uid, ret_job, err))
FAULT_PASS_IN(shred, job_list,
              (struct kms_store_txn * txn, const struct kms_uuid *tenant, enum kms_shred_job_state state,
               const struct kms_uuid *after, size_t limit, kms_shred_job_visit visit, void *context,
               struct kms_error *err),
              (txn->inner, tenant, state, after, limit, visit, context, err))
FAULT_PASS_IN(shred, target_put,
              (struct kms_store_txn * txn, const struct kms_shred_target_record *target,
               struct kms_error *err),
              (txn->inner, target, err))
FAULT_PASS_IN(shred, target_get,
              (struct kms_store_txn * txn, const struct kms_uuid *job, const struct kms_uuid *customer,
               struct kms_shred_target_record *ret_target, struct kms_error *err),
              (txn->inner, job, customer, ret_target, err))
FAULT_PASS_IN(shred, target_list,
              (struct kms_store_txn * txn, const struct kms_shred_target_filter *filter,
               const struct kms_uuid *after, size_t limit, kms_shred_target_visit visit, void *context,
               struct kms_error *err),
              (txn->inner, filter, after, limit, visit, context, err))
FAULT_PASS_IN(shred, target_count,
              (struct kms_store_txn * txn, const struct kms_uuid *job,
               uint64_t ret_counts[KMS_SHRED_TARGET_STATES], struct kms_error *err),
              (txn->inner, job, ret_counts, err))
FAULT_PASS_IN(shred, hold_put,
              (struct kms_store_txn * txn, const struct kms_hold_record *hold, struct kms_error *err),
              (txn->inner, hold, err))
FAULT_PASS_IN(shred, hold_get,
              (struct kms_store_txn * txn, const struct kms_uuid *uid, struct kms_hold_record *ret_hold,
               struct kms_error *err),
              (txn->inner, uid, ret_hold, err))
FAULT_PASS_IN(shred, hold_on,
              (struct kms_store_txn * txn, const struct kms_uuid *customer, struct kms_hold_record *ret_hold,
               struct kms_error *err),
              (txn->inner, customer, ret_hold, err))
FAULT_PASS_IN(shred, hold_list,
              (struct kms_store_txn * txn, const struct kms_uuid *tenant, const struct kms_uuid *customer,
               bool released, const struct kms_uuid *after, size_t limit, kms_hold_visit visit, void *context,
               struct kms_error *err),
              (txn->inner, tenant, customer, released, after, limit, visit, context, err))
FAULT_PASS_IN(shred, certificate_insert,
              (struct kms_store_txn * txn, const struct kms_certificate_record *certificate,
               struct kms_error *err),
              (txn->inner, certificate, err))
FAULT_PASS_IN(shred, certificate_get,
              (struct kms_store_txn * txn, const struct kms_uuid *uid_or_batch,
               struct kms_certificate_record *ret_certificate, struct kms_error *err),
              (txn->inner, uid_or_batch, ret_certificate, err))
FAULT_PASS_IN(shred, certificate_list,
              (struct kms_store_txn * txn, const struct kms_uuid *tenant, const struct kms_uuid *after,
               size_t limit, kms_certificate_visit visit, void *context, struct kms_error *err),
              (txn->inner, tenant, after, limit, visit, context, err))
FAULT_PASS_IN(shred, setting_put,
              (struct kms_store_txn * txn, const struct kms_shred_setting_record *setting,
               struct kms_error *err),
              (txn->inner, setting, err))
FAULT_PASS_IN(shred, setting_get,
              (struct kms_store_txn * txn, const struct kms_uuid *tenant,
               struct kms_shred_setting_record *ret_setting, struct kms_error *err),
              (txn->inner, tenant, ret_setting, err))
FAULT_PASS_IN(shred, retention_put,
              (struct kms_store_txn * txn, const struct kms_retention_record *retention,
               struct kms_error *err),
              (txn->inner, retention, err))
FAULT_PASS_IN(shred, retention_list,
              (struct kms_store_txn * txn, const struct kms_uuid *customer, int64_t due_until_ns,
               size_t limit, kms_retention_visit visit, void *context, struct kms_error *err),
              (txn->inner, customer, due_until_ns, limit, visit, context, err))
FAULT_PASS_IN(shred, clock_put,
              (struct kms_store_txn * txn, const struct kms_shred_clock_record *clock, struct kms_error *err),
              (txn->inner, clock, err))
FAULT_PASS_IN(shred, clock_get,
              (struct kms_store_txn * txn, struct kms_shred_clock_record *ret_clock, struct kms_error *err),
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

FAULT_PASS_IN(recovery, key_put,
              (struct kms_store_txn * txn, const struct kms_recovery_key_record *key, struct kms_error *err),
              (txn->inner, key, err))
FAULT_PASS_IN(recovery, key_get,
              (struct kms_store_txn * txn, const char *fingerprint, struct kms_recovery_key_record *ret,
               struct kms_error *err),
              (txn->inner, fingerprint, ret, err))
FAULT_PASS_IN(recovery, key_list,
              (struct kms_store_txn * txn, kms_recovery_key_visit visit, void *context,
               struct kms_error *err),
              (txn->inner, visit, context, err))
FAULT_PASS_IN(recovery, cover_put,
              (struct kms_store_txn * txn, const struct kms_recovery_cover_record *cover,
               struct kms_error *err),
              (txn->inner, cover, err))
FAULT_PASS_IN(recovery, cover_get,
              (struct kms_store_txn * txn, uint64_t recovery_epoch, const struct kms_uuid *tenant,
               uint64_t *ret, struct kms_error *err),
              (txn->inner, recovery_epoch, tenant, ret, err))

void kms_fault_store_set_topics(struct kms_store_ops *ops)
{
    ops->operation = (struct kms_store_operation_ops){
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
    };
    ops->policy = (struct kms_store_policy_ops){
        .insert = fault_policy_insert,
        .get = fault_policy_get,
        .list = fault_policy_list,
    };
    ops->freeze = (struct kms_store_freeze_ops){
        .insert = fault_freeze_insert,
        .remove = fault_freeze_remove,
        .list = fault_freeze_list,
    };
    ops->recovery = (struct kms_store_recovery_ops){
        .key_put = fault_recovery_key_put,
        .key_get = fault_recovery_key_get,
        .key_list = fault_recovery_key_list,
        .cover_put = fault_recovery_cover_put,
        .cover_get = fault_recovery_cover_get,
    };
    ops->shred = (struct kms_store_shred_ops){
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
    };
    ops->rekey = (struct kms_store_rekey_ops){
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
    };
}
