/* Backups: made, listed, verified and pruned by the service; restored without it. */
#include "cli/become.h"
#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/json.h"
#include "cli/operation.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "core/cleanup.h"

#include <kms/v1/backup.pb-c.h>

#define METHOD(name, reply, idempotent)                                                                      \
    {                                                                                                        \
        "/kms.v1.BackupService/" name, &kms__v1__##reply##__descriptor, idempotent                           \
    }
static const struct kms_unary_method create_method = METHOD("CreateBackup", operation, true);
static const struct kms_unary_method verify_method = METHOD("VerifyBackups", operation, true);
static const struct kms_unary_method prune_method = METHOD("PruneBackups", operation, true);
static const struct kms_unary_method list_method = METHOD("ListBackups", list_backups_response, true);
static const struct kms_unary_method status_method = METHOD("GetBackupStatus", backup_status, true);

int kms_cli_backup_create(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    Kms__V1__CreateBackupRequest request = KMS__V1__CREATE_BACKUP_REQUEST__INIT;
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_operation_call(cli, &create_method, &request.base);
}

int kms_cli_backup_verify(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    Kms__V1__VerifyBackupsRequest request = KMS__V1__VERIFY_BACKUPS_REQUEST__INIT;
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_operation_call(cli, &verify_method, &request.base);
}

int kms_cli_backup_prune(struct kms_cli *cli)
{
    char made[KMS_UUID_TEXT_SIZE];
    Kms__V1__PruneBackupsRequest request = KMS__V1__PRUNE_BACKUPS_REQUEST__INIT;
    const char *keep = kms_cli_value(cli, KMS_CLI_KEEP);
    uint64_t number = 0;
    if (keep != NULL && (!kms_cli_parse_number(keep, UINT32_MAX, &number) || number == 0))
        return kms_cli_usage(cli, "--keep takes a number of bases from 1, not \"%s\"", keep);
    request.keep_bases = (uint32_t)number;
    request.dry_run = kms_cli_given(cli, KMS_CLI_DRY_RUN);
    if (!request.dry_run) {
        const int result = kms_cli_confirm(cli,
                                           "Pruning removes backups for good: all but the newest %s bases, "
                                           "and the logs that only those need.",
                                           keep != NULL ? keep : "configured number of");
        if (result != KMS_CLI_EXIT_OK)
            return result;
    }
    request.request_id = kms_cli_request_id(cli, made);
    return kms_cli_operation_call(cli, &prune_method, &request.base);
}

int kms_cli_backup_list(struct kms_cli *cli)
{
    static const struct kms_cli_column columns[] = {{"TARGET", "target"}, {"NAME", "name"},
                                                    {"KIND", "kind"},     {"SEQ", "seq"},
                                                    {"SIZE", "size"},     {"CREATED", "create_time"}};
    Kms__V1__ListBackupsRequest request = KMS__V1__LIST_BACKUPS_REQUEST__INIT;
    request.with_logs = kms_cli_given(cli, KMS_CLI_WITH_LOGS);
    KMS_CLI_CALL call = {0};
    const int result = kms_cli_call(cli, &call, &list_method, &request.base);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    struct kms_cli_list list;
    json_t *reply = kms_cli_json_of(call.reply);
    kms_cli_list_begin(&list, cli, "files", columns, sizeof columns / sizeof *columns);
    kms_cli_list_add(&list, json_incref(json_object_get(reply, "files")));
    json_decref(reply);
    return kms_cli_list_end(&list, "");
}

int kms_cli_backup_status(struct kms_cli *cli)
{
    const Kms__V1__GetBackupStatusRequest request = KMS__V1__GET_BACKUP_STATUS_REQUEST__INIT;
    return kms_cli_call_show(cli, &status_method, &request.base);
}

int kms_cli_restore(struct kms_cli *cli)
{
    const char *capsule = kms_cli_value(cli, KMS_CLI_TRANSPORT_CAPSULE);
    const char *arguments[KMS_CLI_ARGUMENTS_MAX] = {"--config", kms_cli_value(cli, KMS_CLI_SERVER_CONFIG),
                                                    "--restore", kms_cli_value(cli, KMS_CLI_TARGET)};
    size_t count = 4;
    if (kms_cli_given(cli, KMS_CLI_DRY_RUN))
        arguments[count++] = "--dry-run";
    if (kms_cli_given(cli, KMS_CLI_PROVE))
        arguments[count++] = "--prove";
    if (capsule != NULL) {
        arguments[count++] = "--transport-capsule";
        arguments[count++] = capsule;
    }
    return kms_cli_become_daemon(cli, arguments, count);
}
