/* Backups: made, listed, verified and pruned by the service; restored without it. */
#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/json.h"
#include "cli/operation.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "core/cleanup.h"

#include <errno.h>
#include <kms/v1/backup.pb-c.h>
#include <string.h>
#include <unistd.h>

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

/* kmsd beside this program; elsewhere it is looked for in $PATH. */
static void find_daemon(char *out, size_t size)
{
    const ssize_t len = readlink("/proc/self/exe", out, size - 1);
    char *slash = NULL;
    if (len > 0) {
        out[len] = '\0';
        slash = strrchr(out, '/');
    }
    if (slash != NULL && (size_t)(slash - out) + sizeof "/kmsd" <= size) {
        memcpy(slash, "/kmsd", sizeof "/kmsd");
        if (access(out, X_OK) == 0)
            return;
    }
    (void)snprintf(out, size, "kmsd");
}

int kms_cli_restore(struct kms_cli *cli)
{
    char program[4096];
    char *config = kms_cli_field(kms_cli_value(cli, KMS_CLI_SERVER_CONFIG));
    char *from = kms_cli_field(kms_cli_value(cli, KMS_CLI_TARGET));
    char config_option[] = "--config";
    char restore_option[] = "--restore";
    char dry_run_option[] = "--dry-run";
    find_daemon(program, sizeof program);
    char *arguments[] = {program, config_option, config, restore_option, from, NULL, NULL};
    if (kms_cli_given(cli, KMS_CLI_DRY_RUN))
        arguments[5] = dry_run_option;
    (void)execvp(program, arguments);
    return kms_cli_fail(cli, "cannot run kmsd, which does the restoring: %s", strerror(errno));
}
