/* The policy: get, history, apply, roll back, ask. */
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/diff.h"
#include "ops/checks.h"
#include "ops/messages.h"
#include "ops/operation.h"
#include "ops/page_token.h"
#include "ops/policy_store.h"

#include "kms/v1/policy.pb-c.h"

#include <inttypes.h>
#include <stdio.h>

enum { DIFF_AROUND = 2, CHANGES_MAX = 4000, EXPLANATION_MAX = 400 };

static void clear_json(json_t **json)
{
    json_decref(*json);
}
#define JSON    KMS_CLEANUP(clear_json) json_t
#define VERSION KMS_CLEANUP(kms_policy_record_clear) struct kms_policy_record

/* A version as a message; NULL when the arena is full. */
static Kms__V1__Policy *policy_message(struct kms_arena *arena, const struct kms_policy_record *policy)
{
    Kms__V1__Policy *message = ops_message_new(arena, &kms__v1__policy__descriptor);
    if (message == NULL)
        return NULL;
    message->version = policy->version;
    message->document = ops_string(arena, policy->document != NULL ? (const char *)policy->document : "");
    message->sha256 = kms_arena_alloc(arena, 2 * KMS_POLICY_DIGEST_SIZE + 1);
    if (message->sha256 != NULL)
        kms_hex_encode(policy->sha256, KMS_POLICY_DIGEST_SIZE, message->sha256);
    message->identity = ops_string(arena, policy->identity);
    message->operation = ops_string(arena, policy->operation);
    message->comment = ops_string(arena, policy->comment);
    message->create_time = ops_timestamp(arena, policy->created_ns);
    const bool whole = message->document != NULL && message->sha256 != NULL && message->identity != NULL &&
                       message->operation != NULL && message->comment != NULL && message->create_time != NULL;
    return whole ? message : NULL;
}

static enum kms_status get_policy(struct ops_run *run, const ProtobufCMessage *message,
                                  ProtobufCMessage **ret_reply)
{
    const Kms__V1__GetPolicyRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_TRY(ops_allow(run, NULL, NULL));
    VERSION policy = {0};
    const enum kms_status status = ops_policy_get(run->ops->store, request->version, &policy, &call->error);
    if (status == KMS_NOT_FOUND)
        return request->version == 0
                   ? kms_fail_public(&call->error, status, "no policy was applied yet")
                   : kms_fail_public(&call->error, status, "there is no version %" PRIu64 " of the policy",
                                     request->version);
    KMS_TRY(status);
    Kms__V1__Policy *reply = policy_message(call->arena, &policy);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_get_policy(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                   ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_POLICY_READ, false, get_policy, request, ret_reply);
}

/* Collects one page of the history. */
struct history {
    struct kms_arena *arena;
    Kms__V1__ListPoliciesResponse *reply;
};

static enum kms_status add_version(void *context, const struct kms_policy_record *policy)
{
    const struct history *history = context;
    Kms__V1__Policy *message = policy_message(history->arena, policy);
    if (message == NULL)
        return KMS_NO_MEMORY;
    history->reply->policies[history->reply->n_policies++] = message;
    return KMS_OK;
}

static enum kms_status list_policies(struct ops_run *run, const ProtobufCMessage *message,
                                     ProtobufCMessage **ret_reply)
{
    const Kms__V1__ListPoliciesRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    const struct kms_slice query = kms_slice_str("policies");
    const char *after = NULL;
    size_t limit = 0;
    KMS_TRY(ops_check_page_size(call, request->page_size, &limit));
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(ops_page_token_parse(call, query, request->page_token, &after));
    const uint64_t before = after != NULL ? strtoull(after, NULL, 10) : 0;
    Kms__V1__ListPoliciesResponse *reply =
        ops_message_new(call->arena, &kms__v1__list_policies_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    reply->policies = kms_arena_alloc(call->arena, limit * sizeof(*reply->policies));
    if (reply->policies == NULL)
        return KMS_NO_MEMORY;
    struct history history = {call->arena, reply};
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    KMS_TRY(txn.store->ops->policy.list(txn.txn, before, limit, add_version, &history, &call->error));
    if (reply->n_policies == limit) {
        char last[24];
        (void)snprintf(last, sizeof last, "%" PRIu64, reply->policies[limit - 1]->version);
        KMS_TRY(ops_page_token_make(call, query, last, &reply->next_page_token));
    }
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_list_policies(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_POLICY_READ, false, list_policies, request, ret_reply);
}

/* One line of what approvers are shown. */
static enum kms_status add_change(void *context, char mark, struct kms_slice line, size_t number)
{
    json_t *changes = context;
    char text[512];
    if (json_array_size(changes) >= CHANGES_MAX)
        return KMS_OK; /* the document is there in full */
    if (mark == '@')
        (void)snprintf(text, sizeof text, "@ line %zu", number);
    else
        (void)snprintf(text, sizeof text, "%c %.*s", mark, (int)(line.len < 500 ? line.len : 500),
                       (const char *)line.data);
    json_t *entry = json_string(text);
    if (entry == NULL) /* cut within a character */
        entry = json_sprintf("%c (a long line)", mark);
    return json_array_append_new(changes, entry) == 0 ? KMS_OK : KMS_NO_MEMORY;
}

/* The document with its digest and what it changes, as parameters of an operation; NULL: no memory. */
static json_t *parameters_of(const struct kms_policy_record *base, struct kms_slice document,
                             const char *sha256, const char *comment)
{
    JSON *changes = json_array();
    if (changes == NULL || kms_diff_lines(kms_slice_of(base->document, base->document_len), document,
                                          DIFF_AROUND, add_change, changes) != KMS_OK)
        return NULL;
    return json_pack("{s:I, s:O, s:s, s:s%, s:s}", "base_version", (json_int_t)base->version, "changes",
                     changes, "comment", comment, "document", (const char *)document.data, document.len,
                     "sha256", sha256);
}

/* The version in force, which must be the one that the caller has seen; empty when there is none. */
static enum kms_status find_base(struct ops_run *run, uint64_t base_version,
                                 struct kms_policy_record *ret_base)
{
    struct kms_call *call = run->call;
    const enum kms_status status = ops_policy_get(run->ops->store, 0, ret_base, &call->error);
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    call->error = (struct kms_error){0};
    if (ret_base->version != base_version)
        return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION,
                               "base_version: version %" PRIu64 " is in force, not %" PRIu64
                               "; look at the difference again",
                               ret_base->version, base_version);
    return KMS_OK;
}

/* Everything that apply and roll back have in common, once the document is known. */
static enum kms_status request_change(struct ops_run *run, const struct ops_operation_kind *kind,
                                      uint64_t base_version, struct kms_slice document, const char *comment,
                                      ProtobufCMessage **ret_reply)
{
    struct kms_call *call = run->call;
    VERSION base = {0};
    VERSION wanted = {.document = (uint8_t *)strndup((const char *)document.data, document.len),
                      .document_len = document.len};
    char sha256[2 * KMS_POLICY_DIGEST_SIZE + 1];
    if (wanted.document == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(find_base(run, base_version, &base));
    if (kms_slice_equal(document, kms_slice_of(base.document, base.document_len)))
        return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION,
                               "document: it is the policy in force already, version %" PRIu64, base.version);
    const struct kms_auth_policy policy = {"document", document, 0};
    KMS_TRY(kms_auth_check_policy(&policy, &call->error));
    KMS_TRY(ops_policy_digest(&wanted, sha256));
    return ops_operation_request(run, kind, NULL, parameters_of(&base, document, sha256, comment), 0,
                                 ret_reply);
}

/* Was this operation's document stored before a crash? Then it is in force, or will be. */
static enum kms_status find_stored(struct kms_ops *ops, const char *operation, uint64_t version,
                                   struct kms_policy_record *ret_policy, struct kms_error *err)
{
    VERSION policy = {0};
    KMS_TRY(ops_policy_get(ops->store, version, &policy, err));
    if (strcmp(policy.operation, operation) != 0)
        return kms_fail(err, KMS_NOT_FOUND, "that version is another operation's");
    *ret_policy = policy;
    policy = (struct kms_policy_record){0};
    return KMS_OK;
}

/* The new version of the policy that an operation's parameters describe. */
static enum kms_status store_version(struct kms_ops *ops, const struct ops_operation *operation,
                                     const char *uid, uint64_t base, struct kms_policy_record *ret_policy,
                                     struct kms_error *err)
{
    const char *document = json_string_value(json_object_get(operation->parameters, "document"));
    const char *comment = json_string_value(json_object_get(operation->parameters, "comment"));
    if (document == NULL || comment == NULL)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION, "the operation names no document");
    const struct kms_auth_policy policy = {"document", kms_slice_str(document), 0};
    KMS_TRY(kms_auth_check_policy(&policy, err));
    VERSION record = {.created_ns = kms_clock_wall_ns(),
                      .document = (uint8_t *)strdup(document),
                      .document_len = strlen(document)};
    if (record.document == NULL)
        return KMS_NO_MEMORY;
    (void)snprintf(record.identity, sizeof record.identity, "%s", operation->record->requester);
    (void)snprintf(record.operation, sizeof record.operation, "%s", uid);
    (void)snprintf(record.comment, sizeof record.comment, "%s", comment);
    uint64_t version = 0;
    KMS_TRY(ops_policy_insert(ops->store, base, &record, &version, err));
    *ret_policy = record;
    record = (struct kms_policy_record){0};
    return KMS_OK;
}

/* Stored first, then in the audit log, then in force; each step may be repeated. */
static enum kms_status execute_change(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                                      struct kms_error *err)
{
    char uid[KMS_UUID_TEXT_SIZE];
    char sha256[2 * KMS_POLICY_DIGEST_SIZE + 1];
    VERSION policy = {0};
    const uint64_t base =
        (uint64_t)json_integer_value(json_object_get(operation->parameters, "base_version"));
    (void)kms_uuid_format(&operation->record->uuid, uid);
    enum kms_status status = find_stored(ops, uid, base + 1, &policy, err);
    if (status == KMS_NOT_FOUND) {
        *err = (struct kms_error){0};
        status = store_version(ops, operation, uid, base, &policy, err);
    }
    KMS_TRY(status);
    KMS_TRY(ops_policy_digest(&policy, sha256));
    char *result = NULL;
    JSON *object =
        json_pack("{s:s, s:I}", "policy_sha256", sha256, "policy_version", (json_int_t)policy.version);
    if (object == NULL || (result = json_dumps(object, JSON_SORT_KEYS | JSON_COMPACT)) == NULL)
        return KMS_NO_MEMORY;
    const struct kms_audit_event event = {.type = "outcome",
                                          .action = "policy.install",
                                          .request_id = uid,
                                          .identity = policy.identity,
                                          .outcome = kms_status_name(KMS_OK),
                                          .detail_json = result};
    status = kms_audit_append(ops->audit, &event, err);
    if (status == KMS_OK)
        status = kms_audit_commit(ops->audit, err);
    if (status == KMS_OK)
        status = ops_policy_install(ops->auth, &policy, err);
    if (status != KMS_OK) {
        free(result);
        return status;
    }
    *ret_result = result;
    return KMS_OK;
}

const struct ops_operation_kind ops_policy_apply_kind = {
    .name = "policy.apply",
    .request = KMS_ACTION_POLICY_APPLY,
    .approve = KMS_ACTION_POLICY_APPROVE,
    .approvals = 2,
    .resumable = true,
    .urgent = true,
    .execute = execute_change,
};

const struct ops_operation_kind ops_policy_rollback_kind = {
    .name = "policy.rollback",
    .request = KMS_ACTION_POLICY_APPLY,
    .approve = KMS_ACTION_POLICY_APPROVE,
    .approvals = 2,
    .resumable = true,
    .urgent = true,
    .execute = execute_change,
};

static enum kms_status apply_policy(struct ops_run *run, const ProtobufCMessage *message,
                                    ProtobufCMessage **ret_reply)
{
    const Kms__V1__ApplyPolicyRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_text(call, "comment", request->comment, KMS_POLICY_COMMENT_MAX));
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(ops_operation_repeated(run, message, ret_reply));
    if (*ret_reply != NULL)
        return KMS_OK;
    return request_change(run, &ops_policy_apply_kind, request->base_version,
                          kms_slice_str(request->document), request->comment, ret_reply);
}

enum kms_status kms_ops_apply_policy(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                     ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_POLICY_APPLY, true, apply_policy, request, ret_reply);
}

static enum kms_status rollback_policy(struct ops_run *run, const ProtobufCMessage *message,
                                       ProtobufCMessage **ret_reply)
{
    const Kms__V1__RollbackPolicyRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_text(call, "comment", request->comment, KMS_POLICY_COMMENT_MAX));
    if (request->version == 0)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "version: must be given");
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(ops_operation_repeated(run, message, ret_reply));
    if (*ret_reply != NULL)
        return KMS_OK;
    VERSION older = {0};
    const enum kms_status status = ops_policy_get(run->ops->store, request->version, &older, &call->error);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(&call->error, status, "there is no version %" PRIu64 " of the policy",
                               request->version);
    KMS_TRY(status);
    char *comment = kms_arena_printf(call->arena, "rollback to version %" PRIu64 "%s%s", request->version,
                                     request->comment[0] != '\0' ? ": " : "", request->comment);
    if (comment == NULL)
        return KMS_NO_MEMORY;
    size_t len = strnlen(comment, KMS_POLICY_COMMENT_MAX);
    while (((uint8_t)comment[len] & 0xc0) == 0x80) /* not within a character */
        len--;
    comment[len] = '\0';
    return request_change(run, &ops_policy_rollback_kind, request->base_version,
                          kms_slice_of(older.document, older.document_len), comment, ret_reply);
}

enum kms_status kms_ops_rollback_policy(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                        ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_POLICY_APPLY, true, rollback_policy, request, ret_reply);
}

static enum kms_status check_permission(struct ops_run *run, const ProtobufCMessage *message,
                                        ProtobufCMessage **ret_reply)
{
    const Kms__V1__CheckPermissionRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_text(call, "identity", request->identity, KMS_IDENTITY_MAX));
    KMS_TRY(ops_check_optional_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_optional_id(call, "purpose", request->purpose));
    const enum kms_action action = kms_action_of_text(request->action);
    if (action == KMS_ACTION_COUNT)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "action: '%.64s' is not one, such as datakey.generate", request->action);
    KMS_TRY(ops_allow(run, NULL, NULL));
    char text[EXPLANATION_MAX];
    char person[KMS_IDENTITY_MAX + 1];
    Kms__V1__CheckPermissionResponse *reply =
        ops_message_new(call->arena, &kms__v1__check_permission_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    reply->allowed = kms_auth_explain(run->ops->auth, request->identity, action, ops_named(request->tenant),
                                      ops_named(request->purpose), text, sizeof text);
    reply->reason = ops_string(call->arena, text);
    reply->person = ops_string(call->arena, kms_auth_person(run->ops->auth, request->identity, person));
    *ret_reply = &reply->base;
    return reply->reason != NULL && reply->person != NULL ? KMS_OK : KMS_NO_MEMORY;
}

enum kms_status kms_ops_check_permission(void *context, struct kms_call *call,
                                         const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_POLICY_READ, false, check_permission, request, ret_reply);
}
