#include "cli/cli.h"

#include "cli/json.h"
#include "cli/output.h"

#include <jansson.h>

#include <stdarg.h>
#include <stdlib.h>

const char *kms_cli_value(const struct kms_cli *cli, enum kms_cli_option option)
{
    return kms_cli_option_value(&cli->options, option);
}

bool kms_cli_given(const struct kms_cli *cli, enum kms_cli_option option)
{
    return kms_cli_option_given(&cli->options, option);
}

int kms_cli_exit_code(enum kms_client_status status)
{
    switch (status) {
    case KMS_CLIENT_OK:
    case KMS_CLIENT_END:
        return KMS_CLI_EXIT_OK;
    case KMS_CLIENT_UNAVAILABLE:
    case KMS_CLIENT_DEADLINE:
        return KMS_CLI_EXIT_UNAVAILABLE;
    case KMS_CLIENT_DENIED:
    case KMS_CLIENT_UNAUTHENTICATED:
        return KMS_CLI_EXIT_DENIED;
    case KMS_CLIENT_REFUSED:
        return KMS_CLI_EXIT_REFUSED;
    default:
        return KMS_CLI_EXIT_FAILED;
    }
}

/* One failure, for people or as {"error": {...}}. */
static void report(struct kms_cli *cli, const char *code, const char *reason, const char *message,
                   const char *request_id)
{
    if (cli->json) {
        json_t *error = json_pack("{s:{s:s, s:s, s:o, s:s}}", "error", "code", code, "reason", reason,
                                  "message", kms_cli_json_text(message), "request_id", request_id);
        if (error != NULL)
            kms_cli_print_json(cli->err, error);
        json_decref(error);
        return;
    }
    (void)fprintf(cli->err, "kmsctl: ");
    kms_cli_print_text(cli->err, message);
    if (request_id[0] != '\0') {
        (void)fprintf(cli->err, " (request ");
        kms_cli_print_text(cli->err, request_id);
        (void)fprintf(cli->err, ")");
    }
    (void)fputc('\n', cli->err);
}

int kms_cli_usage(struct kms_cli *cli, const char *fmt, ...)
{
    char message[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    report(cli, "USAGE", "USAGE", message, "");
    return KMS_CLI_EXIT_USAGE;
}

int kms_cli_fail(struct kms_cli *cli, const char *fmt, ...)
{
    char message[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    report(cli, "FAILED", "FAILED", message, "");
    return KMS_CLI_EXIT_FAILED;
}

int kms_cli_fail_client(struct kms_cli *cli, const struct kms_client_error *error)
{
    report(cli, kms_client_status_name(error->status), error->reason, error->message, error->request_id);
    return kms_cli_exit_code(error->status);
}
