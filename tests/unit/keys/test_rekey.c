/* Shred and rotation of the master key: survivors open, targets don't, with every old copy of the database and today's HSM. */
#define _GNU_SOURCE
#include "keys/rekey.h"
#include "unit/keys/fixture.h"

#include "evidence/signature.h"
#include "store/sqlite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

enum { CUSTOMERS = 300 }; /* three levels */

static struct fixture f;
static struct fixture_blob blobs[CUSTOMERS]; /* of customer "k<i>", purpose "service" */
static struct kms_uuid customers[CUSTOMERS];
static struct kms_uuid tenant;
static bool shredded[CUSTOMERS];

static void fill(void)
{
    tenant = fixture_tenant_record(&f, "acme").uuid;
    fixture_bulk(&f, "acme", "k", CUSTOMERS);
    for (unsigned i = 0; i < CUSTOMERS; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "k%u", i);
        assert_int_equal(fixture_generate(&f, "acme", name, "service", NULL, &blobs[i]), KMS_OK);
        customers[i] = fixture_customer_uuid(&f, "acme", name);
        shredded[i] = false;
    }
    assert_int_equal(fixture_tenant_record(&f, "acme").height, 3);
}

static int setup(void **state)
{
    (void)state;
    fixture_new(&f, FIXTURE_FAKE, NULL);
    fill();
    return 0;
}

static int with_softhsm(void **state)
{
    (void)state;
    fixture_new(&f, FIXTURE_SOFTHSM, NULL);
    fill();
    return 0;
}

static int clear(void **state)
{
    (void)state;
    fixture_clear(&f);
    return 0;
}

static enum kms_status open_blob(const struct fixture_blob *blob)
{
    struct fixture_blob opened;
    const enum kms_status status =
        fixture_unwrap(&f, "acme", NULL, NULL, NULL, kms_slice_of(blob->bytes, blob->len), &opened);
    if (status == KMS_OK)
        assert_memory_equal(opened.plaintext, blob->plaintext, blob->plaintext_len);
    return status;
}

/* Every customer is wholly alive or wholly gone, with warm caches and with cold ones. */
static void check_everybody(void)
{
    for (int cold = 0; cold < 2; cold++) {
        if (cold)
            fixture_restart(&f);
        for (unsigned i = 0; i < CUSTOMERS; i++)
            assert_int_equal(open_blob(&blobs[i]), shredded[i] ? KMS_BLOB_REFUSED : KMS_OK);
    }
    if (f.token == NULL)
        fixture_check_no_stray_keys(&f);
}

/* A request for whole customers of the table. */
struct shred {
    struct kms_rekey_target targets[CUSTOMERS];
    struct kms_rekey_request request;
    struct kms_batch_record batch;
};

static struct shred shred_of(const unsigned *which, size_t count)
{
    struct shred shred = {.request = {.batch = kms_uuid_random(), .tenant = tenant, .target_count = count}};
    for (size_t i = 0; i < count; i++)
        shred.targets[i].customer = customers[which[i]];
    return shred;
}

static enum kms_status run(struct shred *shred)
{
    f.err = (struct kms_error){0};
    kms_batch_record_clear(&shred->batch);
    shred->request.targets = shred->targets;
    return kms_keys_shred(f.keys, &shred->request, &shred->batch, &f.err);
}

static void shred_now(const unsigned *which, size_t count)
{
    struct shred shred = shred_of(which, count);
    const enum kms_status status = run(&shred);
    if (status != KMS_OK)
        fail_msg("%s: %s", kms_status_name(status), kms_error_cause(&f.err, status));
    assert_int_equal(shred.batch.state, KMS_BATCH_SEALED);
    kms_batch_record_clear(&shred.batch);
    for (size_t i = 0; i < count; i++)
        shredded[which[i]] = true;
}

static enum kms_status find_master(const uint8_t id[KMS_MASTER_ID_SIZE])
{
    struct kms_hsm_session *session = NULL;
    struct kms_hsm_key key;
    assert_int_equal(kms_hsm_checkout(f.hsm, INT64_MAX, &session, &f.err), KMS_OK);
    const enum kms_status status = f.hsm->ops->master_find(session, id, &key, &f.err);
    kms_hsm_checkin(f.hsm, session);
    return status;
}

static void one_customer_goes_and_all_others_stay(void **state)
{
    (void)state;
    const struct kms_tenant_record before = fixture_tenant_record(&f, "acme");
    struct shred shred = shred_of((unsigned[]){17}, 1);
    shred.request.reference = "operations/\"7\"";
    assert_int_equal(run(&shred), KMS_OK);
    shredded[17] = true;
    const struct kms_tenant_record after = fixture_tenant_record(&f, "acme");
    assert_int_equal(after.epoch, before.epoch + 1);
    assert_memory_not_equal(after.master_id, before.master_id, KMS_MASTER_ID_SIZE);
    assert_int_equal(find_master(before.master_id), KMS_NOT_FOUND);
    assert_int_equal(find_master(after.master_id), KMS_OK);
    assert_int_equal(shred.batch.pages, 3);
    assert_int_equal(shred.batch.keys_shredded, 1);
    assert_int_equal(shred.batch.customers, 1);
    assert_int_equal(shred.batch.keys_rewrapped,
                     15 + 15 + 1); /* leaf, middle, and of the top's two children the other */
    assert_true(shred.batch.committed_ns > 0 && shred.batch.sealed_ns >= shred.batch.committed_ns);
    kms_batch_record_clear(&shred.batch);
    check_everybody();
    assert_int_equal(kms_keys_check_roots(f.keys, NULL, &f.err), KMS_OK);
}

static void the_intent_is_signed_and_names_what_happened(void **state)
{
    (void)state;
    const struct kms_tenant_record before = fixture_tenant_record(&f, "acme");
    struct shred shred = shred_of((unsigned[]){17}, 1);
    shred.request.reference = "operations/\"7\"";
    assert_int_equal(run(&shred), KMS_OK);
    char *pem = NULL;
    assert_int_equal(f.hsm->ops->attestation_public_pem(f.hsm, &pem, &f.err), KMS_OK);
    const struct kms_slice document = kms_slice_of(shred.batch.document, shred.batch.document_len);
    assert_int_equal(kms_signature_verify(kms_slice_str(pem), document,
                                          kms_slice_of(shred.batch.signature, shred.batch.signature_len),
                                          &f.err),
                     KMS_OK);
    char uuid[KMS_UUID_TEXT_SIZE];
    char old_master[2 * KMS_MASTER_ID_SIZE + 1];
    char expected[256];
    kms_hex_encode(before.master_id, KMS_MASTER_ID_SIZE, old_master);
    (void)snprintf(expected, sizeof expected,
                   "\"old_epoch\":1,\"old_master\":\"%s\",\"reference\":\"operations/\\\"7\\\"\"",
                   old_master);
    assert_non_null(memmem(document.data, document.len, expected, strlen(expected)));
    (void)snprintf(expected, sizeof expected, "\"tombstones\":[\"%s\"]}",
                   kms_uuid_format(&customers[17], uuid));
    assert_memory_equal(document.data + document.len - strlen(expected), expected, strlen(expected));
    free(pem);
    kms_batch_record_clear(&shred.batch);
}

static void many_customers_share_one_batch(void **state)
{
    (void)state;
    static const unsigned which[] = {0, 1, 15, 16, 31, 100, 101, 255, 256, 299, 17, 100};
    struct shred shred = shred_of(which, sizeof which / sizeof which[0]); /* 100 is named twice */
    assert_int_equal(run(&shred), KMS_OK);
    for (size_t i = 0; i < sizeof which / sizeof which[0]; i++) {
        shredded[which[i]] = true;
        assert_int_equal(shred.targets[i].ret_status, KMS_OK);
    }
    assert_int_equal(shred.batch.keys_shredded, 11);
    assert_int_equal(shred.batch.customers, 11);
    assert_int_equal(fixture_tenant_record(&f, "acme").epoch, 2);
    kms_batch_record_clear(&shred.batch);
    check_everybody();
}

static void everybody_can_go(void **state)
{
    (void)state;
    unsigned which[CUSTOMERS];
    for (unsigned i = 0; i < CUSTOMERS; i++)
        which[i] = i;
    shred_now(which, CUSTOMERS);
    check_everybody();
    fixture_bulk(&f, "acme", "again", 20); /* into the slots that became free */
    assert_int_equal(fixture_tenant_record(&f, "acme").next_slot, CUSTOMERS);
}

static void slots_of_the_shredded_are_used_again(void **state)
{
    (void)state;
    const uint64_t slots = fixture_tenant_record(&f, "acme").next_slot;
    shred_now((unsigned[]){3, 40, 41, 290}, 4);
    fixture_bulk(&f, "acme", "n", 6);
    assert_int_equal(fixture_tenant_record(&f, "acme").next_slot, slots + 2);
    static const unsigned places[] = {3, 40, 41, 290};
    struct fixture_blob fresh;
    for (unsigned i = 0; i < 4; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "n%u", i);
        assert_int_equal(fixture_kek(&f, "acme", name, "service").slot, places[i]);
        assert_int_equal(fixture_generate(&f, "acme", name, "service", NULL, &fresh), KMS_OK);
        assert_int_equal(open_blob(&fresh), KMS_OK);
    }
    check_everybody();
    shred_now((unsigned[]){4, 42}, 2); /* beside keys in used-again slots */
    assert_int_equal(open_blob(&fresh), KMS_OK);
    check_everybody();
}

static void rotation_of_the_master_key_changes_nothing_for_anybody(void **state)
{
    (void)state;
    for (uint64_t epoch = 2; epoch < 5; epoch++) {
        const struct kms_tenant_record before = fixture_tenant_record(&f, "acme");
        struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = tenant};
        struct kms_batch_record batch = {0};
        assert_int_equal(kms_keys_rotate_master(f.keys, &request, &batch, &f.err), KMS_OK);
        assert_int_equal(batch.kind, KMS_BATCH_ROTATE_MASTER);
        assert_int_equal(batch.pages, 0);
        assert_int_equal(batch.keys_rewrapped, 1);
        kms_batch_record_clear(&batch);
        assert_int_equal(fixture_tenant_record(&f, "acme").epoch, epoch);
        assert_int_equal(find_master(before.master_id), KMS_NOT_FOUND);
        check_everybody();
    }
}

static void an_empty_tree_can_be_rotated_and_shredded(void **state)
{
    (void)state;
    struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = fixture_tenant(&f, "empty")};
    fixture_purpose(&f, "empty", "service");
    fixture_customer(&f, "empty", "c");
    struct kms_batch_record batch = {0};
    assert_int_equal(kms_keys_rotate_master(f.keys, &request, &batch, &f.err), KMS_OK);
    kms_batch_record_clear(&batch);
    struct kms_rekey_target target = {.customer = fixture_customer_uuid(&f, "empty", "c")};
    request.batch = kms_uuid_random();
    request.targets = &target;
    request.target_count = 1;
    assert_int_equal(kms_keys_shred(f.keys, &request, &batch, &f.err), KMS_OK);
    assert_int_equal(batch.customers, 1);
    kms_batch_record_clear(&batch);
    assert_int_equal(fixture_tenant_record(&f, "empty").epoch, 3);
    struct fixture_blob blob;
    assert_int_equal(fixture_generate(&f, "empty", "c", "service", NULL, &blob), KMS_NOT_FOUND);
}

/* Give customer k<i> keys of both purposes and two versions of one. */
static void give_more_keys(unsigned i, struct fixture_blob *ret_kyc, struct fixture_blob *ret_second)
{
    char name[16];
    struct kms_kek_record kek;
    (void)snprintf(name, sizeof name, "k%u", i);
    assert_int_equal(fixture_generate(&f, "acme", name, "kyc", NULL, ret_kyc), KMS_OK);
    assert_int_equal(kms_keys_rotate_kek(f.keys, &tenant, &customers[i], "service", &kek, &f.err), KMS_OK);
    assert_int_equal(fixture_generate(&f, "acme", name, "service", NULL, ret_second), KMS_OK);
    assert_int_equal(ret_second->version, 2);
}

static void one_purpose_or_one_version_can_go(void **state)
{
    (void)state;
    struct fixture_blob kyc;
    struct fixture_blob second;
    struct fixture_blob blob;
    give_more_keys(5, &kyc, &second);
    struct shred shred = shred_of((unsigned[]){5}, 1);
    shred.targets[0].purpose = "service";
    shred.targets[0].version = 1;
    assert_int_equal(run(&shred), KMS_OK);
    assert_int_equal(shred.batch.customers, 0);
    assert_int_equal(open_blob(&blobs[5]), KMS_BLOB_REFUSED);
    assert_int_equal(open_blob(&second), KMS_OK);
    assert_int_equal(open_blob(&kyc), KMS_OK);
    shred.request.batch = kms_uuid_random();
    assert_int_equal(run(&shred), KMS_FAILED_PRECONDITION); /* again */
    assert_int_equal(shred.targets[0].ret_status, KMS_FAILED_PRECONDITION);
    shred.targets[0].version = 0;
    shred.request.batch = kms_uuid_random();
    assert_int_equal(run(&shred), KMS_OK);
    kms_batch_record_clear(&shred.batch);
    shredded[5] = true;
    assert_int_equal(open_blob(&second), KMS_BLOB_REFUSED);
    assert_int_equal(open_blob(&kyc), KMS_OK);
    assert_int_equal(fixture_generate(&f, "acme", "k5", "service", NULL, &blob), KMS_FAILED_PRECONDITION);
    assert_int_equal(fixture_generate(&f, "acme", "k5", "kyc", NULL, &blob), KMS_OK);
    struct kms_kek_record kek;
    assert_int_equal(kms_keys_rotate_kek(f.keys, &tenant, &customers[5], "service", &kek, &f.err),
                     KMS_FAILED_PRECONDITION);
    check_everybody();
}

static void a_purpose_that_was_never_used_can_be_shredded_once_and_stays_without_keys(void **state)
{
    (void)state;
    struct shred shred = shred_of((unsigned[]){6}, 1);
    struct fixture_blob blob;
    shred.targets[0].purpose = "kyc";
    assert_int_equal(run(&shred), KMS_OK);
    assert_int_equal(fixture_generate(&f, "acme", "k6", "kyc", NULL, &blob), KMS_FAILED_PRECONDITION);
    assert_int_equal(fixture_generate(&f, "acme", "k6", "service", NULL, &blob), KMS_OK);
    struct kms_kek_wanted in_bulk = {.customer = customers[6], .purpose = "kyc"};
    assert_int_equal(kms_keys_create_bulk(f.keys, &tenant, NULL, 0, NULL, &in_bulk, 1, &f.err), KMS_OK);
    assert_int_equal(in_bulk.ret_status, KMS_FAILED_PRECONDITION);
    shred.request.batch = kms_uuid_random();
    assert_int_equal(run(&shred), KMS_FAILED_PRECONDITION);
    kms_batch_record_clear(&shred.batch);
    check_everybody();
}

static void bad_targets_are_told_one_by_one_and_nothing_is_done(void **state)
{
    (void)state;
    shred_now((unsigned[]){9}, 1);
    struct shred shred = shred_of((unsigned[]){1, 9, 2, 3, 4}, 5);
    shred.targets[2].customer = kms_uuid_random();
    shred.targets[3].purpose = "marketing";
    shred.targets[4].purpose = "service";
    shred.targets[4].version = 7;
    const uint64_t masters = kms_fake_hsm_count(f.hsm, KMS_FAKE_MASTER_CREATE);
    assert_int_equal(run(&shred), KMS_NOT_FOUND);
    assert_int_equal(shred.targets[0].ret_status, KMS_OK);
    for (unsigned i = 1; i < 5; i++)
        assert_int_equal(shred.targets[i].ret_status, KMS_NOT_FOUND);
    assert_int_equal(kms_fake_hsm_count(f.hsm, KMS_FAKE_MASTER_CREATE), masters);
    shred = shred_of((unsigned[]){1}, 1);
    shred.targets[0].version = 1;
    assert_int_equal(run(&shred), KMS_INVALID_ARGUMENT);
    shred.request.target_count = 0;
    assert_int_equal(run(&shred), KMS_INVALID_ARGUMENT);
    shred = shred_of((unsigned[]){1}, 1);
    shred.request.tenant = kms_uuid_random();
    assert_int_equal(run(&shred), KMS_NOT_FOUND);
    fixture_customer(&f, "acme", "other");
    (void)fixture_tenant(&f, "beta");
    shred.request.tenant = fixture_tenant_record(&f, "beta").uuid;
    assert_int_equal(run(&shred), KMS_NOT_FOUND); /* another tenant's customer */
    check_everybody();
}

static void the_same_batch_is_done_once(void **state)
{
    (void)state;
    struct shred shred = shred_of((unsigned[]){20}, 1);
    assert_int_equal(run(&shred), KMS_OK);
    shredded[20] = true;
    const uint64_t masters = kms_fake_hsm_count(f.hsm, KMS_FAKE_MASTER_CREATE);
    assert_int_equal(run(&shred), KMS_OK);
    assert_int_equal(shred.batch.keys_shredded, 1);
    assert_int_equal(kms_fake_hsm_count(f.hsm, KMS_FAKE_MASTER_CREATE), masters);
    kms_batch_record_clear(&shred.batch);
    check_everybody();
}

static void a_shredded_name_is_known_by_its_mac(void **state)
{
    (void)state;
    static const char *const names[] = {"k30", "k31", "never"};
    bool known[3] = {true, true, true};
    assert_int_equal(kms_keys_shredded_ids(f.keys, &tenant, names, 3, known, &f.err), KMS_OK);
    assert_false(known[0] || known[1] || known[2]);
    shred_now((unsigned[]){30}, 1);
    assert_int_equal(kms_keys_shredded_ids(f.keys, &tenant, names, 3, known, &f.err), KMS_OK);
    assert_true(known[0] && !known[1] && !known[2]);
    uint8_t mac[KMS_TOMBSTONE_MAC_SIZE];
    uint8_t of_other_tenant[KMS_TOMBSTONE_MAC_SIZE];
    const struct kms_uuid other = kms_uuid_random();
    assert_int_equal(kms_keys_id_mac(f.keys, &tenant, "k30", mac, &f.err), KMS_OK);
    assert_int_equal(kms_keys_id_mac(f.keys, &other, "k30", of_other_tenant, &f.err), KMS_OK);
    assert_memory_not_equal(mac, of_other_tenant, sizeof mac);
}

/* Hooks that count, and fail on command. */
struct hooks {
    unsigned checks, writes, intents, durables, seals;
    enum kms_status check_status, write_status, intent_status, durable_status;
};

static enum kms_status on_check(void *context, struct kms_store_txn *txn, struct kms_error *err)
{
    struct hooks *hooks = context;
    struct kms_customer_record customer = {0};
    assert_int_equal(f.store->ops->customer_by_uuid(txn, &customers[50], &customer, err), KMS_OK); /* still */
    kms_customer_record_clear(&customer);
    hooks->checks++;
    return hooks->check_status;
}

static enum kms_status on_write(void *context, struct kms_store_txn *txn,
                                const struct kms_batch_record *batch, struct kms_error *err)
{
    struct hooks *hooks = context;
    (void)txn;
    (void)err;
    hooks->writes++;
    assert_int_equal(batch->state, KMS_BATCH_COMMITTED);
    return hooks->write_status;
}

static enum kms_status on_durable(void *context, const struct kms_batch_record *batch, struct kms_error *err)
{
    struct hooks *hooks = context;
    assert_int_equal(kms_fake_hsm_sessions_out(f.hsm), 0);
    if (batch->state == KMS_BATCH_INTENT) {
        hooks->intents++;
        assert_int_equal(kms_fake_hsm_masters(f.hsm), 1); /* not made yet */
        return hooks->intent_status == KMS_OK
                   ? KMS_OK
                   : kms_fail(err, hooks->intent_status, "no backup target knows of it");
    }
    hooks->durables++;
    assert_int_equal(batch->state, KMS_BATCH_COMMITTED);
    return hooks->durable_status == KMS_OK ? KMS_OK
                                           : kms_fail(err, hooks->durable_status, "no backup target");
}

static enum kms_status on_sealed(void *context, struct kms_store_txn *txn,
                                 const struct kms_batch_record *batch, struct kms_error *err)
{
    struct hooks *hooks = context;
    (void)txn;
    (void)err;
    hooks->seals++;
    assert_int_equal(batch->state, KMS_BATCH_SEALED);
    return KMS_OK;
}

static void the_hooks_come_in_their_order(void **state)
{
    (void)state;
    struct hooks hooks = {.check_status = KMS_ABORTED, .write_status = KMS_ABORTED};
    struct shred shred = shred_of((unsigned[]){50}, 1);
    shred.request.hooks = (struct kms_rekey_hooks){&hooks, on_check, on_write, on_sealed};
    f.config.durable = on_durable;
    f.config.durable_context = &hooks;
    fixture_restart(&f);
    hooks.intent_status = KMS_UNAVAILABLE;
    assert_int_equal(run(&shred), KMS_UNAVAILABLE); /* nothing is begun that a restore could not explain */
    assert_int_equal(hooks.checks, 0);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 1);
    check_everybody();
    hooks.intent_status = KMS_OK;
    assert_int_equal(run(&shred), KMS_ABORTED); /* it is not wanted any more */
    assert_int_equal(hooks.writes, 0);
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 1);
    check_everybody();
    hooks.check_status = KMS_OK;
    assert_int_equal(run(&shred), KMS_ABORTED); /* the caller's part cannot be written: nothing is */
    assert_int_equal(kms_fake_hsm_masters(f.hsm), 1);
    check_everybody();
    hooks.write_status = KMS_OK;
    hooks.durable_status = KMS_UNAVAILABLE;
    const struct kms_tenant_record before = fixture_tenant_record(&f, "acme");
    assert_int_equal(run(&shred), KMS_UNAVAILABLE);
    shredded[50] = true; /* but not sealed: the old master key is still there */
    assert_int_equal(find_master(before.master_id), KMS_OK);
    assert_int_equal(hooks.seals, 0);
    check_everybody();
    assert_int_equal(run(&shred), KMS_UNAVAILABLE);
    assert_int_equal(kms_keys_check_roots(f.keys, &shred.request.hooks, &f.err),
                     KMS_OK); /* starts all the same */
    assert_int_equal(find_master(before.master_id), KMS_OK);
    hooks.durable_status = KMS_OK;
    assert_int_equal(kms_keys_finish_batch(f.keys, &tenant, &shred.request.hooks, &f.err), KMS_OK);
    assert_int_equal(find_master(before.master_id), KMS_NOT_FOUND);
    assert_int_equal(run(&shred), KMS_OK);
    assert_int_equal(hooks.checks, 3);
    assert_int_equal(hooks.writes, 2);
    assert_int_equal(hooks.durables, 4);
    assert_int_equal(hooks.seals, 1);
    kms_batch_record_clear(&shred.batch);
    check_everybody();
}

/* Copy a file of the database; there need not be one. */
static void copy_file(const char *suffix, const char *to)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/kms.db%s", f.directory, suffix);
    KMS_FCLOSE FILE *in = fopen(path, "rb");
    if (in == NULL)
        return;
    (void)snprintf(path, sizeof path, "%s%s", to, suffix);
    KMS_FCLOSE FILE *out = fopen(path, "wb");
    assert_non_null(out);
    char bytes[8192];
    size_t len;
    while ((len = fread(bytes, 1, sizeof bytes, in)) > 0)
        assert_int_equal(fwrite(bytes, 1, len, out), len);
}

/* The database as it is, as an adversary or a backup would copy it. */
static void copy_database(const char *to)
{
    copy_file("", to);
    copy_file("-wal", to);
}

static void no_old_copy_of_the_database_brings_anybody_back(void **state)
{
    (void)state;
    char copies[3][128];
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(copies[i], sizeof copies[i], "%s/copy%u.db", f.directory, i);
        copy_database(copies[i]);
        shred_now((unsigned[]){60 + i, 200 + i}, 2);
    }
    for (unsigned i = 0; i < 3; i++) {
        struct fixture old = f; /* today's HSM, the old database */
        const struct kms_store_sqlite_config config = {.path = copies[i]};
        assert_int_equal(kms_store_sqlite_open(&config, &old.store, &f.err), KMS_OK);
        assert_int_equal(kms_keys_new(old.hsm, old.store, NULL, &old.keys, &f.err), KMS_OK);
        assert_int_equal(kms_keys_check_roots(old.keys, NULL, &f.err), KMS_FAILED_PRECONDITION);
        for (unsigned k = 0; k < CUSTOMERS; k += 10) {
            struct fixture_blob opened;
            assert_int_not_equal(fixture_unwrap(&old, "acme", NULL, NULL, NULL,
                                                kms_slice_of(blobs[k].bytes, blobs[k].len), &opened),
                                 KMS_OK);
        }
        kms_keys_free(old.keys);
        kms_store_free(old.store);
    }
    check_everybody();
}

int main(void)
{
#define ON_FAKE(test)    cmocka_unit_test_setup_teardown(test, setup, clear)
#define ON_SOFTHSM(test) cmocka_unit_test_setup_teardown(test, with_softhsm, clear)
    const struct CMUnitTest tests[] = {
        ON_FAKE(one_customer_goes_and_all_others_stay),
        ON_FAKE(the_intent_is_signed_and_names_what_happened),
        ON_FAKE(many_customers_share_one_batch),
        ON_FAKE(everybody_can_go),
        ON_FAKE(slots_of_the_shredded_are_used_again),
        ON_FAKE(rotation_of_the_master_key_changes_nothing_for_anybody),
        ON_FAKE(an_empty_tree_can_be_rotated_and_shredded),
        ON_FAKE(one_purpose_or_one_version_can_go),
        ON_FAKE(a_purpose_that_was_never_used_can_be_shredded_once_and_stays_without_keys),
        ON_FAKE(bad_targets_are_told_one_by_one_and_nothing_is_done),
        ON_FAKE(the_same_batch_is_done_once),
        ON_FAKE(a_shredded_name_is_known_by_its_mac),
        ON_FAKE(the_hooks_come_in_their_order),
        ON_FAKE(no_old_copy_of_the_database_brings_anybody_back),
    };
    const struct CMUnitTest on_softhsm[] = {
        ON_SOFTHSM(one_customer_goes_and_all_others_stay),
        ON_SOFTHSM(the_intent_is_signed_and_names_what_happened),
        ON_SOFTHSM(many_customers_share_one_batch),
        ON_SOFTHSM(rotation_of_the_master_key_changes_nothing_for_anybody),
        ON_SOFTHSM(no_old_copy_of_the_database_brings_anybody_back),
    };
    const int failed = cmocka_run_group_tests_name("fake HSM", tests, NULL, NULL);
    return failed + cmocka_run_group_tests_name("SoftHSM", on_softhsm, NULL, NULL);
}
