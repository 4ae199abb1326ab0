/* The policy: get, diff, apply, history, rollback, check. */
#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/json.h"
#include "cli/operation.h"
#include "cli/paging.h"
#include "cli/terminal.h"
#include "core/cleanup.h"
#include "core/diff.h"
#include "core/file.h"

#include <kms/v1/policy.pb-c.h>

#include <string.h>

enum { DOCUMENT_MAX = 1 << 20, DIFF_AROUND = 3 };

#define METHOD(name, reply, idempotent)                                                                      \
    {                                                                                                        \
        "/kms.v1.PolicyService/" name, &kms__v1__##reply##__descriptor, idempotent                           \
    }
static const struct kms_unary_method get_method = METHOD("GetPolicy", policy, true);
static const struct kms_unary_method apply_method = METHOD("ApplyPolicy", operation, true);
static const struct kms_unary_method rollback_method = METHOD("RollbackPolicy", operation, true);
static const struct kms_unary_method check_method =
    METHOD("CheckPermission", check_permission_response, true);

static const struct kms_cli_column columns[] = {{"VERSION", "version"},     {"CREATED", "create_time"},
                                                {"BY", "identity"},         {"COMMENT", "comment"},
                                                {"OPERATION", "operation"}, {"SHA-256", "sha256"}};
static const struct kms_cli_paged history_method = {METHOD("ListPolicies", list_policies_response, true),
                                                    "policies", columns, sizeof columns / sizeof *columns};

/* A version; 0: the one in force. `*ret_policy` lives as long as the call. */
static int get_version(struct kms_cli *cli, struct kms_cli_call *call, uint64_t version,
                       const Kms__V1__Policy **ret_policy)
{
    Kms__V1__GetPolicyRequest request = KMS__V1__GET_POLICY_REQUEST__INIT;
    request.version = version;
    const int result = kms_cli_call(cli, call, &get_method, &request.base);
    if (result == KMS_CLI_EXIT_OK)
        *ret_policy = (const Kms__V1__Policy *)call->reply;
    return result;
}

/* The version in force, an empty one before the first. */
static int get_current(struct kms_cli *cli, struct kms_cli_call *call, const Kms__V1__Policy **ret_policy)
{
    static const Kms__V1__Policy none = KMS__V1__POLICY__INIT;
    Kms__V1__GetPolicyRequest request = KMS__V1__GET_POLICY_REQUEST__INIT;
    const int result = kms_cli_connect(cli);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const enum kms_client_status status = kms_cli_call_quiet(cli, call, &get_method, &request.base);
    if (status != KMS_CLIENT_OK && status != KMS_CLIENT_NOT_FOUND)
        return kms_cli_fail_client(cli, &call->error);
    *ret_policy = status == KMS_CLIENT_OK ? (const Kms__V1__Policy *)call->reply : &none;
    return KMS_CLI_EXIT_OK;
}

/* The number of a version among the words. */
static int take_version(struct kms_cli *cli, uint64_t *ret_version)
{
    if (cli->word_count > 0 && !kms_cli_parse_number(cli->words[0], INT64_MAX, ret_version))
        return kms_cli_usage(cli, "VERSION is a number, not \"%s\"", cli->words[0]);
    return KMS_CLI_EXIT_OK;
}

/* A policy file as text, with a terminator behind it. */
static int read_document(struct kms_cli *cli, struct kms_buf *ret_document)
{
    struct kms_error err = {0};
    const enum kms_status status = kms_file_read(cli->words[0], DOCUMENT_MAX, ret_document, &err);
    if (status != KMS_OK)
        return kms_cli_fail(cli, "%s", kms_error_cause(&err, status));
    if (memchr(ret_document->data, 0, ret_document->len) != NULL)
        return kms_cli_fail(cli, "%s is not a text file", cli->words[0]);
    return KMS_CLI_EXIT_OK;
}

/* Where a difference is printed, and whether there is one. */
struct printing {
    FILE *file;
    bool different;
};

static enum kms_status print_line(void *context, char mark, struct kms_slice line, size_t number)
{
    struct printing *printing = context;
    char text[1024];
    printing->different = true;
    if (mark == '@')
        (void)snprintf(text, sizeof text, "@ line %zu", number);
    else
        (void)snprintf(text, sizeof text, "%c %.*s", mark, (int)line.len, (const char *)line.data);
    kms_cli_print_text(printing->file, text);
    (void)fputc('\n', printing->file);
    return KMS_OK;
}

/* Show what would change. */
static int print_difference(struct kms_cli *cli, FILE *file, const char *before, const char *after,
                            bool *ret_different)
{
    struct printing printing = {.file = file};
    if (kms_diff_lines(kms_slice_str(before), kms_slice_str(after), DIFF_AROUND, print_line, &printing) !=
        KMS_OK)
        return kms_cli_fail(cli, "out of memory");
    *ret_different = printing.different;
    return KMS_CLI_EXIT_OK;
}

int kms_cli_policy_get(struct kms_cli *cli)
{
    KMS_CLI_CALL call = {0};
    const Kms__V1__Policy *policy = NULL;
    uint64_t version = 0;
    int result = take_version(cli, &version);
    if (result == KMS_CLI_EXIT_OK)
        result = get_version(cli, &call, version, &policy);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    if (cli->json)
        return kms_cli_show(cli, kms_cli_json_of(&policy->base));
    (void)fputs(policy->document, cli->out); /* byte for byte, so that it can be edited and applied */
    return kms_cli_flush(cli);
}

int kms_cli_policy_history(struct kms_cli *cli)
{
    Kms__V1__ListPoliciesRequest request = KMS__V1__LIST_POLICIES_REQUEST__INIT;
    return kms_cli_page(cli, &history_method, &request.base);
}

int kms_cli_policy_diff(struct kms_cli *cli)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf document = {0};
    KMS_CLI_CALL call = {0};
    const Kms__V1__Policy *current = NULL;
    bool different = false;
    int result = read_document(cli, &document);
    if (result == KMS_CLI_EXIT_OK)
        result = get_current(cli, &call, &current);
    if (result == KMS_CLI_EXIT_OK)
        result = print_difference(cli, cli->out, current->document, (const char *)document.data, &different);
    if (result == KMS_CLI_EXIT_OK)
        result = kms_cli_flush(cli);
    return result == KMS_CLI_EXIT_OK && different ? KMS_CLI_EXIT_FAILED : result;
}

/* Show what changes, and ask. */
static int confirm_change(struct kms_cli *cli, const Kms__V1__Policy *current, const char *document)
{
    bool different = false;
    const int result = print_difference(cli, cli->err, current->document, document, &different);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    if (!different)
        return kms_cli_fail(cli, "nothing changes: this is version %llu, which is in force",
                            (unsigned long long)current->version);
    return kms_cli_confirm(cli,
                           "This replaces version %llu of the policy, as soon as enough others have approved "
                           "it. Lines with - are taken away, lines with + are added.",
                           (unsigned long long)current->version);
}

int kms_cli_policy_apply(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    KMS_CLEANUP(kms_buf_clear) struct kms_buf document = {0};
    Kms__V1__ApplyPolicyRequest request = KMS__V1__APPLY_POLICY_REQUEST__INIT;
    int result = read_document(cli, &document);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    {
        KMS_CLI_CALL call = {0};
        const Kms__V1__Policy *current = NULL;
        result = get_current(cli, &call, &current);
        if (result == KMS_CLI_EXIT_OK)
            result = confirm_change(cli, current, (const char *)document.data);
        if (result != KMS_CLI_EXIT_OK)
            return result;
        request.base_version = current->version;
    }
    request.document = (char *)document.data;
    request.comment = kms_cli_option_field(cli, KMS_CLI_COMMENT);
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_operation_call(cli, &apply_method, &request.base);
}

int kms_cli_policy_rollback(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    Kms__V1__RollbackPolicyRequest request = KMS__V1__ROLLBACK_POLICY_REQUEST__INIT;
    int result = take_version(cli, &request.version);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    {
        KMS_CLI_CALL call = {0};
        const Kms__V1__Policy *older = NULL;
        result = get_version(cli, &call, request.version, &older);
        if (result != KMS_CLI_EXIT_OK)
            return result;
        KMS_FREE char *document = strdup(older->document);
        const Kms__V1__Policy *current = NULL;
        result = document != NULL ? get_current(cli, &call, &current) : kms_cli_fail(cli, "out of memory");
        if (result == KMS_CLI_EXIT_OK)
            result = confirm_change(cli, current, document);
        if (result != KMS_CLI_EXIT_OK)
            return result;
        request.base_version = current->version;
    }
    request.comment = kms_cli_option_field(cli, KMS_CLI_COMMENT);
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_operation_call(cli, &rollback_method, &request.base);
}

int kms_cli_policy_check(struct kms_cli *cli)
{
    Kms__V1__CheckPermissionRequest request = KMS__V1__CHECK_PERMISSION_REQUEST__INIT;
    request.identity = kms_cli_option_field(cli, KMS_CLI_IDENTITY);
    request.action = kms_cli_option_field(cli, KMS_CLI_ACTION);
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.purpose = kms_cli_option_field(cli, KMS_CLI_PURPOSE);
    KMS_CLI_CALL call = {0};
    int result = kms_cli_call(cli, &call, &check_method, &request.base);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const bool allowed = ((const Kms__V1__CheckPermissionResponse *)call.reply)->allowed;
    result = kms_cli_show(cli, kms_cli_json_of(call.reply));
    return result == KMS_CLI_EXIT_OK && !allowed ? KMS_CLI_EXIT_DENIED : result;
}
