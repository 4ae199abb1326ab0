/* The making of operations: their documents, and their first rows. */
#include "ops/operation.h"

#include "core/clock.h"
#include "core/testpoint.h"
#include "ops/checks.h"
#include "ops/directory.h"
#include "ops/operation_message.h"
#include "ops/runner.h"
#include "ops/verdict.h"

#include <openssl/evp.h>
#include <stdio.h>

enum { OPEN_MAX = 1000, OF_ONE_MAX = 250 };

/* The service's own operations wait for nobody; this is for those that were not run for days because it was down. */
#define SERVICE_TTL_NS (INT64_C(7) * 24 * 3600 * KMS_NS_PER_SECOND)

/* What a request id names here (ops_request_uuid()). */
static const char what_is_made[] = "kms.v1.Operation";
static const struct ops_operation_also nothing_else;

static void clear_json(json_t **json)
{
    json_decref(*json);
}

enum kms_status ops_operation_digest(struct kms_slice document, uint8_t ret_digest[KMS_OPERATION_DIGEST_SIZE])
{
    return EVP_Q_digest(NULL, "SHA256", NULL, document.data, document.len, ret_digest, NULL) == 1
               ? KMS_OK
               : KMS_NO_MEMORY;
}

/* The document of an operation whose other requested members are filled in. */
static enum kms_status make_document(struct kms_operation_record *operation, json_t *parameters,
                                     struct kms_error *err)
{
    char uid[KMS_UUID_TEXT_SIZE];
    char created[KMS_TIME_TEXT_SIZE];
    char expires[KMS_TIME_TEXT_SIZE];
    KMS_CLEANUP(clear_json)
    json_t *document = json_pack(
        "{s:I, s:s, s:s, s:s, s:s, s:O, s:I, s:s, s:s, s:s}", "approvals_needed",
        (json_int_t)operation->approvals_needed, "created", kms_clock_format(operation->created_ns, created),
        "expires", kms_clock_format(operation->expires_ns, expires), "format", KMS_OPS_OPERATION_FORMAT,
        "kind", operation->kind, "parameters", parameters, "policy_generation",
        (json_int_t)operation->policy_generation, "requester", operation->requester, "tenant",
        operation->tenant, "uid", kms_uuid_format(&operation->uuid, uid));
    if (document == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the document of an operation");
    operation->document = (uint8_t *)json_dumps(document, JSON_SORT_KEYS | JSON_COMPACT);
    if (operation->document == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the document of an operation");
    operation->document_len = strlen((const char *)operation->document);
    if (operation->document_len > KMS_OPERATION_DOCUMENT_MAX)
        return kms_fail_public(
            err, KMS_TOO_LARGE,
            "the operation would have a document of %zu bytes, which nobody can read; at most %d "
            "are allowed: split it",
            operation->document_len, KMS_OPERATION_DOCUMENT_MAX);
    return ops_operation_digest(kms_slice_of(operation->document, operation->document_len),
                                operation->digest);
}

/* How many approvals it needs, until when; refuses what can never be approved. */
static enum kms_status ask_policy(struct kms_ops *ops, const struct ops_operation_kind *kind,
                                  struct kms_operation_record *operation, struct kms_error *err)
{
    unsigned approvals = kind->approvals;
    int64_t ttl_seconds = 0;
    struct kms_auth_stats stats;
    kms_auth_approvals(ops->auth, kind->name, &approvals, &ttl_seconds);
    kms_auth_stats(ops->auth, &stats);
    if (approvals > KMS_OPERATION_APPROVALS_MAX)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "the policy asks for %u approvals; at most %d can be given", approvals,
                               KMS_OPERATION_APPROVALS_MAX);
    operation->approvals_needed = approvals;
    operation->policy_generation = stats.policy_version;
    operation->expires_ns = operation->created_ns + ttl_seconds * KMS_NS_PER_SECOND;
    const char *tenant = operation->tenant[0] != '\0' ? operation->tenant : NULL;
    if (!kms_auth_can_reach(ops->auth, kind->approve, tenant, operation->requester, approvals))
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "this needs %u approvals by others, but the policy lets too few persons besides "
            "the requester give them (permission %s)",
            approvals, kms_action_text(kind->approve));
    return KMS_OK;
}

/* Are there too many already? */
static enum kms_status check_room(const struct kms_ops_operation_settings *settings, struct kms_txn *txn,
                                  const char *requester, struct kms_error *err)
{
    const uint32_t open_max = settings->unfinished != 0 ? settings->unfinished : OPEN_MAX;
    const uint32_t of_one_max = settings->unfinished_of_one != 0 ? settings->unfinished_of_one : OF_ONE_MAX;
    uint64_t open = 0;
    uint64_t of_requester = 0;
    KMS_TRY(txn->store->ops->operation.count_open(txn->txn, requester, &open, &of_requester, err));
    if (of_requester >= of_one_max && !ops_is_service(requester))
        return kms_fail_public(err, KMS_RESOURCE_EXHAUSTED,
                               "%u operations that you have requested are unfinished: cancel some first",
                               of_one_max);
    if (open >= open_max)
        return kms_fail_public(err, KMS_RESOURCE_EXHAUSTED,
                               "%u operations are unfinished: approve, reject or cancel some first",
                               open_max);
    return KMS_OK;
}

/* A new operation, and with it its request's id (of a run; NULL: none) and what else belongs to it. */
static enum kms_status insert(struct kms_ops *ops, struct ops_run *run,
                              const struct kms_operation_record *operation,
                              const struct ops_operation_also *also, struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, true, &txn, err));
    KMS_TRY(check_room(&ops->operation_settings, &txn, operation->requester, err));
    const enum kms_status status = ops->store->ops->operation.insert(txn.txn, operation, err);
    if (status == KMS_ALREADY_EXISTS) /* of a request that is forgotten by now */
        return ops_request_used(err);
    KMS_TRY(status);
    if (run != NULL)
        KMS_TRY(ops_request_end(run->call, &txn, &run->once));
    if (also->write != NULL)
        KMS_TRY(also->write(also->context, &txn, operation, err));
    return kms_txn_commit(&txn, err);
}

/* What is known of a new operation before the policy is asked, but for its UUID. */
static struct kms_operation_record begin_record(const struct ops_operation_kind *kind, const char *requester,
                                                const char *tenant, uint64_t total)
{
    struct kms_operation_record operation = {
        .state = KMS_OPERATION_PENDING, .total = total, .created_ns = kms_clock_wall_ns()};
    (void)snprintf(operation.kind, sizeof operation.kind, "%s", kind->name);
    (void)snprintf(operation.tenant, sizeof operation.tenant, "%s", tenant != NULL ? tenant : "");
    (void)snprintf(operation.requester, sizeof operation.requester, "%s", requester);
    return operation;
}

/* The document, the row, and the runner's attention when nobody needs to approve. */
static enum kms_status submit(struct kms_ops *ops, struct ops_run *run,
                              struct kms_operation_record *operation, json_t *parameters,
                              const struct ops_operation_also *also, struct kms_error *err)
{
    if (operation->approvals_needed == 0)
        operation->state = KMS_OPERATION_APPROVED;
    KMS_TRY(make_document(operation, parameters, err));
    KMS_TRY(insert(ops, run, operation, also, err));
    kms_test_point("operation.requested");
    if (operation->state == KMS_OPERATION_APPROVED)
        kms_ops_runner_wake(ops->runner);
    return KMS_OK;
}

enum kms_status ops_operation_request_also(struct ops_run *run, const struct ops_operation_kind *kind,
                                           const char *tenant, json_t *parameters, uint64_t total,
                                           const struct ops_operation_also *also,
                                           ProtobufCMessage **ret_reply)
{
    KMS_CLEANUP(clear_json) json_t *owned = parameters;
    struct kms_call *call = run->call;
    KMS_ASSERT(run->action == kind->request && run->changes);
    if (!json_is_object(owned))
        return kms_fail(&call->error, KMS_NO_MEMORY, "no memory for the parameters of an operation");
    KMS_CLEANUP(kms_operation_record_clear)
    struct kms_operation_record operation = begin_record(kind, call->identity->name, tenant, total);
    KMS_TRY(ops_request_uuid(&run->once, what_is_made, &operation.uuid));
    KMS_TRY(ask_policy(run->ops, kind, &operation, &call->error));
    KMS_TRY(submit(run->ops, run, &operation, owned, also, &call->error));
    KMS_TRY(ops_operation_note(run, &operation, 0));
    return ops_operation_reply(call, &operation, NULL, 0, ret_reply);
}

enum kms_status ops_operation_request(struct ops_run *run, const struct ops_operation_kind *kind,
                                      const char *tenant, json_t *parameters, uint64_t total,
                                      ProtobufCMessage **ret_reply)
{
    return ops_operation_request_also(run, kind, tenant, parameters, total, &nothing_else, ret_reply);
}

/* The operation that was made under the request's id, as it is now. */
static enum kms_status answer_again(struct ops_run *run, struct kms_txn *txn, ProtobufCMessage **ret_reply)
{
    struct kms_call *call = run->call;
    const struct kms_store_operation_ops *store = &txn->store->ops->operation;
    struct kms_uuid uuid;
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = {0};
    KMS_TRY(ops_request_uuid(&run->once, what_is_made, &uuid));
    const enum kms_status found = store->get(txn->txn, &uuid, &operation, &call->error);
    if (found == KMS_NOT_FOUND) /* the id was some other method's */
        return ops_request_used(&call->error);
    KMS_TRY(found);
    struct kms_approval_record *approvals = NULL;
    size_t count = 0;
    KMS_TRY(store->approvals(txn->txn, &uuid, &approvals, &count, &call->error));
    kms_ops_runner_progress(run->ops->runner, &operation);
    enum kms_status status = ops_operation_note(run, &operation, count);
    if (status == KMS_OK)
        status = ops_operation_reply(call, &operation, approvals, count, ret_reply);
    kms_approval_list_clear(approvals, count);
    return status;
}

/* The field of that name. */
static const char *request_id_of(const ProtobufCMessage *request)
{
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(request->descriptor, "request_id");
    KMS_ASSERT(field != NULL && field->type == PROTOBUF_C_TYPE_STRING);
    const char *value;
    memcpy(&value, (const uint8_t *)(const void *)request + field->offset, sizeof value);
    return value;
}

enum kms_status ops_operation_repeated(struct ops_run *run, const ProtobufCMessage *request,
                                       ProtobufCMessage **ret_reply)
{
    struct kms_call *call = run->call;
    const char *request_id = request_id_of(request);
    bool done = false;
    KMS_TXN txn = {0};
    KMS_TRY(ops_check_request_id(call, request_id));
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    KMS_TRY(ops_request_begin(run, &txn, request_id, request, &run->once, &done));
    return done ? answer_again(run, &txn, ret_reply) : KMS_OK;
}

enum kms_status ops_operation_start(struct kms_ops *ops, const struct ops_operation_kind *kind,
                                    const char *requester, const char *tenant, json_t *parameters,
                                    uint64_t total, struct kms_uuid *ret_uuid, struct kms_error *err)
{
    KMS_CLEANUP(clear_json) json_t *owned = parameters;
    KMS_ASSERT(kind->service && ops_is_service(requester));
    if (!json_is_object(owned))
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the parameters of an operation");
    KMS_CLEANUP(kms_operation_record_clear)
    struct kms_operation_record operation = begin_record(kind, requester, tenant, total);
    struct kms_auth_stats stats;
    kms_auth_stats(ops->auth, &stats);
    operation.uuid = kms_uuid_random();
    operation.policy_generation = stats.policy_version;
    operation.expires_ns = operation.created_ns + SERVICE_TTL_NS;
    KMS_TRY(submit(ops, NULL, &operation, owned, &nothing_else, err));
    *ret_uuid = operation.uuid;
    return KMS_OK;
}
