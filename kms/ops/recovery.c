#include "ops/recovery.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/testpoint.h"
#include "hsm/rsa_public.h"
#include "ops/checks.h"
#include "ops/directory.h"
#include "ops/escrow.h"
#include "ops/messages.h"
#include "ops/supplement.h"
#include "ops/tenants.h"

#include "kms/v1/recovery.pb-c.h"

#include <stdio.h>
#include <stdlib.h>

enum { WITHOUT_NAMED_MAX = 100 };

/* A service without recovery keys says how to get them. */
static enum kms_status need_escrow(const struct kms_ops *ops, struct kms_error *err)
{
    if (ops->escrow != NULL)
        return KMS_OK;
    return kms_fail_public(
        err, KMS_FAILED_PRECONDITION,
        "recovery keys are not turned on: set recovery.enabled in kmsd.yaml (with a new token: "
        "keys that were made without it can never leave theirs)");
}

/* The key of that fingerprint. */
static enum kms_status find_key(struct kms_txn *txn, const char *fingerprint,
                                struct kms_recovery_key_record *ret_key, struct kms_error *err)
{
    const enum kms_status status = txn->store->ops->recovery.key_get(txn->txn, fingerprint, ret_key, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(err, status, "there is no recovery key %.64s", fingerprint);
    return status;
}

/* The same, as it stands. */
static enum kms_status read_key(struct kms_ops *ops, const char *fingerprint,
                                struct kms_recovery_key_record *ret_key, struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
    return find_key(&txn, fingerprint, ret_key, err);
}

static enum kms_status write_key(struct kms_ops *ops, const struct kms_recovery_key_record *key,
                                 struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, true, &txn, err));
    KMS_TRY(txn.store->ops->recovery.key_put(txn.txn, key, err));
    return kms_txn_commit(&txn, err);
}

/* A text of an operation's document. */
static const char *parameter(const struct ops_operation *operation, const char *name)
{
    const char *text = json_string_value(json_object_get(operation->parameters, name));
    return text != NULL ? text : "";
}

/* A text of a JSON object, on the heap, from what json_pack() made. */
static enum kms_status result_of(json_t *object, char **ret_result, struct kms_error *err)
{
    *ret_result = object != NULL ? json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(object);
    return *ret_result != NULL ? KMS_OK : kms_fail(err, KMS_NO_MEMORY, "no memory for a result");
}

/* ---- enrol */

/* What a new key comes after. */
struct enrolled {
    uint64_t newest; /* epoch */
    unsigned active;
};

static enum kms_status note_key(void *context, const struct kms_recovery_key_record *key)
{
    struct enrolled *enrolled = context;
    enrolled->newest = key->epoch;
    enrolled->active += key->state == KMS_RECOVERY_ACTIVE;
    return KMS_OK;
}

/* The row that an earlier run of the operation has made; NOT_FOUND: none has. A retirement between two runs ends the operation. */
static enum kms_status find_own(struct kms_txn *txn, const struct ops_operation *operation,
                                struct kms_recovery_key_record *ret_key, struct kms_error *err)
{
    const char *fingerprint = parameter(operation, "fingerprint");
    KMS_TRY(txn->store->ops->recovery.key_get(txn->txn, fingerprint, ret_key, err));
    if (!kms_uuid_equal(&ret_key->enroll_operation, &operation->record->uuid))
        return kms_fail_public(err, KMS_ALREADY_EXISTS, "the recovery key %s is enrolled already",
                               fingerprint);
    if (ret_key->state != KMS_RECOVERY_ACTIVE)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "the recovery key %s was retired meanwhile; enrol a new one", fingerprint);
    return KMS_OK;
}

/* The key is in the token, and trusted. */
static enum kms_status need_trusted(struct kms_ops *ops, const char *fingerprint, struct kms_error *err)
{
    const enum kms_status status = ops_escrow_find_key(ops->escrow, fingerprint, err);
    if (status != KMS_NOT_FOUND) /* which is of the HSM, not of what was asked for */
        return status;
    return kms_fail_public(
        err, KMS_FAILED_PRECONDITION,
        "the HSM has no recovery key %s: its security officer must put it there first (kmsd "
        "--trust-recovery-key)",
        fingerprint);
}

/* Whether the operation may go on with its key: it is not retired, and in the token. */
static enum kms_status check_key(struct kms_ops *ops, const struct ops_operation *operation,
                                 struct kms_error *err)
{
    {
        struct kms_recovery_key_record key;
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
        const enum kms_status status = find_own(&txn, operation, &key, err);
        if (status != KMS_OK && status != KMS_NOT_FOUND)
            return status;
    }
    *err = (struct kms_error){0};
    return need_trusted(ops, parameter(operation, "fingerprint"), err);
}

/* The row of the operation's key, made unless an earlier run has. */
static enum kms_status begin_epoch(struct kms_ops *ops, const struct ops_operation *operation,
                                   struct kms_recovery_key_record *ret_key, struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, true, &txn, err));
    const enum kms_status status = find_own(&txn, operation, ret_key, err);
    if (status != KMS_NOT_FOUND)
        return status;
    *err = (struct kms_error){0};
    struct kms_recovery_key_record key = {.state = KMS_RECOVERY_ACTIVE,
                                          .enrolled_ns = kms_clock_wall_ns(),
                                          .enroll_operation = operation->record->uuid};
    (void)snprintf(key.fingerprint, sizeof key.fingerprint, "%s", parameter(operation, "fingerprint"));
    (void)snprintf(key.enrolled_by, sizeof key.enrolled_by, "%s", operation->record->requester);
    struct enrolled enrolled = {0};
    KMS_TRY(txn.store->ops->recovery.key_list(txn.txn, note_key, &enrolled, err));
    if (enrolled.active >= OPS_ESCROW_KEYS_MAX)
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "%d recovery keys are enrolled, each of which opens everything: retire one first",
            OPS_ESCROW_KEYS_MAX);
    key.epoch = enrolled.newest + 1;
    KMS_TRY(txn.store->ops->recovery.key_put(txn.txn, &key, err));
    KMS_TRY(kms_txn_commit(&txn, err));
    *ret_key = key;
    return KMS_OK;
}

/* What became of the tenants. */
struct covering {
    struct kms_ops *ops;
    struct ops_operation *operation;
    const struct kms_recovery_key_record *key;
    uint64_t covered, without;
    json_t *names; /* of the first that could not be covered */
};

static enum kms_status cover_tenant(void *context, const struct kms_tenant_record *tenant,
                                    struct kms_error *err)
{
    struct covering *covering = context;
    const enum kms_status status =
        ops_escrow_put_tenant(covering->ops->escrow, covering->key, &tenant->uuid, err);
    if (status != KMS_OK && status != KMS_FAILED_PRECONDITION)
        return status;
    if (status == KMS_OK) {
        covering->covered++;
    } else { /* its key can never leave, and the result says so, unless something is wrong with the recovery key */
        KMS_TRY(check_key(covering->ops, covering->operation, err));
        covering->without++;
        if (json_array_size(covering->names) < WITHOUT_NAMED_MAX)
            (void)json_array_append_new(covering->names, json_string(tenant->id));
    }
    return ops_operation_progress(covering->operation, covering->covered + covering->without, 0);
}

static enum kms_status execute_enroll(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                                      struct kms_error *err)
{
    struct kms_recovery_key_record key;
    KMS_TRY(need_escrow(ops, err));
    KMS_TRY(check_key(ops, operation, err));
    KMS_TRY(begin_epoch(ops, operation, &key, err));
    kms_test_point("recovery.enrolled");
    KMS_TRY(ops_escrow_put_service(ops->escrow, &key, err));
    struct covering covering = {.ops = ops, .operation = operation, .key = &key, .names = json_array()};
    const enum kms_status status = ops_each_tenant(ops->store, cover_tenant, &covering, err);
    if (status != KMS_OK) {
        json_decref(covering.names);
        return status;
    }
    return result_of(json_pack("{s:I, s:s, s:I, s:I, s:o}", "epoch", (json_int_t)key.epoch, "fingerprint",
                               key.fingerprint, "tenants_covered", (json_int_t)covering.covered,
                               "tenants_that_need_rotate_master", (json_int_t)covering.without,
                               "first_of_these", covering.names),
                     ret_result, err);
}

const struct ops_operation_kind ops_recovery_enroll_kind = {
    .name = "recovery.enroll",
    .request = KMS_ACTION_RECOVERY_ENROLL,
    .approve = KMS_ACTION_RECOVERY_APPROVE,
    .approvals = 2,
    .resumable = true,
    .execute = execute_enroll,
};

static enum kms_status enroll(struct ops_run *run, const ProtobufCMessage *message,
                              ProtobufCMessage **ret_reply)
{
    const Kms__V1__EnrollRecoveryKeyRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    struct kms_rsa_public key;
    struct kms_recovery_key_record there;
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(ops_operation_repeated(run, message, ret_reply));
    if (*ret_reply != NULL)
        return KMS_OK;
    KMS_TRY(need_escrow(run->ops, &call->error));
    KMS_TRY(kms_rsa_public_from_pem(kms_slice_str(request->public_key), &key, &call->error));
    const enum kms_status found = read_key(run->ops, key.fingerprint, &there, &call->error);
    if (found == KMS_OK)
        return kms_fail_public(&call->error, KMS_ALREADY_EXISTS, "the recovery key %s is %s", key.fingerprint,
                               there.state == KMS_RECOVERY_ACTIVE ? "enrolled already"
                                                                  : "retired, and never comes back");
    if (found != KMS_NOT_FOUND)
        return found;
    call->error = (struct kms_error){0};
    KMS_TRY(need_trusted(run->ops, key.fingerprint, &call->error));
    return ops_operation_request(
        run, &ops_recovery_enroll_kind, NULL,
        json_pack("{s:i, s:s}", "bits", (int)(8 * key.modulus_len), "fingerprint", key.fingerprint), 0,
        ret_reply);
}

enum kms_status kms_ops_enroll_recovery_key(void *context, struct kms_call *call,
                                            const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_RECOVERY_ENROLL, true, enroll, request, ret_reply);
}

/* ---- retire */

/* From here on no capsule is made under the key. */
static enum kms_status begin_retirement(struct kms_ops *ops, const struct ops_operation *operation,
                                        struct kms_recovery_key_record *ret_key, struct kms_error *err)
{
    struct kms_recovery_key_record key;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, true, &txn, err));
    KMS_TRY(find_key(&txn, parameter(operation, "fingerprint"), &key, err));
    if (key.state == KMS_RECOVERY_ACTIVE) {
        key.state = KMS_RECOVERY_RETIRING;
        key.retire_operation = operation->record->uuid;
        (void)snprintf(key.retired_by, sizeof key.retired_by, "%s", operation->record->requester);
        (void)snprintf(key.statement, sizeof key.statement, "%s", parameter(operation, "statement"));
        KMS_TRY(txn.store->ops->recovery.key_put(txn.txn, &key, err));
        KMS_TRY(kms_txn_commit(&txn, err));
    } else if (!kms_uuid_equal(&key.retire_operation, &operation->record->uuid)) {
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "the recovery key %s is retired already",
                               key.fingerprint);
    }
    *ret_key = key;
    return KMS_OK;
}

/* The public key leaves the HSM, if the HSM lets the service do that. */
static enum kms_status remove_object(struct kms_ops *ops, const char *fingerprint, bool *ret_left,
                                     struct kms_error *err)
{
    struct kms_hsm_session *session = NULL;
    KMS_TRY(kms_hsm_checkout_background(
        ops->hsm, kms_clock_mono_ns() + OPS_ESCROW_PUT_SECONDS * KMS_NS_PER_SECOND, &session, err));
    const enum kms_status status = kms_hsm_recovery_remove(ops->hsm, session, fingerprint, err);
    kms_hsm_checkin(ops->hsm, session);
    *ret_left = status == KMS_HSM_REFUSED || status == KMS_FAILED_PRECONDITION;
    if (!*ret_left)
        return status;
    kms_log_warning("recovery", "the public key of the retired recovery key %s is still in the HSM: %s",
                    fingerprint, kms_error_cause(err, status));
    *err = (struct kms_error){0};
    return KMS_OK;
}

static enum kms_status execute_retire(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                                      struct kms_error *err)
{
    struct kms_recovery_key_record key;
    uint64_t certificates = 0;
    uint64_t batches = 0;
    KMS_TRY(need_escrow(ops, err));
    KMS_TRY(begin_retirement(ops, operation, &key, err));
    kms_test_point("recovery.retiring");
    if (key.state == KMS_RECOVERY_RETIRING) {
        KMS_TRY(ops_escrow_remove_all(ops->escrow, key.fingerprint, err));
        kms_test_point("recovery.removed");
        KMS_TRY(remove_object(ops, key.fingerprint, &key.object_left, err));
        key.state = KMS_RECOVERY_RETIRED;
        key.retired_ns = kms_clock_wall_ns();
        KMS_TRY(write_key(ops, &key, err));
        kms_test_point("recovery.retired");
    }
    KMS_TRY(ops_supplement_issue(ops, &key, &certificates, &batches, err));
    return result_of(json_pack("{s:I, s:I, s:s, s:b}", "batches_completed", (json_int_t)batches,
                               "certificates", (json_int_t)certificates, "fingerprint", key.fingerprint,
                               "object_left", key.object_left),
                     ret_result, err);
}

const struct ops_operation_kind ops_recovery_retire_kind = {
    .name = "recovery.retire",
    .request = KMS_ACTION_RECOVERY_RETIRE,
    .approve = KMS_ACTION_RECOVERY_APPROVE,
    .approvals = 2,
    .resumable = true,
    .execute = execute_retire,
};

/* How many keys would be left: approvers must see that it is the last one. */
static enum kms_status count_others(struct kms_ops *ops, int *ret_count, struct kms_error *err)
{
    struct enrolled enrolled = {0};
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
    KMS_TRY(txn.store->ops->recovery.key_list(txn.txn, note_key, &enrolled, err));
    *ret_count = (int)enrolled.active - 1;
    return KMS_OK;
}

static enum kms_status retire(struct ops_run *run, const ProtobufCMessage *message,
                              ProtobufCMessage **ret_reply)
{
    const Kms__V1__RetireRecoveryKeyRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    struct kms_recovery_key_record key;
    int others = 0;
    if (request->statement[0] == '\0')
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "statement: must say what became of the private key");
    KMS_TRY(ops_check_text(call, "statement", request->statement, KMS_RECOVERY_TEXT_MAX));
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(ops_operation_repeated(run, message, ret_reply));
    if (*ret_reply != NULL)
        return KMS_OK;
    KMS_TRY(need_escrow(run->ops, &call->error));
    KMS_TRY(read_key(run->ops, request->fingerprint, &key, &call->error));
    if (key.state != KMS_RECOVERY_ACTIVE)
        return kms_fail_public(
            &call->error, KMS_FAILED_PRECONDITION, "the recovery key %s is %s", key.fingerprint,
            key.state == KMS_RECOVERY_RETIRED ? "retired already" : "being retired already");
    KMS_TRY(count_others(run->ops, &others, &call->error));
    return ops_operation_request(run, &ops_recovery_retire_kind, NULL,
                                 json_pack("{s:I, s:s, s:i, s:s}", "epoch", (json_int_t)key.epoch,
                                           "fingerprint", key.fingerprint, "recovery_keys_left", others,
                                           "statement", request->statement),
                                 0, ret_reply);
}

enum kms_status kms_ops_retire_recovery_key(void *context, struct kms_call *call,
                                            const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_RECOVERY_RETIRE, true, retire, request, ret_reply);
}

/* ---- by the clock, and at start */

void ops_recovery_tick(struct kms_ops *ops)
{
    struct ops_escrow_status status;
    if (ops->escrow == NULL || !ops_escrow_tick(ops->escrow))
        return;
    ops_escrow_status(ops->escrow, &status);
    const bool bad = status.failure[0] != '\0';
    if (bad == ops->told_capsules)
        return;
    ops->told_capsules = bad;
    const struct kms_audit_event event = {.type = "alert",
                                          .action = bad ? "recovery.capsules_missing"
                                                        : "recovery.capsules_complete",
                                          .outcome = bad ? "UNAVAILABLE" : "OK",
                                          .reason = bad ? status.failure : NULL};
    if (kms_audit_append(ops->audit, &event, NULL) != KMS_OK || kms_audit_commit(ops->audit, NULL) != KMS_OK)
        kms_log_error("recovery", "an alert about recovery capsules is not in the audit log");
}

static enum kms_status refuse_active(void *context, const struct kms_recovery_key_record *key)
{
    if (key->state == KMS_RECOVERY_RETIRED)
        return KMS_OK;
    return kms_fail_public(
        context, KMS_CONFIG_INVALID,
        "recovery.enabled is off, but the recovery key %s is enrolled: new master keys would not be "
        "under it; turn it on, or retire the key first (kmsctl recovery retire)",
        key->fingerprint);
}

enum kms_status ops_recovery_check_off(struct kms_store *store, struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(store, false, &txn, err));
    return store->ops->recovery.key_list(txn.txn, refuse_active, err, err);
}
