#include "cli/operation.h"

#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/json.h"
#include "cli/paging.h"
#include "cli/terminal.h"
#include "core/cleanup.h"
#include "evidence/signature.h"

#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

#define METHOD(name, reply, idempotent)                                                                      \
    {                                                                                                        \
        "/kms.v1.OperationService/" name, &kms__v1__##reply##__descriptor, idempotent                        \
    }
static const struct kms_unary_method get_method = METHOD("GetOperation", operation, true);
static const struct kms_unary_method approve_method = METHOD("ApproveOperation", operation, false);
static const struct kms_unary_method reject_method = METHOD("RejectOperation", operation, false);
static const struct kms_unary_method cancel_method = METHOD("CancelOperation", operation, false);

static const struct kms_cli_column columns[] = {
    {"UID", "uid"},   {"KIND", "kind"},   {"TENANT", "tenant"},       {"STATE", "state"},
    {"DONE", "done"}, {"TOTAL", "total"}, {"REQUESTER", "requester"}, {"CREATED", "create_time"}};
static const struct kms_cli_paged list_method = {METHOD("ListOperations", list_operations_response, true),
                                                 "operations", columns, sizeof columns / sizeof *columns};

/* --state as the number of the API. */
static int read_state(struct kms_cli *cli, Kms__V1__Operation__State *ret_state)
{
    const char *text = kms_cli_value(cli, KMS_CLI_STATE);
    if (text == NULL)
        return KMS_CLI_EXIT_OK;
    const ProtobufCEnumDescriptor *states = &kms__v1__operation__state__descriptor;
    for (unsigned i = 1; i < states->n_values; i++) {
        if (strcasecmp(states->values[i].name, text) == 0) {
            *ret_state = (Kms__V1__Operation__State)states->values[i].value;
            return KMS_CLI_EXIT_OK;
        }
    }
    return kms_cli_usage(
        cli,
        "--state takes pending, approved, running, succeeded, failed, rejected, cancelled or "
        "expired, not \"%s\"",
        text);
}

int kms_cli_operation_list(struct kms_cli *cli)
{
    Kms__V1__ListOperationsRequest request = KMS__V1__LIST_OPERATIONS_REQUEST__INIT;
    const int result = read_state(cli, &request.state);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.kind = kms_cli_option_field(cli, KMS_CLI_KIND);
    return kms_cli_page(cli, &list_method, &request.base);
}

/* The operation that the command names. */
static int get(struct kms_cli *cli, struct kms_cli_call *call)
{
    Kms__V1__GetOperationRequest request = KMS__V1__GET_OPERATION_REQUEST__INIT;
    request.uid = kms_cli_field(cli->words[0]);
    return kms_cli_call(cli, call, &get_method, &request.base);
}

int kms_cli_operation_get(struct kms_cli *cli)
{
    KMS_CLI_CALL call = {0};
    const int result = get(cli, &call);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    return kms_cli_operation_show(cli, (const Kms__V1__Operation *)call.reply);
}

int kms_cli_operation_await(struct kms_cli *cli)
{
    return kms_cli_operation_wait(cli, cli->words[0]);
}

/* A document that is for another operation, or whose digest is not what the service says, must never be signed. */
static int check_document(struct kms_cli *cli, const Kms__V1__Operation *operation, char digest[65])
{
    uint8_t hash[EVP_MAX_MD_SIZE];
    if (EVP_Q_digest(NULL, "SHA256", NULL, operation->document.data, operation->document.len, hash, NULL) !=
        1)
        return kms_cli_fail(cli, "out of memory");
    kms_hex_encode(hash, 32, digest);
    json_t *document = json_loadb((const char *)operation->document.data, operation->document.len,
                                  JSON_REJECT_DUPLICATES, NULL);
    const char *uid = json_string_value(json_object_get(document, "uid"));
    const bool same =
        uid != NULL && strcasecmp(uid, cli->words[0]) == 0 && strcmp(digest, operation->digest) == 0;
    json_decref(document);
    if (!same) {
        (void)kms_cli_fail(cli,
                           "what the service shows is not the document of operation %s: nothing was signed",
                           cli->words[0]);
        return KMS_CLI_EXIT_REFUSED;
    }
    const char *wanted = kms_cli_value(cli, KMS_CLI_DIGEST);
    if (wanted == NULL || strcasecmp(wanted, digest) == 0)
        return KMS_CLI_EXIT_OK;
    (void)kms_cli_fail(cli,
                       "the document of operation %s has the digest %s, not the one of --digest: nothing was "
                       "signed",
                       cli->words[0], digest);
    return KMS_CLI_EXIT_REFUSED;
}

/* Sign with the key of the connection: the service checks against the certificate of the same. */
static int sign(struct kms_cli *cli, const Kms__V1__Operation *operation,
                uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX], size_t *ret_len)
{
    KMS_CLEANUP(kms_cli_connection_clear) struct kms_cli_connection connection = {0};
    const int result = kms_cli_connection_load(cli, &connection);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    struct kms_error err = {0};
    const struct kms_slice document = kms_slice_of(operation->document.data, operation->document.len);
    const enum kms_status status =
        kms_signature_make(connection.private_key, document, signature, ret_len, &err);
    return status == KMS_OK ? KMS_CLI_EXIT_OK : kms_cli_fail(cli, "%s", kms_error_public(&err, status));
}

/* Show what will be done, and ask. With --json standard output is for the result alone. */
static int confirm(struct kms_cli *cli, const Kms__V1__Operation *operation)
{
    if (!cli->json) {
        const int result = kms_cli_operation_show(cli, operation);
        if (result != KMS_CLI_EXIT_OK)
            return result;
    }
    return kms_cli_confirm(
        cli,
        "Approving operation %s (%s%s%s, asked for by %s): with %zu of %u approvals so far, exactly "
        "what its document says will be done.",
        operation->uid, operation->kind, operation->tenant[0] != '\0' ? " in tenant " : "", operation->tenant,
        operation->requester, operation->n_approvals, operation->approvals_needed);
}

int kms_cli_operation_approve(struct kms_cli *cli)
{
    KMS_CLI_CALL call = {0};
    char digest[65];
    uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX];
    size_t signature_len = 0;
    int result = get(cli, &call);
    const Kms__V1__Operation *operation = (const Kms__V1__Operation *)call.reply;
    if (result == KMS_CLI_EXIT_OK)
        result = check_document(cli, operation, digest);
    if (result == KMS_CLI_EXIT_OK)
        result = confirm(cli, operation);
    if (result == KMS_CLI_EXIT_OK)
        result = sign(cli, operation, signature, &signature_len);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    Kms__V1__ApproveOperationRequest request = KMS__V1__APPROVE_OPERATION_REQUEST__INIT;
    request.uid = kms_cli_field(cli->words[0]);
    request.digest = digest;
    request.signature = (ProtobufCBinaryData){signature_len, signature};
    return kms_cli_operation_call(cli, &approve_method, &request.base);
}

int kms_cli_operation_reject(struct kms_cli *cli)
{
    Kms__V1__RejectOperationRequest request = KMS__V1__REJECT_OPERATION_REQUEST__INIT;
    request.uid = kms_cli_field(cli->words[0]);
    request.reason = kms_cli_option_field(cli, KMS_CLI_REASON);
    return kms_cli_operation_call(cli, &reject_method, &request.base);
}

int kms_cli_operation_cancel(struct kms_cli *cli)
{
    Kms__V1__CancelOperationRequest request = KMS__V1__CANCEL_OPERATION_REQUEST__INIT;
    request.uid = kms_cli_field(cli->words[0]);
    return kms_cli_operation_call(cli, &cancel_method, &request.base);
}
