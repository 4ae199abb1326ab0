/* Goal: KEK records, their counters and the pages of the tree are kept, found and refused as store.h says. */
#include "support.h"

#include <stdlib.h>

static struct kms_error err;

static struct kms_store *store_of(void **state)
{
    return ((struct fixture *)*state)->store;
}

static void a_kek_is_found_by_id_and_as_primary(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 3);
    const struct kms_kek_record wanted = sample_kek(1, 2, "service", 1);
    struct kms_txn txn = begin_read(store);
    struct kms_kek_record found;
    memset(&found, 0xee, sizeof found);
    assert_ok(store->ops->kek_by_id(txn.txn, wanted.kek_id, &found, &err));
    assert_same(kek, &found, &wanted);
    memset(&found, 0xee, sizeof found);
    assert_ok(store->ops->kek_primary(txn.txn, &wanted.customer, "service", &found, &err));
    assert_same(kek, &found, &wanted);
    const struct kms_uuid nobody = sample_uuid(2, 5);
    assert_status(KMS_NOT_FOUND, store->ops->kek_by_id(txn.txn, nobody.bytes, &found, &err));
    assert_status(KMS_NOT_FOUND, store->ops->kek_primary(txn.txn, &nobody, "service", &found, &err));
    assert_status(KMS_NOT_FOUND, store->ops->kek_primary(txn.txn, &wanted.customer, "servic", &found, &err));
    kms_txn_clear(&txn);
}

static void a_kek_is_found_together_with_its_customer(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 3);
    const struct kms_kek_record wanted = sample_kek(1, 2, "service", 1);
    struct kms_customer_record customer = sample_customer(1, 2);
    customer.state = KMS_CUSTOMER_RESTRICTED;
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->customer_update(txn.txn, &customer, &err));
    commit(&txn);
    txn = begin_read(store);
    struct kms_kek_record found;
    struct kms_kek_customer owner;
    memset(&found, 0xee, sizeof found);
    memset(&owner, 0xee, sizeof owner);
    assert_ok(store->ops->kek_with_customer(txn.txn, wanted.kek_id, &found, &owner, &err));
    assert_same(kek, &found, &wanted);
    assert_string_equal(owner.id, customer.id);
    assert_int_equal(owner.state, KMS_CUSTOMER_RESTRICTED);
    assert_true(owner.is_of_tenant);
    const struct kms_uuid nobody = sample_uuid(2, 5);
    assert_status(KMS_NOT_FOUND, store->ops->kek_with_customer(txn.txn, nobody.bytes, &found, &owner, &err));
    kms_txn_clear(&txn);
}

static void a_customer_of_another_tenant_than_its_key_shows(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    const struct kms_tenant_record other = sample_tenant(2);
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->tenant_insert(txn.txn, &other, &err));
    commit(&txn);
    sql_run(((struct fixture *)*state)->path, "UPDATE customer SET tenant_no = 2");
    txn = begin_read(store);
    struct kms_kek_record kek = sample_kek(1, 1, "service", 1);
    struct kms_kek_customer owner;
    assert_ok(store->ops->kek_with_customer(txn.txn, kek.kek_id, &kek, &owner, &err));
    assert_false(owner.is_of_tenant);
    kms_txn_clear(&txn);
}

static void the_primary_is_the_highest_enabled_version(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    const struct kms_uuid customer = sample_customer(1, 1).uuid;
    struct kms_txn txn = begin_write(store);
    for (uint32_t version = 2; version <= 12; version++) {
        const struct kms_kek_record kek = sample_kek(1, 1, "service", version);
        assert_ok(store->ops->kek_insert(txn.txn, &kek, &err));
    }
    struct kms_kek_record found;
    assert_ok(store->ops->kek_primary(txn.txn, &customer, "service", &found, &err));
    assert_int_equal(found.version, 12);
    assert_ok(store->ops->kek_set_state(txn.txn, found.kek_id, KMS_KEK_DISABLED, &err));
    assert_ok(store->ops->kek_primary(txn.txn, &customer, "service", &found, &err));
    assert_int_equal(found.version, 11);
    for (uint32_t version = 1; version <= 12; version++) {
        const struct kms_kek_record kek = sample_kek(1, 1, "service", version);
        assert_ok(store->ops->kek_set_state(txn.txn, kek.kek_id, KMS_KEK_SHREDDED, &err));
    }
    assert_status(KMS_NOT_FOUND, store->ops->kek_primary(txn.txn, &customer, "service", &found, &err));
    commit(&txn);
}

static void keks_that_clash_or_hang_in_the_air_are_refused(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 2);
    struct kms_txn txn = begin_write(store);
    struct kms_kek_record kek = sample_kek(1, 1, "service", 1);
    assert_status(KMS_ALREADY_EXISTS, store->ops->kek_insert(txn.txn, &kek, &err));
    kek = sample_kek(1, 1, "service", 2);
    const struct kms_kek_record other = sample_kek(1, 2, "service", 1);
    memcpy(kek.kek_id, other.kek_id, sizeof kek.kek_id);
    assert_status(KMS_ALREADY_EXISTS, store->ops->kek_insert(txn.txn, &kek, &err));
    kek = sample_kek(1, 1, "unknown", 2);
    assert_status(KMS_NOT_FOUND, store->ops->kek_insert(txn.txn, &kek, &err));
    kek = sample_kek(1, 7, "service", 1);
    assert_status(KMS_NOT_FOUND, store->ops->kek_insert(txn.txn, &kek, &err));
    kek = sample_kek(1, 1, "service", 0);
    assert_status(KMS_INVALID_ARGUMENT, store->ops->kek_insert(txn.txn, &kek, &err));
    kek = sample_kek(1, 1, "service", 2);
    kek.slot = UINT64_MAX;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->kek_insert(txn.txn, &kek, &err));
    kek = sample_kek(1, 1, "service", 2);
    kek.state = 0;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->kek_insert(txn.txn, &kek, &err));
    commit(&txn);
    assert_int_equal(sql_number(((struct fixture *)*state)->path, "SELECT count(*) FROM kek"), 2);
}

static void a_slot_is_free_again_only_when_its_kek_is_shredded(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    struct kms_txn txn = begin_write(store);
    const struct kms_kek_record first = sample_kek(1, 1, "service", 1);
    struct kms_kek_record second = sample_kek(1, 1, "service", 2);
    second.slot = first.slot;
    assert_status(KMS_ALREADY_EXISTS, store->ops->kek_insert(txn.txn, &second, &err));
    assert_ok(store->ops->kek_set_state(txn.txn, first.kek_id, KMS_KEK_DISABLED, &err));
    assert_status(KMS_ALREADY_EXISTS, store->ops->kek_insert(txn.txn, &second, &err));
    assert_ok(store->ops->kek_set_state(txn.txn, first.kek_id, KMS_KEK_SHREDDED, &err));
    assert_ok(store->ops->kek_insert(txn.txn, &second, &err));
    commit(&txn);
}

static void states_are_set_only_to_known_ones_of_known_keks(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    const struct kms_kek_record kek = sample_kek(1, 1, "service", 1);
    const struct kms_uuid nobody = sample_uuid(77, 1);
    struct kms_txn txn = begin_write(store);
    assert_status(KMS_NOT_FOUND, store->ops->kek_set_state(txn.txn, nobody.bytes, KMS_KEK_DISABLED, &err));
    assert_status(KMS_INVALID_ARGUMENT,
                  store->ops->kek_set_state(txn.txn, kek.kek_id, (enum kms_kek_state)4, &err));
    commit(&txn);
}

static void reserving_returns_the_value_before_and_adds_up(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 2);
    const struct kms_kek_record kek = sample_kek(1, 1, "service", 1);
    uint64_t first = 99;
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->kek_reserve(txn.txn, kek.kek_id, 65536, &first, &err));
    assert_int_equal(first, 0);
    assert_ok(store->ops->kek_reserve(txn.txn, kek.kek_id, 10, &first, &err));
    assert_int_equal(first, 65536);
    commit(&txn);
    txn = begin_write(store);
    assert_ok(store->ops->kek_reserve(txn.txn, kek.kek_id, 1, &first, &err));
    assert_int_equal(first, 65546);
    kms_txn_clear(&txn); /* rolled back */
    txn = begin_read(store);
    struct kms_kek_record found;
    assert_ok(store->ops->kek_by_id(txn.txn, kek.kek_id, &found, &err));
    assert_int_equal(found.wraps_reserved, 65546);
    const struct kms_kek_record other = sample_kek(1, 2, "service", 1);
    assert_ok(store->ops->kek_by_id(txn.txn, other.kek_id, &found, &err));
    assert_int_equal(found.wraps_reserved, 0);
    kms_txn_clear(&txn);
}

static void reserving_stops_before_the_counter_overflows(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    const struct kms_kek_record kek = sample_kek(1, 1, "service", 1);
    const struct kms_uuid nobody = sample_uuid(77, 1);
    uint64_t first = 99;
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->kek_reserve(txn.txn, kek.kek_id, KMS_STORE_WRAPS_MAX, &first, &err));
    assert_int_equal(first, 0);
    assert_status(KMS_OUT_OF_RANGE, store->ops->kek_reserve(txn.txn, kek.kek_id, 1, &first, &err));
    assert_status(KMS_OUT_OF_RANGE, store->ops->kek_reserve(txn.txn, kek.kek_id, UINT64_MAX, &first, &err));
    assert_status(KMS_NOT_FOUND, store->ops->kek_reserve(txn.txn, nobody.bytes, 1, &first, &err));
    assert_int_equal(first, 0);
    commit(&txn);
}

static void reservations_of_one_transaction_make_one_small_change_record(void **state)
{
    struct fixture *fixture = *state;
    struct kms_store *store = fixture->store;
    fill(store, 128);
    struct kms_txn txn = begin_write(store);
    for (unsigned i = 1; i <= 128; i++) {
        const struct kms_kek_record kek = sample_kek(1, i, "service", 1);
        uint64_t first = 0;
        assert_ok(store->ops->kek_reserve(txn.txn, kek.kek_id, 65536, &first, &err));
    }
    commit(&txn);
    assert_int_equal(sql_number(fixture->path, "SELECT count(*) FROM change_log WHERE kind = 6"), 1);
    assert_int_equal(sql_number(fixture->path, "SELECT length(payload) FROM change_log WHERE kind = 6"),
                     4 + 128 * 24);
}

static void versions_are_listed_by_purpose_and_number(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 2);
    const struct kms_uuid customer = sample_customer(1, 1).uuid;
    struct kms_txn txn = begin_write(store);
    const struct kms_purpose_record kyc = sample_purpose(1, "kyc");
    assert_ok(store->ops->purpose_insert(txn.txn, &kyc, &err));
    for (uint32_t version = 3; version >= 2; version--) {
        const struct kms_kek_record kek = sample_kek(1, 1, "service", version);
        assert_ok(store->ops->kek_insert(txn.txn, &kek, &err));
    }
    const struct kms_kek_record other = sample_kek(1, 1, "kyc", 9);
    assert_ok(store->ops->kek_insert(txn.txn, &other, &err));
    struct kms_kek_record *list = NULL;
    size_t count = 0;
    assert_ok(store->ops->kek_list(txn.txn, &customer, NULL, 0, 100, &list, &count, &err));
    assert_int_equal(count, 4);
    assert_string_equal(list[0].purpose, "kyc");
    assert_int_equal(list[1].version, 1);
    assert_int_equal(list[3].version, 3);
    free(list);
    assert_ok(store->ops->kek_list(txn.txn, &customer, "service", 1, 1, &list, &count, &err));
    assert_int_equal(count, 1);
    assert_int_equal(list[0].version, 2);
    free(list);
    assert_ok(store->ops->kek_list(txn.txn, &customer, "marketing", 0, 9, &list, &count, &err));
    assert_int_equal(count, 0);
    assert_null(list);
    const struct kms_uuid nobody = sample_uuid(2, 5);
    assert_status(KMS_NOT_FOUND, store->ops->kek_list(txn.txn, &nobody, NULL, 0, 9, &list, &count, &err));
    commit(&txn);
}

static void a_page_is_put_got_and_replaced(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 0);
    struct kms_txn txn = begin_write(store);
    struct kms_page_record page = sample_page(1, 1, 3);
    assert_ok(store->ops->page_put(txn.txn, &page, &err));
    struct kms_page_record found;
    assert_ok(store->ops->page_get(txn.txn, &page.tenant, 1, 3, &found, &err));
    assert_int_equal(found.body_len, page.body_len);
    assert_memory_equal(found.body, page.body, page.body_len);
    assert_memory_equal(found.mac, page.mac, KMS_PAGE_MAC_SIZE);
    kms_page_record_clear(&found);
    uint8_t body[] = {1, 2, 3};
    page.body = body;
    page.body_len = sizeof body;
    page.mac[0] = 0;
    assert_ok(store->ops->page_put(txn.txn, &page, &err));
    assert_ok(store->ops->page_get(txn.txn, &page.tenant, 1, 3, &found, &err));
    assert_int_equal(found.body_len, 3);
    assert_memory_equal(found.body, body, 3);
    assert_int_equal(found.mac[0], 0);
    assert_int_equal(found.level, 1);
    assert_int_equal(found.index, 3);
    assert_true(kms_uuid_equal(&found.tenant, &page.tenant));
    kms_page_record_clear(&found);
    commit(&txn);
}

static void pages_of_other_places_are_not_found(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 0);
    struct kms_txn txn = begin_write(store);
    const struct kms_tenant_record second = sample_tenant(2);
    assert_ok(store->ops->tenant_insert(txn.txn, &second, &err));
    const struct kms_page_record page = sample_page(1, 1, 3);
    assert_ok(store->ops->page_put(txn.txn, &page, &err));
    struct kms_page_record found = {0};
    const struct kms_uuid nobody = sample_uuid(1, 3);
    const uint64_t beyond = UINT64_C(1) << 39;
    assert_status(KMS_NOT_FOUND, store->ops->page_get(txn.txn, &page.tenant, 0, 3, &found, &err));
    assert_status(KMS_NOT_FOUND, store->ops->page_get(txn.txn, &page.tenant, 1, 2, &found, &err));
    assert_status(KMS_NOT_FOUND, store->ops->page_get(txn.txn, &second.uuid, 1, 3, &found, &err));
    assert_status(KMS_NOT_FOUND, store->ops->page_get(txn.txn, &nobody, 1, 3, &found, &err));
    assert_status(KMS_NOT_FOUND, store->ops->page_get(txn.txn, &page.tenant, 16, 3, &found, &err));
    assert_status(KMS_NOT_FOUND, store->ops->page_get(txn.txn, &page.tenant, 0, beyond + 3, &found, &err));
    assert_null(found.body);
    commit(&txn);
}

static void bad_pages_are_refused_and_the_largest_is_kept(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 0);
    uint8_t *body = calloc(1, (size_t)KMS_STORE_PAGE_BODY_MAX + 1);
    assert_non_null(body);
    struct kms_txn txn = begin_write(store);
    struct kms_page_record page = sample_page(1, 15, (UINT64_C(1) << 39) - 1);
    page.body = body;
    page.body_len = KMS_STORE_PAGE_BODY_MAX;
    assert_ok(store->ops->page_put(txn.txn, &page, &err));
    struct kms_page_record found;
    assert_ok(store->ops->page_get(txn.txn, &page.tenant, page.level, page.index, &found, &err));
    assert_int_equal(found.body_len, KMS_STORE_PAGE_BODY_MAX);
    kms_page_record_clear(&found);
    page.body_len++;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->page_put(txn.txn, &page, &err));
    page.body_len = 0;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->page_put(txn.txn, &page, &err));
    page = sample_page(1, 16, 0);
    assert_status(KMS_INVALID_ARGUMENT, store->ops->page_put(txn.txn, &page, &err));
    page = sample_page(1, 0, UINT64_C(1) << 39);
    assert_status(KMS_INVALID_ARGUMENT, store->ops->page_put(txn.txn, &page, &err));
    page = sample_page(3, 0, 0);
    assert_status(KMS_NOT_FOUND, store->ops->page_put(txn.txn, &page, &err));
    commit(&txn);
    free(body);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_kek_is_found_by_id_and_as_primary),
        TEST(a_kek_is_found_together_with_its_customer),
        TEST(a_customer_of_another_tenant_than_its_key_shows),
        TEST(the_primary_is_the_highest_enabled_version),
        TEST(keks_that_clash_or_hang_in_the_air_are_refused),
        TEST(a_slot_is_free_again_only_when_its_kek_is_shredded),
        TEST(states_are_set_only_to_known_ones_of_known_keks),
        TEST(reserving_returns_the_value_before_and_adds_up),
        TEST(reserving_stops_before_the_counter_overflows),
        TEST(reservations_of_one_transaction_make_one_small_change_record),
        TEST(versions_are_listed_by_purpose_and_number),
        TEST(a_page_is_put_got_and_replaced),
        TEST(pages_of_other_places_are_not_found),
        TEST(bad_pages_are_refused_and_the_largest_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
