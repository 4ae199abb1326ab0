#include "daemon/policy.h"

#include "core/clock.h"
#include "core/file.h"
#include "daemon/records.h"
#include "daemon/seals.h"
#include "ops/policy_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

/* Who the audit log and the history name for what the daemon does by its configuration. */
#define SERVICE_IDENTITY "service:configuration"

/* A policy that is being put in force, and where it comes from. */
struct origin {
    struct kms_policy_record stored; /* version 0: not from the store */
    struct kms_buf text;             /* file, or made for the first administrator */
    bool import;                     /* becomes version 1 */
    char name[512];
};

static void origin_clear(struct origin *origin)
{
    kms_policy_record_clear(&origin->stored);
    kms_buf_clear(&origin->text);
}

/* A policy in which the first administrator may do what an admin may, alone: there is nobody yet to approve. */
static enum kms_status make_bootstrap(const char *identity, struct origin *origin, struct kms_error *err)
{
    if (strpbrk(identity, "\"\\") != NULL)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "bootstrap_admin: '%.80s' is not an identity",
                               identity);
    (void)snprintf(origin->name, sizeof origin->name, "bootstrap_admin");
    return kms_buf_printf(&origin->text,
                          "version: 1\nbindings:\n  - {identity: \"%s\", role: admin, tenants: [\"*\"]}\n"
                          "approvals: {policy: 0}\n",
                          identity);
}

/* What the configuration says, for a store without a policy. */
static enum kms_status from_config(const struct kms_config *config, struct origin *origin,
                                   struct kms_error *err)
{
    if (config->policy != NULL) {
        origin->import = true;
        (void)snprintf(origin->name, sizeof origin->name, "%s", config->policy);
        return kms_file_read(config->policy, KMS_POLICY_DOCUMENT_MAX, &origin->text, err);
    }
    if (config->bootstrap_admin != NULL)
        return make_bootstrap(config->bootstrap_admin, origin, err);
    return kms_fail_public(err, KMS_CONFIG_INVALID,
                           "there is no policy yet: set bootstrap_admin (who may apply the first one) or "
                           "policy (a file to begin with) in the configuration");
}

/* The file is not read any more once the store has a policy: say so when somebody seems to expect it. */
static void compare_with_file(const struct kms_config *config, const struct kms_policy_record *stored)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf file = {0};
    if (config->policy == NULL || access(config->policy, R_OK) != 0 ||
        kms_file_read(config->policy, KMS_POLICY_DOCUMENT_MAX, &file, NULL) != KMS_OK)
        return;
    if (!kms_slice_equal(kms_buf_slice(&file), kms_slice_of(stored->document, stored->document_len)))
        kms_log_warning("daemon",
                        "%s is not the policy in force, which is version %" PRIu64
                        " in the database; the file is not read any more: use kmsctl policy diff and apply",
                        config->policy, stored->version);
}

/* Where the policy comes from. */
static enum kms_status find_policy(const struct kms_config *config, struct kms_store *store,
                                   struct origin *origin, struct kms_error *err)
{
    struct kms_error none = {0};
    const enum kms_status status = ops_policy_get(store, 0, &origin->stored, &none);
    if (status == KMS_NOT_FOUND)
        return from_config(config, origin, err);
    if (status != KMS_OK) {
        *err = none;
        return status;
    }
    (void)snprintf(origin->name, sizeof origin->name, "policy version %" PRIu64, origin->stored.version);
    compare_with_file(config, &origin->stored);
    return KMS_OK;
}

/* An auth with this policy and the configured CRL. */
static enum kms_status make_auth(const struct kms_config *config, const struct origin *origin,
                                 struct kms_auth **ret_auth, struct kms_error *err)
{
    const bool stored = origin->stored.version > 0;
    const struct kms_auth_config auth = {
        .policy = {.name = origin->name,
                   .text = stored ? kms_slice_of(origin->stored.document, origin->stored.document_len)
                                  : kms_buf_slice(&origin->text),
                   .version = origin->import ? 1 : origin->stored.version},
        .crl_path = config->tls.crl,
        .client_ca_path = config->tls.client_ca,
    };
    return kms_auth_new(&auth, ret_auth, err);
}

/* A record of what was done to the policy, durable when this returns OK. */
static enum kms_status record(struct kms_audit *audit, const char *type, const char *action,
                              const struct kms_policy_record *policy, const char *reason,
                              struct kms_error *err)
{
    char hex[2 * KMS_POLICY_DIGEST_SIZE + 1];
    char detail[160];
    kms_hex_encode(policy->sha256, sizeof policy->sha256, hex);
    (void)snprintf(detail, sizeof detail, "{\"policy_version\":%" PRIu64 ",\"policy_sha256\":\"%s\"}",
                   policy->version, hex);
    const struct kms_audit_event event = {.type = type,
                                          .action = action,
                                          .identity = SERVICE_IDENTITY,
                                          .outcome = kms_status_name(KMS_OK),
                                          .reason = reason,
                                          .detail_json = detail};
    KMS_TRY(kms_audit_append(audit, &event, err));
    return kms_audit_commit(audit, err);
}

/* A document as the version after `base`. */
static enum kms_status store_version(struct kms_store *store, uint64_t base, const struct kms_buf *text,
                                     const char *comment, struct kms_policy_record *ret_policy,
                                     struct kms_error *err)
{
    struct kms_policy_record policy = {.identity = SERVICE_IDENTITY,
                                       .created_ns = kms_clock_wall_ns(),
                                       .document = text->data,
                                       .document_len = text->len};
    (void)snprintf(policy.comment, sizeof policy.comment, "%s", comment);
    uint64_t version = 0;
    KMS_TRY(ops_policy_insert(store, base, &policy, &version, err));
    policy.document = NULL;
    *ret_policy = policy;
    return KMS_OK;
}

/* The file as version 1. */
static enum kms_status import(const struct origin *origin, struct kms_store *store, struct kms_audit *audit,
                              struct kms_error *err)
{
    struct kms_policy_record policy;
    KMS_TRY(store_version(store, 0, &origin->text, "the file that the configuration names", &policy, err));
    kms_log_info("daemon",
                 "%s is version 1 of the policy now; the file is not read any more: use kmsctl policy",
                 origin->name);
    return record(audit, "call", "policy.import", &policy, NULL, err);
}

/* A policy that nobody can change was always possible as a file: it may serve, but the operator must know. */
static void warn_if_locked(struct kms_auth *auth)
{
    struct kms_error err = {0};
    const enum kms_status status = kms_auth_check_governable(auth, &err);
    if (status != KMS_OK)
        kms_log_warning("daemon", "%s; with the daemon stopped: kmsd --replace-policy FILE",
                        kms_error_public(&err, status));
}

enum kms_status kms_daemon_auth_open(const struct kms_config *config, struct kms_store *store,
                                     struct kms_audit *audit, struct kms_auth **ret_auth,
                                     struct kms_error *err)
{
    KMS_CLEANUP(origin_clear) struct origin origin = {0};
    struct kms_auth *auth = NULL;
    KMS_TRY(find_policy(config, store, &origin, err));
    KMS_TRY(make_auth(config, &origin, &auth, err));
    enum kms_status status = KMS_OK;
    if (origin.import)
        status = import(&origin, store, audit, err);
    else if (origin.stored.version > 0)
        status = record(audit, "call", "policy.load", &origin.stored, NULL, err);
    else
        kms_log_warning("daemon", "there is no policy yet: only %s may do something",
                        config->bootstrap_admin);
    if (status == KMS_OK)
        status = ops_freezes_load(store, auth, err);
    if (status != KMS_OK) {
        kms_auth_free(auth);
        return status;
    }
    warn_if_locked(auth);
    *ret_auth = auth;
    return KMS_OK;
}

enum kms_status kms_daemon_auth_check(const struct kms_config *config, struct kms_error *err)
{
    KMS_CLEANUP(origin_clear) struct origin origin = {.name = "policy"};
    struct kms_auth *auth = NULL;
    if (config->policy == NULL && config->bootstrap_admin == NULL)
        KMS_TRY(kms_buf_printf(&origin.text,
                               "version: 1\nbindings: []\n")); /* the store has one, or the start says no */
    else
        KMS_TRY(from_config(config, &origin, err));
    KMS_TRY(make_auth(config, &origin, &auth, err));
    kms_auth_free(auth);
    return KMS_OK;
}

/* Collects the frozen identities of the store. */
static enum kms_status collect_identity(void *context, const struct kms_freeze_record *freeze)
{
    return freeze->scope == KMS_FREEZE_IDENTITY ? kms_buf_append(context, freeze, sizeof *freeze) : KMS_OK;
}

/* Whoever can write the database's files decides here: freezes of people would only keep the wrong ones out. */
static enum kms_status unfreeze_identities(struct kms_store *store, size_t *ret_count, struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf list = {0};
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(store, true, &txn, err));
    KMS_TRY(store->ops->freeze.list(txn.txn, NULL, SIZE_MAX, collect_identity, &list, err));
    const size_t count = list.len / sizeof(struct kms_freeze_record);
    for (size_t i = 0; i < count; i++) {
        struct kms_freeze_record freeze;
        memcpy(&freeze, list.data + i * sizeof freeze, sizeof freeze);
        KMS_TRY(store->ops->freeze.remove(txn.txn, freeze.scope, freeze.tenant, freeze.name, err));
    }
    KMS_TRY(kms_txn_commit(&txn, err));
    *ret_count = count;
    return KMS_OK;
}

/* The work of a replacement, with store and audit log open. */
static enum kms_status replace(struct kms_store *store, struct kms_audit *audit, const struct kms_buf *text,
                               const char *path, struct kms_error *err)
{
    struct kms_policy_record policy;
    uint64_t newest = 0;
    size_t unfrozen = 0;
    KMS_TRY(ops_policy_newest(store, &newest, err));
    KMS_TRY(store_version(store, newest, text, "replaced with the daemon stopped", &policy, err));
    KMS_TRY(unfreeze_identities(store, &unfrozen, err));
    char reason[128];
    (void)snprintf(reason, sizeof reason,
                   "the policy was replaced off-line, and %zu frozen identities unfrozen", unfrozen);
    KMS_TRY(record(audit, "alert", "policy.replace", &policy, reason, err));
    kms_log_warning("daemon", "%s is version %" PRIu64 " of the policy; %zu identities are unfrozen", path,
                    policy.version, unfrozen);
    return KMS_OK;
}

enum kms_status kms_daemon_policy_replace(const struct kms_config *config, const char *path,
                                          struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf text = {0};
    KMS_TRY(kms_file_read(path, KMS_POLICY_DOCUMENT_MAX, &text, err));
    const struct kms_auth_policy policy = {path, kms_buf_slice(&text), 0};
    KMS_TRY(kms_auth_check_policy(&policy, err));
    struct kms_seals seals = {0}; /* outlives the store */
    KMS_CLEANUP(kms_offline_close) struct kms_offline offline = {0};
    KMS_TRY(kms_offline_open(config, &offline, err));
    KMS_TRY(kms_seals_begin(&seals, offline.hsm, offline.audit, offline.store, false, err));
    return replace(offline.store, offline.audit, &text, path, err);
}
