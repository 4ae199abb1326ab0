/* Recovery keys as the service knows them: enrolled, retired, shown. Making and opening them is done off-line, in other files. */
#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/json.h"
#include "cli/operation.h"
#include "cli/terminal.h"
#include "core/cleanup.h"
#include "core/file.h"

#include <kms/v1/recovery.pb-c.h>

enum { PEM_MAX = 16 * 1024 };

#define METHOD(name, reply)                                                                                  \
    {                                                                                                        \
        "/kms.v1.RecoveryService/" name, &kms__v1__##reply##__descriptor, true                               \
    }
static const struct kms_unary_method status_method = METHOD("GetRecoveryStatus", recovery_status);
static const struct kms_unary_method enroll_method = METHOD("EnrollRecoveryKey", operation);
static const struct kms_unary_method retire_method = METHOD("RetireRecoveryKey", operation);

int kms_cli_recovery_status(struct kms_cli *cli)
{
    const Kms__V1__GetRecoveryStatusRequest request = KMS__V1__GET_RECOVERY_STATUS_REQUEST__INIT;
    return kms_cli_call_show(cli, &status_method, &request.base);
}

int kms_cli_recovery_enroll(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    struct kms_error err = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf pem = {0};
    Kms__V1__EnrollRecoveryKeyRequest request = KMS__V1__ENROLL_RECOVERY_KEY_REQUEST__INIT;
    const enum kms_status status = kms_file_read(kms_cli_value(cli, KMS_CLI_PUBLIC), PEM_MAX, &pem, &err);
    if (status != KMS_OK)
        return kms_cli_fail(cli, "%s", kms_error_public(&err, status));
    request.public_key = (char *)pem.data; /* followed by a NUL */
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_operation_call(cli, &enroll_method, &request.base);
}

int kms_cli_recovery_retire(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    Kms__V1__RetireRecoveryKeyRequest request = KMS__V1__RETIRE_RECOVERY_KEY_REQUEST__INIT;
    const int result = kms_cli_confirm(cli,
                                       "Retiring recovery key %s: its capsules are removed from every backup "
                                       "target, and it never comes back. With no other "
                                       "recovery key, losing the HSM loses every customer's data.",
                                       cli->words[0]);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    request.fingerprint = kms_cli_field(cli->words[0]);
    request.statement = kms_cli_option_field(cli, KMS_CLI_STATEMENT);
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_operation_call(cli, &retire_method, &request.base);
}
