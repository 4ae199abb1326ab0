/* Certificates handed out: get, list. */
#include "ops/certificate.h"
#include "ops/checks.h"
#include "ops/directory.h"
#include "ops/messages.h"
#include "ops/page_token.h"
#include "ops/run.h"

#include "kms/v1/certificate.pb-c.h"

#include <stdlib.h>

/* Bytes as a field of a message. */
static enum kms_status set_bytes(struct kms_call *call, const void *data, size_t len,
                                 ProtobufCBinaryData *ret_field)
{
    uint8_t *copy = kms_arena_alloc(call->arena, len + 1);
    if (copy == NULL)
        return KMS_NO_MEMORY;
    memcpy(copy, data, len);
    *ret_field = (ProtobufCBinaryData){len, copy};
    return KMS_OK;
}

/* With the document when the record has it. */
static enum kms_status certificate_message(struct kms_call *call, const char *tenant_id,
                                           const struct kms_certificate_record *certificate,
                                           Kms__V1__Certificate **ret_message)
{
    char text[KMS_UUID_TEXT_SIZE];
    struct kms_arena *arena = call->arena;
    Kms__V1__Certificate *message = ops_message_new(arena, &kms__v1__certificate__descriptor);
    if (message == NULL)
        return KMS_NO_MEMORY;
    message->uid = ops_string(arena, kms_uuid_format(&certificate->uid, text));
    message->name = kms_arena_printf(arena, "tenants/%s/certificates/%s", tenant_id, text);
    message->tenant = ops_string(arena, tenant_id);
    message->batch = ops_string(arena, kms_uuid_format(&certificate->batch, text));
    message->kind = (Kms__V1__Certificate__Kind)certificate->kind;
    message->create_time = ops_timestamp(arena, certificate->created_ns);
    if (message->uid == NULL || message->name == NULL || message->tenant == NULL || message->batch == NULL ||
        message->create_time == NULL)
        return KMS_NO_MEMORY;
    if (certificate->document != NULL) {
        KMS_TRY(set_bytes(call, certificate->document, certificate->document_len, &message->document));
        KMS_TRY(set_bytes(call, certificate->signature, certificate->signature_len, &message->signature));
    }
    *ret_message = message;
    return KMS_OK;
}

/* The certificate and its tenant. */
static enum kms_status find(struct kms_call *call, struct kms_txn *txn, const char *uid,
                            struct kms_certificate_record *certificate, struct kms_tenant_record *tenant)
{
    struct kms_uuid uuid;
    if (kms_uuid_parse(uid, &uuid) != KMS_OK)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "uid: is not a UUID");
    const enum kms_status status =
        txn->store->ops->shred.certificate_get(txn->txn, &uuid, certificate, &call->error);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(&call->error, status, "there is no certificate %s", uid);
    KMS_TRY(status);
    return txn->store->ops->tenant_by_uuid(txn->txn, &certificate->tenant, tenant, &call->error);
}

/* The proof of one customer, if one is wanted. */
static enum kms_status add_proof(struct kms_call *call, struct kms_txn *txn,
                                 const struct kms_certificate_record *certificate, const char *customer_uid,
                                 Kms__V1__Certificate *message)
{
    struct kms_uuid customer;
    KMS_FREE char *proof = NULL;
    if (customer_uid[0] == '\0')
        return KMS_OK;
    if (kms_uuid_parse(customer_uid, &customer) != KMS_OK)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "customer_uid: is not a UUID");
    KMS_TRY(ops_certificate_proof(txn, certificate, &customer, &proof, &call->error));
    return set_bytes(call, proof, strlen(proof), &message->proof);
}

static enum kms_status get_certificate(struct ops_run *run, const ProtobufCMessage *message,
                                       ProtobufCMessage **ret_reply)
{
    const Kms__V1__GetCertificateRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_CLEANUP(kms_certificate_record_clear) struct kms_certificate_record certificate = {0};
    struct kms_tenant_record tenant;
    KMS_TXN txn = {0};
    KMS_TRY(kms_auth_decide(run->ops->auth, call->identity, run->action, NULL, NULL, &call->error));
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    KMS_TRY(find(call, &txn, request->uid, &certificate, &tenant));
    char *tenant_id = ops_string(call->arena, tenant.id);
    if (tenant_id == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(ops_allow(run, tenant_id, NULL));
    Kms__V1__Certificate *reply = NULL;
    KMS_TRY(certificate_message(call, tenant_id, &certificate, &reply));
    KMS_TRY(add_proof(call, &txn, &certificate, request->customer_uid, reply));
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_get_certificate(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                        ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_CERTIFICATE_READ, false, get_certificate, request,
                       ret_reply);
}

/* Collects the certificates of one page. */
struct certificate_page {
    struct kms_call *call;
    const char *tenant_id;
    Kms__V1__ListCertificatesResponse *reply;
};

static enum kms_status add_certificate(void *context, const struct kms_certificate_record *certificate)
{
    const struct certificate_page *page = context;
    Kms__V1__Certificate *message = NULL;
    KMS_TRY(certificate_message(page->call, page->tenant_id, certificate, &message));
    page->reply->certificates[page->reply->n_certificates++] = message;
    return KMS_OK;
}

static enum kms_status list_certificates(struct ops_run *run, const ProtobufCMessage *message,
                                         ProtobufCMessage **ret_reply)
{
    const Kms__V1__ListCertificatesRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    size_t limit = 0;
    const char *after = NULL;
    struct kms_uuid place;
    const struct kms_slice query = kms_slice_str(request->tenant);
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_page_size(call, request->page_size, &limit));
    KMS_TRY(ops_allow(run, request->tenant, NULL));
    KMS_TRY(ops_page_token_parse(call, query, request->page_token, &after));
    if (after != NULL)
        KMS_TRY(kms_uuid_parse(after, &place));
    Kms__V1__ListCertificatesResponse *reply =
        ops_message_new(call->arena, &kms__v1__list_certificates_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    reply->certificates = kms_arena_alloc(call->arena, limit * sizeof(*reply->certificates));
    if (reply->certificates == NULL)
        return KMS_NO_MEMORY;
    KMS_TXN txn = {0};
    struct kms_tenant_record tenant;
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    KMS_TRY(ops_find_tenant(call, &txn, request->tenant, &tenant));
    struct certificate_page page = {call, request->tenant, reply};
    KMS_TRY(txn.store->ops->shred.certificate_list(txn.txn, &tenant.uuid, after != NULL ? &place : NULL,
                                                   limit, add_certificate, &page, &call->error));
    if (reply->n_certificates == limit)
        KMS_TRY(
            ops_page_token_make(call, query, reply->certificates[limit - 1]->uid, &reply->next_page_token));
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_list_certificates(void *context, struct kms_call *call,
                                          const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_CERTIFICATE_READ, false, list_certificates, request,
                       ret_reply);
}
