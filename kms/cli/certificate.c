#include "evidence/certificate.h"

#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/input.h"
#include "cli/output.h"
#include "cli/paging.h"
#include "core/cleanup.h"
#include "core/file.h"
#include "evidence/signature.h"

#include <kms/v1/certificate.pb-c.h>
#include <string.h>

#define METHOD(name, reply)                                                                                  \
    {                                                                                                        \
        "/kms.v1.CertificateService/" name, &kms__v1__##reply##__descriptor, true                            \
    }
static const struct kms_unary_method get_method = METHOD("GetCertificate", certificate);

static const struct kms_cli_column columns[] = {
    {"UID", "uid"}, {"BATCH", "batch"}, {"CREATED", "create_time"}};
static const struct kms_cli_paged list_method = {METHOD("ListCertificates", list_certificates_response),
                                                 "certificates", columns, sizeof columns / sizeof *columns};

int kms_cli_certificate_list(struct kms_cli *cli)
{
    Kms__V1__ListCertificatesRequest request = KMS__V1__LIST_CERTIFICATES_REQUEST__INIT;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    return kms_cli_page(cli, &list_method, &request.base);
}

/* `path` with a suffix as a new file. */
static int write_beside(struct kms_cli *cli, const char *path, const char *suffix,
                        const ProtobufCBinaryData *bytes)
{
    char name[4096];
    const int len = snprintf(name, sizeof name, "%s%s", path, suffix);
    if (len < 0 || (size_t)len >= sizeof name)
        return kms_cli_fail(cli, "the file name is too long");
    return kms_cli_write_new(cli, name, bytes->data, bytes->len);
}

int kms_cli_certificate_get(struct kms_cli *cli)
{
    const char *path = kms_cli_value(cli, KMS_CLI_OUT);
    Kms__V1__GetCertificateRequest request = KMS__V1__GET_CERTIFICATE_REQUEST__INIT;
    KMS_CLI_CALL call = {0};
    request.uid = kms_cli_field(cli->words[0]);
    request.customer_uid = kms_cli_option_field(cli, KMS_CLI_CUSTOMER);
    int result = kms_cli_call(cli, &call, &get_method, &request.base);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const Kms__V1__Certificate *certificate = (const void *)call.reply;
    result = write_beside(cli, path, "", &certificate->document);
    if (result == KMS_CLI_EXIT_OK)
        result = write_beside(cli, path, ".sig", &certificate->signature);
    if (result == KMS_CLI_EXIT_OK && certificate->proof.len > 0)
        result = write_beside(cli, path, ".proof", &certificate->proof);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    return kms_cli_show(cli, json_pack("{s:s, s:s, s:b}", "certificate", certificate->uid, "file", path,
                                       "proof", certificate->proof.len > 0));
}

/* A file that is no secret. */
static int read_file(struct kms_cli *cli, const char *path, size_t max, struct kms_buf *ret_bytes)
{
    struct kms_error err = {0};
    const enum kms_status status = kms_file_read(path, max, ret_bytes, &err);
    return status == KMS_OK ? KMS_CLI_EXIT_OK : kms_cli_fail(cli, "%s", kms_error_public(&err, status));
}
#define BUF KMS_CLEANUP(kms_buf_clear) struct kms_buf

/* The file and the certificate in it. */
static int load(struct kms_cli *cli, struct kms_buf *bytes, struct kms_certificate **ret_certificate)
{
    struct kms_error err = {0};
    const int result = read_file(cli, cli->words[0], KMS_EVIDENCE_DOCUMENT_MAX, bytes);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const enum kms_status status = kms_certificate_parse(kms_buf_slice(bytes), ret_certificate, &err);
    return status == KMS_OK ? KMS_CLI_EXIT_OK
                            : kms_cli_fail(cli, "%s: %s", cli->words[0], kms_error_public(&err, status));
}

static void free_certificate(struct kms_certificate **certificate)
{
    kms_certificate_free(*certificate);
}
#define CERTIFICATE KMS_CLEANUP(free_certificate) struct kms_certificate

int kms_cli_certificate_show(struct kms_cli *cli)
{
    BUF bytes = {0};
    CERTIFICATE *certificate = NULL;
    const int result = load(cli, &bytes, &certificate);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    if (cli->json)
        return kms_cli_show(cli, json_loadb((const char *)bytes.data, bytes.len, 0, NULL));
    kms_certificate_print(certificate, cli->out);
    (void)fputs("\nThe signature was not checked: kmsctl certificate verify does.\n", cli->out);
    return kms_cli_flush(cli);
}

/* Failures of a check: not authentic, and nothing else, is REFUSED. */
static int refuse(struct kms_cli *cli, const char *file, enum kms_status status, const struct kms_error *err)
{
    (void)kms_cli_fail(cli, "%s: %s", file, kms_error_public(err, status));
    return status == KMS_TAMPERED ? KMS_CLI_EXIT_REFUSED : KMS_CLI_EXIT_FAILED;
}

/* The detached signature beside the file, by the key of --key. */
static int check_signature(struct kms_cli *cli, const struct kms_buf *document)
{
    char name[4096];
    BUF signature = {0};
    BUF key = {0};
    struct kms_error err = {0};
    const int len = snprintf(name, sizeof name, "%s.sig", cli->words[0]);
    if (len < 0 || (size_t)len >= sizeof name)
        return kms_cli_fail(cli, "the file name is too long");
    int result = read_file(cli, name, KMS_EVIDENCE_SIGNATURE_MAX, &signature);
    if (result == KMS_CLI_EXIT_OK)
        result = read_file(cli, kms_cli_value(cli, KMS_CLI_KEY), KMS_EVIDENCE_PEM_MAX, &key);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const enum kms_status status =
        kms_signature_verify(kms_buf_slice(&key), kms_buf_slice(document), kms_buf_slice(&signature), &err);
    return status == KMS_OK ? KMS_CLI_EXIT_OK : refuse(cli, name, status, &err);
}

/* The proof of one customer, when one is given. */
static int check_proof(struct kms_cli *cli, const struct kms_certificate *certificate, json_t *summary)
{
    const char *path = kms_cli_value(cli, KMS_CLI_PROOF);
    BUF proof = {0};
    struct kms_error err = {0};
    struct kms_proof_facts facts = {0};
    char customer[KMS_UUID_TEXT_SIZE];
    if (path == NULL)
        return KMS_CLI_EXIT_OK;
    const int result = read_file(cli, path, KMS_EVIDENCE_DOCUMENT_MAX, &proof);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const enum kms_status status = kms_certificate_prove(certificate, kms_buf_slice(&proof), &facts, &err);
    if (status != KMS_OK)
        return refuse(cli, path, status, &err);
    (void)kms_uuid_format(&facts.customer, customer);
    const char *wanted = kms_cli_value(cli, KMS_CLI_CUSTOMER);
    if (wanted != NULL && strcmp(wanted, customer) != 0) {
        (void)kms_cli_fail(cli, "%s: is about customer %s, not about %s", path, customer, wanted);
        return KMS_CLI_EXIT_REFUSED;
    }
    (void)json_object_set_new(summary, "customer", json_string(customer));
    (void)json_object_set_new(summary, "customer_gone_as_a_whole", json_boolean(facts.whole));
    return KMS_CLI_EXIT_OK;
}

int kms_cli_certificate_verify(struct kms_cli *cli)
{
    BUF bytes = {0};
    CERTIFICATE *certificate = NULL;
    json_t *summary = json_pack("{s:s, s:s}", "certificate", cli->words[0], "signature", "good");
    int result = load(cli, &bytes, &certificate);
    if (result == KMS_CLI_EXIT_OK)
        result = check_signature(cli, &bytes);
    if (result == KMS_CLI_EXIT_OK)
        result = check_proof(cli, certificate, summary);
    if (result == KMS_CLI_EXIT_OK)
        return kms_cli_show(cli, summary);
    json_decref(summary);
    return result;
}
