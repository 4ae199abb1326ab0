#define _GNU_SOURCE
/* Goal: batches, tombstones and free slots are kept as store_rekey.h says, and nothing of a removed customer's name is left. */
#include "replay.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>

static struct kms_error err;

static struct fixture *fixture_of(void **state)
{
    return *state;
}

static struct kms_store *store_of(void **state)
{
    return fixture_of(state)->store;
}

static void a_batch_is_kept_as_it_is(void **state)
{
    struct kms_store *store = store_of(state);
    const struct kms_store_rekey_ops *ops = &store->ops->rekey;
    fill(store, 1);
    struct kms_batch_record batch = sample_batch(1, 3);
    struct kms_txn txn = begin_write(store);
    assert_ok(ops->batch_insert(txn.txn, &batch, &err));
    batch.state = KMS_BATCH_COMMITTED;
    batch.pages = 1;
    batch.keys_rewrapped = 2;
    batch.keys_shredded = 3;
    batch.customers = 4;
    batch.pages_digest[31] = 5;
    batch.committed_ns = 6;
    batch.sealed_ns = 7;
    assert_ok(ops->batch_update(txn.txn, &batch, &err));
    commit(&txn);
    txn = begin_read(store);
    struct kms_batch_record found = {0};
    assert_ok(ops->batch_get(txn.txn, &batch.uuid, &found, &err));
    kms_txn_clear(&txn);
    assert_int_equal(found.document_len, batch.document_len);
    assert_memory_equal(found.document, batch.document, batch.document_len);
    free(found.document);
    found.document = batch.document;
    assert_memory_equal(&found, &batch, sizeof batch);
}

static void a_tenant_has_one_unfinished_batch(void **state)
{
    struct kms_store *store = store_of(state);
    const struct kms_store_rekey_ops *ops = &store->ops->rekey;
    fill(store, 1);
    struct kms_batch_record first = sample_batch(1, 1);
    struct kms_batch_record second = sample_batch(1, 2);
    struct kms_batch_record found = {0};
    struct kms_txn txn = begin_write(store);
    assert_status(KMS_NOT_FOUND, ops->batch_unfinished(txn.txn, &first.tenant, &found, &err));
    assert_ok(ops->batch_insert(txn.txn, &first, &err));
    assert_status(KMS_ALREADY_EXISTS, ops->batch_insert(txn.txn, &second, &err));
    first.state = KMS_BATCH_COMMITTED;
    assert_ok(ops->batch_update(txn.txn, &first, &err));
    assert_status(KMS_ALREADY_EXISTS, ops->batch_insert(txn.txn, &second, &err));
    assert_ok(ops->batch_unfinished(txn.txn, &first.tenant, &found, &err));
    assert_true(kms_uuid_equal(&found.uuid, &first.uuid));
    kms_batch_record_clear(&found);
    first.state = KMS_BATCH_SEALED;
    assert_ok(ops->batch_update(txn.txn, &first, &err));
    assert_ok(ops->batch_insert(txn.txn, &second, &err));
    assert_status(KMS_NOT_FOUND, ops->batch_update(txn.txn, &(struct kms_batch_record){.state = 1}, &err));
    commit(&txn);
}

static void only_an_abandoned_batch_makes_room_for_its_successor(void **state)
{
    struct kms_store *store = store_of(state);
    const struct kms_store_rekey_ops *ops = &store->ops->rekey;
    fill(store, 1);
    struct kms_batch_record batch = sample_batch(1, 1);
    struct kms_txn txn = begin_write(store);
    assert_ok(ops->batch_insert(txn.txn, &batch, &err));
    batch.state = KMS_BATCH_SEALED;
    assert_ok(ops->batch_update(txn.txn, &batch, &err));
    assert_status(KMS_ALREADY_EXISTS, ops->batch_insert(txn.txn, &batch, &err));
    batch.state = KMS_BATCH_ABANDONED;
    assert_ok(ops->batch_update(txn.txn, &batch, &err));
    batch.state = KMS_BATCH_INTENT;
    batch.new_master_id[5] = 9;
    assert_ok(ops->batch_insert(txn.txn, &batch, &err));
    struct kms_batch_record found = {0};
    assert_ok(ops->batch_get(txn.txn, &batch.uuid, &found, &err));
    assert_int_equal(found.new_master_id[5], 9);
    kms_batch_record_clear(&found);
    commit(&txn);
    assert_log_matches_tables(fixture_of(state)->path);
}

static void batches_out_of_limits_are_refused(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    struct kms_txn txn = begin_write(store);
    const struct kms_batch_record good = sample_batch(1, 1);
#define REFUSED(change_)                                                                                     \
    do {                                                                                                     \
        struct kms_batch_record batch = good;                                                                \
        change_;                                                                                             \
        assert_status(KMS_INVALID_ARGUMENT, store->ops->rekey.batch_insert(txn.txn, &batch, &err));          \
    } while (0)
    REFUSED(batch.kind = 0);
    REFUSED(batch.kind = 4);
    REFUSED(batch.state = 0);
    REFUSED(batch.state = 5);
    REFUSED(batch.old_epoch = 0);
    REFUSED(batch.old_epoch = UINT64_MAX);
    REFUSED(batch.document_len = 0);
    REFUSED(batch.document_len = KMS_BATCH_DOCUMENT_MAX + 1);
    REFUSED(batch.signature_len = 0);
    REFUSED(batch.signature_len = KMS_BATCH_SIGNATURE_MAX + 1);
    REFUSED(batch.reference[0] = '\n');
    REFUSED(batch.pages = UINT64_MAX);
    struct kms_batch_record stranger = good;
    stranger.tenant = sample_uuid(9, 9);
    assert_status(KMS_NOT_FOUND, store->ops->rekey.batch_insert(txn.txn, &stranger, &err));
    commit(&txn);
}

static enum kms_status collect_epoch(void *context, const struct kms_batch_record *batch)
{
    uint64_t *sum = context;
    *sum = *sum * 10 + batch->old_epoch;
    return batch->document_len == 0 ? KMS_OK : KMS_INTERNAL;
}

static void batches_are_listed_by_epoch(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    struct kms_txn txn = begin_write(store);
    for (unsigned number = 5; number > 0; number--) {
        struct kms_batch_record batch = sample_batch(1, number);
        batch.state = KMS_BATCH_SEALED;
        assert_ok(store->ops->rekey.batch_insert(txn.txn, &batch, &err));
    }
    const struct kms_uuid tenant = sample_tenant(1).uuid;
    uint64_t sum = 0;
    assert_ok(store->ops->rekey.batch_list(txn.txn, &tenant, 1, 3, collect_epoch, &sum, &err));
    assert_int_equal(sum, 234);
    commit(&txn);
}

static void tombstones_are_found_by_name_and_by_customer(void **state)
{
    struct kms_store *store = store_of(state);
    const struct kms_store_rekey_ops *ops = &store->ops->rekey;
    fill(store, 3);
    const struct kms_uuid tenant = sample_tenant(1).uuid;
    struct kms_txn txn = begin_write(store);
    bool any = true;
    struct kms_tombstone_record part = sample_tombstone(1, 1, "kyc");
    assert_ok(ops->tombstone_put(txn.txn, &part, &err));
    assert_ok(ops->tombstone_any(txn.txn, &tenant, &any, &err));
    assert_false(any);
    struct kms_tombstone_record whole = sample_tombstone(1, 2, "");
    assert_ok(ops->tombstone_put(txn.txn, &whole, &err));
    assert_ok(ops->tombstone_any(txn.txn, &tenant, &any, &err));
    assert_true(any);
    struct kms_tombstone_record found;
    assert_ok(ops->tombstone_by_mac(txn.txn, &tenant, whole.id_mac, &found, &err));
    assert_memory_equal(&found, &whole, sizeof whole);
    assert_status(KMS_NOT_FOUND, ops->tombstone_by_mac(txn.txn, &tenant, part.id_mac, &found, &err));
    assert_ok(ops->tombstone_for(txn.txn, &part.customer, "kyc", &found, &err));
    assert_memory_equal(&found, &part, sizeof part);
    assert_status(KMS_NOT_FOUND, ops->tombstone_for(txn.txn, &part.customer, "service", &found, &err));
    assert_ok(ops->tombstone_for(txn.txn, &whole.customer, "service", &found, &err));
    struct kms_tombstone_record version = sample_tombstone(1, 3, "kyc");
    version.version = 1;
    assert_ok(ops->tombstone_put(txn.txn, &version, &err));
    assert_status(KMS_NOT_FOUND, ops->tombstone_for(txn.txn, &version.customer, "kyc", &found, &err));
    version.purpose[0] = '\0';
    assert_status(KMS_INVALID_ARGUMENT, ops->tombstone_put(txn.txn, &version, &err));
    commit(&txn);
}

static void slots_of_dead_keys_are_free_once(void **state)
{
    struct kms_store *store = store_of(state);
    const struct kms_store_rekey_ops *ops = &store->ops->rekey;
    fill(store, 5);
    const struct kms_uuid tenant = sample_tenant(1).uuid;
    const struct kms_uuid gone = sample_customer(1, 2).uuid;
    const struct kms_kek_record dead = sample_kek(1, 4, "service", 1);
    struct kms_txn txn = begin_write(store);
    assert_ok(ops->kek_shred(txn.txn, dead.kek_id, &err));
    assert_ok(ops->kek_shred(txn.txn, dead.kek_id, &err)); /* again: nothing new */
    assert_ok(ops->customer_remove(txn.txn, &gone, &err));
    uint64_t *slots = NULL;
    size_t count = 0;
    assert_ok(ops->free_slots(txn.txn, &tenant, 10, &slots, &count, &err));
    assert_int_equal(count, 2);
    assert_int_equal(slots[0], sample_kek(1, 2, "service", 1).slot);
    assert_int_equal(slots[1], dead.slot);
    free(slots);
    struct kms_kek_record again = sample_kek(1, 5, "service", 2);
    again.slot = dead.slot;
    assert_ok(ops->free_slot_take(txn.txn, &tenant, dead.slot, &err));
    assert_ok(store->ops->kek_insert(txn.txn, &again, &err));
    assert_status(KMS_NOT_FOUND, ops->free_slot_take(txn.txn, &tenant, dead.slot, &err));
    struct kms_kek_record *list = NULL;
    assert_ok(ops->keks_in_slots(txn.txn, &tenant, dead.slot, 1, &list, &count, &err));
    assert_int_equal(count, 1);
    assert_memory_equal(list[0].kek_id, again.kek_id, KMS_KEK_ID_SIZE);
    free(list);
    assert_status(KMS_NOT_FOUND, ops->kek_shred(txn.txn, sample_uuid(8, 8).bytes, &err));
    commit(&txn);
    assert_log_matches_tables(fixture_of(state)->path);
}

/* How often the text is in a file. */
static unsigned count_in_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return 0;
    struct kms_buf bytes = {0};
    uint8_t chunk[4096];
    size_t len;
    while ((len = fread(chunk, 1, sizeof chunk, file)) > 0)
        assert_ok(kms_buf_append(&bytes, chunk, len));
    (void)fclose(file);
    unsigned found = 0;
    for (const uint8_t *at = bytes.data;
         (at = memmem(at, bytes.len - (size_t)(at - bytes.data), text, strlen(text))) != NULL; at++)
        found++;
    kms_buf_clear(&bytes);
    return found;
}

static void a_removed_customer_leaves_no_name_behind(void **state)
{
    struct fixture *fixture = fixture_of(state);
    struct kms_store *store = fixture->store;
    fill(store, 3);
    char labels[] = "{\"nickname\":\"grasshopper\"}";
    struct kms_customer_record customer = sample_customer(1, 2);
    (void)snprintf(customer.id, sizeof customer.id, "unmistakable-name");
    customer.labels = labels;
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->customer_update(txn.txn, &customer, &err));
    commit(&txn);
    fixture_close(fixture); /* the write-ahead log is moved into the file */
    assert_true(count_in_file(fixture->path, "unmistakable-name") >= 2);
    fixture_open(fixture);
    store = fixture->store;
    txn = begin_write(store);
    assert_ok(store->ops->rekey.customer_remove(txn.txn, &customer.uuid, &err));
    assert_status(KMS_NOT_FOUND, store->ops->rekey.customer_remove(txn.txn, &customer.uuid, &err));
    struct kms_customer_record found = {0};
    assert_status(KMS_NOT_FOUND, store->ops->customer_by_uuid(txn.txn, &customer.uuid, &found, &err));
    struct kms_kek_record kek;
    assert_status(KMS_NOT_FOUND,
                  store->ops->kek_by_id(txn.txn, sample_kek(1, 2, "service", 1).kek_id, &kek, &err));
    commit(&txn);
    fixture_close(fixture);
    assert_int_equal(count_in_file(fixture->path, "unmistakable-name"), 0);
    assert_int_equal(count_in_file(fixture->path, "grasshopper"), 0);
    assert_int_equal(count_in_file(fixture_file(fixture, "-wal"), "unmistakable-name"), 0);
    assert_log_matches_tables(fixture->path);
    fixture_open(fixture);
}

static void due_keks_are_found_in_portions(void **state)
{
    struct kms_store *store = store_of(state);
    const struct kms_store_rekey_ops *ops = &store->ops->rekey;
    fill(store, 30);
    const struct kms_uuid tenant = sample_tenant(1).uuid;
    struct kms_txn txn = begin_write(store);
    struct kms_kek_record newer = sample_kek(1, 7, "service", 2);
    newer.created_ns = INT64_MAX;
    assert_ok(store->ops->kek_insert(txn.txn, &newer, &err)); /* customer 7 was rotated */
    struct kms_customer_record closed = sample_customer(1, 8);
    closed.state = KMS_CUSTOMER_CLOSED;
    assert_ok(store->ops->customer_update(txn.txn, &closed, &err));
    size_t total = 0;
    uint64_t after = 0;
    unsigned rounds = 0;
    do {
        struct kms_kek_record *list = NULL;
        size_t count = 0;
        assert_ok(
            ops->keks_due(txn.txn, &tenant, "service", INT64_MAX, after, 10, 4, &list, &count, &after, &err));
        assert_in_range(count, 0, 4);
        for (size_t i = 0; i < count; i++) {
            assert_false(kms_uuid_equal(&list[i].customer, &newer.customer));
            assert_false(kms_uuid_equal(&list[i].customer, &closed.uuid));
        }
        total += count;
        rounds++;
        free(list);
        assert_in_range(rounds, 1, 30);
    } while (after != 0);
    assert_int_equal(total, 28);
    struct kms_kek_record *list = NULL;
    size_t count = 0;
    assert_ok(
        ops->keks_due(txn.txn, &tenant, "service", INT64_MIN, 0, 100, 100, &list, &count, &after, &err));
    assert_int_equal(count, 0);
    assert_null(list);
    commit(&txn);
}

static void rewraps_are_added_up(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    const struct kms_kek_record kek = sample_kek(1, 1, "service", 1);
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->rekey.kek_add_rewrapped(txn.txn, kek.kek_id, 5, &err));
    assert_ok(store->ops->rekey.kek_add_rewrapped(txn.txn, kek.kek_id, 6, &err));
    struct kms_kek_record found;
    assert_ok(store->ops->kek_by_id(txn.txn, kek.kek_id, &found, &err));
    assert_int_equal(found.rewrapped, 11);
    assert_status(KMS_OUT_OF_RANGE,
                  store->ops->rekey.kek_add_rewrapped(txn.txn, kek.kek_id, KMS_STORE_WRAPS_MAX, &err));
    assert_status(KMS_NOT_FOUND,
                  store->ops->rekey.kek_add_rewrapped(txn.txn, sample_uuid(8, 8).bytes, 1, &err));
    commit(&txn);
    assert_log_matches_tables(fixture_of(state)->path);
}

int main(void)
{
#define ON_STORE(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        ON_STORE(a_batch_is_kept_as_it_is),
        ON_STORE(a_tenant_has_one_unfinished_batch),
        ON_STORE(only_an_abandoned_batch_makes_room_for_its_successor),
        ON_STORE(batches_out_of_limits_are_refused),
        ON_STORE(batches_are_listed_by_epoch),
        ON_STORE(tombstones_are_found_by_name_and_by_customer),
        ON_STORE(slots_of_dead_keys_are_free_once),
        ON_STORE(a_removed_customer_leaves_no_name_behind),
        ON_STORE(due_keks_are_found_in_portions),
        ON_STORE(rewraps_are_added_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
