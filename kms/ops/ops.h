/*
 * Purpose:   the operations of the service, one function for each RPC method, and the commit of a group of
 *            them.
 * Owns:      nothing; a kms_ops points to the parts that the daemon has opened.
 * Threads:   every operation from any thread; a thread's operations and their kms_ops_commit_...() run on that
 *            same thread.
 * Never:     knows of gRPC, SQL or PKCS#11; lets a reply be sent that is not in the audit log.
 *
 * Every function `kms_ops_*` below has the same shape (it is a kms_rpc_handler): `context` is the struct
 * kms_ops, `request` is the message of the method's request type, `*ret_reply` is allocated in call->arena
 * and set on success only. What a method does, needs and answers is written in proto/kms/v1/.
 */
#ifndef KMS_OPS_OPS_H
#define KMS_OPS_OPS_H

#include "audit/checkpoints.h"
#include "auth/auth.h"
#include "core/call.h"
#include "detect/detect.h"
#include "keys/keys.h"
#include "keys/rekey.h"

#include <protobuf-c/protobuf-c.h>

enum {
    KMS_OPS_BATCH_MAX = 1000,   /* items of a batch */
    KMS_OPS_PAGE_DEFAULT = 100, /* items of a page when the caller does not say */
    KMS_OPS_PAGE_MAX = 1000,
    KMS_OPS_BATCH_PURPOSES_MAX = 16 /* purposes whose KEKs a batch of new customers makes at once */
};

/** Counters of the layer above, which ops cannot ask itself. */
struct kms_ops_call_stats {
    bool serving;
    uint64_t calls, messages, failed, refused_over_limit, live;
};

struct kms_ops_runner;     /* ops/runner.h */
struct ops_escrow;         /* ops/escrow.h */
struct ops_shred;          /* ops/shred_state.h */
struct ops_operation_kind; /* ops/operation.h */

/** Where scheduled rotation goes on; zero-initialised: at the start. */
struct ops_rotation {
    char tenant[KMS_TENANT_ID_MAX + 1]; /* the last one that was looked through */
    bool under_way;                     /* `current` is being looked through */
    struct kms_tenant_record current;
    struct kms_rotation_cursor cursor;
};

struct kms_backup; /* backup/backup.h */

/** How backups are to be made; the last two members are the tick's own. */
struct kms_ops_backup_settings {
    bool sync;           /* a reply waits until one target has what was committed */
    uint32_t keep_bases; /* when pruning */
    uint32_t base_hours; /* between bases that the service makes by itself; 0: none */
    int64_t started_ns;
    bool told_failing[8], told_refusing;
};

/** Bounds of operations; 0: 1,000, 250 and ten years. */
struct kms_ops_operation_settings {
    uint32_t unfinished; /* requesters must not fill the database with what nobody approves */
    uint32_t
        unfinished_of_one; /* requester, who must not stop what others ask for: a change of the policy, an unfreeze */
    int64_t kept_ns; /* finished ones, with their approvals */
};

struct kms_ops {
    struct kms_hsm *hsm;
    struct kms_store *store;
    struct kms_keys *keys;
    struct kms_audit *audit;
    struct kms_audit_checkpoints *checkpoints;
    struct kms_audit_outbox *outbox;
    struct kms_auth *auth;
    struct kms_detect *detect; /* sees what the audit log sees; NULL: nobody looks */
    const char *version;
    int64_t start_wall_ns;
    void (*call_stats)(void *context, struct kms_ops_call_stats *ret_stats); /* may be NULL */
    void *call_stats_context;
    const struct ops_operation_kind *const *kinds; /* ended by NULL: what operations can do */
    const char *client_ca_path;                    /* PEM: whose certificates may approve */
    struct kms_ops_operation_settings operation_settings;
    struct kms_backup *backup; /* NULL: no targets are configured */
    struct kms_ops_backup_settings backup_settings;
    struct kms_ops_runner *runner; /* set by kms_ops_runner_start() */
    struct ops_shred *shred;       /* ops/shred_state.h */
    struct ops_escrow *escrow;     /* NULL: recovery keys are not turned on */
    bool told_capsules;            /* the alert about capsules is out; the tick's own */
    struct ops_rotation rotation;  /* the runner's thread */
};

/**
 * End the group of operations that this thread has run: their reservations of wraps are durable when begin returns, their audit
 * records when finish does. No reply of the group may leave before, and every reply must become this failure if either fails.
 * Together they are a struct kms_rpc_commit.
 */
enum kms_status kms_ops_commit_begin(void *context, uint64_t *ret_ticket, struct kms_error *err) KMS_MUST_USE;
bool kms_ops_commit_is_done(void *context, uint64_t ticket);
enum kms_status kms_ops_commit_await(void *context, uint64_t ticket, int64_t ns, bool *ret_done,
                                     struct kms_error *err) KMS_MUST_USE;
enum kms_status kms_ops_commit_finish(void *context, uint64_t ticket, struct kms_error *err) KMS_MUST_USE;
/** Both, for a thread that has nothing else to do meanwhile. */
enum kms_status kms_ops_commit(struct kms_ops *ops, struct kms_error *err) KMS_MUST_USE;

/**
 * Note in the audit log a call that was refused before it reached an operation (no identity, malformed,
 * unknown method). Has the shape of a kms_rpc_refused.
 */
void kms_ops_refused(void *context, const struct kms_call *call, enum kms_status status);

#define KMS_OPS_METHODS(X)                                                                                   \
    X(generate_data_key)                                                                                     \
    X(batch_generate_data_key)                                                                               \
    X(stream_generate_data_key)                                                                              \
    X(wrap_data_key)                                                                                         \
    X(batch_wrap_data_key)                                                                                   \
    X(stream_wrap_data_key)                                                                                  \
    X(unwrap_data_key)                                                                                       \
    X(batch_unwrap_data_key)                                                                                 \
    X(stream_unwrap_data_key)                                                                                \
    X(rewrap_data_key)                                                                                       \
    X(batch_rewrap_data_key)                                                                                 \
    X(stream_rewrap_data_key)                                                                                \
    X(create_tenant)                                                                                         \
    X(get_tenant)                                                                                            \
    X(list_tenants)                                                                                          \
    X(update_tenant)                                                                                         \
    X(close_tenant)                                                                                          \
    X(create_purpose)                                                                                        \
    X(get_purpose)                                                                                           \
    X(list_purposes)                                                                                         \
    X(update_purpose)                                                                                        \
    X(close_purpose)                                                                                         \
    X(create_customer)                                                                                       \
    X(batch_create_customers)                                                                                \
    X(get_customer)                                                                                          \
    X(list_customers)                                                                                        \
    X(update_customer)                                                                                       \
    X(close_customer)                                                                                        \
    X(restrict_customer)                                                                                     \
    X(list_kek_versions)                                                                                     \
    X(get_server_status)                                                                                     \
    X(get_policy)                                                                                            \
    X(list_policies)                                                                                         \
    X(apply_policy)                                                                                          \
    X(rollback_policy)                                                                                       \
    X(check_permission)                                                                                      \
    X(create_freeze)                                                                                         \
    X(list_freezes)                                                                                          \
    X(unfreeze)                                                                                              \
    X(get_operation)                                                                                         \
    X(list_operations)                                                                                       \
    X(approve_operation)                                                                                     \
    X(reject_operation)                                                                                      \
    X(cancel_operation)                                                                                      \
    X(get_attestation_key)                                                                                   \
    X(create_shred_job)                                                                                      \
    X(add_shred_targets)                                                                                     \
    X(request_shred)                                                                                         \
    X(cancel_shred)                                                                                          \
    X(get_shred_job)                                                                                         \
    X(list_shred_jobs)                                                                                       \
    X(list_shred_targets)                                                                                    \
    X(get_shred_status)                                                                                      \
    X(confirm_shred_clock)                                                                                   \
    X(get_shred_clock)                                                                                       \
    X(place_hold)                                                                                            \
    X(release_hold)                                                                                          \
    X(list_holds)                                                                                            \
    X(get_certificate)                                                                                       \
    X(list_certificates)                                                                                     \
    X(rotate_master)                                                                                         \
    X(rotate_tree)                                                                                           \
    X(rotate_kek)                                                                                            \
    X(set_kek_version_state)                                                                                 \
    X(shred_kek_version)                                                                                     \
    X(create_backup)                                                                                         \
    X(verify_backups)                                                                                        \
    X(prune_backups)                                                                                         \
    X(list_backups)                                                                                          \
    X(get_backup_status)                                                                                     \
    X(get_recovery_status)                                                                                   \
    X(enroll_recovery_key)                                                                                   \
    X(retire_recovery_key)                                                                                   \
    X(record_recovery_drill)

#define KMS_OPS_DECLARE(name)                                                                                \
    enum kms_status kms_ops_##name(void *context, struct kms_call *call, const ProtobufCMessage *request,    \
                                   ProtobufCMessage **ret_reply) KMS_MUST_USE;
KMS_OPS_METHODS(KMS_OPS_DECLARE)
#undef KMS_OPS_DECLARE

#endif
