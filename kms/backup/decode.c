#include "backup/decode.h"

#include "core/cleanup.h"
#include "core/lock.h"
#include "store/store_changes.h"

#include <stdlib.h>

enum { PORTIONS = 2 };

struct portion {
    struct kms_change *list; /* KMS_STORE_LOAD_MAX */
    size_t count;
};

struct decoding {
    const struct kms_backup_keeper *keeper;
    const char *directory;
    const struct kms_backup_file *base;
    const struct kms_backup_taker *taker;

    struct kms_mutex lock; /* KMS_LOCK_BACKUP; protects what follows up to `err` */
    pthread_cond_t changed;
    uint64_t filled, taken; /* portions so far; number n lies in portions[n % PORTIONS] */
    bool ended, stopped;    /* the reader has; the taker wants no more */
    enum kms_status status; /* of the reader */
    struct kms_error err;

    struct portion portions[PORTIONS]; /* from `taken` to `filled` the taker's, the others the reader's */
};

static void clear_portion(struct portion *portion)
{
    for (size_t i = 0; i < portion->count; i++)
        kms_change_clear(&portion->list[i]);
    portion->count = 0;
}

static void decoding_clear(struct decoding *decoding)
{
    for (size_t i = 0; i < PORTIONS; i++) {
        clear_portion(&decoding->portions[i]);
        free(decoding->portions[i].list);
    }
    kms_mutex_clear(&decoding->lock);
    KMS_ASSERT(pthread_cond_destroy(&decoding->changed) == 0);
}

/* The portion that the reader fills. */
static struct portion *filling(struct decoding *decoding)
{
    return &decoding->portions[decoding->filled % PORTIONS]; /* only the reader changes `filled` */
}

/* Give the portion away and wait for an empty one. */
static enum kms_status hand_over(struct decoding *decoding)
{
    {
        KMS_LOCKED(&decoding->lock);
        decoding->filled++;
        KMS_ASSERT(pthread_cond_broadcast(&decoding->changed) == 0);
        while (!decoding->stopped && decoding->filled - decoding->taken == PORTIONS)
            (void)kms_cond_wait(&decoding->changed, &decoding->lock, -1);
        if (decoding->stopped)
            return KMS_CANCELLED;
    }
    clear_portion(filling(decoding)); /* what was taken is freed where it was made */
    return KMS_OK;
}

static enum kms_status read_record(void *context, const struct kms_backup_record *record,
                                   struct kms_error *err)
{
    struct decoding *decoding = context;
    struct portion *portion = filling(decoding);
    struct kms_change *change = &portion->list[portion->count];
    *change = (struct kms_change){0};
    KMS_TRY(kms_changelog_decode(record->payload, change, err));
    return ++portion->count < KMS_STORE_LOAD_MAX ? KMS_OK : hand_over(decoding);
}

static bool pass_progress(void *context, uint64_t bytes)
{
    const struct kms_backup_taker *taker = ((struct decoding *)context)->taker;
    return taker->progress == NULL || taker->progress(taker->context, bytes);
}

static void *read_base(void *argument)
{
    struct decoding *decoding = argument;
    const struct kms_backup_visitor visitor = {decoding, NULL, read_record, pass_progress};
    struct kms_backup_scan scan;
    struct kms_error err = {0};
    enum kms_status status =
        kms_backup_scan(decoding->keeper, decoding->directory, decoding->base, &visitor, &scan, &err);
    if (status == KMS_OK && filling(decoding)->count > 0)
        status = hand_over(decoding);
    KMS_LOCKED(&decoding->lock);
    decoding->ended = true;
    decoding->status = status;
    decoding->err = err;
    KMS_ASSERT(pthread_cond_broadcast(&decoding->changed) == 0);
    return NULL;
}

/* The next portion, or NULL behind the last one. */
static struct portion *next_portion(struct decoding *decoding)
{
    KMS_LOCKED(&decoding->lock);
    while (decoding->filled == decoding->taken && !decoding->ended)
        (void)kms_cond_wait(&decoding->changed, &decoding->lock, -1);
    return decoding->filled != decoding->taken ? &decoding->portions[decoding->taken % PORTIONS] : NULL;
}

/* The portion may be filled again; or nothing more is wanted. */
static void give_back(struct decoding *decoding, bool stop)
{
    KMS_LOCKED(&decoding->lock);
    decoding->taken++;
    decoding->stopped = stop;
    KMS_ASSERT(pthread_cond_broadcast(&decoding->changed) == 0);
}

/* Every portion to the taker, until one of both sides fails. */
static enum kms_status take_all(struct decoding *decoding, struct kms_error *err)
{
    const struct kms_backup_taker *taker = decoding->taker;
    struct portion *portion;
    while ((portion = next_portion(decoding)) != NULL) {
        const enum kms_status status = taker->take(taker->context, portion->list, portion->count, err);
        give_back(decoding, status != KMS_OK);
        KMS_TRY(status);
    }
    if (decoding->status != KMS_OK && err != NULL)
        *err = decoding->err;
    return decoding->status;
}

enum kms_status kms_backup_decode(const struct kms_backup_keeper *keeper, const char *directory,
                                  const struct kms_backup_file *base, const struct kms_backup_taker *taker,
                                  struct kms_error *err)
{
    KMS_CLEANUP(decoding_clear)
    struct decoding decoding = {.keeper = keeper, .directory = directory, .base = base, .taker = taker};
    pthread_t reader;
    kms_mutex_init(&decoding.lock, KMS_LOCK_BACKUP);
    kms_cond_init(&decoding.changed);
    for (size_t i = 0; i < PORTIONS; i++)
        if ((decoding.portions[i].list = calloc(KMS_STORE_LOAD_MAX, sizeof(struct kms_change))) == NULL)
            return kms_fail(err, KMS_NO_MEMORY, "no memory to restore");
    if (pthread_create(&reader, NULL, read_base, &decoding) != 0)
        return kms_fail(err, KMS_NO_MEMORY, "cannot start a thread to read a base");
    const enum kms_status status = take_all(&decoding, err);
    KMS_ASSERT(pthread_join(reader, NULL) == 0);
    return status;
}
