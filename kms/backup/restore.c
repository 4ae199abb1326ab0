#include "backup/restore.h"

#include "core/clock.h"
#include "store/apply.h"

#include <stdlib.h>
#include <string.h>

/* A store that is being filled. */
struct filling {
    struct kms_store *store;
    struct kms_txn txn;
    struct kms_change *list; /* customers and KEKs that are not in the store yet */
    size_t count;
    uint64_t done;
    const struct kms_backup_verify_options *options;
    uint64_t bytes, total;
};

static enum kms_status begin(struct filling *filling, struct kms_error *err)
{
    filling->list = calloc(KMS_STORE_LOAD_MAX, sizeof *filling->list);
    if (filling->list == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to restore");
    KMS_TRY(kms_txn_begin(filling->store, true, &filling->txn, err));
    filling->store->ops->changes.silence(filling->txn.txn);
    return KMS_OK;
}

static void clear_list(struct filling *filling)
{
    for (size_t i = 0; i < filling->count; i++)
        kms_change_clear(&filling->list[i]);
    filling->count = 0;
}

static void filling_clear(struct filling *filling)
{
    clear_list(filling);
    free(filling->list);
    kms_txn_clear(&filling->txn);
}

/* What was collected goes into the store. */
static enum kms_status load(struct filling *filling, struct kms_error *err)
{
    if (filling->count == 0)
        return KMS_OK;
    const enum kms_status status =
        kms_store_load(filling->store, filling->txn.txn, filling->list, filling->count, err);
    clear_list(filling);
    return status;
}

/* A change of a log: it may concern anything. */
static enum kms_status take_change(void *context, const struct kms_backup_record *record,
                                   struct kms_error *err)
{
    struct filling *filling = context;
    struct kms_change change = {0};
    KMS_TRY(kms_changelog_decode(record->payload, &change, err));
    const enum kms_status status = kms_store_apply(filling->store, filling->txn.txn, &change, err);
    kms_change_clear(&change);
    filling->done++;
    return status;
}

/* True when the record is the counter of the KEK before it, which then holds it. */
static bool joins_kek(struct filling *filling, const struct kms_change *change)
{
    struct kms_change *before = filling->count > 0 ? &filling->list[filling->count - 1] : NULL;
    if (change->kind != KMS_CHANGE_REWRAPPED || before == NULL || before->kind != KMS_CHANGE_KEK ||
        memcmp(before->kek.kek_id, change->rewrapped.kek_id, KMS_KEK_ID_SIZE) != 0)
        return false;
    before->kek.rewrapped = change->rewrapped.rewrapped;
    return true;
}

/* A record of a base: what there are millions of is collected and goes in by the thousand. */
static enum kms_status take_record(void *context, const struct kms_backup_record *record,
                                   struct kms_error *err)
{
    struct filling *filling = context;
    if (filling->count == KMS_STORE_LOAD_MAX)
        KMS_TRY(load(filling, err));
    struct kms_change *change = &filling->list[filling->count];
    *change = (struct kms_change){0};
    KMS_TRY(kms_changelog_decode(record->payload, change, err));
    filling->done++;
    if (change->kind == KMS_CHANGE_CUSTOMER || change->kind == KMS_CHANGE_KEK) {
        filling->count++;
        return KMS_OK;
    }
    if (joins_kek(filling, change))
        return KMS_OK;
    struct kms_change other = *change; /* the list is emptied first */
    enum kms_status status = load(filling, err);
    if (status == KMS_OK)
        status = kms_store_apply(filling->store, filling->txn.txn, &other, err);
    kms_change_clear(&other);
    return status;
}

static bool pass_progress(void *context, uint64_t bytes)
{
    struct filling *filling = context;
    filling->bytes += bytes;
    return filling->options->progress == NULL ||
           filling->options->progress(filling->options->context, filling->bytes, filling->total);
}

/* The base that the verification has chosen. */
static const struct kms_backup_file *find_base(const struct kms_backup_listing *listing, const char *name)
{
    for (size_t i = 0; i < listing->count; i++)
        if (strcmp(listing->files[i].name, name) == 0)
            return &listing->files[i];
    return NULL;
}

/* Base, logs, and where the change log goes on. */
static enum kms_status fill(struct filling *filling, const struct kms_backup_keeper *keeper,
                            const char *directory, const struct kms_backup_listing *listing,
                            struct kms_backup_restore_result *result, struct kms_error *err)
{
    const struct kms_backup_visitor of_base = {filling, NULL, take_record, pass_progress};
    const struct kms_backup_visitor of_logs = {filling, NULL, take_change, pass_progress};
    const struct kms_backup_file *base = find_base(listing, result->source.base);
    struct kms_backup_scan scan;
    struct kms_backup_chain chain;
    if (base == NULL)
        return kms_fail_public(err, KMS_TAMPERED, "the base %s is gone while it was being restored",
                               result->source.base);
    KMS_TRY(begin(filling, err));
    KMS_TRY(kms_backup_scan(keeper, directory, base, &of_base, &scan, err));
    KMS_TRY(load(filling, err));
    result->from_base = filling->done;
    KMS_TRY(kms_backup_chain_read(keeper, directory, listing, base->seq, &of_logs, &chain, err));
    result->from_logs = filling->done - result->from_base;
    result->source.newest_seq = chain.last_seq;
    KMS_TRY(filling->store->ops->changes.resume(filling->txn.txn, chain.last_seq, err));
    return kms_txn_commit(&filling->txn, err);
}

/* The target is good enough when a base leads to its newest change. */
static enum kms_status verify_first(const struct kms_backup_keeper *keeper, const char *directory,
                                    const struct kms_backup_verify_options *options,
                                    struct kms_backup_verify_result *result, struct kms_error *err)
{
    const enum kms_status status = kms_backup_verify(keeper, directory, options, result, err);
    return status == KMS_TAMPERED && result->restorable ? KMS_OK : status;
}

enum kms_status kms_backup_restore(const struct kms_backup_keeper *keeper, const char *directory,
                                   struct kms_store *store, const struct kms_backup_verify_options *options,
                                   struct kms_backup_restore_result *ret_result, struct kms_error *err)
{
    static const struct kms_backup_verify_options none;
    struct kms_backup_restore_result result = {0};
    KMS_CLEANUP(filling_clear)
    struct filling filling = {.store = store, .options = options != NULL ? options : &none};
    KMS_TRY(verify_first(keeper, directory, filling.options, &result.source, err));
    KMS_CLEANUP(kms_backup_listing_clear) struct kms_backup_listing listing = {0};
    KMS_TRY(kms_backup_target_list(directory, &listing, err));
    filling.bytes = result.source.bytes;
    filling.total = 2 * result.source.bytes;
    const int64_t began = kms_clock_mono_ns();
    KMS_TRY(fill(&filling, keeper, directory, &listing, &result, err));
    result.took_ns = kms_clock_mono_ns() - began;
    *ret_result = result;
    return KMS_OK;
}
