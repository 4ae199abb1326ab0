/* Tenants and their master keys: made together, checked at start. */
#include "unit/keys/fixture.h"

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

static int with_softhsm(void **state)
{
    (void)state;
    fixture_new(&f, FIXTURE_SOFTHSM, NULL);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_clear(&f);
    return 0;
}

/* Make or destroy a master key beside the service. */
static void add_master(const char *label)
{
    struct kms_hsm_session *session = NULL;
    struct kms_hsm_key key;
    uint8_t id[KMS_HSM_KEY_ID_SIZE];
    kms_system_random(id, sizeof id);
    assert_int_equal(kms_hsm_checkout(f.hsm, INT64_MAX, &session, &f.err), KMS_OK);
    assert_int_equal(f.hsm->ops->master_create(session, id, label, &key, &f.err), KMS_OK);
    kms_hsm_checkin(f.hsm, session);
}

static void remove_master(const uint8_t id[KMS_HSM_KEY_ID_SIZE])
{
    struct kms_hsm_session *session = NULL;
    assert_int_equal(kms_hsm_checkout(f.hsm, INT64_MAX, &session, &f.err), KMS_OK);
    assert_int_equal(f.hsm->ops->master_destroy(session, id, &f.err), KMS_OK);
    kms_hsm_checkin(f.hsm, session);
}

static enum kms_status check(void)
{
    f.err = (struct kms_error){0};
    return kms_keys_check_roots(f.keys, NULL, &f.err);
}

static void a_new_tenant_has_a_master_key_of_epoch_one(void **state)
{
    (void)state;
    struct kms_tenant_record tenant = {.uuid = kms_uuid_random(), .state = KMS_TENANT_ACTIVE, .revision = 1};
    (void)snprintf(tenant.id, sizeof tenant.id, "fresh");
    assert_int_equal(kms_keys_tenant_create(f.keys, &tenant, NULL, NULL, &f.err), KMS_OK);
    const struct kms_tenant_record stored = fixture_tenant_record(&f, "fresh");
    assert_int_equal(stored.epoch, 1);
    assert_int_equal(stored.height, 0);
    assert_memory_equal(stored.master_id, tenant.master_id, KMS_MASTER_ID_SIZE);
    char label[KMS_HSM_LABEL_MAX + 1];
    char uuid[KMS_UUID_TEXT_SIZE];
    (void)snprintf(label, sizeof label, "kms/%s/1", kms_uuid_format(&tenant.uuid, uuid));
    struct kms_hsm_session *session = NULL;
    struct kms_hsm_master_info *list = NULL;
    size_t count = 0;
    assert_int_equal(kms_hsm_checkout(f.hsm, INT64_MAX, &session, &f.err), KMS_OK);
    assert_int_equal(f.hsm->ops->master_list(session, &list, &count, &f.err), KMS_OK);
    kms_hsm_checkin(f.hsm, session);
    bool found = false;
    for (size_t i = 0; i < count; i++)
        found = found || (strcmp(list[i].label, label) == 0 &&
                          memcmp(list[i].id, tenant.master_id, KMS_MASTER_ID_SIZE) == 0);
    free(list);
    assert_true(found);
    assert_int_equal(check(), KMS_OK);
}

static void a_taken_name_makes_no_master_key(void **state)
{
    (void)state;
    struct kms_tenant_record tenant = {.uuid = kms_uuid_random(), .state = KMS_TENANT_ACTIVE, .revision = 1};
    (void)snprintf(tenant.id, sizeof tenant.id, "acme");
    assert_int_equal(kms_keys_tenant_create(f.keys, &tenant, NULL, NULL, &f.err), KMS_ALREADY_EXISTS);
    assert_non_null(strstr(f.err.public_text, "acme"));
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 1);
    assert_int_equal(kms_fake_hsm_count(f.hsm, KMS_FAKE_MASTER_CREATE), 1);
}

/* Adds a purpose to the new tenant; its transaction fails when the context says so. */
static enum kms_status write_beside(void *context, struct kms_txn *txn, struct kms_error *err)
{
    const struct kms_tenant_record *tenant = context;
    struct kms_purpose_record purpose = {.tenant = tenant->uuid, .state = KMS_PURPOSE_ACTIVE, .revision = 1};
    (void)snprintf(purpose.id, sizeof purpose.id, "beside");
    KMS_TRY(txn->store->ops->purpose_insert(txn->txn, &purpose, err));
    return strcmp(tenant->id, "refused") == 0 ? kms_fail(err, KMS_ABORTED, "not wanted") : KMS_OK;
}

static void what_is_written_beside_a_tenant_is_there_with_it_or_neither_is(void **state)
{
    (void)state;
    struct kms_tenant_record tenant = {.uuid = kms_uuid_random(), .state = KMS_TENANT_ACTIVE, .revision = 1};
    (void)snprintf(tenant.id, sizeof tenant.id, "refused");
    assert_int_equal(kms_keys_tenant_create(f.keys, &tenant, write_beside, &tenant, &f.err), KMS_ABORTED);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 1); /* the fixture's: the new one was destroyed again */
    KMS_TXN txn = {0};
    struct kms_tenant_record stored;
    struct kms_purpose_record purpose;
    assert_int_equal(kms_txn_begin(f.store, false, &txn, &f.err), KMS_OK);
    assert_int_equal(f.store->ops->tenant_by_id(txn.txn, "refused", &stored, &f.err), KMS_NOT_FOUND);
    kms_txn_clear(&txn);
    (void)snprintf(tenant.id, sizeof tenant.id, "wanted");
    assert_int_equal(kms_keys_tenant_create(f.keys, &tenant, write_beside, &tenant, &f.err), KMS_OK);
    assert_int_equal(kms_txn_begin(f.store, false, &txn, &f.err), KMS_OK);
    assert_int_equal(f.store->ops->purpose_get(txn.txn, &tenant.uuid, "beside", &purpose, &f.err), KMS_OK);
}

static void many_tenants_are_checked(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 300; i++) { /* more than one portion */
        char name[16];
        (void)snprintf(name, sizeof name, "t%u", i);
        (void)fixture_tenant(&f, name);
    }
    const uint64_t before = kms_fake_hsm_count(f.hsm, KMS_FAKE_MASTER_FIND);
    assert_int_equal(check(), KMS_OK);
    assert_int_equal(kms_fake_hsm_count(f.hsm, KMS_FAKE_MASTER_FIND) - before, 301);
    assert_int_equal(kms_fake_hsm_session_keys(f.hsm), 0);
    remove_master(fixture_tenant_record(&f, "t99").master_id); /* the last in the order of names */
    assert_int_equal(check(), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(f.err.public_text, "t99"));
}

static void a_newer_epoch_in_the_hsm_says_that_the_database_was_rolled_back(void **state)
{
    (void)state;
    char label[KMS_HSM_LABEL_MAX + 1];
    char uuid[KMS_UUID_TEXT_SIZE];
    const struct kms_uuid tenant = fixture_tenant_record(&f, "acme").uuid;
    (void)snprintf(label, sizeof label, "kms/%s/2", kms_uuid_format(&tenant, uuid));
    add_master(label);
    assert_int_equal(check(), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(f.err.public_text, "rolled back"));
    assert_non_null(strstr(f.err.public_text, "restore the newest backup"));
    assert_non_null(strstr(f.err.public_text, "'acme'"));
}

static void a_missing_master_key_is_named(void **state)
{
    (void)state;
    remove_master(fixture_tenant_record(&f, "acme").master_id);
    assert_int_equal(check(), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(f.err.public_text, "is not in the HSM"));
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &blob), KMS_HSM_UNAVAILABLE);
}

static void a_master_key_of_another_tree_is_noticed(void **state)
{
    (void)state;
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "acme", "c1", "service", NULL, &blob), KMS_OK);
    assert_int_equal(check(), KMS_OK);
    struct kms_tenant_record tenant = fixture_tenant_record(&f, "acme");
    tenant.root_blob[0] ^= 1;
    struct kms_txn txn = {0};
    assert_int_equal(kms_txn_begin(f.store, true, &txn, &f.err), KMS_OK);
    assert_int_equal(txn.store->ops->tenant_update(txn.txn, &tenant, &f.err), KMS_OK);
    assert_int_equal(kms_txn_commit(&txn, &f.err), KMS_OK);
    assert_int_equal(check(), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(f.err.public_text, "does not open"));
}

static void keys_of_others_and_odd_labels_are_left_alone(void **state)
{
    (void)state;
    char uuid[KMS_UUID_TEXT_SIZE];
    char label[KMS_HSM_LABEL_MAX + 1];
    const struct kms_uuid stranger = kms_uuid_random();
    const struct kms_uuid tenant = fixture_tenant_record(&f, "acme").uuid;
    (void)snprintf(label, sizeof label, "kms/%s/7", kms_uuid_format(&stranger, uuid));
    add_master(label);
    static const char *const odd[] = {"kms/%s/",   "kms/%s/0",  "kms/%s/-2",
                                      "kms/%s/2x", "kms/%s/ 2", "kms/%s/99999999999999999999"};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        (void)kms_uuid_format(&tenant, uuid);
        (void)snprintf(label, sizeof label, "kms/%s%s", uuid, odd[i] + 6);
        add_master(label);
    }
    add_master("kms/backup");
    const size_t before = kms_fake_hsm_masters(f.hsm);
    assert_int_equal(check(), KMS_OK);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), before);
}

int main(void)
{
#define ON_FAKE(test) cmocka_unit_test_setup_teardown(test, setup, clear)
    const struct CMUnitTest tests[] = {
        ON_FAKE(a_new_tenant_has_a_master_key_of_epoch_one),
        ON_FAKE(a_taken_name_makes_no_master_key),
        ON_FAKE(what_is_written_beside_a_tenant_is_there_with_it_or_neither_is),
        ON_FAKE(many_tenants_are_checked),
        ON_FAKE(a_newer_epoch_in_the_hsm_says_that_the_database_was_rolled_back),
        ON_FAKE(a_missing_master_key_is_named),
        ON_FAKE(a_master_key_of_another_tree_is_noticed),
        ON_FAKE(keys_of_others_and_odd_labels_are_left_alone),
    };
#define ON_SOFTHSM(test) cmocka_unit_test_setup_teardown(test, with_softhsm, clear)
    const struct CMUnitTest on_softhsm[] = {
        ON_SOFTHSM(a_new_tenant_has_a_master_key_of_epoch_one),
        ON_SOFTHSM(a_newer_epoch_in_the_hsm_says_that_the_database_was_rolled_back),
        ON_SOFTHSM(a_missing_master_key_is_named),
        ON_SOFTHSM(a_master_key_of_another_tree_is_noticed),
    };
    const int failed = cmocka_run_group_tests_name("fake HSM", tests, NULL, NULL);
    return failed + cmocka_run_group_tests_name("SoftHSM", on_softhsm, NULL, NULL);
}
