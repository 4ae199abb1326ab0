#include "backup/base.h"

#include "backup/target.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PROGRESS_EVERY = 4096 };

/* A base on its way. */
struct making {
    struct kms_backup_copy *copies;
    size_t count;
    struct kms_backup_writer *writer;
    struct kms_buf out; /* sealed and not yet written */
    char partial[KMS_BACKUP_NAME_SIZE + 16];
    bool (*progress)(void *context, uint64_t records);
    void *context;
    uint64_t records, bytes;
    struct kms_error *err;
};

/* What is left under the working name is harmless: nobody reads it, and it says what it is. */
static void remove_partial(const struct making *making, const struct kms_backup_copy *copy)
{
    struct kms_error err = {0};
    if (kms_backup_target_remove(copy->directory, making->partial, &err) != KMS_OK)
        kms_log_warning("backup", "an unfinished base was left behind: %s", kms_error_cause(&err, KMS_IO));
}

static void making_clear(struct making *making)
{
    for (size_t i = 0; i < making->count; i++) {
        struct kms_backup_copy *copy = &making->copies[i];
        if (copy->descriptor < 0)
            continue;
        (void)close(copy->descriptor);
        copy->descriptor = -1;
        remove_partial(making, copy);
    }
    kms_backup_writer_free(making->writer);
    kms_buf_clear(&making->out);
}

/* A directory that failed takes no part any more. */
static void give_up(struct making *making, struct kms_backup_copy *copy, enum kms_status status)
{
    copy->status = status;
    if (copy->descriptor >= 0)
        (void)close(copy->descriptor);
    copy->descriptor = -1;
    remove_partial(making, copy);
}

/* OK while at least one directory takes part; else the failure of the last one. */
static enum kms_status still_going(const struct making *making)
{
    for (size_t i = 0; i < making->count; i++)
        if (making->copies[i].descriptor >= 0)
            return KMS_OK;
    const struct kms_backup_copy *copy = &making->copies[making->count - 1];
    return kms_fail_public(making->err, copy->status, "no backup target takes the base: %.250s",
                           kms_error_public(&copy->error, copy->status));
}

/* What is sealed goes to every directory. */
static enum kms_status flush(struct making *making)
{
    for (size_t i = 0; i < making->count; i++) {
        struct kms_backup_copy *copy = &making->copies[i];
        if (copy->descriptor < 0)
            continue;
        const enum kms_status status =
            kms_backup_target_write(copy->descriptor, kms_buf_slice(&making->out), &copy->error);
        if (status != KMS_OK)
            give_up(making, copy, status);
    }
    making->bytes += making->out.len;
    making->out.len = 0;
    return still_going(making);
}

static enum kms_status take_row(void *context, const struct kms_change_row *row)
{
    struct making *making = context;
    KMS_TRY(kms_backup_writer_add(making->writer, 0, 0, row->payload, making->err));
    making->records++;
    if (making->progress != NULL && making->records % PROGRESS_EVERY == 0 &&
        !making->progress(making->context, making->records))
        return kms_fail_public(making->err, KMS_CANCELLED, "the base was stopped after %llu records",
                               (unsigned long long)making->records);
    if (!kms_backup_writer_full(making->writer))
        return KMS_OK;
    KMS_TRY(kms_backup_writer_seal(making->writer, false, &making->out, making->err));
    return flush(making);
}

static void create_all(struct making *making)
{
    for (size_t i = 0; i < making->count; i++) {
        struct kms_backup_copy *copy = &making->copies[i];
        copy->status =
            kms_backup_target_create(copy->directory, making->partial, &copy->descriptor, &copy->error);
    }
}

/* The snapshot and the number of the newest change in it, seen by one transaction. */
static enum kms_status write_snapshot(struct making *making, const struct kms_backup_keeper *keeper,
                                      struct kms_store *store, struct kms_backup_header *header)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(store, false, &txn, making->err));
    header->kind = KMS_BACKUP_BASE;
    KMS_TRY(store->ops->changes.last(txn.txn, &header->seq, making->err));
    KMS_TRY(kms_backup_writer_new(keeper, header, &making->out, &making->writer, making->err));
    char name[KMS_BACKUP_NAME_SIZE];
    kms_backup_name(header, name);
    (void)snprintf(making->partial, sizeof making->partial, ".partial-%s", name);
    create_all(making);
    KMS_TRY(still_going(making));
    KMS_TRY(store->ops->changes.snapshot(txn.txn, take_row, making, making->err));
    KMS_TRY(kms_backup_writer_seal(making->writer, true, &making->out, making->err));
    return flush(making);
}

/* Durable first, then under its name. */
static void publish(struct making *making, struct kms_backup_copy *copy, const char *name)
{
    enum kms_status status = KMS_OK;
    if (fsync(copy->descriptor) != 0)
        status = kms_fail_public(&copy->error, KMS_IO, "cannot flush %s: %s", name, strerror(errno));
    if (status == KMS_OK)
        status = kms_backup_target_rename(copy->directory, making->partial, name, &copy->error);
    if (status != KMS_OK) {
        give_up(making, copy, status);
        return;
    }
    (void)close(copy->descriptor);
    copy->descriptor = -1;
}

enum kms_status kms_backup_base_write(const struct kms_backup_keeper *keeper, struct kms_store *store,
                                      struct kms_backup_copy *copies, size_t count,
                                      bool (*progress)(void *context, uint64_t records), void *context,
                                      struct kms_backup_header *ret_header,
                                      struct kms_backup_base_result *ret_result, struct kms_error *err)
{
    const int64_t began = kms_clock_mono_ns();
    KMS_CLEANUP(making_clear)
    struct making making = {
        .copies = copies, .count = count, .progress = progress, .context = context, .err = err};
    struct kms_backup_header header = {0};
    KMS_TRY(write_snapshot(&making, keeper, store, &header));
    struct kms_backup_base_result result = {
        .seq = header.seq, .records = making.records, .bytes = making.bytes};
    char name[KMS_BACKUP_NAME_SIZE];
    kms_backup_name(&header, name);
    (void)snprintf(result.name, sizeof result.name, "%s", name);
    for (size_t i = 0; i < count; i++) {
        if (copies[i].descriptor < 0)
            continue;
        publish(&making, &copies[i], name);
        result.written += copies[i].status == KMS_OK;
    }
    if (result.written == 0)
        return still_going(&making);
    result.took_ns = kms_clock_mono_ns() - began;
    *ret_header = header;
    *ret_result = result;
    return KMS_OK;
}
