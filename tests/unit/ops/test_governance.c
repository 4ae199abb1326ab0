/*
 * The execution of policy changes, freezes and shreds: repeated after a crash it does nothing twice, a failing disk lets nobody in,
 * and an approval is good for what it was given for.
 */
#include "desk.h"

#include "core/clock.h"
#include "fake/fault_store.h"
#include "ops/freeze.h"
#include "ops/policy_store.h"
#include "ops/shred_job.h"

#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define CAROL "spiffe://kms.example/carol"

static const char changed[] = "version: 1\nbindings:\n"
                              "  - {identity: 'cn:a', role: admin, tenants: ['*']}\n"
                              "  - {identity: 'cn:b', role: approver, tenants: ['*']}\n"
                              "  - {identity: 'cn:c', role: approver, tenants: ['*']}\n";

/* One run of an operation of that uid, as the runner does it. */
static enum kms_status execute(struct desk *desk, const struct ops_operation_kind *kind, struct kms_uuid uuid,
                               json_t *parameters, struct kms_error *err)
{
    struct kms_operation_record record = {.uuid = uuid, .requester = CAROL};
    struct ops_operation operation = {.kind = kind, .record = &record, .parameters = parameters};
    char *result = NULL;
    *err = (struct kms_error){0};
    const enum kms_status status = kind->execute(&desk->ops, &operation, &result, err);
    free(result);
    json_decref(parameters);
    return status;
}

static json_t *change(uint64_t base, const char *document)
{
    return json_pack("{s:I, s:s, s:s}", "base_version", (json_int_t)base, "comment", "", "document",
                     document);
}

static uint64_t newest(struct desk *desk)
{
    uint64_t version = 99;
    assert_int_equal(ops_policy_newest(desk->ops.store, &version, NULL), KMS_OK);
    return version;
}

static bool may_read(struct desk *desk, const char *name)
{
    char text[200];
    return kms_auth_explain(desk->ops.auth, name, KMS_ACTION_CUSTOMER_READ, "acme", NULL, text, sizeof text);
}

static void a_change_that_runs_again_after_a_crash_is_made_once(void **state)
{
    struct desk *desk = *state;
    struct kms_error err;
    const struct kms_uuid uuid = kms_uuid_random();
    assert_int_equal(execute(desk, &ops_policy_apply_kind, uuid, change(0, changed), &err), KMS_OK);
    assert_int_equal(execute(desk, &ops_policy_apply_kind, uuid, change(0, changed), &err), KMS_OK);
    assert_int_equal(newest(desk), 1);
    assert_false(may_read(desk, CAROL)); /* the desk's own policy had allowed it */
    assert_int_equal(desk_audited(desk, "policy.install"), 2);
}

static void a_change_made_from_another_version_fails_for_good(void **state)
{
    struct desk *desk = *state;
    struct kms_error err;
    assert_int_equal(execute(desk, &ops_policy_apply_kind, kms_uuid_random(), change(0, changed), &err),
                     KMS_OK);
    const enum kms_status status =
        execute(desk, &ops_policy_apply_kind, kms_uuid_random(), change(0, changed), &err);
    assert_int_equal(status, KMS_FAILED_PRECONDITION);
    assert_false(kms_status_retryable(status)); /* it would be tried for ever */
    assert_non_null(strstr(err.public_text, "version 1 of the policy is in force, not 0"));
    assert_int_equal(newest(desk), 1);
}

static void a_change_is_checked_again_when_it_runs(void **state)
{
    struct desk *desk = *state;
    struct kms_error err;
    static const char *const bad[] = {"version: 1\nbindings: []\n", "version: 1\nbindings: [x]\n", ""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const enum kms_status status =
            execute(desk, &ops_policy_apply_kind, kms_uuid_random(), change(0, bad[i]), &err);
        assert_int_equal(status, KMS_CONFIG_INVALID);
        assert_string_not_equal(err.public_text, "");
    }
    assert_int_equal(execute(desk, &ops_policy_apply_kind, kms_uuid_random(), json_object(), &err),
                     KMS_FAILED_PRECONDITION);
    assert_int_equal(newest(desk), 0);
    assert_true(may_read(desk, CAROL));
}

static void whatever_fails_in_the_store_the_old_policy_stays(void **state)
{
    struct desk *desk = *state;
    struct kms_error err;
    const struct kms_uuid uuid = kms_uuid_random();
    for (unsigned n = 1;; n++) {
        kms_fault_store_fail_after(desk->ops.store, n, KMS_STORE_UNAVAILABLE);
        const enum kms_status status = execute(desk, &ops_policy_apply_kind, uuid, change(0, changed), &err);
        const bool pending = kms_fault_store_failure_is_pending(desk->ops.store);
        kms_fault_store_fail_after(desk->ops.store, 0, KMS_OK);
        if (pending) {
            assert_int_equal(status, KMS_OK);
            assert_true(n > 5);
            break;
        }
        assert_int_equal(status, KMS_STORE_UNAVAILABLE);
        assert_true(may_read(desk, CAROL));
    }
    assert_int_equal(newest(desk), 1);
    assert_false(may_read(desk, CAROL));
}

static void a_document_changed_in_the_database_is_not_put_in_force(void **state)
{
    struct desk *desk = *state;
    struct kms_error err;
    assert_int_equal(execute(desk, &ops_policy_apply_kind, kms_uuid_random(), change(0, changed), &err),
                     KMS_OK);
    desk_sql(desk, "UPDATE policy SET document = CAST(document || ' ' AS BLOB)");
    struct kms_policy_record policy = {0};
    assert_int_equal(ops_policy_get(desk->ops.store, 1, &policy, &err), KMS_STORE_CORRUPT);
    assert_null(policy.document);
}

static void the_service_freezes_an_identity_once_and_for_the_next_start(void **state)
{
    struct desk *desk = *state;
    struct kms_error err = {0};
    assert_true(may_read(desk, CAROL));
    assert_int_equal(ops_freeze_identity(&desk->ops, CAROL, "too many denials", &err), KMS_OK);
    assert_int_equal(ops_freeze_identity(&desk->ops, CAROL, "again", &err), KMS_OK);
    assert_false(may_read(desk, CAROL));
    const struct kms_auth_frozen frozen = {KMS_AUTH_IDENTITY, "", CAROL, ""};
    kms_auth_unfreeze(desk->ops.auth, &frozen); /* a start begins with nothing in memory */
    assert_true(may_read(desk, CAROL));
    assert_int_equal(ops_freezes_load(desk->ops.store, desk->ops.auth, &err), KMS_OK);
    assert_false(may_read(desk, CAROL));
    char long_name[400];
    memset(long_name, 'x', sizeof long_name);
    long_name[sizeof long_name - 1] = '\0';
    assert_int_equal(ops_freeze_identity(&desk->ops, long_name, "", &err), KMS_INVALID_ARGUMENT);
}

static void a_freeze_counts_even_when_it_cannot_be_stored(void **state)
{
    struct desk *desk = *state;
    for (unsigned n = 1; n <= 3; n++) { /* begin, insert, commit */
        struct kms_error err = {0};
        char name[32];
        (void)snprintf(name, sizeof name, "cn:attacker-%u", n);
        kms_fault_store_fail_after(desk->ops.store, n, KMS_STORE_FULL);
        assert_int_equal(ops_freeze_identity(&desk->ops, name, "why", &err), KMS_STORE_FULL);
        assert_non_null(strstr(err.public_text, "it is frozen, but"));
        struct kms_auth_stats stats;
        kms_auth_stats(desk->ops.auth, &stats);
        assert_int_equal(stats.frozen[KMS_AUTH_IDENTITY], n);
    }
}

/* The first freeze that is stored. */
static enum kms_status take_freeze(void *context, const struct kms_freeze_record *freeze)
{
    *(struct kms_freeze_record *)context = *freeze;
    return KMS_CANCELLED;
}

/* The parameters of an operation that ends the freeze of an identity as it is stored now. */
static json_t *thaw(struct desk *desk, const char *name)
{
    struct kms_freeze_record freeze = {0};
    char time[KMS_TIME_TEXT_SIZE];
    KMS_TXN txn = {0};
    assert_int_equal(kms_txn_begin(desk->database, false, &txn, NULL), KMS_OK);
    (void)!desk->database->ops->freeze.list(txn.txn, NULL, 1, take_freeze, &freeze, NULL);
    return json_pack("{s:s, s:s, s:s, s:s}", "frozen_at", kms_clock_format(freeze.created_ns, time), "name",
                     name, "scope", "identity", "tenant", "");
}

static void what_cannot_be_stored_does_not_end_a_freeze(void **state)
{
    struct desk *desk = *state;
    struct kms_error err = {0};
    assert_int_equal(ops_freeze_identity(&desk->ops, CAROL, "why", &err), KMS_OK);
    for (unsigned n = 1; n <= 3; n++) {
        kms_fault_store_fail_after(desk->ops.store, n, KMS_STORE_UNAVAILABLE);
        assert_int_equal(execute(desk, &ops_unfreeze_kind, kms_uuid_random(), thaw(desk, CAROL), &err),
                         KMS_STORE_UNAVAILABLE);
        assert_false(may_read(desk, CAROL));
    }
    json_t *parameters = thaw(desk, CAROL);
    assert_int_equal(execute(desk, &ops_unfreeze_kind, kms_uuid_random(), json_incref(parameters), &err),
                     KMS_OK);
    assert_true(may_read(desk, CAROL));
    assert_int_equal(execute(desk, &ops_unfreeze_kind, kms_uuid_random(), parameters, &err),
                     KMS_OK); /* again */
}

static void what_was_approved_for_one_freeze_does_not_end_the_next(void **state)
{
    struct desk *desk = *state;
    struct kms_error err = {0};
    assert_int_equal(ops_freeze_identity(&desk->ops, CAROL, "a trifle", &err), KMS_OK);
    json_t *first = thaw(desk, CAROL);
    json_t *second = json_incref(first); /* requested and approved twice */
    assert_int_equal(execute(desk, &ops_unfreeze_kind, kms_uuid_random(), first, &err), KMS_OK);
    desk_later(1);
    assert_int_equal(ops_freeze_identity(&desk->ops, CAROL, "a theft", &err), KMS_OK);
    const enum kms_status status =
        execute(desk, &ops_unfreeze_kind, kms_uuid_random(), json_incref(second), &err);
    assert_int_equal(status, KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(err.public_text, "frozen again"));
    assert_false(may_read(desk, CAROL));

    /* nor one of which only the memory knows, because the disk failed */
    assert_int_equal(execute(desk, &ops_unfreeze_kind, kms_uuid_random(), thaw(desk, CAROL), &err), KMS_OK);
    kms_fault_store_fail_after(desk->ops.store, 1, KMS_STORE_FULL);
    assert_int_equal(ops_freeze_identity(&desk->ops, CAROL, "a theft", &err), KMS_STORE_FULL);
    assert_int_equal(execute(desk, &ops_unfreeze_kind, kms_uuid_random(), second, &err), KMS_OK);
    assert_false(may_read(desk, CAROL));
}

/* A store in which something else happens, once, right before a write begins or right after it is durable. */
static struct {
    struct desk *desk;
    const struct kms_store_ops *real;
    void (*before)(struct desk *desk);
    void (*after)(struct desk *desk);
} between;

static enum kms_status begin_between(struct kms_store *store, bool write, struct kms_store_txn **ret_txn,
                                     struct kms_error *err)
{
    void (*before)(struct desk * desk) = write ? between.before : NULL;
    if (before != NULL) {
        between.before = NULL;
        before(between.desk);
    }
    return between.real->begin(store, write, ret_txn, err);
}

static enum kms_status commit_between(struct kms_store_txn *txn, struct kms_error *err)
{
    const enum kms_status status = between.real->commit(txn, err);
    void (*after)(struct desk * desk) = between.after;
    if (after != NULL) {
        between.after = NULL;
        after(between.desk);
    }
    return status;
}

static void freeze_carol(struct desk *desk)
{
    assert_int_equal(ops_freeze_identity(&desk->ops, CAROL, "a theft", NULL), KMS_OK);
}

static void unfreeze_carol(struct desk *desk)
{
    struct kms_error err;
    assert_int_equal(execute(desk, &ops_unfreeze_kind, kms_uuid_random(), thaw(desk, CAROL), &err), KMS_OK);
}

static void a_freeze_that_meets_the_end_of_the_one_before_counts(void **state)
{
    struct desk *desk = *state;
    static struct kms_store_ops ops;
    struct kms_error err = {0};
    ops = *desk->ops.store->ops;
    ops.begin = begin_between;
    ops.commit = commit_between;
    between.desk = desk;
    between.real = desk->ops.store->ops;
    desk->ops.store->ops = &ops;
    freeze_carol(desk);

    between.after = freeze_carol; /* the end of the first is durable, and not in memory yet */
    unfreeze_carol(desk);
    assert_false(may_read(desk, CAROL));

    between.before = unfreeze_carol; /* the freeze is in memory, and not stored yet */
    freeze_carol(desk);
    assert_false(may_read(desk, CAROL));
    assert_int_equal(ops_freeze_identity(&desk->ops, CAROL, "again", &err), KMS_OK);
    desk->ops.store->ops = between.real;
}

/* A shred job of a new tenant, with no customers in it. */
static struct kms_shred_job_record put_job(struct desk *desk, enum kms_shred_job_state state)
{
    const struct kms_tenant_record tenant = {.uuid = kms_uuid_random(),
                                             .id = "acme",
                                             .state = KMS_TENANT_ACTIVE,
                                             .epoch = 1,
                                             .revision = 1,
                                             .created_ns = 1,
                                             .updated_ns = 1};
    const struct kms_shred_job_record job = {.uid = kms_uuid_random(),
                                             .tenant = tenant.uuid,
                                             .origin = KMS_SHRED_BY_OPERATOR,
                                             .state = state,
                                             .requested_by = CAROL,
                                             .requested_ns = kms_clock_wall_ns(),
                                             .window_seconds = 3600};
    KMS_TXN txn = {0};
    assert_int_equal(kms_txn_begin(desk->database, true, &txn, NULL), KMS_OK);
    assert_int_equal(desk->database->ops->tenant_insert(txn.txn, &tenant, NULL), KMS_OK);
    assert_int_equal(desk->database->ops->shred.job_put(txn.txn, &job, NULL), KMS_OK);
    assert_int_equal(kms_txn_commit(&txn, NULL), KMS_OK);
    return job;
}

static void a_job_that_is_a_draft_again_is_not_what_was_approved(void **state)
{
    struct desk *desk = *state;
    struct kms_error err = {0};
    char uid[KMS_UUID_TEXT_SIZE];
    const struct kms_shred_job_record job = put_job(desk, KMS_SHRED_JOB_DRAFT);
    assert_int_equal(ops_shred_new(desk->ops.store, &desk->ops.shred, &err), KMS_OK);
    json_t *parameters = json_pack("{s:s}", "job", kms_uuid_format(&job.uid, uid));
    const enum kms_status status = execute(desk, &ops_shred_kind, kms_uuid_random(), parameters, &err);
    ops_shred_free(KMS_TAKE(desk->ops.shred));
    assert_int_equal(status, KMS_FAILED_PRECONDITION);
    assert_non_null(strstr(err.public_text, "draft again"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_setup, desk_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_change_that_runs_again_after_a_crash_is_made_once),
        TEST(a_change_made_from_another_version_fails_for_good),
        TEST(a_change_is_checked_again_when_it_runs),
        TEST(whatever_fails_in_the_store_the_old_policy_stays),
        TEST(a_document_changed_in_the_database_is_not_put_in_force),
        TEST(the_service_freezes_an_identity_once_and_for_the_next_start),
        TEST(a_freeze_counts_even_when_it_cannot_be_stored),
        TEST(what_cannot_be_stored_does_not_end_a_freeze),
        TEST(what_was_approved_for_one_freeze_does_not_end_the_next),
        TEST(a_freeze_that_meets_the_end_of_the_one_before_counts),
        TEST(a_job_that_is_a_draft_again_is_not_what_was_approved),
    };
    return cmocka_run_group_tests_name("governance", tests, NULL, NULL);
}
