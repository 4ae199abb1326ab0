/* Certificates: what was signed, kept as it was signed. */
#include "store/changelog_shred.h"
#include "store/query.h"
#include "store/sqlite_shred.h"

enum kms_status kms_sqlite_certificate_insert(struct kms_store_txn *txn,
                                              const struct kms_certificate_record *certificate,
                                              struct kms_error *err)
{
    const char *problem = kms_certificate_problem(certificate);
    if (problem != NULL)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
    int64_t tenant_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, &certificate->tenant, &tenant_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CERTIFICATE_INSERT);
    kms_query_uuid(&query, &certificate->uid);
    kms_query_i64(&query, tenant_no);
    kms_query_uuid(&query, &certificate->batch);
    kms_query_i64(&query, certificate->kind);
    kms_query_i64(&query, certificate->created_ns);
    kms_query_blob(&query, certificate->signature, certificate->signature_len);
    kms_query_blob(&query, certificate->document, certificate->document_len);
    KMS_TRY(kms_query_run(&query, "certificate", err));
    return kms_sqlite_log(txn, KMS_CHANGE_CERTIFICATE,
                          kms_changelog_certificate(certificate, kms_sqlite_payload(txn)), err);
}

/* One row of KMS_CERTIFICATE_SELECT, with the document behind it or without. */
static enum kms_status take_certificate(struct kms_query *query, bool with_document,
                                        struct kms_certificate_record *ret_certificate, struct kms_error *err)
{
    KMS_CLEANUP(kms_certificate_record_clear) struct kms_certificate_record certificate = {0};
    kms_query_take_uuid(query, &certificate.uid);
    kms_query_take_uuid(query, &certificate.tenant);
    kms_query_take_uuid(query, &certificate.batch);
    certificate.kind = kms_query_take_state(query);
    certificate.created_ns = kms_query_take_i64(query);
    KMS_FREE uint8_t *signature =
        kms_query_take_copy(query, false, sizeof certificate.signature, &certificate.signature_len);
    if (signature != NULL)
        memcpy(certificate.signature, signature, certificate.signature_len);
    if (with_document)
        certificate.document =
            kms_query_take_copy(query, false, KMS_CERTIFICATE_MAX, &certificate.document_len);
    KMS_TRY(kms_query_row_ok(query, with_document ? kms_certificate_problem(&certificate) : NULL, err));
    *ret_certificate = certificate;
    certificate.document = NULL;
    return KMS_OK;
}

enum kms_status kms_sqlite_certificate_get(struct kms_store_txn *txn, const struct kms_uuid *uid_or_batch,
                                           struct kms_certificate_record *ret_certificate,
                                           struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CERTIFICATE_GET);
    kms_query_uuid(&query, uid_or_batch);
    const enum kms_status status = kms_query_row(&query, err);
    if (status == KMS_NOT_FOUND)
        return kms_fail(err, KMS_NOT_FOUND, "no such certificate");
    return status == KMS_OK ? take_certificate(&query, true, ret_certificate, err) : status;
}

enum kms_status kms_sqlite_certificate_list(struct kms_store_txn *txn, const struct kms_uuid *tenant,
                                            const struct kms_uuid *after, size_t limit,
                                            kms_certificate_visit visit, void *context, struct kms_error *err)
{
    int64_t tenant_no = 0;
    int64_t after_no = 0;
    KMS_TRY(kms_sqlite_tenant_no(txn, tenant, &tenant_no, err));
    KMS_TRY(kms_sqlite_row_no(txn, KMS_STATEMENT_CERTIFICATE_NO, after, "certificate", &after_no, err));
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CERTIFICATE_LIST);
    kms_query_i64(&query, tenant_no);
    kms_query_i64(&query, after_no);
    kms_query_u64(&query, limit < INT64_MAX ? limit : INT64_MAX);
    for (;;) {
        const enum kms_status status = kms_query_row(&query, err);
        if (status == KMS_NOT_FOUND)
            return KMS_OK;
        KMS_TRY(status);
        struct kms_certificate_record certificate;
        KMS_TRY(take_certificate(&query, false, &certificate, err));
        KMS_TRY(visit(context, &certificate));
    }
}
