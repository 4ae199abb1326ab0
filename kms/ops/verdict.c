#include "ops/verdict.h"

#include "auth/identity.h"
#include "core/clock.h"
#include "core/file.h"
#include "evidence/chain.h"
#include "evidence/signature.h"

enum { EXPLANATION_SIZE = 256 };

const struct ops_operation_kind *ops_operation_kind_of(const struct kms_ops *ops, const char *name)
{
    for (const struct ops_operation_kind *const *kind = ops->kinds; *kind != NULL; kind++)
        if (strcmp((*kind)->name, name) == 0)
            return *kind;
    return NULL;
}

/* The tenant as auth takes it. */
static const char *tenant_of(const struct kms_operation_record *operation)
{
    return operation->tenant[0] != '\0' ? operation->tenant : NULL;
}

enum kms_status ops_verdict_may_decide(struct kms_ops *ops, struct kms_call *call,
                                       const struct kms_operation_record *operation)
{
    char requester[KMS_IDENTITY_MAX + 1];
    char decider[KMS_IDENTITY_MAX + 1];
    (void)kms_auth_person(ops->auth, operation->requester, requester);
    (void)kms_auth_person(ops->auth, call->identity->name, decider);
    if (strcmp(requester, decider) == 0)
        return kms_fail_public(
            &call->error, KMS_PERMISSION_DENIED,
            "you have requested this operation: another person must decide on it; cancel takes "
            "it back");
    if (operation->state != KMS_OPERATION_PENDING)
        return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION,
                               "the operation is %s: it cannot be decided on",
                               kms_operation_state_name(operation->state));
    if (kms_clock_wall_ns() >= operation->expires_ns)
        return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION,
                               "the operation has expired: it must be requested again");
    return KMS_OK;
}

/* Whether the approval at `at` is the first of its person, who is not the requester. */
static bool counts(struct kms_ops *ops, const struct kms_operation_record *operation,
                   const struct kms_approval_record *list, size_t at)
{
    char person[KMS_IDENTITY_MAX + 1];
    char other[KMS_IDENTITY_MAX + 1];
    (void)kms_auth_person(ops->auth, list[at].identity, person);
    if (strcmp(person, kms_auth_person(ops->auth, operation->requester, other)) == 0)
        return false;
    for (size_t i = 0; i < at; i++)
        if (strcmp(person, kms_auth_person(ops->auth, list[i].identity, other)) == 0)
            return false;
    return true;
}

bool ops_verdict_suffices(struct kms_ops *ops, const struct kms_operation_record *operation,
                          const struct kms_approval_record *list, size_t count)
{
    unsigned persons = 0;
    for (size_t i = 0; i < count; i++)
        persons += counts(ops, operation, list, i);
    return persons >= operation->approvals_needed;
}

/* Is a member of the document this text? */
static bool says(const json_t *document, const char *member, const char *text)
{
    const char *found = json_string_value(json_object_get(document, member));
    return found != NULL && strcmp(found, text) == 0;
}

/* What is signed must be what the row says, so that nobody changes the row behind the signatures. */
static enum kms_status check_document(const struct kms_operation_record *operation, json_t **ret_parameters,
                                      struct kms_error *err)
{
    char uid[KMS_UUID_TEXT_SIZE];
    char expires[KMS_TIME_TEXT_SIZE];
    uint8_t digest[KMS_OPERATION_DIGEST_SIZE];
    KMS_TRY(ops_operation_digest(kms_slice_of(operation->document, operation->document_len), digest));
    json_t *document =
        json_loadb((const char *)operation->document, operation->document_len, JSON_REJECT_DUPLICATES, NULL);
    json_t *parameters = json_object_get(document, "parameters");
    const json_t *needed = json_object_get(document, "approvals_needed");
    const bool same =
        memcmp(digest, operation->digest, sizeof digest) == 0 &&
        says(document, "format", KMS_OPS_OPERATION_FORMAT) && says(document, "kind", operation->kind) &&
        says(document, "tenant", operation->tenant) && says(document, "requester", operation->requester) &&
        says(document, "uid", kms_uuid_format(&operation->uuid, uid)) &&
        says(document, "expires", kms_clock_format(operation->expires_ns, expires)) &&
        json_is_integer(needed) && json_integer_value(needed) == (json_int_t)operation->approvals_needed &&
        json_is_object(parameters);
    if (same)
        *ret_parameters = json_incref(parameters);
    json_decref(document);
    return same ? KMS_OK
                : kms_fail_public(
                      err, KMS_TAMPERED,
                      "the stored operation is not what its document says: somebody changed the database");
}

/* May it run with as many approvals as its document asks for? The policy may have become stricter meanwhile. */
static enum kms_status check_needed(struct kms_ops *ops, const struct ops_operation_kind *kind,
                                    const struct kms_operation_record *operation, struct kms_error *err)
{
    if (ops_is_service(operation->requester) && kind->service)
        return KMS_OK;
    unsigned wanted = kind->approvals;
    int64_t ttl_seconds = 0;
    kms_auth_approvals(ops->auth, kind->name, &wanted, &ttl_seconds);
    if (operation->approvals_needed >= wanted)
        return KMS_OK;
    return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                           "the policy asks for %u approvals by now, the operation for %u: request it again",
                           wanted, (unsigned)operation->approvals_needed);
}

/* May the requester still ask for it? */
static enum kms_status check_requester(struct kms_ops *ops, const struct ops_operation_kind *kind,
                                       const struct kms_operation_record *operation, struct kms_error *err)
{
    char why[EXPLANATION_SIZE];
    if ((ops_is_service(operation->requester) && kind->service) ||
        kms_auth_explain(ops->auth, operation->requester, kind->request, tenant_of(operation), NULL, why,
                         sizeof why))
        return KMS_OK;
    (void)kms_fail(err, KMS_FAILED_PRECONDITION, "requester: %s", why);
    return kms_fail_public(err, KMS_FAILED_PRECONDITION, "its requester may not ask for this any more");
}

/* One approval as evidence: signed by the key of a certificate of ours that names who approved. */
static enum kms_status check_signature(const struct kms_operation_record *operation,
                                       const struct kms_approval_record *approval,
                                       struct kms_slice authorities, struct kms_error *err)
{
    const struct kms_slice pem = kms_slice_str(approval->certificate);
    struct kms_certificate certificate;
    KMS_TRY(kms_signature_verify(pem, kms_slice_of(operation->document, operation->document_len),
                                 kms_slice_of(approval->signature, approval->signature_len), err));
    KMS_TRY(kms_identity_parse(pem, &certificate, err));
    if (strcmp(certificate.identity.name, approval->identity) != 0)
        return kms_fail(err, KMS_TAMPERED, "the certificate names somebody else");
    return kms_chain_verify(pem, authorities, approval->time_ns, err);
}

/* May the approver still approve? */
static enum kms_status check_standing(struct kms_ops *ops, const struct ops_operation_kind *kind,
                                      const struct kms_operation_record *operation,
                                      const struct kms_approval_record *approval, struct kms_error *err)
{
    const struct kms_identity *identity = NULL;
    KMS_TRY(kms_auth_identify(ops->auth, kms_slice_str(approval->certificate), &identity, err));
    return kms_auth_decide(ops->auth, identity, kind->approve, tenant_of(operation), NULL, err);
}

/* Every approval; one that does not hold spoils them all. */
static enum kms_status check_approvals(struct kms_ops *ops, const struct ops_operation_kind *kind,
                                       const struct kms_operation_record *operation, bool fresh,
                                       const struct kms_approval_record *list, size_t count,
                                       struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf authorities = {0};
    if (count > 0)
        KMS_TRY(kms_file_read(ops->client_ca_path, KMS_EVIDENCE_AUTHORITIES_MAX, &authorities, err));
    for (size_t i = 0; i < count; i++) {
        struct kms_error why = {0};
        enum kms_status status = check_signature(operation, &list[i], kms_buf_slice(&authorities), &why);
        if (status == KMS_OK && fresh)
            status = check_standing(ops, kind, operation, &list[i], &why);
        if (status == KMS_NO_MEMORY)
            return status;
        if (status != KMS_OK) {
            (void)kms_fail(err, status, "approval of %s: %s", list[i].identity,
                           kms_error_cause(&why, status));
            return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                                   "the approval of %s does not hold any more: request the operation again",
                                   list[i].identity);
        }
    }
    if (!ops_verdict_suffices(ops, operation, list, count))
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "its approvals are by fewer persons than are needed: request it again");
    return KMS_OK;
}

/* The approvals that the operation has, all of which must hold. */
static enum kms_status check_stored_approvals(struct kms_ops *ops, const struct ops_operation_kind *kind,
                                              const struct kms_operation_record *operation, bool fresh,
                                              struct kms_error *err)
{
    struct kms_approval_record *list = NULL;
    size_t count = 0;
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
        KMS_TRY(ops->store->ops->operation.approvals(txn.txn, &operation->uuid, &list, &count, err));
    }
    const enum kms_status status = check_approvals(ops, kind, operation, fresh, list, count, err);
    kms_approval_list_clear(list, count);
    return status;
}

static void clear_json(json_t **json)
{
    json_decref(*json);
}

enum kms_status ops_verdict_check(struct kms_ops *ops, const struct ops_operation_kind *kind,
                                  const struct kms_operation_record *operation, bool fresh,
                                  json_t **ret_parameters, struct kms_error *err)
{
    KMS_CLEANUP(clear_json) json_t *parameters = NULL;
    KMS_TRY(check_document(operation, &parameters, err));
    KMS_TRY(check_needed(ops, kind, operation, err));
    if (fresh)
        KMS_TRY(check_requester(ops, kind, operation, err));
    KMS_TRY(check_stored_approvals(ops, kind, operation, fresh, err));
    *ret_parameters = KMS_TAKE(parameters);
    return KMS_OK;
}
