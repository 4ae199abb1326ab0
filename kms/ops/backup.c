/* Backups: the service's methods, and the operations behind them. */
#include "ops/backup.h"

#include "backup/backup.h"
#include "backup/retention.h"
#include "backup/verify.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"
#include "ops/backup_status.h"
#include "ops/checks.h"
#include "ops/escrow.h"
#include "ops/messages.h"

#include "kms/v1/backup.pb-c.h"

#include <stdio.h>
#include <stdlib.h>

enum { LISTED_FILES_MAX = 1000, KEEP_BASES_MAX = 10000 };

enum kms_status ops_backup_await(struct kms_ops *ops, struct kms_error *err)
{
    if (ops->backup == NULL)
        return KMS_OK;
    const uint64_t seq = ops->store->ops->changes.take_mine(ops->store);
    return seq != 0 && ops->backup_settings.sync ? kms_backup_wait_any(ops->backup, seq, err) : KMS_OK;
}

/* Everything that is committed into every target. */
static enum kms_status await_all(struct kms_ops *ops, struct kms_error *err)
{
    const int64_t deadline = kms_clock_mono_ns() + KMS_OPS_BACKUP_GATE_SECONDS * KMS_NS_PER_SECOND;
    return kms_backup_wait_all(ops->backup, ops->store->ops->changes.committed(ops->store), deadline, err);
}

enum kms_status ops_backup_gate(void *context, const struct kms_batch_record *batch, struct kms_error *err)
{
    struct kms_ops *ops = context;
    struct kms_error cause = {0};
    if (ops->backup == NULL)
        return KMS_OK;
    const bool intent = batch->state == KMS_BATCH_INTENT;
    const enum kms_status status =
        intent ? kms_backup_wait_working(ops->backup, ops->store->ops->changes.committed(ops->store), &cause)
               : await_all(ops, &cause);
    if (status == KMS_OK)
        return KMS_OK;
    return kms_fail_public(err, status,
                           intent
                               ? "nothing is shredded or rotated before a backup target knows of it: %.160s"
                               : "the old master key is not destroyed before every backup target has what "
                                 "follows it: %.160s",
                           kms_error_cause(&cause, status));
}

/* A service without targets says how to get some. */
static enum kms_status need_targets(const struct kms_ops *ops, struct kms_error *err)
{
    if (ops->backup != NULL)
        return KMS_OK;
    return kms_fail_public(
        err, KMS_FAILED_PRECONDITION,
        "the service has no backup targets: configure backup.targets in kmsd.yaml and restart it");
}

/* A target that hangs is left alone: whoever asked would hang with it. */
static enum kms_status need_answers(const struct kms_backup_target_status *target, struct kms_error *err)
{
    return target->hanging ? kms_fail_public(err, KMS_UNAVAILABLE,
                                             "the backup target %s hangs; try again later", target->directory)
                           : KMS_OK;
}

/* A text of a JSON object, on the heap, from what json_pack() made. */
static enum kms_status result_of(json_t *object, char **ret_result, struct kms_error *err)
{
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(object);
    if (text == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the result of a backup operation");
    *ret_result = text;
    return KMS_OK;
}

static bool base_progress(void *context, uint64_t records)
{
    return ops_operation_progress(context, records, 0) == KMS_OK;
}

static enum kms_status run_create(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                                  struct kms_error *err)
{
    KMS_TRY(need_targets(ops, err));
    struct kms_backup_base_result base;
    KMS_TRY(kms_backup_base(ops->backup, base_progress, operation, &base, err));
    const double seconds = (double)base.took_ns / (double)KMS_NS_PER_SECOND;
    return result_of(json_pack("{s:s,s:I,s:I,s:I,s:I,s:f,s:f}", "name", base.name, "seq",
                               (json_int_t)base.seq, "records", (json_int_t)base.records, "bytes",
                               (json_int_t)base.bytes, "targets", (json_int_t)base.written, "seconds",
                               seconds, "mb_per_second",
                               seconds > 0 ? (double)base.bytes / seconds / 1e6 : 0.0),
                     ret_result, err);
}

const struct ops_operation_kind ops_backup_create_kind = {.name = "backup.create",
                                                          .request = KMS_ACTION_BACKUP_CREATE,
                                                          .approve = KMS_ACTION_BACKUP_CREATE,
                                                          .resumable = true,
                                                          .service = true,
                                                          .execute = run_create};

/* The verification of all targets, one after the other. */
struct verifying {
    struct ops_operation *operation;
    json_t *findings; /* of the target at hand */
    uint64_t before;  /* bytes of the targets before it */
    char first[256];  /* finding of all */
};

static bool verify_progress(void *context, uint64_t done, uint64_t total)
{
    const struct verifying *verifying = context;
    return ops_operation_progress(verifying->operation, verifying->before + done,
                                  verifying->before + total) == KMS_OK;
}

enum { FINDINGS_TOLD = 20 };

static void keep_finding(void *context, const char *text)
{
    struct verifying *verifying = context;
    if (verifying->first[0] == '\0')
        (void)snprintf(verifying->first, sizeof verifying->first, "%s", text);
    if (json_array_size(verifying->findings) < FINDINGS_TOLD)
        (void)json_array_append_new(verifying->findings, json_string(text));
}

/* A target is good when it is in order and as new as the database was when the verification began. */
static enum kms_status verify_target(struct kms_ops *ops, struct verifying *verifying, size_t index,
                                     uint64_t newest, json_t *targets, bool *ret_good, struct kms_error *err)
{
    struct kms_backup_target_status target;
    struct kms_backup_verify_result result = {0};
    struct kms_error found = {0};
    kms_backup_status(ops->backup, index, &target);
    verifying->findings = json_array();
    const struct kms_backup_verify_options options = {verifying, keep_finding, verify_progress};
    enum kms_status status = need_answers(&target, &found);
    if (status == KMS_OK)
        status =
            kms_backup_verify(kms_backup_keeper_of(ops->backup), target.directory, &options, &result, &found);
    if (status == KMS_CANCELLED || status == KMS_NO_MEMORY || status == KMS_HSM_UNAVAILABLE) {
        json_decref(verifying->findings);
        *err = found;
        return status;
    }
    if (status != KMS_OK && json_array_size(verifying->findings) == 0)
        keep_finding(verifying, kms_error_public(&found, status));
    if (ops->escrow != NULL && !target.hanging) {
        const enum kms_status checked =
            ops_escrow_check_target(ops->escrow, target.directory, keep_finding, verifying, err);
        if (checked != KMS_OK) {
            json_decref(verifying->findings);
            return checked;
        }
    }
    if (status == KMS_OK && result.newest_seq < newest)
        keep_finding(verifying, "the target does not have the newest changes yet");
    *ret_good = json_array_size(verifying->findings) == 0;
    verifying->before += result.bytes;
    (void)json_array_append_new(
        targets,
        json_pack("{s:s,s:b,s:I,s:I,s:I,s:I,s:I,s:s,s:I,s:o}", "directory", target.directory, "restorable",
                  result.restorable, "bases", (json_int_t)result.bases, "logs", (json_int_t)result.logs,
                  "records", (json_int_t)result.records, "bytes", (json_int_t)result.bytes, "newest_seq",
                  (json_int_t)result.newest_seq, "base", result.base, "foreign_files",
                  (json_int_t)result.foreign, "findings", verifying->findings));
    return KMS_OK;
}

static enum kms_status run_verify(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                                  struct kms_error *err)
{
    KMS_TRY(need_targets(ops, err));
    const uint64_t newest = ops->store->ops->changes.committed(ops->store);
    const enum kms_status settled = await_all(ops, err); /* what is behind then is a finding */
    if (settled != KMS_OK && settled != KMS_UNAVAILABLE)
        return settled;
    struct verifying verifying = {.operation = operation};
    json_t *targets = json_array();
    bool all_good = true;
    enum kms_status status = KMS_OK;
    for (size_t i = 0; i < kms_backup_targets(ops->backup) && status == KMS_OK; i++) {
        bool good = false;
        status = verify_target(ops, &verifying, i, newest, targets, &good, err);
        all_good = all_good && good;
    }
    if (status != KMS_OK) {
        json_decref(targets);
        return status;
    }
    const enum kms_status packed = result_of(
        json_pack("{s:I,s:o}", "database_seq", (json_int_t)newest, "targets", targets), ret_result, err);
    if (packed != KMS_OK || all_good)
        return packed;
    kms_log_error("backup", "a backup target is not in order: %s", *ret_result);
    free(KMS_TAKE(*ret_result));
    return kms_fail_public(err, KMS_TAMPERED, "a backup target is not in order: %.250s", verifying.first);
}

const struct ops_operation_kind ops_backup_verify_kind = {.name = "backup.verify",
                                                          .request = KMS_ACTION_BACKUP_VERIFY,
                                                          .approve = KMS_ACTION_BACKUP_VERIFY,
                                                          .resumable = true,
                                                          .execute = run_verify};

/* One target; a failure is told in the result and does not hold up the others. */
static void prune_target(struct kms_ops *ops, size_t index, uint64_t keep, bool dry_run, json_t *targets)
{
    struct kms_backup_target_status target;
    struct kms_backup_prune_result result = {0};
    struct kms_error err = {0};
    kms_backup_status(ops->backup, index, &target);
    enum kms_status status = need_answers(&target, &err);
    if (status == KMS_OK)
        status = kms_backup_prune(kms_backup_keeper_of(ops->backup), target.directory, keep, dry_run, &result,
                                  &err);
    if (status != KMS_OK)
        kms_log_error("backup", "nothing was pruned in %s: %s", target.directory,
                      kms_error_cause(&err, status));
    (void)json_array_append_new(
        targets, json_pack("{s:s,s:I,s:I,s:I,s:I,s:s}", "directory", target.directory, "bases_kept",
                           (json_int_t)result.bases_kept, "bases_removed", (json_int_t)result.bases_removed,
                           "logs_removed", (json_int_t)result.logs_removed, "bytes_removed",
                           (json_int_t)result.bytes_removed, "failure",
                           status == KMS_OK ? "" : kms_error_public(&err, status)));
}

static enum kms_status run_prune(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                                 struct kms_error *err)
{
    KMS_TRY(need_targets(ops, err));
    const json_int_t keep = json_integer_value(json_object_get(operation->parameters, "keep_bases"));
    const bool dry_run = json_is_true(json_object_get(operation->parameters, "dry_run"));
    if (keep < 1 || keep > KEEP_BASES_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "keep_bases: must be 1 to %d", KEEP_BASES_MAX);
    json_t *targets = json_array();
    for (size_t i = 0; i < kms_backup_targets(ops->backup); i++)
        prune_target(ops, i, (uint64_t)keep, dry_run, targets);
    return result_of(json_pack("{s:b,s:o}", "dry_run", dry_run, "targets", targets), ret_result, err);
}

const struct ops_operation_kind ops_backup_prune_kind = {.name = "backup.prune",
                                                         .request = KMS_ACTION_BACKUP_PRUNE,
                                                         .approve = KMS_ACTION_BACKUP_PRUNE,
                                                         .resumable = true,
                                                         .service = true,
                                                         .execute = run_prune};

static enum kms_status create_backup(struct ops_run *run, const ProtobufCMessage *message,
                                     ProtobufCMessage **ret_reply)
{
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(ops_operation_repeated(run, message, ret_reply));
    if (*ret_reply != NULL)
        return KMS_OK;
    KMS_TRY(need_targets(run->ops, &run->call->error));
    return ops_operation_request(run, &ops_backup_create_kind, NULL, json_object(), 0, ret_reply);
}

enum kms_status kms_ops_create_backup(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_BACKUP_CREATE, true, create_backup, request, ret_reply);
}

static enum kms_status verify_backups(struct ops_run *run, const ProtobufCMessage *message,
                                      ProtobufCMessage **ret_reply)
{
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(ops_operation_repeated(run, message, ret_reply));
    if (*ret_reply != NULL)
        return KMS_OK;
    KMS_TRY(need_targets(run->ops, &run->call->error));
    return ops_operation_request(run, &ops_backup_verify_kind, NULL, json_object(), 0, ret_reply);
}

enum kms_status kms_ops_verify_backups(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                       ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_BACKUP_VERIFY, true, verify_backups, request, ret_reply);
}

static enum kms_status prune_backups(struct ops_run *run, const ProtobufCMessage *message,
                                     ProtobufCMessage **ret_reply)
{
    const Kms__V1__PruneBackupsRequest *request = (const void *)message;
    const uint32_t keep =
        request->keep_bases != 0 ? request->keep_bases : run->ops->backup_settings.keep_bases;
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(ops_operation_repeated(run, message, ret_reply));
    if (*ret_reply != NULL)
        return KMS_OK;
    KMS_TRY(need_targets(run->ops, &run->call->error));
    if (keep > KEEP_BASES_MAX)
        return kms_fail_public(&run->call->error, KMS_INVALID_ARGUMENT, "keep_bases: at most %d",
                               KEEP_BASES_MAX);
    return ops_operation_request(
        run, &ops_backup_prune_kind, NULL,
        json_pack("{s:I,s:b}", "keep_bases", (json_int_t)keep, "dry_run", request->dry_run), 0, ret_reply);
}

enum kms_status kms_ops_prune_backups(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_BACKUP_PRUNE, true, prune_backups, request, ret_reply);
}

/* One file of a target. */
static enum kms_status file_message(struct kms_arena *arena, const char *target,
                                    const struct kms_backup_file *file, Kms__V1__BackupFile **ret_message)
{
    Kms__V1__BackupFile *message = ops_message_new(arena, &kms__v1__backup_file__descriptor);
    if (message == NULL)
        return KMS_NO_MEMORY;
    message->target = ops_string(arena, target);
    message->name = ops_string(arena, file->name);
    message->kind =
        file->kind == KMS_BACKUP_BASE ? KMS__V1__BACKUP_FILE__KIND__BASE : KMS__V1__BACKUP_FILE__KIND__LOG;
    message->seq = file->seq;
    message->size = file->size;
    message->create_time = ops_timestamp(arena, file->created_ns);
    *ret_message = message;
    return message->target != NULL && message->name != NULL && message->create_time != NULL ? KMS_OK
                                                                                            : KMS_NO_MEMORY;
}

/* The newest files of one target into the reply, which has room for them. */
static enum kms_status list_target(struct ops_run *run, size_t index, bool with_logs,
                                   Kms__V1__ListBackupsResponse *reply)
{
    struct kms_backup_target_status target;
    KMS_CLEANUP(kms_backup_listing_clear) struct kms_backup_listing listing = {0};
    kms_backup_status(run->ops->backup, index, &target);
    KMS_TRY(need_answers(&target, &run->call->error));
    KMS_TRY(kms_backup_target_list(target.directory, &listing, &run->call->error));
    size_t first = listing.count;
    for (size_t wanted = 0; first > 0 && wanted < LISTED_FILES_MAX; first--)
        wanted += with_logs || listing.files[first - 1].kind == KMS_BACKUP_BASE;
    for (size_t i = first; i < listing.count; i++)
        if (with_logs || listing.files[i].kind == KMS_BACKUP_BASE)
            KMS_TRY(file_message(run->call->arena, target.directory, &listing.files[i],
                                 &reply->files[reply->n_files++]));
    return KMS_OK;
}

static enum kms_status list_backups(struct ops_run *run, const ProtobufCMessage *message,
                                    ProtobufCMessage **ret_reply)
{
    const Kms__V1__ListBackupsRequest *request = (const void *)message;
    struct kms_arena *arena = run->call->arena;
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(need_targets(run->ops, &run->call->error));
    const size_t targets = kms_backup_targets(run->ops->backup);
    Kms__V1__ListBackupsResponse *reply = ops_message_new(arena, &kms__v1__list_backups_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    reply->files = kms_arena_alloc(arena, targets * LISTED_FILES_MAX * sizeof(*reply->files));
    if (reply->files == NULL)
        return KMS_NO_MEMORY;
    for (size_t i = 0; i < targets; i++)
        KMS_TRY(list_target(run, i, request->with_logs, reply));
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_list_backups(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                     ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_BACKUP_READ, false, list_backups, request, ret_reply);
}

static enum kms_status get_backup_status(struct ops_run *run, const ProtobufCMessage *message,
                                         ProtobufCMessage **ret_reply)
{
    (void)message; /* the request is empty */
    Kms__V1__BackupStatus *reply = NULL;
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(ops_backup_message(run, &reply));
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_get_backup_status(void *context, struct kms_call *call,
                                          const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_BACKUP_READ, false, get_backup_status, request, ret_reply);
}
