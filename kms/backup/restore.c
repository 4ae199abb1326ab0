#include "backup/restore.h"

#include "backup/decode.h"
#include "core/clock.h"
#include "store/apply.h"

#include <string.h>

/* A store that is being filled. */
struct filling {
    struct kms_store *store;
    struct kms_txn txn;
    uint64_t done;
    const struct kms_backup_verify_options *options;
    uint64_t bytes, total;
};

static enum kms_status begin(struct filling *filling, struct kms_error *err)
{
    KMS_TRY(kms_txn_begin(filling->store, true, &filling->txn, err));
    filling->store->ops->changes.silence(filling->txn.txn);
    return KMS_OK;
}

static void filling_clear(struct filling *filling)
{
    kms_txn_clear(&filling->txn);
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

/* True for the counter of the KEK before it, which then holds it. */
static bool joins_kek(struct kms_change *before, const struct kms_change *change)
{
    if (change->kind != KMS_CHANGE_REWRAPPED || before->kind != KMS_CHANGE_KEK ||
        memcmp(before->kek.kek_id, change->rewrapped.kek_id, KMS_KEK_ID_SIZE) != 0)
        return false;
    before->kek.rewrapped = change->rewrapped.rewrapped;
    return true;
}

/* How many customers and KEKs the list begins with; changes that join them are moved behind them, for nobody needs those any more. */
static size_t gather(struct kms_change *list, size_t count, size_t *ret_seen)
{
    size_t kept = 0;
    size_t seen = 0;
    for (; seen < count; seen++) {
        const bool wanted = list[seen].kind == KMS_CHANGE_CUSTOMER || list[seen].kind == KMS_CHANGE_KEK;
        if (!wanted && (kept == 0 || !joins_kek(&list[kept - 1], &list[seen])))
            break;
        if (!wanted)
            continue;
        if (kept != seen) {
            const struct kms_change joined = list[kept];
            list[kept] = list[seen];
            list[seen] = joined;
        }
        kept++;
    }
    *ret_seen = seen;
    return kept;
}

/* Changes of a base: what there are millions of goes in by the thousand, everything else by itself. */
static enum kms_status take_portion(void *context, struct kms_change *list, size_t count,
                                    struct kms_error *err)
{
    struct filling *filling = context;
    for (size_t done = 0; done < count;) {
        size_t seen = 0;
        const size_t kept = gather(list + done, count - done, &seen);
        if (kept > 0)
            KMS_TRY(kms_store_load(filling->store, filling->txn.txn, list + done, kept, err));
        else
            KMS_TRY(kms_store_apply(filling->store, filling->txn.txn, &list[done], err));
        done += kept > 0 ? seen : 1;
    }
    filling->done += count;
    return KMS_OK;
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
    const struct kms_backup_taker of_base = {filling, take_portion, pass_progress};
    const struct kms_backup_visitor of_logs = {filling, NULL, take_change, pass_progress};
    const struct kms_backup_file *base = find_base(listing, result->source.base);
    struct kms_backup_chain chain;
    if (base == NULL)
        return kms_fail_public(err, KMS_TAMPERED, "the base %s is gone while it was being restored",
                               result->source.base);
    KMS_TRY(begin(filling, err));
    KMS_TRY(kms_backup_decode(keeper, directory, base, &of_base, err));
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
