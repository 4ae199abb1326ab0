/*
 * Purpose:   what the tests of operations stand on: a real database, audit log, policy and certificates, and kinds of operations that
 *            do what a test tells them.
 * Owns:      all of it, in a temporary directory.
 * Threads:   one, and the runner's two.
 * Never:     leaves files behind.
 *
 * People: carol requests (operator); dave and erin may approve. dave also has the identity dave-home, carol also carol-approver; the
 * policy knows that these are the same persons. mallory is bound to nothing.
 */
#ifndef TESTS_UNIT_OPS_DESK_H
#define TESTS_UNIT_OPS_DESK_H

#include "ops/operation.h"
#include "ops/runner.h"
#include "unit/rpc/certs.h"

#include "kms/v1/operation.pb-c.h"

#include <stdatomic.h>

struct desk {
    char directory[64];
    char policy[4096];
    struct kms_ops ops;
    struct kms_store *database; /* behind the fault store of ops */
    struct certs_ca ca;
    struct kms_arena *arena;      /* of calls; reset by each */
    struct kms_error error;       /* of the last call */
    char uid[KMS_UUID_TEXT_SIZE]; /* of the last operation requested */
};

/* What the test kinds do, and did. Set before the runner starts. */
struct desk_work {
    atomic_int runs;
    atomic_int again;              /* of these, with `again` */
    _Atomic(enum kms_status) fail; /* the next run fails with this; KMS_OK: it succeeds */
    atomic_bool hold; /* the run goes on, with progress 3 of 10, until this is false or the service stops */
    atomic_bool inside;
    atomic_int urgent_runs;
    atomic_bool urgent_beside; /* the urgent kind's last run saw another kind inside */
    const char *marks;         /* a file to which each run appends a byte; NULL: none */
};
extern struct desk_work desk_work;

/* "test.now" (no approvals), "test.one", "test.two", "test.again" (no approvals, resumable), "test.service", "test.urgent". */
extern const struct ops_operation_kind desk_now, desk_one, desk_two, desk_again, desk_service, desk_urgent;

/* cmocka's set-up and tear-down: everything but the runner, which a test starts. */
int desk_setup(void **state);
int desk_teardown(void **state);
/* Over a directory that exists: what an earlier process has left. */
struct desk *desk_open(const char *directory);
void desk_close(struct desk *desk);
void desk_remove(const char *directory);
void desk_start(struct desk *desk);
void desk_stop(struct desk *desk);
/* The wall clock jumps; undone by the tear-down. */
void desk_later(int64_t seconds);
/* Put another policy in force: `without` may not approve (carol: ask for anything) any more; NULL: as at the start. */
void desk_policy(struct desk *desk, const char *without);
/* Revoke the certificate that desk_issue() or the set-up made for `name`, and reload. */
void desk_revoke(struct desk *desk, const char *name);
/* A certificate and key <file>.pem, <file>.key for spiffe://kms.example/<name>. */
void desk_issue(struct desk *desk, const char *file, const char *name);
const char *desk_path(const struct desk *desk, const char *file, const char *suffix);

/* Calls by the identity whose certificate is in `who`.pem. The reply lives until the next call. */
enum kms_status desk_request(struct desk *desk, const char *who, const struct ops_operation_kind *kind,
                             const char *tenant);
enum kms_status desk_request_with(struct desk *desk, const char *who, const struct ops_operation_kind *kind,
                                  const char *tenant, json_t *parameters);
/* Under a request id. */
enum kms_status desk_request_under(struct desk *desk, const char *who, const struct ops_operation_kind *kind,
                                   const char *tenant, const char *request_id);
enum kms_status desk_get(struct desk *desk, const char *who, const char *uid,
                         Kms__V1__Operation **ret_operation);
enum kms_status desk_list(struct desk *desk, const char *who, const Kms__V1__ListOperationsRequest *request,
                          Kms__V1__ListOperationsResponse **ret_reply);
/* Sign the document as it is stored with <key>.key and approve as `who`. */
enum kms_status desk_approve(struct desk *desk, const char *who, const char *key, const char *uid);
/* Send exactly this. */
enum kms_status desk_approve_raw(struct desk *desk, const char *who, const char *uid, const char *digest,
                                 struct kms_slice signature);
enum kms_status desk_reject(struct desk *desk, const char *who, const char *uid, const char *reason);
enum kms_status desk_cancel(struct desk *desk, const char *who, const char *uid);
/* The operation as it is stored; clear it. */
struct kms_operation_record desk_stored(struct desk *desk, const char *uid);
/* Wait until the operation is in that state; fails the test after some seconds. */
void desk_await(struct desk *desk, const char *uid, enum kms_operation_state state);
/* Run SQL on the database, as somebody with access to the file would. */
void desk_sql(struct desk *desk, const char *sql);
/* Number of lines of the audit log with this text in them. */
unsigned desk_audited(struct desk *desk, const char *text);

#endif
