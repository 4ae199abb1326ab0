#include "backup/base.h"

#include "core/cleanup.h"
#include "core/clock.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

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

static void making_clear(struct making *making)
{
    for (size_t i = 0; i < making->count; i++)
        kms_backup_pen_drop(KMS_TAKE(making->copies[i].pen));
    kms_backup_writer_free(making->writer);
    kms_buf_clear(&making->out);
}

/* A directory takes no part any more: it has the base, or failed. */
static void leave(struct kms_backup_copy *copy, enum kms_status status)
{
    copy->status = status;
    kms_backup_pen_drop(KMS_TAKE(copy->pen));
}

/* OK while at least one directory takes part; else the failure of the last one. */
static enum kms_status still_going(const struct making *making)
{
    for (size_t i = 0; i < making->count; i++)
        if (making->copies[i].pen != NULL)
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
        if (copy->pen == NULL)
            continue;
        const enum kms_status status =
            kms_backup_pen_write(copy->pen, kms_buf_slice(&making->out), copy->patience_ns, &copy->error);
        if (status != KMS_OK)
            leave(copy, status);
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

static void open_all(struct making *making)
{
    for (size_t i = 0; i < making->count; i++) {
        struct kms_backup_copy *copy = &making->copies[i];
        if (copy->status == KMS_OK)
            copy->status =
                kms_backup_pen_open(copy->directory, making->partial, copy->busy, &copy->pen, &copy->error);
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
    open_all(making);
    KMS_TRY(still_going(making));
    KMS_TRY(store->ops->changes.snapshot(txn.txn, take_row, making, making->err));
    KMS_TRY(kms_backup_writer_seal(making->writer, true, &making->out, making->err));
    return flush(making);
}

/* Durable, and under its name. */
static void publish(struct kms_backup_copy *copy, const char *name)
{
    leave(copy, kms_backup_pen_publish(copy->pen, name, copy->patience_ns, &copy->error));
}

/* The whole of it. */
static enum kms_status write_all(struct making *making, const struct kms_backup_keeper *keeper,
                                 struct kms_store *store, struct kms_backup_header *ret_header,
                                 struct kms_backup_base_result *ret_result)
{
    const int64_t began = kms_clock_mono_ns();
    struct kms_backup_header header = {0};
    KMS_TRY(write_snapshot(making, keeper, store, &header));
    struct kms_backup_base_result result = {
        .seq = header.seq, .records = making->records, .bytes = making->bytes};
    char name[KMS_BACKUP_NAME_SIZE];
    kms_backup_name(&header, name);
    (void)snprintf(result.name, sizeof result.name, "%s", name);
    for (size_t i = 0; i < making->count; i++) {
        struct kms_backup_copy *copy = &making->copies[i];
        if (copy->pen == NULL)
            continue;
        publish(copy, name);
        result.written += copy->status == KMS_OK;
    }
    if (result.written == 0)
        return still_going(making);
    result.took_ns = kms_clock_mono_ns() - began;
    *ret_header = header;
    *ret_result = result;
    return KMS_OK;
}

/* What the thread gets, and gives. */
struct errand {
    struct making making;
    const struct kms_backup_keeper *keeper;
    struct kms_store *store;
    struct kms_backup_header *ret_header;
    struct kms_backup_base_result *ret_result;
    enum kms_status status;
};

static void *run(void *argument)
{
    struct errand *errand = argument;
    kms_backup_stand_back();
    errand->status =
        write_all(&errand->making, errand->keeper, errand->store, errand->ret_header, errand->ret_result);
    making_clear(&errand->making);
    return NULL;
}

enum kms_status kms_backup_base_write(const struct kms_backup_keeper *keeper, struct kms_store *store,
                                      struct kms_backup_copy *copies, size_t count,
                                      bool (*progress)(void *context, uint64_t records), void *context,
                                      struct kms_backup_header *ret_header,
                                      struct kms_backup_base_result *ret_result, struct kms_error *err)
{
    struct errand errand = {
        .making = {.copies = copies, .count = count, .progress = progress, .context = context, .err = err},
        .keeper = keeper,
        .store = store,
        .ret_header = ret_header,
        .ret_result = ret_result,
    };
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, &errand) != 0)
        return kms_fail(err, KMS_NO_MEMORY, "cannot start a thread to make a base");
    KMS_ASSERT(pthread_join(thread, NULL) == 0);
    return errand.status;
}
