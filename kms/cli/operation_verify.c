/* Approvals checked off-line, from the text of `kmsctl operation show --json` and the certificate authorities. */
#include "auth/identity.h"

#include "cli/commands.h"
#include "cli/operation.h"
#include "cli/output.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/file.h"
#include "evidence/chain.h"
#include "evidence/signature.h"

#include <openssl/evp.h>
#include <string.h>

enum { TEXT_MAX = 8 << 20, DOCUMENT_MAX = 4 << 20, APPROVALS_MAX = 1000, TIME_LENGTH = 19 };

static void clear_json(json_t **json)
{
    json_decref(*json);
}

/* The text of a member; "" when it is none. */
static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

/* Bytes of a base64 member; false when it is none, or longer than `max`. */
static bool bytes_of(const json_t *object, const char *key, size_t max, struct kms_buf *ret_bytes)
{
    const json_t *member = json_object_get(object, key);
    const size_t len = json_string_length(member);
    if (len == 0 || len % 4 != 0 || len / 4 * 3 > max + 2 || kms_buf_reserve(ret_bytes, len) != KMS_OK)
        return false;
    const char *text = json_string_value(member);
    const size_t padding = text[len - 1] != '=' ? 0 : text[len - 2] != '=' ? 1 : 2;
    const int got = EVP_DecodeBlock(ret_bytes->data, (const unsigned char *)text, (int)len);
    if (got < 0 || (size_t)got < padding || memchr(text, '=', len - padding) != NULL)
        return false;
    ret_bytes->len = (size_t)got - padding;
    return true;
}

/* "2026-01-31T12:00:00.000000Z" in nanoseconds; the fraction does not matter here. */
static bool time_of(const char *text, int64_t *ret_ns)
{
    char whole[TIME_LENGTH + 2];
    int64_t seconds = 0;
    if (strlen(text) < TIME_LENGTH)
        return false;
    (void)snprintf(whole, sizeof whole, "%.*sZ", TIME_LENGTH, text);
    if (!kms_cli_parse_time(whole, &seconds) || seconds < 0 || seconds > INT64_MAX / KMS_NS_PER_SECOND)
        return false;
    *ret_ns = seconds * KMS_NS_PER_SECOND;
    return true;
}

/* One approval; the identity is what its certificate says, whatever the file claims. */
static enum kms_status check_approval(const json_t *approval, struct kms_slice document,
                                      struct kms_slice authorities, struct kms_certificate *ret_certificate,
                                      struct kms_error *err)
{
    const struct kms_slice pem = kms_slice_str(text_of(approval, "certificate"));
    KMS_CLEANUP(kms_buf_clear) struct kms_buf signature = {0};
    int64_t at_ns = 0;
    if (!bytes_of(approval, "signature", KMS_EVIDENCE_SIGNATURE_MAX, &signature))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the signature is not base64");
    if (!time_of(text_of(approval, "time"), &at_ns))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the time is not RFC 3339 in UTC");
    KMS_TRY(kms_signature_verify(pem, document, kms_buf_slice(&signature), err));
    KMS_TRY(kms_chain_verify(pem, authorities, at_ns, err));
    KMS_TRY(kms_identity_parse(pem, ret_certificate, err));
    if (strcmp(ret_certificate->identity.name, text_of(approval, "identity")) != 0)
        return kms_fail_public(err, KMS_TAMPERED, "the certificate is that of %s",
                               ret_certificate->identity.name);
    return KMS_OK;
}

/* Whether an earlier good approval is by the same identity. */
static bool seen_before(char (*names)[KMS_IDENTITY_MAX + 1], size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* What the document says of itself. */
static bool read_document(const json_t *file, const struct kms_buf *bytes,
                          struct kms_cli_operation_evidence *evidence)
{
    uint8_t hash[EVP_MAX_MD_SIZE];
    KMS_CLEANUP(clear_json)
    json_t *document = json_loadb((const char *)bytes->data, bytes->len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *needed = json_object_get(document, "approvals_needed");
    if (EVP_Q_digest(NULL, "SHA256", NULL, bytes->data, bytes->len, hash, NULL) != 1)
        return false;
    kms_hex_encode(hash, 32, evidence->digest);
    (void)snprintf(evidence->uid, sizeof evidence->uid, "%s", text_of(document, "uid"));
    (void)snprintf(evidence->kind, sizeof evidence->kind, "%s", text_of(document, "kind"));
    (void)snprintf(evidence->requester, sizeof evidence->requester, "%s", text_of(document, "requester"));
    if (strcmp(text_of(document, "format"), "kms.operation.v1") != 0 || !json_is_integer(needed) ||
        json_integer_value(needed) < 0 || json_integer_value(needed) > APPROVALS_MAX) {
        (void)snprintf(evidence->problem, sizeof evidence->problem,
                       "the document is not that of an operation");
        return false;
    }
    evidence->needed = (unsigned)json_integer_value(needed);
    if (strcmp(text_of(file, "digest"), evidence->digest) != 0)
        (void)snprintf(evidence->problem, sizeof evidence->problem,
                       "the document was changed: its digest is another");
    return evidence->problem[0] == '\0';
}

/* Every approval of the file; counts the good ones of different identities. */
static bool check_all(const json_t *approvals, struct kms_slice document, struct kms_slice authorities,
                      void (*found)(void *, const char *, const char *, const char *), void *context,
                      struct kms_cli_operation_evidence *evidence)
{
    KMS_FREE char(*names)[KMS_IDENTITY_MAX + 1] = calloc(APPROVALS_MAX, sizeof *names);
    if (names == NULL)
        return false;
    size_t index;
    json_t *approval;
    json_array_foreach(approvals, index, approval)
    {
        struct kms_error err = {0};
        struct kms_certificate certificate = {0};
        const enum kms_status status = check_approval(approval, document, authorities, &certificate, &err);
        const char *problem = status != KMS_OK ? kms_error_cause(&err, status) : NULL;
        if (problem == NULL && strcmp(certificate.identity.name, evidence->requester) == 0)
            problem = "is the requester's own";
        if (problem == NULL && seen_before(names, evidence->valid, certificate.identity.name))
            problem = "is the second one of this identity";
        if (problem == NULL)
            (void)snprintf(names[evidence->valid++], sizeof *names, "%s", certificate.identity.name);
        else if (evidence->problem[0] == '\0')
            (void)snprintf(evidence->problem, sizeof evidence->problem, "approval %zu: %s", index + 1,
                           problem);
        if (found != NULL)
            found(context, text_of(approval, "identity"), text_of(approval, "time"), problem);
    }
    return true;
}

bool kms_cli_operation_check(struct kms_slice text, struct kms_slice authorities,
                             void (*found)(void *context, const char *identity, const char *time,
                                           const char *problem),
                             void *context, struct kms_cli_operation_evidence *ret_evidence)
{
    struct kms_cli_operation_evidence *evidence = ret_evidence;
    *evidence = (struct kms_cli_operation_evidence){0};
    KMS_CLEANUP(clear_json)
    json_t *file = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    KMS_CLEANUP(kms_buf_clear) struct kms_buf document = {0};
    const json_t *approvals = json_object_get(file, "approvals");
    if (!bytes_of(file, "document", DOCUMENT_MAX, &document) || !json_is_array(approvals) ||
        json_array_size(approvals) > APPROVALS_MAX) {
        (void)snprintf(evidence->problem, sizeof evidence->problem,
                       "the file is not what \"kmsctl operation show --json\" prints");
        return false;
    }
    if (!read_document(file, &document, evidence) ||
        !check_all(approvals, kms_buf_slice(&document), authorities, found, context, evidence))
        return false;
    if (evidence->problem[0] == '\0' && evidence->valid < evidence->needed)
        (void)snprintf(evidence->problem, sizeof evidence->problem, "%u approvals are needed, %u are there",
                       evidence->needed, evidence->valid);
    return evidence->problem[0] == '\0';
}

/* A line for each approval, in the order of the file. */
static void collect(void *context, const char *identity, const char *time, const char *problem)
{
    json_t *list = context;
    (void)json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "identity", identity, "time", time,
                                                "verdict", problem != NULL ? problem : "good"));
}

int kms_cli_operation_verify(struct kms_cli *cli)
{
    static const struct kms_cli_column columns[] = {
        {"APPROVED BY", "identity"}, {"TIME", "time"}, {"VERDICT", "verdict"}};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf text = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf authorities = {0};
    struct kms_error err = {0};
    enum kms_status status = kms_file_read(cli->words[0], TEXT_MAX, &text, &err);
    if (status == KMS_OK)
        status =
            kms_file_read(kms_cli_value(cli, KMS_CLI_CA), KMS_EVIDENCE_AUTHORITIES_MAX, &authorities, &err);
    if (status != KMS_OK)
        return kms_cli_fail(cli, "%s", kms_error_public(&err, status));
    json_t *list = json_array();
    struct kms_cli_operation_evidence evidence;
    const bool good =
        kms_cli_operation_check(kms_buf_slice(&text), kms_buf_slice(&authorities), collect, list, &evidence);
    json_t *summary = json_pack("{s:b, s:s, s:s, s:s, s:s, s:i, s:i, s:s}", "good", good, "uid", evidence.uid,
                                "kind", evidence.kind, "requester", evidence.requester, "digest",
                                evidence.digest, "approvals_needed", (int)evidence.needed, "approvals_good",
                                (int)evidence.valid, "problem", evidence.problem);
    if (summary != NULL && cli->json)
        (void)json_object_set(summary, "approvals", list);
    if (!cli->json && json_array_size(list) > 0) {
        struct kms_cli_list table;
        kms_cli_list_begin(&table, cli, "approvals", columns, sizeof columns / sizeof *columns);
        kms_cli_list_add(&table, json_incref(list));
        (void)fputc('\n', cli->out);
    }
    json_decref(list);
    const int exit_code = kms_cli_show(cli, summary);
    return exit_code == KMS_CLI_EXIT_OK && !good ? KMS_CLI_EXIT_REFUSED : exit_code;
}
