/*
 * Goal: a capsule is in every target before its master key counts; a pass makes what is missing and removes what is of no use, and nothing
 * at all on the word of a database that it could not read.
 */
#define _GNU_SOURCE
#include "core/clock.h"
#include "fake/fake_hsm.h"
#include "fake/fault_store.h"
#include "keys/rekey.h"
#include "ops/escrow.h"
#include "ops/recovery.h"
#include "store/sqlite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static const char fingerprint[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
enum { TARGETS = 2, STORE_CALLS_MAX = 200 };

static struct {
    char root[64];
    char targets[TARGETS][80];
    struct kms_hsm *hsm;
    struct kms_store *store;
    struct ops_escrow *escrow;
    struct kms_keys *keys;
    struct kms_error err;
} site;

static int64_t clock_ns; /* what tests add to the time */

static int64_t later_mono(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * KMS_NS_PER_SECOND + now.tv_nsec + clock_ns;
}

static void (*at_each_look)(void); /* at the clock: what happens meanwhile */

static int64_t wall(void)
{
    if (at_each_look != NULL)
        at_each_look();
    return INT64_C(1800000000) * KMS_NS_PER_SECOND;
}

#define must(expression)                                                                                     \
    do {                                                                                                     \
        const enum kms_status must_status_ = (expression);                                                   \
        if (must_status_ != KMS_OK)                                                                          \
            fail_msg("%s: %s (%s)", #expression, kms_status_name(must_status_),                              \
                     kms_error_cause(&site.err, must_status_));                                              \
    } while (0)

/* A new escrow over what there is, as after a start. */
static void open_escrow(void)
{
    const char *directories[TARGETS];
    for (size_t i = 0; i < TARGETS; i++)
        directories[i] = site.targets[i];
    must(ops_escrow_new(site.hsm, site.store, NULL, directories, TARGETS, &site.escrow, &site.err));
    const struct kms_keys_config config = {.escrow = ops_escrow_hooks(site.escrow)};
    must(kms_keys_new(site.hsm, site.store, &config, &site.keys, &site.err));
}

static void close_escrow(void)
{
    kms_keys_free(site.keys);
    ops_escrow_free(site.escrow);
}

static int setup(void **state)
{
    (void)state;
    static const struct kms_clock_source source = {wall, later_mono};
    struct kms_store *inner = NULL;
    char path[80];
    memset(&site, 0, sizeof site);
    clock_ns = 0;
    at_each_look = NULL;
    kms_clock_set_source(&source);
    (void)snprintf(site.root, sizeof site.root, "/tmp/kms-escrow-XXXXXX");
    assert_non_null(mkdtemp(site.root));
    for (size_t i = 0; i < TARGETS; i++) {
        (void)snprintf(site.targets[i], sizeof site.targets[i], "%s/t%zu", site.root, i);
        assert_int_equal(mkdir(site.targets[i], 0700), 0);
    }
    (void)snprintf(path, sizeof path, "%s/kms.db", site.root);
    const struct kms_store_sqlite_config store = {.path = path};
    must(kms_store_sqlite_open(&store, &inner, &site.err));
    site.store = kms_fault_store_new(inner);
    site.hsm = kms_fake_hsm_new(2);
    kms_fake_hsm_set_recovery(site.hsm, true);
    kms_fake_hsm_trust(site.hsm, fingerprint);
    open_escrow();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[96];
    close_escrow();
    kms_store_free(site.store);
    kms_hsm_free(site.hsm);
    (void)snprintf(command, sizeof command, "rm -rf %s", site.root);
    assert_int_equal(system(command), 0);
    kms_clock_set_source(NULL);
    return 0;
}

/* A tenant as an operator makes one. */
static enum kms_status create(const char *id, struct kms_tenant_record *ret_tenant)
{
    *ret_tenant =
        (struct kms_tenant_record){.uuid = kms_uuid_random(), .state = KMS_TENANT_ACTIVE, .revision = 1};
    (void)snprintf(ret_tenant->id, sizeof ret_tenant->id, "%s", id);
    return kms_keys_tenant_create(site.keys, ret_tenant, NULL, NULL, &site.err);
}

/* What the operation of enrolment does first. */
static struct kms_recovery_key_record enroll(void)
{
    struct kms_recovery_key_record key = {.epoch = 1,
                                          .state = KMS_RECOVERY_ACTIVE,
                                          .enrolled_by = "ann",
                                          .enrolled_ns = 1,
                                          .enroll_operation = kms_uuid_random()};
    memcpy(key.fingerprint, fingerprint, sizeof fingerprint);
    struct kms_txn txn = {0};
    must(kms_txn_begin(site.store, true, &txn, &site.err));
    must(site.store->ops->recovery.key_put(txn.txn, &key, &site.err));
    must(kms_txn_commit(&txn, &site.err));
    return key;
}

static const char *capsule(size_t target, const struct kms_uuid *tenant, uint64_t epoch)
{
    static char path[256];
    char uuid[KMS_UUID_TEXT_SIZE];
    if (tenant == NULL)
        (void)snprintf(path, sizeof path, "%s/recovery/%s/service.capsule", site.targets[target],
                       fingerprint);
    else
        (void)snprintf(path, sizeof path, "%s/recovery/%s/%s.%llu.capsule", site.targets[target], fingerprint,
                       kms_uuid_format(tenant, uuid), (unsigned long long)epoch);
    return path;
}

/* In how many targets it lies. */
static unsigned found(const struct kms_uuid *tenant, uint64_t epoch)
{
    unsigned count = 0;
    for (size_t i = 0; i < TARGETS; i++)
        count += access(capsule(i, tenant, epoch), F_OK) == 0;
    return count;
}

/* The officer removes the recovery key from the token. */
static void lose_key(void)
{
    struct kms_hsm_session *session = NULL;
    struct kms_error err = {0};
    assert_int_equal(kms_hsm_checkout(site.hsm, INT64_MAX, &session, &err), KMS_OK);
    assert_int_equal(kms_hsm_recovery_remove(site.hsm, session, fingerprint, &err), KMS_OK);
    kms_hsm_checkin(site.hsm, session);
}

/* A pass now, whatever the time; what it has found. */
static struct ops_escrow_status pass(void)
{
    struct ops_escrow_status status;
    clock_ns += 2 * OPS_ESCROW_LOOK_SECONDS * KMS_NS_PER_SECOND;
    assert_true(ops_escrow_tick(site.escrow));
    assert_false(ops_escrow_tick(site.escrow)); /* not again at once */
    ops_escrow_status(site.escrow, &status);
    return status;
}

static enum kms_status rotate(const struct kms_uuid *tenant)
{
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    struct kms_rekey_request request = {.batch = kms_uuid_random(), .tenant = *tenant};
    return kms_keys_rotate_master(site.keys, &request, &batch, &site.err);
}

static void touch(const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fputs("x", file);
    (void)fclose(file);
}

static void without_a_recovery_key_nothing_is_written(void **state)
{
    (void)state;
    struct kms_tenant_record tenant;
    char path[128];
    must(create("acme", &tenant));
    must(rotate(&tenant.uuid));
    assert_int_equal(pass().expected, 0);
    (void)snprintf(path, sizeof path, "%s/recovery", site.targets[0]);
    assert_int_equal(access(path, F_OK), -1);
}

static void what_is_missing_is_made_and_what_is_old_goes(void **state)
{
    (void)state;
    struct kms_tenant_record tenant;
    (void)enroll();
    must(create("acme", &tenant));
    assert_int_equal(found(&tenant.uuid, 1), TARGETS);
    assert_int_equal(found(NULL, 0), 0);
    struct ops_escrow_status status = pass();
    assert_int_equal(found(NULL, 0), TARGETS);
    assert_int_equal(status.expected, 2 * TARGETS);
    assert_int_equal(status.missing, 0);
    must(rotate(&tenant.uuid));
    assert_int_equal(found(&tenant.uuid, 1), TARGETS);
    assert_int_equal(found(&tenant.uuid, 2), TARGETS);
    assert_true(ops_escrow_tick(site.escrow)); /* at once: the batch has said so */
    assert_int_equal(found(&tenant.uuid, 1), 0);
    assert_int_equal(unlink(capsule(1, &tenant.uuid, 2)), 0);
    touch(capsule(0, &tenant.uuid, 9));
    assert_int_equal(pass().missing, 0);
    assert_int_equal(found(&tenant.uuid, 2), TARGETS);
    assert_int_equal(found(&tenant.uuid, 9), 0);
}

static void a_key_that_was_enrolled_meanwhile_undoes_the_batch(void **state)
{
    (void)state;
    struct kms_tenant_record tenant;
    uint64_t ticket = 0;
    must(create("acme", &tenant));
    const struct kms_keys_escrow *hooks = ops_escrow_hooks(site.escrow);
    must(hooks->prepare(hooks->context, &tenant.uuid, 2, tenant.master_id, &ticket, &site.err));
    (void)enroll();
    struct kms_txn txn = {0};
    must(kms_txn_begin(site.store, true, &txn, &site.err));
    assert_int_equal(hooks->write(hooks->context, txn.txn, &tenant.uuid, 2, ticket, &site.err), KMS_ABORTED);
    kms_txn_clear(&txn);
}

static void a_master_key_that_can_never_leave_is_not_covered(void **state)
{
    (void)state;
    struct kms_tenant_record tenant;
    uint64_t first = 0;
    kms_fake_hsm_set_recovery(site.hsm, false);
    must(create("acme", &tenant));
    kms_fake_hsm_set_recovery(site.hsm, true);
    const struct kms_recovery_key_record key = enroll();
    assert_int_equal(ops_escrow_put_tenant(site.escrow, &key, &tenant.uuid, &site.err),
                     KMS_FAILED_PRECONDITION);
    struct kms_txn txn = {0};
    must(kms_txn_begin(site.store, false, &txn, &site.err));
    assert_int_equal(site.store->ops->recovery.cover_get(txn.txn, 1, &tenant.uuid, &first, &site.err),
                     KMS_NOT_FOUND);
    kms_txn_clear(&txn);
    assert_int_equal(pass().expected, TARGETS); /* the service's own */
    assert_int_equal(found(&tenant.uuid, 1), 0);
}

static void the_capsule_of_a_tenant_that_is_just_being_made_stays(void **state)
{
    (void)state;
    const struct kms_uuid unborn = kms_uuid_random();
    struct kms_tenant_record tenant;
    uint64_t ticket = 0;
    (void)enroll();
    must(create("acme", &tenant));
    const struct kms_keys_escrow *hooks = ops_escrow_hooks(site.escrow);
    must(hooks->prepare(hooks->context, &unborn, 1, tenant.master_id, &ticket,
                        &site.err)); /* any key will do */
    clock_ns = 10 * KMS_NS_PER_SECOND;
    assert_true(ops_escrow_tick(site.escrow));
    assert_int_equal(found(&unborn, 1), TARGETS);
    hooks->gone(hooks->context, &unborn);
    assert_true(ops_escrow_tick(site.escrow));
    assert_int_equal(found(&unborn, 1), 0);
}

static void a_recovery_key_that_is_gone_from_the_token_stops_batches_and_is_told(void **state)
{
    (void)state;
    struct kms_tenant_record tenant;
    (void)enroll();
    must(create("acme", &tenant));
    lose_key();
    assert_int_equal(rotate(&tenant.uuid), KMS_FAILED_PRECONDITION);
    assert_non_null(
        strstr(kms_error_public(&site.err, KMS_FAILED_PRECONDITION), "security officer must put it back"));
    assert_int_equal(kms_fake_hsm_masters(site.hsm), 1);
    struct ops_escrow_status status = pass();
    assert_int_equal(status.missing, TARGETS); /* the service's own were never made */
    assert_string_not_equal(status.failure, "");
    kms_fake_hsm_trust(site.hsm, fingerprint);
    must(rotate(&tenant.uuid));
    status = pass();
    assert_int_equal(status.missing, 0);
    assert_string_equal(status.failure, "");
}

static void nothing_is_removed_while_the_store_cannot_be_read(void **state)
{
    (void)state;
    struct kms_tenant_record tenants[3];
    bool pending = false;
    (void)enroll();
    for (size_t i = 0; i < 3; i++) {
        char id[16];
        (void)snprintf(id, sizeof id, "tenant-%zu", i);
        must(create(id, &tenants[i]));
    }
    must(rotate(&tenants[1].uuid));
    (void)pass();
    for (unsigned n = 1; !pending; n++) {
        assert_true(n < STORE_CALLS_MAX);
        touch(capsule(0, &tenants[0].uuid, 77));
        kms_fault_store_fail_after(site.store, n, KMS_STORE_UNAVAILABLE);
        const struct ops_escrow_status status = pass();
        pending = kms_fault_store_failure_is_pending(site.store);
        kms_fault_store_fail_after(site.store, 0, KMS_OK);
        assert_int_equal(found(NULL, 0), TARGETS);
        for (size_t i = 0; i < 3; i++)
            assert_int_equal(found(&tenants[i].uuid, i == 1 ? 2 : 1), TARGETS);
        if (!pending)
            assert_string_not_equal(status.failure, "");
        assert_string_equal(pass().failure, "");
        assert_int_equal(found(&tenants[0].uuid, 77), 0);
    }
}

/* The key is retired while somebody still holds its record of before. */
static void retire(const struct kms_recovery_key_record *key, enum kms_recovery_state state)
{
    struct kms_recovery_key_record now = *key;
    struct kms_txn txn = {0};
    now.state = state;
    now.retire_operation = kms_uuid_random();
    now.retired_ns = state == KMS_RECOVERY_RETIRED ? 2 : 0;
    (void)snprintf(now.retired_by, sizeof now.retired_by, "ann");
    (void)snprintf(now.statement, sizeof now.statement, "its shares are burnt");
    must(kms_txn_begin(site.store, true, &txn, &site.err));
    must(site.store->ops->recovery.key_put(txn.txn, &now, &site.err));
    must(kms_txn_commit(&txn, &site.err));
    must(ops_escrow_remove_all(site.escrow, key->fingerprint, &site.err));
}

static bool is_covered(const struct kms_uuid *tenant, uint64_t recovery_epoch)
{
    uint64_t first = 0;
    struct kms_txn txn = {0};
    must(kms_txn_begin(site.store, false, &txn, &site.err));
    const enum kms_status status =
        site.store->ops->recovery.cover_get(txn.txn, recovery_epoch, tenant, &first, &site.err);
    kms_txn_clear(&txn);
    return status == KMS_OK;
}

static void under_a_key_that_was_retired_meanwhile_nothing_is_made(void **state)
{
    (void)state;
    struct kms_tenant_record tenant;
    static const enum kms_recovery_state states[] = {KMS_RECOVERY_RETIRING, KMS_RECOVERY_RETIRED};
    must(create("acme", &tenant));
    const struct kms_recovery_key_record key = enroll();
    for (size_t i = 0; i < 2; i++) {
        retire(&key, states[i]);
        assert_int_equal(ops_escrow_put_service(site.escrow, &key, &site.err), KMS_FAILED_PRECONDITION);
        assert_int_equal(ops_escrow_put_tenant(site.escrow, &key, &tenant.uuid, &site.err),
                         KMS_FAILED_PRECONDITION);
        assert_non_null(
            strstr(kms_error_public(&site.err, KMS_FAILED_PRECONDITION), "was retired meanwhile"));
        assert_int_equal(found(NULL, 0) + found(&tenant.uuid, 1), 0);
        assert_false(is_covered(&tenant.uuid, key.epoch));
    }
}

/* One run of an enrolment, as the runner makes it. */
static enum kms_status run_enrolment(const struct kms_uuid *uuid)
{
    static struct kms_ops ops; /* of which an enrolment uses this much */
    ops.store = site.store;
    ops.hsm = site.hsm;
    ops.escrow = site.escrow;
    struct kms_operation_record record = {.uuid = *uuid, .requester = "ann"};
    json_t *parameters = json_pack("{s:s}", "fingerprint", fingerprint);
    struct ops_operation operation = {
        .kind = &ops_recovery_enroll_kind, .record = &record, .parameters = parameters};
    char *result = NULL;
    site.err = (struct kms_error){0};
    const enum kms_status status = ops_recovery_enroll_kind.execute(&ops, &operation, &result, &site.err);
    json_decref(parameters);
    free(result);
    return status;
}

static void an_enrolment_that_is_resumed_behind_the_retirement_of_its_key_fails(void **state)
{
    (void)state;
    struct kms_recovery_key_record key = {0};
    const struct kms_uuid uuid = kms_uuid_random();
    must(run_enrolment(&uuid));
    must(run_enrolment(&uuid)); /* after a crash, say */
    assert_int_equal(found(NULL, 0), TARGETS);
    struct kms_txn txn = {0};
    must(kms_txn_begin(site.store, false, &txn, &site.err));
    must(site.store->ops->recovery.key_get(txn.txn, fingerprint, &key, &site.err));
    kms_txn_clear(&txn);
    retire(&key, KMS_RECOVERY_RETIRED);
    assert_int_equal(run_enrolment(&uuid), KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(kms_error_public(&site.err, KMS_FAILED_PRECONDITION),
                           "was retired meanwhile; enrol a new one"));
    assert_int_equal(found(NULL, 0), 0);
    lose_key(); /* and it says the same when the token has lost it, too */
    assert_int_equal(run_enrolment(&uuid), KMS_FAILED_PRECONDITION);
    assert_int_equal(found(NULL, 0), 0);
}

static void lose_key_behind_the_service_capsule(void)
{
    if (found(NULL, 0) < TARGETS)
        return;
    at_each_look = NULL;
    lose_key();
}

/* Nothing is wrong with the tenant's master key then: that it must be rotated would be the wrong advice. */
static void an_enrolment_whose_key_is_lost_from_the_token_in_the_middle_says_so(void **state)
{
    (void)state;
    struct kms_tenant_record tenant;
    const struct kms_uuid uuid = kms_uuid_random();
    must(create("acme", &tenant));
    at_each_look = lose_key_behind_the_service_capsule;
    assert_int_equal(run_enrolment(&uuid), KMS_FAILED_PRECONDITION);
    assert_null(at_each_look);
    assert_non_null(strstr(kms_error_public(&site.err, KMS_FAILED_PRECONDITION), "must put it there first"));
    assert_int_equal(found(NULL, 0), TARGETS);
    assert_int_equal(found(&tenant.uuid, 1), 0);
}

static unsigned findings;

static void count_finding(void *context, const char *text)
{
    (void)context;
    assert_non_null(strstr(text, "capsule"));
    findings++;
}

static unsigned findings_in(size_t target)
{
    findings = 0;
    must(ops_escrow_check_target(site.escrow, site.targets[target], count_finding, NULL, &site.err));
    return findings;
}

static void a_target_is_checked_file_by_file(void **state)
{
    (void)state;
    struct kms_tenant_record one;
    struct kms_tenant_record two;
    (void)enroll();
    must(create("one", &one));
    must(create("two", &two));
    (void)pass();
    assert_int_equal(findings_in(0), 0);
    char other[256];
    (void)snprintf(other, sizeof other, "%s", capsule(0, &two.uuid, 1));
    assert_int_equal(rename(capsule(0, &one.uuid, 1), other), 0);
    assert_int_equal(findings_in(0), 2); /* one is missing, one is another's */
    touch(capsule(1, NULL, 0));
    assert_int_equal(findings_in(1), 1);
    close_escrow();
    open_escrow(); /* the first pass reads what it finds */
    assert_int_equal(pass().missing, 0);
    assert_int_equal(findings_in(0) + findings_in(1), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(without_a_recovery_key_nothing_is_written),
        TEST(what_is_missing_is_made_and_what_is_old_goes),
        TEST(a_key_that_was_enrolled_meanwhile_undoes_the_batch),
        TEST(a_master_key_that_can_never_leave_is_not_covered),
        TEST(the_capsule_of_a_tenant_that_is_just_being_made_stays),
        TEST(a_recovery_key_that_is_gone_from_the_token_stops_batches_and_is_told),
        TEST(nothing_is_removed_while_the_store_cannot_be_read),
        TEST(a_target_is_checked_file_by_file),
        TEST(under_a_key_that_was_retired_meanwhile_nothing_is_made),
        TEST(an_enrolment_that_is_resumed_behind_the_retirement_of_its_key_fails),
        TEST(an_enrolment_whose_key_is_lost_from_the_token_in_the_middle_says_so),
    };
    return cmocka_run_group_tests_name("ops/escrow", tests, NULL, NULL);
}
