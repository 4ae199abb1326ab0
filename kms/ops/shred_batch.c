#include "ops/shred_batch.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/testpoint.h"
#include "ops/shred_list.h"

#include <stdio.h>
#include <stdlib.h>

enum { KEKS_READ_MAX = 100000 };

/* What the visitor of a list carries, from one portion to the next. */
struct ordering {
    struct ops_shred_batch *batch;
    struct kms_txn *txn;
    struct kms_error *err;
    struct ops_shred_hasher hasher; /* over everybody on the list */
    struct kms_uuid last;
    size_t seen; /* in this portion */
    bool any;
};

/* The customer with the slot of its first key; one without keys comes first. */
static enum kms_status add_place(void *context, const struct kms_shred_target_record *target)
{
    struct ordering *ordering = context;
    struct ops_shred_batch *batch = ordering->batch;
    ops_shred_hasher_add(&ordering->hasher, &target->customer);
    ordering->last = target->customer;
    ordering->any = true;
    ordering->seen++;
    if (target->state != KMS_SHRED_TARGET_PENDING)
        return KMS_OK;
    KMS_FREE struct kms_kek_record *kek = NULL;
    size_t count = 0;
    const enum kms_status status = ordering->txn->store->ops->kek_list(
        ordering->txn->txn, &target->customer, NULL, 0, 1, &kek, &count, ordering->err);
    if (status != KMS_OK && status != KMS_NOT_FOUND) /* one that is gone is looked at when it is its turn */
        return status;
    if (batch->order_count == batch->order_room) {
        const size_t room = batch->order_room == 0 ? 1024 : 2 * batch->order_room;
        struct ops_shred_place *order = realloc(batch->order, room * sizeof *order);
        if (order == NULL)
            return kms_fail(ordering->err, KMS_NO_MEMORY, "no memory for the customers of a shred job");
        batch->order = order;
        batch->order_room = room;
    }
    batch->order[batch->order_count++] =
        (struct ops_shred_place){.customer = target->customer, .slot = count > 0 ? kek[0].slot : 0};
    return KMS_OK;
}

/* By slot. */
static int compare_places(const void *left, const void *right)
{
    const struct ops_shred_place *a = left;
    const struct ops_shred_place *b = right;
    return (a->slot > b->slot) - (a->slot < b->slot);
}

/* Everybody on the list, a thousand to a transaction. */
static enum kms_status read_list(struct ordering *ordering)
{
    const struct ops_shred_batch *batch = ordering->batch;
    const struct kms_shred_target_filter filter = {.job = &batch->job->uid};
    do {
        KMS_TXN txn = {0};
        const struct kms_uuid after = ordering->last;
        ordering->txn = &txn;
        ordering->seen = 0;
        KMS_TRY(kms_txn_begin(batch->ops->store, false, &txn, ordering->err));
        KMS_TRY(txn.store->ops->shred.target_list(txn.txn, &filter, ordering->any ? &after : NULL,
                                                  KMS_REKEY_TARGETS_ADVISED, add_place, ordering,
                                                  ordering->err));
    } while (ordering->seen == KMS_REKEY_TARGETS_ADVISED);
    return KMS_OK;
}

/* The list is the one that the job was made with. Jobs of the service's own had no hash in earlier versions. */
static enum kms_status check_list(struct ordering *ordering)
{
    static const uint8_t none[OPS_SHRED_LIST_HASH_SIZE];
    const struct kms_shred_job_record *job = ordering->batch->job;
    uint8_t hash[OPS_SHRED_LIST_HASH_SIZE];
    KMS_TRY(ops_shred_hasher_end(&ordering->hasher, hash));
    if (memcmp(hash, job->list_hash, sizeof hash) == 0 ||
        (job->origin != KMS_SHRED_BY_OPERATOR && memcmp(none, job->list_hash, sizeof none) == 0))
        return KMS_OK;
    (void)kms_fail(ordering->err, KMS_TAMPERED, "the list of customers of a shred job was changed");
    return kms_fail_public(ordering->err, KMS_TAMPERED,
                           "the list of customers in the database is not the one that the shred job was made "
                           "with: somebody else has written to the database; nobody on it is shredded");
}

/* By UUID, as the list was read. */
static int compare_customers(const void *left, const void *right)
{
    const struct ops_shred_place *a = left;
    const struct ops_shred_place *b = right;
    return memcmp(a->customer.bytes, b->customer.bytes, KMS_UUID_SIZE);
}

/* One key in the tree. */
static enum kms_status count_key(void *context, const struct kms_uuid *customer)
{
    const struct ops_shred_batch *batch = context;
    const struct ops_shred_place wanted = {.customer = *customer};
    struct ops_shred_place *place =
        bsearch(&wanted, batch->order, batch->order_count, sizeof *batch->order, compare_customers);
    if (place != NULL)
        place->keys++;
    return KMS_OK;
}

/* How many keys each of them has in the tree: what the database says of them must be as many. */
static enum kms_status count_keys(struct ops_shred_batch *batch, struct kms_error *err)
{
    if (batch->order_count == 0 || kms_test_mutation("skip-census"))
        return KMS_OK;
    return kms_keys_census(batch->ops->keys, &batch->job->tenant, count_key, batch, err);
}

/* Everything that is pending, in the order of the tree. From here on it is this list that counts, and not the database's. */
static enum kms_status put_in_order(struct ops_shred_batch *batch, struct kms_error *err)
{
    struct ordering ordering = {.batch = batch, .err = err, .hasher = ops_shred_hasher_begin()};
    enum kms_status status = read_list(&ordering);
    if (status == KMS_OK)
        status = check_list(&ordering);
    ops_shred_hasher_clear(&ordering.hasher);
    if (status == KMS_OK)
        status = count_keys(batch, err);
    if (status == KMS_OK && batch->order_count > 0)
        qsort(batch->order, batch->order_count, sizeof *batch->order, compare_places);
    return status;
}

enum kms_status ops_shred_batch_begin(struct kms_ops *ops, const struct kms_shred_job_record *job,
                                      struct ops_shred_batch *batch, struct kms_error *err)
{
    batch->ops = ops;
    batch->job = job;
    batch->victims = calloc(KMS_REKEY_TARGETS_ADVISED, sizeof *batch->victims);
    batch->entries = calloc(KMS_REKEY_TARGETS_MAX, sizeof *batch->entries);
    if (batch->victims == NULL || batch->entries == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a batch of customers");
    return put_in_order(batch, err);
}

void ops_shred_batch_clear(struct ops_shred_batch *batch)
{
    free(batch->purposes);
    free(batch->victims);
    free(batch->entries);
    free(batch->order);
    *batch = (struct ops_shred_batch){0};
}

/* What the law keeps may change while a long job runs: read anew for every batch. Entries of the last one point nowhere afterwards. */
static enum kms_status read_purposes(struct ops_shred_batch *batch, struct kms_txn *txn,
                                     struct kms_error *err)
{
    free(KMS_TAKE(batch->purposes));
    batch->purpose_count = batch->entry_count = 0;
    return txn->store->ops->purpose_list(txn->txn, &batch->job->tenant, NULL, SIZE_MAX, &batch->purposes,
                                         &batch->purpose_count, err);
}

/* The tenant's purpose of that id; it is kept as long as KEKs of it are. */
static const struct kms_purpose_record *purpose_of(const struct ops_shred_batch *batch, const char *id)
{
    for (size_t i = 0; i < batch->purpose_count; i++) {
        if (strcmp(batch->purposes[i].id, id) == 0)
            return &batch->purposes[i];
    }
    return NULL;
}

/* One thing for the engine; false when there is no room. */
static bool add_entry(struct ops_shred_batch *batch, struct ops_shred_victim *victim, const char *purpose,
                      uint32_t version)
{
    if (batch->entry_count == KMS_REKEY_TARGETS_MAX)
        return false;
    batch->entries[batch->entry_count++] = (struct kms_rekey_target){
        .customer = victim->target.customer, .purpose = purpose, .version = version};
    victim->count++;
    return true;
}

/* Purposes of the customer that live, each once: those that the job takes into entries. */
static bool add_purposes(struct ops_shred_batch *batch, struct ops_shred_victim *victim,
                         const struct kms_kek_record *keks, size_t count)
{
    const char *before = "";
    for (size_t i = 0; i < count; i++) {
        const struct kms_purpose_record *purpose = purpose_of(batch, keks[i].purpose);
        if (keks[i].state == KMS_KEK_SHREDDED || strcmp(keks[i].purpose, before) == 0 || purpose == NULL)
            continue;
        before = keks[i].purpose;
        if (!ops_shred_keeps(purpose) && !add_entry(batch, victim, purpose->id, 0))
            return false;
    }
    return true;
}

/* Does the law keep a purpose of the customer besides the one that the job names? */
static bool keeps_others(const struct ops_shred_batch *batch, const struct kms_kek_record *keks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct kms_purpose_record *purpose = purpose_of(batch, keks[i].purpose);
        if (keks[i].state != KMS_KEK_SHREDDED && purpose != NULL && ops_shred_keeps(purpose) &&
            strcmp(keks[i].purpose, batch->job->purpose) != 0)
            return true;
    }
    return false;
}

/* Does any key live besides those of the purpose that the job names? */
static bool has_others(const struct ops_shred_batch *batch, const struct kms_kek_record *keks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (keks[i].state != KMS_KEK_SHREDDED && strcmp(keks[i].purpose, batch->job->purpose) != 0)
            return true;
    }
    return false;
}

/* Why the one purpose that the job names cannot go; NULL when it can, or none is named. The law may keep it since it was requested. */
static const char *problem_of_purpose(const struct ops_shred_batch *batch)
{
    const struct kms_shred_job_record *job = batch->job;
    if (job->purpose[0] == '\0')
        return NULL;
    const struct kms_purpose_record *purpose = purpose_of(batch, job->purpose);
    if (purpose == NULL)
        return "its purpose does not exist any more";
    if (job->origin == KMS_SHRED_BY_OPERATOR && purpose->retention_seconds > 0)
        return "the law keeps this purpose for a time by now";
    return NULL;
}

/*
 * What of one customer is to go. A job without a purpose takes everything that no law keeps, and the customer with it unless
 * something is kept. The end of a retention takes its purpose, and with the last one the customer. False when there is no room.
 */
static bool choose(struct ops_shred_batch *batch, struct ops_shred_victim *victim,
                   const struct kms_kek_record *keks, size_t count)
{
    const struct kms_shred_job_record *job = batch->job;
    victim->first = batch->entry_count;
    victim->count = 0;
    if (job->purpose[0] == '\0') {
        victim->keeps = keeps_others(batch, keks, count);
        return victim->keeps ? add_purposes(batch, victim, keks, count) : add_entry(batch, victim, NULL, 0);
    }
    if (job->origin == KMS_SHRED_BY_RETENTION && !has_others(batch, keks, count))
        return add_entry(batch, victim, NULL, 0);
    return add_entry(batch, victim, job->purpose, job->version);
}

enum kms_status ops_shred_batch_fail(struct ops_shred_batch *batch, struct ops_shred_victim *victim,
                                     const char *reason, struct kms_error *err)
{
    KMS_TXN txn = {0};
    victim->target.state = KMS_SHRED_TARGET_FAILED;
    victim->target.changed_ns = kms_clock_wall_ns();
    (void)snprintf(victim->target.reason, sizeof victim->target.reason, "%s", reason);
    KMS_TRY(kms_txn_begin(batch->ops->store, true, &txn, err));
    KMS_TRY(txn.store->ops->shred.target_put(txn.txn, &victim->target, err));
    KMS_TRY(kms_txn_commit(&txn, err));
    ops_shred_note(batch->ops->shred, &victim->target.customer, false);
    return KMS_OK;
}

/* The next customers of the order that are pending still. */
static enum kms_status take_targets(struct ops_shred_batch *batch, struct kms_txn *txn, struct kms_error *err)
{
    batch->count = batch->entry_count = 0;
    for (; batch->next < batch->order_count && batch->count < KMS_REKEY_TARGETS_ADVISED; batch->next++) {
        struct ops_shred_victim *victim = &batch->victims[batch->count];
        *victim = (struct ops_shred_victim){.place = batch->next, .keys = batch->order[batch->next].keys};
        KMS_TRY(txn->store->ops->shred.target_get(txn->txn, &batch->job->uid,
                                                  &batch->order[batch->next].customer, &victim->target, err));
        batch->count += victim->target.state == KMS_SHRED_TARGET_PENDING;
    }
    return KMS_OK;
}

/* Look at one customer: *ret_ready when it is to be shredded now; `problem` when it never can be. */
static enum kms_status examine(struct ops_shred_batch *batch, struct kms_txn *txn,
                               struct ops_shred_victim *victim, bool *ret_ready, bool *ret_full,
                               struct kms_error *err)
{
    char barrier[OPS_SHRED_BARRIER_MAX];
    *ret_ready = false;
    *ret_full = false;
    KMS_TRY(ops_shred_barrier(batch->ops, txn, &batch->job->tenant, batch->job->purpose,
                              &victim->target.customer, barrier, err));
    if (barrier[0] != '\0') {
        batch->held++;
        return KMS_OK;
    }
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    enum kms_status status =
        txn->store->ops->customer_by_uuid(txn->txn, &victim->target.customer, &customer, err);
    if (status == KMS_NOT_FOUND ||
        (status == KMS_OK && !kms_uuid_equal(&customer.tenant, &batch->job->tenant))) {
        (void)snprintf(victim->problem, sizeof victim->problem, "%s",
                       status == KMS_OK ? "the customer belongs to another tenant by now"
                                        : "the customer does not exist any more");
        return KMS_OK;
    }
    KMS_TRY(status);
    if (problem_of_purpose(batch) != NULL) {
        (void)snprintf(victim->problem, sizeof victim->problem, "%s", problem_of_purpose(batch));
        return KMS_OK;
    }
    if (batch->job->origin != KMS_SHRED_BY_OPERATOR && customer.state == KMS_CUSTOMER_ACTIVE) {
        (void)snprintf(victim->problem, sizeof victim->problem, "the customer is active again");
        return KMS_OK;
    }
    KMS_FREE struct kms_kek_record *keks = NULL;
    size_t count = 0;
    KMS_TRY(txn->store->ops->kek_list(txn->txn, &victim->target.customer, NULL, 0, KEKS_READ_MAX, &keks,
                                      &count, err));
    uint64_t alive = 0;
    for (size_t i = 0; i < count; i++)
        alive += keks[i].state != KMS_KEK_SHREDDED;
    if (alive < victim->keys) {
        kms_log_error("shred", "ALARM: the tree has %llu keys of a customer, the database %llu",
                      (unsigned long long)victim->keys, (unsigned long long)alive);
        (void)snprintf(
            victim->problem, sizeof victim->problem, "%s",
            "the key tree has keys of the customer that the database does not name: somebody has removed "
            "rows; an operator must look");
        return KMS_OK;
    }
    *ret_full = !choose(batch, victim, keks, count);
    *ret_ready = true;
    return KMS_OK;
}

/* Keep those of the list that are ready, in order; remember in `failed` those that never can be. */
static enum kms_status examine_all(struct ops_shred_batch *batch, struct kms_txn *txn, size_t *ret_failed,
                                   struct ops_shred_victim *failed, struct kms_error *err)
{
    size_t kept = 0;
    *ret_failed = 0;
    for (size_t i = 0; i < batch->count; i++) {
        struct ops_shred_victim victim = batch->victims[i];
        bool ready;
        bool full;
        KMS_TRY(examine(batch, txn, &victim, &ready, &full, err));
        if (full && kept > 0) { /* the rest comes with the next batch */
            batch->entry_count = victim.first;
            batch->next = victim.place;
            break;
        }
        if (victim.problem[0] != '\0')
            failed[(*ret_failed)++] = victim;
        else if (ready && victim.count > 0)
            batch->victims[kept++] = victim;
        else if (ready) {
            (void)snprintf(victim.problem, sizeof victim.problem, "the law keeps everything that there is");
            failed[(*ret_failed)++] = victim;
        }
    }
    batch->count = kept;
    return KMS_OK;
}

enum kms_status ops_shred_batch_fill(struct ops_shred_batch *batch, struct kms_error *err)
{
    KMS_FREE struct ops_shred_victim *failed = calloc(KMS_REKEY_TARGETS_ADVISED, sizeof *failed);
    size_t failures = 0;
    if (failed == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a batch of customers");
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(batch->ops->store, false, &txn, err));
        KMS_TRY(read_purposes(batch, &txn, err));
        KMS_TRY(take_targets(batch, &txn, err));
        KMS_TRY(examine_all(batch, &txn, &failures, failed, err));
    }
    for (size_t i = 0; i < failures; i++)
        KMS_TRY(ops_shred_batch_fail(batch, &failed[i], failed[i].problem, err));
    return KMS_OK;
}

/* What the engine's hooks carry. */
struct part {
    struct ops_shred_batch *batch;
    size_t first, count;
};

/* Not a failure of anybody's: the operation is run again and looks at everything anew. */
static enum kms_status changed_meanwhile(struct kms_error *err)
{
    return kms_fail_public(err, KMS_ABORTED,
                           "what was to be shredded has changed meanwhile; it is looked at again");
}

/* Would the same be taken of a customer now? `now` has room for what would be. */
static enum kms_status check_victim(const struct ops_shred_batch *batch,
                                    const struct ops_shred_victim *victim, struct ops_shred_batch *now,
                                    struct kms_txn *txn, struct kms_error *err)
{
    bool ready = false;
    bool full = false;
    struct ops_shred_victim again = {.place = victim->place, .keys = victim->keys};
    now->entry_count = 0;
    KMS_TRY(txn->store->ops->shred.target_get(txn->txn, &batch->job->uid, &victim->target.customer,
                                              &again.target, err));
    if (again.target.state != KMS_SHRED_TARGET_PENDING)
        return changed_meanwhile(err);
    KMS_TRY(examine(now, txn, &again, &ready, &full, err));
    bool same = ready && !full && again.count == victim->count && again.keeps == victim->keeps;
    for (size_t k = 0; same && k < victim->count; k++) {
        const struct kms_rekey_target *a = &batch->entries[victim->first + k];
        const struct kms_rekey_target *b = &now->entries[k];
        same = a->version == b->version && (a->purpose == NULL) == (b->purpose == NULL) &&
               (a->purpose == NULL || strcmp(a->purpose, b->purpose) == 0);
    }
    return same ? KMS_OK : changed_meanwhile(err);
}

/*
 * First in the commit's transaction: the customers were looked at before the tree was built, which takes its time. Who was put
 * under a hold, frozen, cancelled or opened again since then, or got a key that the law keeps, was told that it is safe.
 */
static enum kms_status check_part(void *context, struct kms_store_txn *open, struct kms_error *err)
{
    const struct part *part = context;
    const struct ops_shred_batch *batch = part->batch;
    struct kms_txn txn = {.store = batch->ops->store, .txn = open};
    struct kms_shred_job_record job;
    KMS_TRY(txn.store->ops->shred.job_get(open, &batch->job->uid, &job, err));
    if (job.state != KMS_SHRED_JOB_SCHEDULED)
        return changed_meanwhile(err);
    struct ops_shred_batch now = {.ops = batch->ops, .job = &job};
    now.entries = calloc(KMS_REKEY_TARGETS_MAX, sizeof *now.entries);
    enum kms_status status = now.entries != NULL ? read_purposes(&now, &txn, err)
                                                 : kms_fail(err, KMS_NO_MEMORY, "no memory to check a batch");
    for (size_t i = part->first; status == KMS_OK && i < part->first + part->count; i++) {
        if (batch->victims[i].problem[0] == '\0')
            status = check_victim(batch, &batch->victims[i], &now, &txn, err);
    }
    ops_shred_batch_clear(&now);
    return status;
}

/* The purposes that the law keeps of a customer that was not closed before: the time begins now. */
static enum kms_status restrict_customer(struct ops_shred_batch *batch, struct kms_store_txn *txn,
                                         const struct kms_uuid *uuid, struct kms_error *err)
{
    struct kms_store *store = batch->ops->store;
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    KMS_TRY(store->ops->customer_by_uuid(txn, uuid, &customer, err));
    return ops_shred_restrict(batch->ops, txn, &customer, batch->purposes, batch->purpose_count, err);
}

/* In the commit's transaction: the targets are SHREDDED when their keys are, and what is kept is RESTRICTED. */
static enum kms_status write_targets(void *context, struct kms_store_txn *txn,
                                     const struct kms_batch_record *record, struct kms_error *err)
{
    const struct part *part = context;
    struct kms_store *store = part->batch->ops->store;
    for (size_t i = part->first; i < part->first + part->count; i++) {
        struct ops_shred_victim *victim = &part->batch->victims[i];
        if (victim->problem[0] != '\0')
            continue;
        struct kms_shred_target_record target = victim->target;
        target.state = KMS_SHRED_TARGET_SHREDDED;
        target.batch = record->uuid;
        target.changed_ns = kms_clock_wall_ns();
        KMS_TRY(store->ops->shred.target_put(txn, &target, err));
        if (victim->keeps)
            KMS_TRY(restrict_customer(part->batch, txn, &target.customer, err));
    }
    return KMS_OK;
}

/* Mark those that the engine did not take; true when there is one. */
static bool note_refused(struct ops_shred_batch *batch, size_t first, size_t count)
{
    bool any = false;
    for (size_t i = first; i < first + count; i++) {
        struct ops_shred_victim *victim = &batch->victims[i];
        for (size_t k = 0; k < victim->count && victim->problem[0] == '\0'; k++) {
            const enum kms_status status = batch->entries[victim->first + k].ret_status;
            if (status != KMS_OK)
                (void)snprintf(victim->problem, sizeof victim->problem, "%s",
                               status == KMS_NOT_FOUND ? "there is no such key any more"
                                                       : "it was shredded before");
        }
        any |= victim->problem[0] != '\0';
    }
    return any;
}

/* The entries of the victims without a problem, beside each other. */
static size_t gather(const struct ops_shred_batch *batch, size_t first, size_t count,
                     struct kms_rekey_target *out)
{
    size_t gathered = 0;
    for (size_t i = first; i < first + count; i++) {
        const struct ops_shred_victim *victim = &batch->victims[i];
        for (size_t k = 0; k < victim->count && victim->problem[0] == '\0'; k++)
            out[gathered++] = batch->entries[victim->first + k];
    }
    return gathered;
}

/* The engine, with entries that lie beside each other; their statuses are put back where they came from. */
static enum kms_status call_engine(struct ops_shred_batch *batch, struct part *part, const char *reference,
                                   struct kms_batch_record *ret_batch, struct kms_error *err)
{
    KMS_FREE struct kms_rekey_target *list = calloc(batch->entry_count, sizeof *list);
    if (list == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a batch of customers");
    struct kms_rekey_request request = {
        .batch = kms_uuid_random(),
        .tenant = batch->job->tenant,
        .reference = reference,
        .targets = list,
        .target_count = gather(batch, part->first, part->count, list),
        .hooks = {.context = part, .check = check_part, .write = write_targets},
    };
    if (request.target_count == 0)
        return KMS_NOT_FOUND; /* and nothing is done */
    const enum kms_status status = kms_keys_shred(batch->ops->keys, &request, ret_batch, err);
    size_t at = 0;
    for (size_t i = part->first; i < part->first + part->count; i++) {
        const struct ops_shred_victim *victim = &batch->victims[i];
        for (size_t k = 0; k < victim->count && victim->problem[0] == '\0'; k++)
            batch->entries[victim->first + k].ret_status = list[at++].ret_status;
    }
    return status;
}

/* After the shred, or when it was refused: nobody waits any more. */
static enum kms_status settle(struct ops_shred_batch *batch, size_t first, size_t count,
                              struct kms_error *err)
{
    for (size_t i = first; i < first + count; i++) {
        struct ops_shred_victim *victim = &batch->victims[i];
        if (victim->problem[0] != '\0')
            KMS_TRY(ops_shred_batch_fail(batch, victim, victim->problem, err));
        else
            ops_shred_note(batch->ops->shred, &victim->target.customer, false);
    }
    return KMS_OK;
}

/* Handles that were loaded while the customer was active do not know that it is restricted now. */
static void forget_restricted(const struct ops_shred_batch *batch, size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++) {
        if (batch->victims[i].keeps)
            kms_keys_forget(batch->ops->keys, &batch->job->tenant, &batch->victims[i].target.customer);
    }
}

enum kms_status ops_shred_batch_run(struct ops_shred_batch *batch, size_t first, size_t count,
                                    const char *reference, struct kms_batch_record *ret_batch,
                                    struct kms_error *err)
{
    struct part part = {batch, first, count};
    kms_test_point("shred.chosen");
    enum kms_status status = call_engine(batch, &part, reference, ret_batch, err);
    if ((status == KMS_NOT_FOUND || status == KMS_FAILED_PRECONDITION) && note_refused(batch, first, count))
        status = call_engine(batch, &part, reference, ret_batch, err); /* without those that were refused */
    forget_restricted(batch, first, count); /* also when it is committed and not sealed yet */
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    return settle(batch, first, count, err);
}
