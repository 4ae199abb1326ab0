/*
 * A changed database is refused before anything of it is rewrapped, and nothing of today opens a page of yesterday. The second part
 * is run once more with each mutation (see CMakeLists.txt), and must fail then.
 */
#include "keys/page.h"
#include "keys/rekey.h"
#include "unit/keys/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

enum { CUSTOMERS = 40, PAGES = 4, VICTIM = 3 }; /* leaves (0,0) to (0,2) and the top page (1,0) */

static struct fixture f;
static struct kms_uuid tenant;
static struct kms_uuid customers[CUSTOMERS];
static struct fixture_blob blobs[CUSTOMERS];

static void fill(void)
{
    tenant = fixture_tenant_record(&f, "acme").uuid;
    fixture_bulk(&f, "acme", "k", CUSTOMERS);
    for (unsigned i = 0; i < CUSTOMERS; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "k%u", i);
        customers[i] = fixture_customer_uuid(&f, "acme", name);
        assert_int_equal(fixture_generate(&f, "acme", name, "service", NULL, &blobs[i]), KMS_OK);
    }
}

static int setup(void **state)
{
    (void)state;
    fixture_new(&f, FIXTURE_FAKE, NULL);
    fill();
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_clear(&f);
    return 0;
}

static enum kms_status shred(unsigned i)
{
    struct kms_rekey_target target = {.customer = customers[i]};
    struct kms_rekey_request request = {
        .batch = kms_uuid_random(), .tenant = tenant, .targets = &target, .target_count = 1};
    struct kms_batch_record batch = {0};
    f.err = (struct kms_error){0};
    const enum kms_status status = kms_keys_shred(f.keys, &request, &batch, &f.err);
    kms_batch_record_clear(&batch);
    return status;
}

/* Refused, and all is as it was: epoch, the one master key, every customer. `put_right` undoes what the test has done. */
static void check_refused(void)
{
    for (int cold = 0; cold < 2; cold++) {
        if (cold)
            fixture_restart(&f);
        assert_int_equal(shred(VICTIM), KMS_TAMPERED);
        assert_int_equal(fixture_tenant_record(&f, "acme").epoch, 1);
        assert_int_equal(kms_fake_hsm_masters(f.hsm), 1);
        fixture_check_no_stray_keys(&f);
    }
}

/* Where slot `slot` of a stored leaf has its blob: all purposes are "service". */
static uint8_t *blob_of(struct kms_page_record *page, unsigned slot)
{
    return page->body + KMS_PAGE_HEADER_SIZE +
           (size_t)(slot + 1) * (KMS_PAGE_SLOT_SIZE + sizeof "service" - 1) - KMS_WRAPPED_KEY_SIZE;
}

static void changed_pages_are_refused_before_anything_is_rewrapped(void **state)
{
    (void)state;
    struct kms_page_record good = fixture_page(&f, "acme", 0, 0);
    struct kms_page_record other = fixture_page(&f, "acme", 0, 1);
    for (unsigned round = 0; round < 6; round++) {
        struct kms_page_record bad = fixture_page(&f, "acme", 0, 0);
        if (round == 0) { /* two blobs are swapped */
            memcpy(blob_of(&bad, 5), blob_of(&good, 6), KMS_WRAPPED_KEY_SIZE);
            memcpy(blob_of(&bad, 6), blob_of(&good, 5), KMS_WRAPPED_KEY_SIZE);
        } else if (round == 1) { /* one is there twice */
            memcpy(blob_of(&bad, 5), blob_of(&good, VICTIM), KMS_WRAPPED_KEY_SIZE);
        } else if (round == 2) { /* a whole slot is moved */
            memmove(blob_of(&bad, 5) - 45, blob_of(&good, VICTIM) - 45, 85);
        } else if (round == 3) { /* the MAC of another page */
            memcpy(bad.mac, other.mac, sizeof bad.mac);
        } else if (round == 4) { /* the page of another place, MAC and all */
            free(bad.body);
            bad = fixture_page(&f, "acme", 0, 1);
            bad.index = 0;
        } else { /* a page that claims the next epoch */
            bad.body[43]++;
        }
        fixture_put_page(&f, &bad);
        check_refused();
        kms_page_record_clear(&bad);
        fixture_put_page(&f, &good);
    }
    struct kms_page_record top = fixture_page(&f, "acme", 1, 0);
    struct kms_page_record bad = fixture_page(&f, "acme", 1, 0);
    bad.body[bad.body_len - 1] ^= 1;
    fixture_put_page(&f, &bad);
    check_refused();
    fixture_put_page(&f, &top);
    assert_int_equal(shred(VICTIM), KMS_OK);
    kms_page_record_clear(&bad);
    kms_page_record_clear(&top);
    kms_page_record_clear(&good);
    kms_page_record_clear(&other);
}

/* Bodies that the service itself has written once, with their own MACs. */
static void replayed_pages_are_refused(void **state)
{
    (void)state;
    struct kms_page_record before = fixture_page(&f, "acme", 0, 0);
    assert_int_equal(
        kms_keys_set_version_state(f.keys, &tenant, &customers[5], "service", 1, KMS_KEK_DISABLED, &f.err),
        KMS_OK);
    struct kms_page_record now = fixture_page(&f, "acme", 0, 0);
    fixture_put_page(&f, &before); /* the disabled key would be enabled again */
    check_refused();
    fixture_put_page(&f, &now);
    assert_int_equal(shred(9), KMS_OK);
    struct kms_page_record current = fixture_page(&f, "acme", 0, 0);
    fixture_put_page(&f,
                     &now); /* the shredded key would be back, and all keys are wrapped by the old page key */
    assert_int_equal(shred(VICTIM), KMS_TAMPERED);
    fixture_restart(&f);
    assert_int_equal(shred(VICTIM), KMS_TAMPERED);
    fixture_put_page(&f, &current);
    assert_int_equal(shred(VICTIM), KMS_OK);
    kms_page_record_clear(&before);
    kms_page_record_clear(&now);
    kms_page_record_clear(&current);
}

static void rows_that_disagree_with_their_page_are_refused(void **state)
{
    (void)state;
    const struct kms_kek_record neighbour = fixture_kek(&f, "acme", "k5", "service");
    fixture_set_kek_state(&f, neighbour.kek_id, KMS_KEK_DISABLED);
    check_refused();
    fixture_set_kek_state(&f, neighbour.kek_id, KMS_KEK_SHREDDED); /* a row less than slots */
    check_refused();
    fixture_set_kek_state(&f, neighbour.kek_id, KMS_KEK_ENABLED);
    assert_int_equal(shred(VICTIM), KMS_OK);
}

/* All pages as they are now. */
static void keep_pages(struct kms_page pages[PAGES])
{
    for (unsigned i = 0; i < PAGES; i++) {
        struct kms_page_record record = fixture_page(&f, "acme", i == PAGES - 1, i == PAGES - 1 ? 0 : i);
        assert_int_equal(kms_page_decode(kms_slice_of(record.body, record.body_len), &pages[i]), KMS_OK);
        kms_page_record_clear(&record);
    }
}

/* Unwrap with full use of the HSM; the key is destroyed again. */
static bool opens(struct kms_hsm_session *session, struct kms_hsm_key key, const struct kms_page *page,
                  unsigned slot)
{
    struct kms_hsm_key opened;
    if (!page->slots[slot].used)
        return false;
    const enum kms_status status =
        f.hsm->ops->unwrap(session, key, page->slots[slot].blob, KMS_HSM_PAGE_SERVE, &opened, &f.err);
    if (status == KMS_OK)
        (void)f.hsm->ops->destroy(session, opened);
    return status == KMS_OK;
}

/* How many keys of an old page open under today's key of the page. */
static unsigned count_open(struct kms_hsm_session *session, struct kms_hsm_key key,
                           const struct kms_page *old)
{
    unsigned open = 0;
    for (unsigned slot = 0; slot < KMS_SHAPE_FAN_OUT; slot++)
        open += opens(session, key, old, slot);
    return open;
}

/*
 * The adversary has all old pages and the old root, and today's database and HSM with its PIN. Old master key: gone. Today's keys of
 * the pages on the path: open nothing of their old bodies.
 */
static void nothing_of_today_opens_a_page_of_yesterday(void **state)
{
    (void)state;
    struct kms_page old[PAGES];
    struct kms_page now[PAGES];
    const struct kms_tenant_record before = fixture_tenant_record(&f, "acme");
    keep_pages(old);
    assert_int_equal(shred(VICTIM), KMS_OK);
    keep_pages(now);
    const struct kms_tenant_record after = fixture_tenant_record(&f, "acme");
    struct kms_hsm_session *session = NULL;
    struct kms_hsm_key master;
    struct kms_hsm_key top;
    struct kms_hsm_key leaf;
    assert_int_equal(kms_hsm_checkout(f.hsm, INT64_MAX, &session, &f.err), KMS_OK);
    const struct kms_hsm_ops *hsm = f.hsm->ops;
    const enum kms_status found = hsm->master_find(session, before.master_id, &master, &f.err);
    assert_int_equal(hsm->master_find(session, after.master_id, &master, &f.err), KMS_OK);
    assert_int_equal(hsm->unwrap(session, master, after.root_blob, KMS_HSM_PAGE_SERVE, &top, &f.err), KMS_OK);
    const unsigned tops = count_open(session, top, &old[PAGES - 1]);
    assert_int_equal(
        hsm->unwrap(session, top, now[PAGES - 1].slots[0].blob, KMS_HSM_PAGE_SERVE, &leaf, &f.err), KMS_OK);
    const unsigned leaves = count_open(session, leaf, &old[0]);
    assert_int_equal(count_open(session, leaf, &now[0]), 15); /* the looking itself works */
    (void)hsm->destroy(session, top);
    (void)hsm->destroy(session, leaf);
    kms_hsm_checkin(f.hsm, session);
    assert_int_equal(found, KMS_NOT_FOUND);
    assert_int_equal(tops, 0);
    assert_int_equal(leaves, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, clear)
    const struct CMUnitTest tamper[] = {
        TEST(changed_pages_are_refused_before_anything_is_rewrapped),
        TEST(replayed_pages_are_refused),
        TEST(rows_that_disagree_with_their_page_are_refused),
    };
    const struct CMUnitTest adversary[] = {TEST(nothing_of_today_opens_a_page_of_yesterday)};
    const bool mutated = getenv("KMS_MUTATION") != NULL;
    const int failed = mutated ? 0 : cmocka_run_group_tests_name("tampering", tamper, NULL, NULL);
    return failed + cmocka_run_group_tests_name("adversary", adversary, NULL, NULL);
}
