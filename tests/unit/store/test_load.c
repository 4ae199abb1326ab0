/* Goal: a database that is loaded by the thousand is the same as one that was written row by row, and what does not fit
 * together never becomes one. */
#include "replay.h"

#include "store/apply.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { CUSTOMERS = 5000 };

static struct kms_error err;

/* A silent transaction on a draft that holds the tenant and purpose of fill(), and nothing else. */
static struct kms_txn begin_load(struct fixture *fixture)
{
    const struct kms_store_ops *ops = fixture->store->ops;
    struct kms_txn txn = begin_write(fixture->store);
    const struct kms_tenant_record tenant = sample_tenant(1);
    const struct kms_purpose_record purpose = sample_purpose(1, "service");
    ops->changes.silence(txn.txn);
    assert_ok(ops->tenant_insert(txn.txn, &tenant, &err));
    assert_ok(ops->purpose_insert(txn.txn, &purpose, &err));
    return txn;
}

static struct kms_change customer_change(unsigned number)
{
    return (struct kms_change){.kind = KMS_CHANGE_CUSTOMER, .customer = sample_customer(1, number)};
}

static struct kms_change kek_change(unsigned customer)
{
    return (struct kms_change){.kind = KMS_CHANGE_KEK, .kek = sample_kek(1, customer, "service", 1)};
}

/* What fill() writes; in the order of a snapshot, or all customers first. */
static void load_customers(struct fixture *fixture, struct kms_txn *txn, bool as_snapshot)
{
    static struct kms_change list[2 * CUSTOMERS];
    for (unsigned i = 1; i <= CUSTOMERS; i++) {
        list[as_snapshot ? 2 * i - 2 : i - 1] = customer_change(i);
        list[as_snapshot ? 2 * i - 1 : CUSTOMERS + i - 1] = kek_change(i);
    }
    for (size_t done = 0; done < 2 * CUSTOMERS;) {
        const size_t left = 2 * CUSTOMERS - done;
        const size_t count = left < KMS_STORE_LOAD_MAX ? left : KMS_STORE_LOAD_MAX;
        assert_ok(kms_store_load(fixture->store, txn->txn, list + done, count, &err));
        done += count;
    }
}

static void assert_same_as_written(void **state, bool as_snapshot)
{
    struct fixture *draft = *state;
    struct fixture written = {0};
    (void)snprintf(written.path, sizeof written.path, "%s", fixture_file(draft, "-written"));
    fixture_open(&written);
    fill(written.store, CUSTOMERS);
    fixture_close(&written);
    struct kms_txn txn = begin_load(draft);
    load_customers(draft, &txn, as_snapshot);
    commit(&txn);
    fixture_close(draft);
    char *wanted = dump_tables(written.path);
    char *found = dump_tables(draft->path);
    assert_string_equal(found, wanted);
    free(wanted);
    free(found);
    assert_int_equal(sql_number(draft->path, "SELECT count(*) FROM change_log"), 0);
    fixture_open(draft); /* which checks the schema, and makes an ordinary database of it */
    struct kms_txn next = begin_write(draft->store);
    const struct kms_customer_record customer = sample_customer(1, CUSTOMERS + 1);
    assert_ok(draft->store->ops->customer_insert(next.txn, &customer, &err));
    commit(&next);
}

static void what_is_loaded_as_a_snapshot_has_it_is_what_would_have_been_written(void **state)
{
    assert_same_as_written(state, true);
}

static void keks_find_customers_that_were_loaded_long_before(void **state)
{
    assert_same_as_written(state, false);
}

static void a_counter_of_rewraps_comes_with_its_kek(void **state)
{
    struct fixture *draft = *state;
    struct kms_txn txn = begin_load(draft);
    struct kms_change list[2] = {customer_change(1), kek_change(1)};
    list[1].kek.rewrapped = 77;
    assert_ok(kms_store_load(draft->store, txn.txn, list, 2, &err));
    struct kms_kek_record kek;
    assert_ok(draft->store->ops->kek_by_id(txn.txn, list[1].kek.kek_id, &kek, &err));
    assert_memory_equal(&kek, &list[1].kek, sizeof kek);
    commit(&txn);
}

/* The list is refused with this text, and nothing can be committed any more. */
static void assert_refused(struct fixture *draft, const struct kms_change *list, size_t count,
                           const char *says)
{
    struct kms_txn txn = begin_load(draft);
    err = (struct kms_error){0};
    assert_status(KMS_STORE_CORRUPT, kms_store_load(draft->store, txn.txn, list, count, &err));
    assert_non_null(strstr(err.cause, says));
    kms_txn_clear(&txn);
}

static void what_is_there_already_is_refused(void **state)
{
    const struct kms_change customers[] = {customer_change(1), customer_change(2), customer_change(1)};
    assert_refused(*state, customers, 3, "UNIQUE");
    struct kms_change keks[] = {customer_change(1), kek_change(1), customer_change(2), kek_change(1)};
    assert_refused(*state, keks, 4, "UNIQUE");
    keks[3] = kek_change(2);
    keks[3].kek.slot = keks[1].kek.slot;
    assert_refused(*state, keks, 4, "UNIQUE");
}

static void a_refused_load_spoils_the_transaction(void **state)
{
    struct fixture *draft = *state;
    struct kms_txn txn = begin_load(draft);
    const struct kms_change customers[] = {customer_change(1), customer_change(1)};
    assert_status(KMS_STORE_CORRUPT, kms_store_load(draft->store, txn.txn, customers, 2, &err));
    assert_int_not_equal(kms_txn_commit(&txn, &err), KMS_OK);
    kms_txn_clear(&txn);
    fixture_close(draft);
    assert_int_equal(sql_number(draft->path, "SELECT count(*) FROM customer"), 0);
}

static void what_belongs_to_nobody_is_refused(void **state)
{
    const struct kms_change stranger = {.kind = KMS_CHANGE_CUSTOMER, .customer = sample_customer(2, 1)};
    assert_refused(*state, &stranger, 1, "no such tenant");
    const struct kms_change orphan = kek_change(1);
    assert_refused(*state, &orphan, 1, "no such customer");
}

static void records_that_may_not_be_stored_are_refused(void **state)
{
    struct kms_change list[2] = {customer_change(1), kek_change(1)};
    list[1].kek.slot = UINT64_MAX;
    assert_refused(*state, list, 2, "slot");
    list[0].customer.state = 200;
    assert_refused(*state, list, 1, "state");
}

/* The commit refuses what only the whole can tell. */
static void assert_commit_refused(struct fixture *draft, const struct kms_change *list, size_t count,
                                  const char *says)
{
    struct kms_txn txn = begin_load(draft);
    assert_ok(kms_store_load(draft->store, txn.txn, list, count, &err));
    err = (struct kms_error){0};
    assert_status(KMS_STORE_CORRUPT, kms_txn_commit(&txn, &err));
    assert_non_null(strstr(err.cause, says));
    kms_txn_clear(&txn);
}

static void a_kek_without_its_purpose_never_becomes_a_database(void **state)
{
    struct kms_change list[2] = {customer_change(1), kek_change(1)};
    (void)snprintf(list[1].kek.purpose, sizeof list[1].kek.purpose, "nowhere");
    assert_commit_refused(*state, list, 2, "refers to nothing");
}

static void labels_that_are_not_json_never_become_a_database(void **state)
{
    char labels[] = "{broken}";
    struct kms_change list[1] = {customer_change(1)};
    list[0].customer.labels = labels;
    assert_commit_refused(*state, list, 1, "not JSON");
}

static int setup_draft(void **state)
{
    (void)fixture_setup_dir(state);
    fixture_open_draft(*state);
    return 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_draft, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_is_loaded_as_a_snapshot_has_it_is_what_would_have_been_written),
        TEST(keks_find_customers_that_were_loaded_long_before),
        TEST(a_counter_of_rewraps_comes_with_its_kek),
        TEST(what_is_there_already_is_refused),
        TEST(a_refused_load_spoils_the_transaction),
        TEST(what_belongs_to_nobody_is_refused),
        TEST(records_that_may_not_be_stored_are_refused),
        TEST(a_kek_without_its_purpose_never_becomes_a_database),
        TEST(labels_that_are_not_json_never_become_a_database),
    };
    return cmocka_run_group_tests_name("store/load", tests, NULL, NULL);
}
