#define _GNU_SOURCE
#include "desk.h"

#include "core/clock.h"
#include "evidence/signature.h"
#include "fake/fault_store.h"
#include "store/sqlite.h"

#include "kms/v1/rotation.pb-c.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/pem.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum { ARENA = 8 << 20, PATIENCE_MS = 8000 };

struct desk_work desk_work;
static _Atomic int64_t offset_ns;

static int64_t wall_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * KMS_NS_PER_SECOND + now.tv_nsec + atomic_load(&offset_ns);
}

static int64_t mono_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * KMS_NS_PER_SECOND + now.tv_nsec;
}

static void short_pause(void)
{
    const struct timespec pause = {.tv_nsec = 5 * KMS_NS_PER_MS};
    (void)nanosleep(&pause, NULL);
}

/* The work of every test kind: what desk_work says. */
static enum kms_status work(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                            struct kms_error *err)
{
    (void)ops;
    assert_true(err == &operation->call->error);
    assert_string_equal(json_string_value(json_object_get(operation->parameters, "what")), "everything");
    atomic_fetch_add(&desk_work.runs, 1);
    atomic_fetch_add(&desk_work.again, operation->again);
    atomic_store(&desk_work.inside, true);
    if (desk_work.marks != NULL) {
        const int fd = open(desk_work.marks, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        assert_true(fd >= 0 && write(fd, "x", 1) == 1 && fsync(fd) == 0);
        (void)close(fd);
    }
    enum kms_status status = KMS_OK;
    while (atomic_load(&desk_work.hold) && (status = ops_operation_progress(operation, 3, 10)) == KMS_OK)
        short_pause();
    atomic_store(&desk_work.inside, false);
    KMS_TRY(status);
    status = atomic_exchange(&desk_work.fail, KMS_OK);
    if (status != KMS_OK)
        return kms_fail_public(err, status, "it did not want to");
    *ret_result = strdup("{\"did\":\"everything\"}");
    return KMS_OK;
}

/* The work of the urgent kind, which waits for nothing. */
static enum kms_status work_at_once(struct kms_ops *ops, struct ops_operation *operation, char **ret_result,
                                    struct kms_error *err)
{
    (void)ops;
    (void)err;
    atomic_fetch_add(&desk_work.urgent_runs, 1);
    atomic_store(&desk_work.urgent_beside, atomic_load(&desk_work.inside));
    (void)ops_operation_progress(operation, 1, 1);
    *ret_result = strdup("{}");
    return KMS_OK;
}

#define KIND(name_, approvals_, resumable_, service_)                                                        \
    {                                                                                                        \
        .name = (name_), .request = KMS_ACTION_TENANT_CLOSE, .approve = KMS_ACTION_POLICY_APPROVE,           \
        .approvals = (approvals_), .resumable = (resumable_), .service = (service_), .execute = work         \
    }
const struct ops_operation_kind desk_now = KIND("test.now", 0, false, false);
const struct ops_operation_kind desk_one = KIND("test.one", 1, false, false);
const struct ops_operation_kind desk_two = KIND("test.two", 2, false, false);
const struct ops_operation_kind desk_again = KIND("test.again", 0, true, false);
const struct ops_operation_kind desk_service = KIND("test.service", 2, true, true);
const struct ops_operation_kind desk_urgent = {.name = "test.urgent",
                                               .request = KMS_ACTION_TENANT_CLOSE,
                                               .approve = KMS_ACTION_POLICY_APPROVE,
                                               .urgent = true,
                                               .execute = work_at_once};
static const struct ops_operation_kind *const kinds[] = {&desk_now,     &desk_one,    &desk_two, &desk_again,
                                                         &desk_service, &desk_urgent, NULL};

const char *desk_path(const struct desk *desk, const char *file, const char *suffix)
{
    static char paths[4][160];
    static unsigned next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, sizeof paths[0], "%s/%s%s", desk->directory, file, suffix);
    return path;
}

void desk_issue(struct desk *desk, const char *file, const char *name)
{
    char uri[200];
    (void)snprintf(uri, sizeof uri, "spiffe://kms.example/%s", name);
    (void)certs_issue(&desk->ca, name, uri, 0, 7000, desk_path(desk, file, ".pem"),
                      desk_path(desk, file, ".key"));
}

/* The policy, which lives as long as the desk. */
static struct kms_auth_policy policy_of(struct desk *desk, const char *without)
{
    static const char *const approvers[] = {"dave", "erin", "dave-home", "carol-approver"};
    size_t len =
        (size_t)snprintf(desk->policy, sizeof desk->policy,
                         "version: 1\n"
                         "persons:\n"
                         "  - name: dave\n"
                         "    identities: [spiffe://kms.example/dave, spiffe://kms.example/dave-home]\n"
                         "  - name: carol\n"
                         "    identities: [spiffe://kms.example/carol, spiffe://kms.example/carol-approver]\n"
                         "approval_ttl: 10m\n"
                         "bindings:\n"
                         "  - {identity: spiffe://kms.example/olaf, role: operator, tenants: [other]}\n");
    if (without == NULL || strcmp(without, "carol") != 0)
        len +=
            (size_t)snprintf(desk->policy + len, sizeof desk->policy - len,
                             "  - {identity: spiffe://kms.example/carol, role: operator, tenants: [acme]}\n");
    for (size_t i = 0; i < sizeof approvers / sizeof approvers[0]; i++)
        if (without == NULL || strcmp(without, approvers[i]) != 0)
            len += (size_t)snprintf(
                desk->policy + len, sizeof desk->policy - len,
                "  - {identity: spiffe://kms.example/%s, role: approver, tenants: [\"*\"]}\n", approvers[i]);
    return (struct kms_auth_policy){"policy.yaml", kms_slice_str(desk->policy), 1};
}

void desk_policy(struct desk *desk, const char *without)
{
    struct kms_error err = {0};
    const struct kms_auth_policy policy = policy_of(desk, without);
    const enum kms_status status = kms_auth_set_policy(desk->ops.auth, &policy, &err);
    if (status != KMS_OK)
        fail_msg("policy: %s", kms_error_cause(&err, status));
}

/* The serial number of a certificate in a file. */
static long serial_of(const char *path)
{
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    X509 *certificate = PEM_read_X509(file, NULL, NULL, NULL);
    assert_non_null(certificate);
    (void)fclose(file);
    const long serial = ASN1_INTEGER_get(X509_get_serialNumber(certificate));
    X509_free(certificate);
    return serial;
}

void desk_revoke(struct desk *desk, const char *name)
{
    certs_write_crl(&desk->ca, serial_of(desk_path(desk, name, ".pem")), desk_path(desk, "ca", ".crl"));
    struct kms_error err = {0};
    const enum kms_status status = kms_auth_reload(desk->ops.auth, &err);
    if (status != KMS_OK)
        fail_msg("reload: %s", kms_error_cause(&err, status));
}

/* An authority, and certificates for everybody. */
static void make_certificates(struct desk *desk)
{
    static const char *const names[] = {"carol",          "dave",    "erin", "dave-home",
                                        "carol-approver", "mallory", "olaf"};
    desk->ca = certs_ca_new("desk CA", desk_path(desk, "ca", ".pem"));
    certs_write_crl(&desk->ca, 0, desk_path(desk, "ca", ".crl"));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        desk_issue(desk, names[i], names[i]);
}

/* The parts over the files. */
static void open_parts(struct desk *desk)
{
    struct kms_error err = {0};
    const struct kms_auth_config auth = {.policy = policy_of(desk, NULL),
                                         .crl_path = desk_path(desk, "ca", ".crl"),
                                         .client_ca_path = desk_path(desk, "ca", ".pem")};
    enum kms_status status = kms_auth_new(&auth, &desk->ops.auth, &err);
    if (status != KMS_OK)
        fail_msg("auth: %s", kms_error_cause(&err, status));
    const struct kms_store_sqlite_config store = {.path = desk_path(desk, "kms", ".db")};
    assert_int_equal(kms_store_sqlite_open(&store, &desk->database, &err), KMS_OK);
    desk->ops.store = kms_fault_store_new(desk->database);
    const struct kms_audit_config audit = {.directory = desk_path(desk, "audit", "")};
    status = kms_audit_open(&audit, &desk->ops.audit, &err);
    if (status != KMS_OK)
        fail_msg("audit: %s", kms_error_cause(&err, status));
    desk->ops.kinds = kinds;
    desk->ops.client_ca_path = strdup(desk_path(desk, "ca", ".pem"));
}

struct desk *desk_open(const char *directory)
{
    static const struct kms_clock_source source = {.wall_ns = wall_now, .mono_ns = mono_now};
    struct desk *desk = calloc(1, sizeof *desk);
    assert_non_null(desk);
    atomic_store(&offset_ns, 0);
    kms_clock_set_source(&source);
    desk_work = (struct desk_work){0};
    (void)snprintf(desk->directory, sizeof desk->directory, "%s", directory);
    assert_int_equal(kms_arena_new(ARENA, &desk->arena), KMS_OK);
    if (access(desk_path(desk, "ca", ".pem"), F_OK) != 0)
        make_certificates(desk);
    open_parts(desk);
    return desk;
}

void desk_close(struct desk *desk)
{
    desk_stop(desk);
    kms_audit_free(desk->ops.audit);
    kms_store_free(desk->ops.store);
    kms_auth_free(desk->ops.auth);
    kms_arena_free(desk->arena);
    certs_ca_clear(&desk->ca);
    char *ca_path = (char *)(uintptr_t)desk->ops.client_ca_path;
    free(ca_path);
    kms_clock_set_source(NULL);
    free(desk);
}

int desk_setup(void **state)
{
    char directory[] = "/tmp/kms-desk-XXXXXX";
    assert_non_null(mkdtemp(directory));
    *state = desk_open(directory);
    return 0;
}

/* Remove one entry of the test's own directory. */
static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)type;
    (void)ftw;
    return remove(path);
}

void desk_remove(const char *directory)
{
    (void)nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

int desk_teardown(void **state)
{
    struct desk *desk = *state;
    char directory[sizeof desk->directory];
    (void)strcpy(directory, desk->directory);
    desk_close(desk);
    desk_remove(directory);
    return 0;
}

void desk_start(struct desk *desk)
{
    struct kms_error err = {0};
    assert_int_equal(kms_ops_runner_start(&desk->ops, &err), KMS_OK);
}

void desk_stop(struct desk *desk)
{
    assert_true(kms_ops_runner_stop(&desk->ops));
}

void desk_later(int64_t seconds)
{
    atomic_fetch_add(&offset_ns, seconds * KMS_NS_PER_SECOND);
}

typedef enum kms_status (*method)(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                  ProtobufCMessage **ret_reply);

/* One call with the certificate of `who`; refuses strangers as the RPC layer would. */
static enum kms_status call_as(struct desk *desk, const char *who, method handler,
                               const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    kms_arena_reset(desk->arena);
    char *pem = certs_read(desk_path(desk, who, ".pem"));
    struct kms_call call = {.arena = desk->arena,
                            .method = "/kms.v1.OperationService/Test",
                            .peer = "unix:",
                            .request_id = "test",
                            .certificate = kms_slice_str(pem),
                            .deadline_mono_ns = INT64_MAX};
    enum kms_status status = kms_auth_identify(desk->ops.auth, call.certificate, &call.identity, &call.error);
    if (status == KMS_OK)
        status = handler(&desk->ops, &call, request, ret_reply);
    desk->error = call.error;
    struct kms_error err = {0};
    assert_int_equal(kms_ops_commit(&desk->ops, &err), KMS_OK);
    free(pem);
    return status;
}

/* A request on its way through the common code of control operations, as any method would make it. */
static struct {
    const struct ops_operation_kind *kind;
    const char *tenant;
    json_t *parameters;
} asked;

static enum kms_status request_body(struct ops_run *run, const ProtobufCMessage *request,
                                    ProtobufCMessage **ret_reply)
{
    json_t *parameters = asked.parameters;
    asked.parameters = NULL;
    enum kms_status status = ops_allow(run, asked.tenant, NULL);
    if (status == KMS_OK)
        status = ops_operation_repeated(run, request, ret_reply);
    if (status != KMS_OK || *ret_reply != NULL) {
        json_decref(parameters);
        return status;
    }
    return ops_operation_request(run, asked.kind, asked.tenant, parameters, 10, ret_reply);
}

static enum kms_status request_method(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, asked.kind->request, true, request_body, request, ret_reply);
}

/* Any message with a request id will do, if it is another one for another kind. */
static enum kms_status request_under(struct desk *desk, const char *who,
                                     const struct ops_operation_kind *kind, const char *tenant,
                                     json_t *parameters, const char *request_id)
{
    Kms__V1__RotateMasterRequest request = KMS__V1__ROTATE_MASTER_REQUEST__INIT;
    request.tenant = (char *)(uintptr_t)kind->name;
    request.request_id = (char *)(uintptr_t)request_id;
    asked.kind = kind;
    asked.tenant = tenant;
    asked.parameters = parameters;
    ProtobufCMessage *reply = NULL;
    KMS_TRY(call_as(desk, who, request_method, &request.base, &reply));
    (void)snprintf(desk->uid, sizeof desk->uid, "%s", ((Kms__V1__Operation *)reply)->uid);
    return KMS_OK;
}

enum kms_status desk_request_with(struct desk *desk, const char *who, const struct ops_operation_kind *kind,
                                  const char *tenant, json_t *parameters)
{
    return request_under(desk, who, kind, tenant, parameters, "");
}

enum kms_status desk_request_under(struct desk *desk, const char *who, const struct ops_operation_kind *kind,
                                   const char *tenant, const char *request_id)
{
    return request_under(desk, who, kind, tenant, json_pack("{s:s}", "what", "everything"), request_id);
}

enum kms_status desk_request(struct desk *desk, const char *who, const struct ops_operation_kind *kind,
                             const char *tenant)
{
    return desk_request_with(desk, who, kind, tenant, json_pack("{s:s}", "what", "everything"));
}

enum kms_status desk_get(struct desk *desk, const char *who, const char *uid,
                         Kms__V1__Operation **ret_operation)
{
    Kms__V1__GetOperationRequest request = KMS__V1__GET_OPERATION_REQUEST__INIT;
    request.uid = (char *)(uintptr_t)uid;
    return call_as(desk, who, kms_ops_get_operation, &request.base, (ProtobufCMessage **)ret_operation);
}

enum kms_status desk_list(struct desk *desk, const char *who, const Kms__V1__ListOperationsRequest *request,
                          Kms__V1__ListOperationsResponse **ret_reply)
{
    return call_as(desk, who, kms_ops_list_operations, &request->base, (ProtobufCMessage **)ret_reply);
}

enum kms_status desk_approve_raw(struct desk *desk, const char *who, const char *uid, const char *digest,
                                 struct kms_slice signature)
{
    Kms__V1__ApproveOperationRequest request = KMS__V1__APPROVE_OPERATION_REQUEST__INIT;
    request.uid = (char *)(uintptr_t)uid;
    request.digest = (char *)(uintptr_t)digest;
    request.signature = (ProtobufCBinaryData){signature.len, (uint8_t *)(uintptr_t)signature.data};
    ProtobufCMessage *reply = NULL;
    return call_as(desk, who, kms_ops_approve_operation, &request.base, &reply);
}

enum kms_status desk_approve(struct desk *desk, const char *who, const char *key, const char *uid)
{
    KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = desk_stored(desk, uid);
    uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX];
    size_t len = 0;
    char digest[65];
    struct kms_error err = {0};
    assert_int_equal(kms_signature_make(desk_path(desk, key, ".key"),
                                        kms_slice_of(operation.document, operation.document_len), signature,
                                        &len, &err),
                     KMS_OK);
    kms_hex_encode(operation.digest, sizeof operation.digest, digest);
    return desk_approve_raw(desk, who, uid, digest, kms_slice_of(signature, len));
}

enum kms_status desk_reject(struct desk *desk, const char *who, const char *uid, const char *reason)
{
    Kms__V1__RejectOperationRequest request = KMS__V1__REJECT_OPERATION_REQUEST__INIT;
    request.uid = (char *)(uintptr_t)uid;
    request.reason = (char *)(uintptr_t)reason;
    ProtobufCMessage *reply = NULL;
    return call_as(desk, who, kms_ops_reject_operation, &request.base, &reply);
}

enum kms_status desk_cancel(struct desk *desk, const char *who, const char *uid)
{
    Kms__V1__CancelOperationRequest request = KMS__V1__CANCEL_OPERATION_REQUEST__INIT;
    request.uid = (char *)(uintptr_t)uid;
    ProtobufCMessage *reply = NULL;
    return call_as(desk, who, kms_ops_cancel_operation, &request.base, &reply);
}

struct kms_operation_record desk_stored(struct desk *desk, const char *uid)
{
    struct kms_uuid uuid;
    struct kms_operation_record operation = {0};
    struct kms_error err = {0};
    assert_int_equal(kms_uuid_parse(uid, &uuid), KMS_OK);
    KMS_TXN txn = {0};
    assert_int_equal(kms_txn_begin(desk->database, false, &txn, &err), KMS_OK);
    assert_int_equal(desk->database->ops->operation.get(txn.txn, &uuid, &operation, &err), KMS_OK);
    return operation;
}

void desk_await(struct desk *desk, const char *uid, enum kms_operation_state state)
{
    const int64_t until = mono_now() + PATIENCE_MS * KMS_NS_PER_MS;
    for (;;) {
        KMS_CLEANUP(kms_operation_record_clear)
        struct kms_operation_record operation = desk_stored(desk, uid);
        if (operation.state == state)
            return;
        if (mono_now() > until)
            fail_msg("the operation is %s and not %s: %s", kms_operation_state_name(operation.state),
                     kms_operation_state_name(state), operation.reason);
        short_pause();
    }
}

void desk_sql(struct desk *desk, const char *sql)
{
    sqlite3 *db = NULL;
    char *message = NULL;
    assert_int_equal(sqlite3_open(desk_path(desk, "kms", ".db"), &db), SQLITE_OK);
    (void)sqlite3_busy_timeout(db, PATIENCE_MS);
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

unsigned desk_audited(struct desk *desk, const char *text)
{
    unsigned count = 0;
    DIR *directory = opendir(desk_path(desk, "audit", ""));
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strncmp(entry->d_name, "audit-", 6) != 0)
            continue;
        FILE *file = fopen(desk_path(desk, "audit/", entry->d_name), "re");
        assert_non_null(file);
        char *line = NULL;
        size_t room = 0;
        while (getline(&line, &room, file) > 0 && line[0] == '{')
            count += strstr(line, text) != NULL;
        free(line);
        (void)fclose(file);
    }
    (void)closedir(directory);
    return count;
}
