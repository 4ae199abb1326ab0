/* Creating customers and keys in bulk: each item has its own answer, and the rest is one transaction. */
#include "unit/keys/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct fixture f;
static char no_labels[] = "{}";

static int setup(void **state)
{
    (void)state;
    fixture_new(&f, FIXTURE_FAKE, NULL);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_check_no_stray_keys(&f);
    fixture_clear(&f);
    return 0;
}

static struct kms_customer_record customer(const char *id)
{
    struct kms_customer_record record = {.uuid = kms_uuid_random(),
                                         .tenant = fixture_tenant_record(&f, "acme").uuid,
                                         .labels = no_labels,
                                         .state = KMS_CUSTOMER_ACTIVE,
                                         .revision = 1};
    (void)snprintf(record.id, sizeof record.id, "%s", id);
    return record;
}

static struct kms_kek_wanted wanted(struct kms_uuid uuid, const char *purpose)
{
    return (struct kms_kek_wanted){.customer = uuid, .purpose = purpose, .ret_status = KMS_INTERNAL};
}

static enum kms_status create(const struct kms_customer_record *customers, size_t customer_count,
                              enum kms_status *statuses, struct kms_kek_wanted *keks, size_t kek_count)
{
    const struct kms_uuid tenant = fixture_tenant_record(&f, "acme").uuid;
    f.err = (struct kms_error){0};
    return kms_keys_create_bulk(f.keys, &tenant, customers, customer_count, statuses, keks, kek_count,
                                &f.err);
}

static void customers_and_keys_are_made_together(void **state)
{
    (void)state;
    const struct kms_customer_record customers[] = {customer("b1"), customer("b2")};
    struct kms_kek_wanted keks[] = {wanted(customers[0].uuid, "service"), wanted(customers[0].uuid, "kyc"),
                                    wanted(customers[1].uuid, "kyc")};
    enum kms_status statuses[2] = {KMS_INTERNAL, KMS_INTERNAL};
    assert_int_equal(create(customers, 2, statuses, keks, 3), KMS_OK);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(keks[i].ret_status, KMS_OK);
        assert_int_equal(statuses[i / 2], KMS_OK);
    }
    const struct kms_kek_record kek = fixture_kek(&f, "acme", "b1", "kyc");
    assert_memory_equal(kek.kek_id, keks[1].ret_kek_id, KMS_KEK_ID_SIZE);
    assert_int_equal(kek.version, 1);
    assert_int_equal(kek.slot, 1);
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "acme", "b1", "kyc", NULL, &blob), KMS_OK);
    assert_memory_equal(blob.kek_id, keks[1].ret_kek_id, KMS_KEK_ID_SIZE);
    assert_int_equal(fixture_kek(&f, "acme", "b1", "kyc").wraps_reserved, kek.wraps_reserved);
    assert_int_equal(fixture_generate(&f, "acme", "b2", "service", NULL, &blob), KMS_OK); /* on first use */
    assert_int_equal(fixture_tenant_record(&f, "acme").next_slot, 4);
}

static void each_item_has_its_own_answer(void **state)
{
    (void)state;
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &blob), KMS_OK);
    fixture_customer(&f, "acme", "closed");
    fixture_set_customer_state(&f, "acme", "closed", KMS_CUSTOMER_CLOSED);
    fixture_purpose(&f, "acme", "over");
    fixture_set_purpose_state(&f, "acme", "over", KMS_PURPOSE_CLOSED);
    (void)fixture_tenant(&f, "other");
    fixture_customer(&f, "other", "o1");
    const struct kms_customer_record customers[] = {customer("b1"), customer("c1"), customer("b1")};
    const struct kms_uuid c1 = fixture_customer_uuid(&f, "acme", "c1");
    struct kms_kek_wanted keks[] = {
        wanted(customers[0].uuid, "service"),
        wanted(customers[0].uuid, "service"), /* twice */
        wanted(customers[1].uuid, "service"), /* of a customer that was not inserted */
        wanted(customers[2].uuid, "service"),
        wanted(c1, "service"), /* has one */
        wanted(c1, "kyc"),
        wanted(kms_uuid_random(), "service"),
        wanted(fixture_customer_uuid(&f, "acme", "closed"), "service"),
        wanted(fixture_customer_uuid(&f, "other", "o1"), "service"),
        wanted(customers[0].uuid, "over"),
        wanted(customers[0].uuid, "none"),
    };
    static const enum kms_status expected[] = {KMS_OK,
                                               KMS_ALREADY_EXISTS,
                                               KMS_ALREADY_EXISTS,
                                               KMS_ALREADY_EXISTS,
                                               KMS_ALREADY_EXISTS,
                                               KMS_OK,
                                               KMS_NOT_FOUND,
                                               KMS_FAILED_PRECONDITION,
                                               KMS_NOT_FOUND,
                                               KMS_FAILED_PRECONDITION,
                                               KMS_NOT_FOUND};
    enum kms_status statuses[3];
    assert_int_equal(create(customers, 3, statuses, keks, sizeof keks / sizeof keks[0]), KMS_OK);
    assert_int_equal(statuses[0], KMS_OK);
    assert_int_equal(statuses[1], KMS_ALREADY_EXISTS);
    assert_int_equal(statuses[2], KMS_ALREADY_EXISTS);
    for (size_t i = 0; i < sizeof keks / sizeof keks[0]; i++)
        assert_int_equal(keks[i].ret_status, expected[i]);
    assert_int_equal(fixture_tenant_record(&f, "acme").next_slot, 3);
}

static void customers_without_keys_need_no_tree(void **state)
{
    (void)state;
    const struct kms_customer_record customers[] = {customer("b1")};
    enum kms_status statuses[1];
    assert_int_equal(create(customers, 1, statuses, NULL, 0), KMS_OK);
    assert_int_equal(statuses[0], KMS_OK);
    assert_int_equal(fixture_tenant_record(&f, "acme").height, 0);
    assert_int_equal(kms_fake_hsm_count(f.hsm, KMS_FAKE_GENERATE_WRAPPED), 0);
    assert_int_equal(create(NULL, 0, NULL, NULL, 0), KMS_OK);
}

static void a_closed_or_unknown_tenant_gets_nothing(void **state)
{
    (void)state;
    const struct kms_customer_record customers[] = {customer("b1")};
    enum kms_status statuses[1];
    fixture_set_tenant_state(&f, "acme", KMS_TENANT_CLOSED);
    assert_int_equal(create(customers, 1, statuses, NULL, 0), KMS_FAILED_PRECONDITION);
    const struct kms_uuid unknown = kms_uuid_random();
    assert_int_equal(kms_keys_create_bulk(f.keys, &unknown, customers, 1, statuses, NULL, 0, &f.err),
                     KMS_NOT_FOUND);
}

static void a_page_costs_one_key_and_one_mac(void **state)
{
    (void)state;
    fixture_bulk(&f, "acme", "p", 160);
    /* 160 keys, 10 leaves, 1 root and the first leaf's time as a root: 171 keys made, 11 pages sealed */
    assert_int_equal(kms_fake_hsm_count(f.hsm, KMS_FAKE_GENERATE_WRAPPED), 171);
    assert_int_equal(kms_fake_hsm_count(f.hsm, KMS_FAKE_MAC), 11);
    assert_int_equal(kms_fake_hsm_count(f.hsm, KMS_FAKE_WRAP), 1);
}

/* Somebody else creates the same customer after the request was planned. */
static void create_rival(void *context)
{
    unsigned *reads_left = context;
    if (*reads_left > 0 && --*reads_left == 0) {
        kms_fault_store_before_read(f.store, NULL, NULL);
        fixture_customer(&f, "acme", "b2");
    }
}

static void a_rival_makes_the_request_start_again(void **state)
{
    (void)state;
    fixture_bulk(&f, "acme", "old", 20);
    fixture_restart(&f);
    const struct kms_customer_record customers[] = {customer("b1"), customer("b2")};
    struct kms_kek_wanted keks[] = {wanted(customers[0].uuid, "service"),
                                    wanted(customers[1].uuid, "service")};
    enum kms_status statuses[2];
    unsigned reads_left = 3; /* after the tenant's look-up by this test and the plan: while pages are read */
    kms_fault_store_before_read(f.store, create_rival, &reads_left);
    assert_int_equal(create(customers, 2, statuses, keks, 2), KMS_OK);
    assert_int_equal(reads_left, 0);
    assert_int_equal(statuses[0], KMS_OK);
    assert_int_equal(statuses[1], KMS_ALREADY_EXISTS);
    assert_int_equal(keks[0].ret_status, KMS_OK);
    assert_int_equal(keks[1].ret_status, KMS_ALREADY_EXISTS);
    assert_int_equal(fixture_tenant_record(&f, "acme").next_slot, 21);
}

int main(void)
{
#define IN_BULK(test) cmocka_unit_test_setup_teardown(test, setup, clear)
    const struct CMUnitTest tests[] = {
        IN_BULK(customers_and_keys_are_made_together), IN_BULK(each_item_has_its_own_answer),
        IN_BULK(customers_without_keys_need_no_tree),  IN_BULK(a_closed_or_unknown_tenant_gets_nothing),
        IN_BULK(a_page_costs_one_key_and_one_mac),     IN_BULK(a_rival_makes_the_request_start_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
