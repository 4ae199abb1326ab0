/* The tree grows without losing a key, and nothing that was changed in the database is served or built upon. */
#include "unit/keys/fixture.h"

#include "keys/page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct fixture f;

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

/* The customer of KEK slot i of fixture_bulk(). */
static enum kms_status use_slot(const char *prefix, size_t slot)
{
    char name[32];
    struct fixture_blob blob;
    (void)snprintf(name, sizeof name, "%s%zu", prefix, slot);
    return fixture_generate(&f, "acme", name, "service", NULL, &blob);
}

/* Every page from the root to the slots is where it should be, and no other. */
static void check_shape(uint64_t slots, uint32_t height)
{
    const struct kms_tenant_record tenant = fixture_tenant_record(&f, "acme");
    assert_int_equal(tenant.next_slot, slots);
    assert_int_equal(tenant.height, height);
    for (uint32_t level = 0; level < height; level++) {
        const uint64_t pages = kms_shape_page(slots - 1, level) + 1;
        struct kms_page_record record = fixture_page(&f, "acme", level, pages - 1);
        struct kms_page page;
        assert_int_equal(kms_page_decode(kms_slice_of(record.body, record.body_len), &page), KMS_OK);
        unsigned used = 0;
        for (unsigned i = 0; i < KMS_SHAPE_FAN_OUT; i++) {
            used += page.slots[i].used;
            assert_int_equal(page.slots[i].used, i <= kms_shape_slot(slots - 1, level));
        }
        assert_int_not_equal(used, 0);
        kms_page_record_clear(&record);
    }
}

static void one_key_makes_one_page(void **state)
{
    (void)state;
    assert_int_equal(fixture_tenant_record(&f, "acme").height, 0);
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &blob), KMS_OK);
    check_shape(1, 1);
}

static void the_tree_grows_one_key_at_a_time(void **state)
{
    (void)state;
    char name[32];
    static struct fixture_blob blobs[273];
    for (uint64_t slot = 0; slot < 273; slot++) {
        (void)snprintf(name, sizeof name, "one%llu", (unsigned long long)slot);
        fixture_customer(&f, "acme", name);
        assert_int_equal(fixture_generate(&f, "acme", name, "service", NULL, &blobs[slot]), KMS_OK);
        const uint64_t count = slot + 1;
        if (count == 16 || count == 17 || count == 256 || count == 257 || count == 273)
            check_shape(count, count <= 16 ? 1 : count <= 256 ? 2 : 3);
    }
    fixture_restart(&f);
    for (uint64_t slot = 0; slot < 273; slot++) {
        struct fixture_blob opened;
        assert_int_equal(fixture_unwrap(&f, "acme", NULL, NULL, NULL,
                                        kms_slice_of(blobs[slot].bytes, blobs[slot].len), &opened),
                         KMS_OK);
        assert_memory_equal(opened.plaintext, blobs[slot].plaintext, 32);
    }
}

static void the_tree_grows_in_bulk(void **state)
{
    (void)state;
    static const struct {
        size_t count;
        uint32_t height;
    } cases[] = {{1, 1}, {15, 1}, {1, 2}, {239, 2}, {1, 3}, {3839, 3}, {1, 4}, {300, 4}};
    uint64_t total = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char prefix[16];
        (void)snprintf(prefix, sizeof prefix, "g%zu-", i);
        fixture_bulk(&f, "acme", prefix, cases[i].count);
        total += cases[i].count;
        check_shape(total, cases[i].height);
        fixture_check_no_stray_keys(&f);
    }
    assert_int_equal(total, 4397);
    fixture_restart(&f);
    for (size_t slot = 0; slot < 3839; slot += slot % 16 == 0 ? 15 : 49)
        assert_int_equal(use_slot("g5-", slot), KMS_OK);
    assert_int_equal(use_slot("g0-", 0), KMS_OK);
    assert_int_equal(use_slot("g6-", 0), KMS_OK);
    assert_int_equal(use_slot("g7-", 299), KMS_OK);
}

static void every_tenant_has_a_tree_of_its_own(void **state)
{
    (void)state;
    (void)fixture_tenant(&f, "other");
    fixture_purpose(&f, "other", "service");
    fixture_bulk(&f, "acme", "x", 20);
    fixture_bulk(&f, "other", "x", 3);
    assert_int_equal(fixture_tenant_record(&f, "acme").next_slot, 20);
    assert_int_equal(fixture_tenant_record(&f, "other").next_slot, 3);
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "other", "x2", "service", NULL, &blob), KMS_OK);
    assert_int_equal(use_slot("x", 19), KMS_OK);
}

/* A page's MAC is asked from the HSM when the page changed, and not again. */
static void a_verified_page_is_not_verified_again(void **state)
{
    (void)state;
    fixture_bulk(&f, "acme", "v", 16);
    fixture_restart(&f);
    const uint64_t before = kms_fake_hsm_count(f.hsm, KMS_FAKE_MAC);
    for (size_t i = 0; i < 16; i++)
        assert_int_equal(use_slot("v", i), KMS_OK);
    assert_int_equal(kms_fake_hsm_count(f.hsm, KMS_FAKE_MAC) - before, 1);
}

/* Store a changed copy of a page, expect a slot under it to be refused, put the page back. */
static void assert_page_refused(uint32_t level, uint64_t index, const struct kms_page_record *changed,
                                size_t slot)
{
    struct kms_page_record good = fixture_page(&f, "acme", level, index);
    struct kms_page_record bad = *changed;
    bad.tenant = good.tenant;
    bad.level = level;
    bad.index = index;
    fixture_put_page(&f, &bad);
    const struct kms_uuid tenant = good.tenant;
    for (int cold = level > 0; cold < 2;
         cold++) { /* an upper page is only read when the key below is not cached */
        if (cold == 1)
            kms_keys_forget(f.keys, &tenant, NULL);
        assert_int_equal(use_slot("t", slot), KMS_TAMPERED);
        assert_string_equal(f.err.public_text, "");
    }
    fixture_put_page(&f, &good);
    assert_int_equal(use_slot("t", slot), KMS_OK);
    const struct kms_uuid customer = fixture_kek(&f, "acme", slot == 0 ? "t0" : "t17", "service").customer;
    kms_keys_forget(f.keys, &tenant, &customer); /* the page's key stays cached for the next round */
    kms_page_record_clear(&good);
}

static void a_changed_page_is_refused(void **state)
{
    (void)state;
    fixture_bulk(&f, "acme", "t", 40);
    for (uint32_t level = 0; level < 2; level++) {
        struct kms_page_record page = fixture_page(&f, "acme", level, 0);
        for (size_t i = 0; i < page.body_len; i += 5) {
            page.body[i] ^= 0x10;
            assert_page_refused(level, 0, &page, 0);
            page.body[i] ^= 0x10;
        }
        page.mac[7] ^= 1;
        assert_page_refused(level, 0, &page, 0);
        page.mac[7] ^= 1;
        page.body_len--;
        assert_page_refused(level, 0, &page, 0);
        kms_page_record_clear(&page);
    }
}

static void a_page_of_another_place_is_refused(void **state)
{
    (void)state;
    (void)fixture_tenant(&f, "other");
    fixture_purpose(&f, "other", "service");
    fixture_bulk(&f, "acme", "t", 16);
    struct kms_page_record old_leaf = fixture_page(&f, "acme", 0, 0); /* was the root once */
    fixture_bulk(&f, "acme", "u", 1);
    fixture_bulk(&f, "other", "t", 40);
    struct kms_page_record leaf = fixture_page(&f, "acme", 0, 1);
    struct kms_page_record root = fixture_page(&f, "acme", 1, 0);
    struct kms_page_record others_leaf = fixture_page(&f, "other", 0, 0);
    struct kms_page_record others_root = fixture_page(&f, "other", 1, 0);
    assert_page_refused(0, 0, &leaf, 0);
    assert_page_refused(0, 0, &root, 0);
    assert_page_refused(0, 0, &others_leaf, 0);
    assert_page_refused(1, 0, &others_root, 0);
    assert_page_refused(1, 0, &old_leaf, 0);
    kms_page_record_clear(&old_leaf);
    kms_page_record_clear(&leaf);
    kms_page_record_clear(&root);
    kms_page_record_clear(&others_leaf);
    kms_page_record_clear(&others_root);
}

static void an_older_page_without_the_key_is_refused(void **state)
{
    (void)state;
    fixture_bulk(&f, "acme", "s", 3);
    struct kms_page_record older = fixture_page(&f, "acme", 0, 0);
    fixture_bulk(&f, "acme", "t", 1);
    assert_page_refused(0, 0, &older, 0);
    kms_page_record_clear(&older);
}

/* What an edited row of the index claims. */
enum claim { SLOT, SLOT_BEYOND, CUSTOMER, PURPOSE, VERSION };

static void edit_kek(struct kms_kek_record *kek, void *context)
{
    switch (*(const enum claim *)context) {
    case SLOT:
        kek->slot ^= 1;
        break;
    case SLOT_BEYOND:
        kek->slot = 999;
        break;
    case CUSTOMER:
        kek->customer = fixture_customer_uuid(&f, "acme", "t5");
        break;
    case PURPOSE:
        (void)snprintf(kek->purpose, sizeof kek->purpose, "kyc");
        break;
    case VERSION:
        kek->version++;
        break;
    }
}

static void a_row_that_claims_another_key_is_refused(void **state)
{
    (void)state;
    static const enum claim claims[] = {SLOT, SLOT_BEYOND, CUSTOMER, PURPOSE, VERSION};
    fixture_bulk(&f, "acme", "t", 20);
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "acme", "t3", "service", NULL, &blob), KMS_OK);
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        enum claim claim = claims[i];
        fixture_restart(&f);
        kms_fault_store_edit_keks(f.store, edit_kek, &claim);
        struct fixture_blob opened;
        assert_int_equal(
            fixture_unwrap(&f, "acme", NULL, NULL, NULL, kms_slice_of(blob.bytes, blob.len), &opened),
            KMS_TAMPERED);
        assert_int_equal(use_slot("t", 3), KMS_TAMPERED);
        kms_fault_store_edit_keks(f.store, NULL, NULL);
        assert_int_equal(use_slot("t", 3), KMS_OK);
    }
}

/* Put another blob of the top page's key into the tenant's record. */
static void put_root_blob(const uint8_t blob[KMS_WRAPPED_KEY_SIZE])
{
    struct kms_tenant_record tenant = fixture_tenant_record(&f, "acme");
    memcpy(tenant.root_blob, blob, KMS_WRAPPED_KEY_SIZE);
    struct kms_txn txn = {0};
    assert_int_equal(kms_txn_begin(f.store, true, &txn, &f.err), KMS_OK);
    assert_int_equal(txn.store->ops->tenant_update(txn.txn, &tenant, &f.err), KMS_OK);
    assert_int_equal(kms_txn_commit(&txn, &f.err), KMS_OK);
}

static void another_root_key_is_refused(void **state)
{
    (void)state;
    (void)fixture_tenant(&f, "other");
    fixture_purpose(&f, "other", "service");
    fixture_bulk(&f, "acme", "t", 5);
    fixture_bulk(&f, "other", "t", 5);
    struct kms_tenant_record old = fixture_tenant_record(&f, "acme");
    fixture_bulk(&f, "acme", "u", 20); /* grows: the old root key is another page's now */
    const struct kms_tenant_record good = fixture_tenant_record(&f, "acme");
    const struct kms_tenant_record other = fixture_tenant_record(&f, "other");
    fixture_restart(&f);
    put_root_blob(other.root_blob); /* does not open under acme's master key */
    assert_int_equal(use_slot("t", 1), KMS_TAMPERED);
    assert_int_equal(use_slot("t", 9), KMS_NOT_FOUND);
    put_root_blob(old.root_blob); /* opens, but is the key of another page */
    assert_int_equal(use_slot("t", 1), KMS_TAMPERED);
    old.root_blob[3] ^= 1;
    put_root_blob(old.root_blob);
    assert_int_equal(use_slot("t", 1), KMS_TAMPERED);
    put_root_blob(good.root_blob);
    assert_int_equal(use_slot("t", 1), KMS_OK);
}

static void nothing_is_added_to_a_changed_page(void **state)
{
    (void)state;
    fixture_bulk(&f, "acme", "t", 20); /* the next goes into leaf 1 */
    struct kms_page_record good = fixture_page(&f, "acme", 0, 1);
    struct kms_page_record bad = fixture_page(&f, "acme", 0, 1);
    bad.body[60] ^= 1;
    fixture_put_page(&f, &bad);
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &blob), KMS_TAMPERED);
    assert_int_equal(fixture_tenant_record(&f, "acme").next_slot, 20);
    fixture_put_page(&f, &good);
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &blob), KMS_OK);
    kms_page_record_clear(&good);
    kms_page_record_clear(&bad);

    fixture_bulk(&f, "acme", "u", 11); /* the next needs a new leaf, and so a slot of the root */
    good = fixture_page(&f, "acme", 1, 0);
    bad = fixture_page(&f, "acme", 1, 0);
    bad.mac[0] ^= 1;
    fixture_put_page(&f, &bad);
    assert_int_equal(fixture_generate(&f, "acme", "c1", "kyc", NULL, &blob), KMS_TAMPERED);
    assert_int_equal(fixture_tenant_record(&f, "acme").next_slot, 32);
    fixture_put_page(&f, &good);
    assert_int_equal(fixture_generate(&f, "acme", "c1", "kyc", NULL, &blob), KMS_OK);
    kms_page_record_clear(&good);
    kms_page_record_clear(&bad);
}

int main(void)
{
#define ON_A_TREE(test) cmocka_unit_test_setup_teardown(test, setup, clear)
    const struct CMUnitTest tests[] = {
        ON_A_TREE(one_key_makes_one_page),
        ON_A_TREE(the_tree_grows_one_key_at_a_time),
        ON_A_TREE(the_tree_grows_in_bulk),
        ON_A_TREE(every_tenant_has_a_tree_of_its_own),
        ON_A_TREE(a_verified_page_is_not_verified_again),
        ON_A_TREE(a_changed_page_is_refused),
        ON_A_TREE(a_page_of_another_place_is_refused),
        ON_A_TREE(an_older_page_without_the_key_is_refused),
        ON_A_TREE(a_row_that_claims_another_key_is_refused),
        ON_A_TREE(another_root_key_is_refused),
        ON_A_TREE(nothing_is_added_to_a_changed_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
