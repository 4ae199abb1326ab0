/* The state of the running service. */
#include "core/cleanup.h"
#include "evidence/signature.h"
#include "ops/backup_status.h"
#include "ops/messages.h"
#include "ops/run.h"

#include "kms/v1/server.pb-c.h"

/* What the token says of itself. */
static enum kms_status hsm_message(struct ops_run *run, Kms__V1__ServerStatus__Hsm **ret_message)
{
    struct kms_arena *arena = run->call->arena;
    struct kms_hsm_info info;
    run->ops->hsm->ops->info(run->ops->hsm, &info);
    Kms__V1__ServerStatus__Hsm *message = ops_message_new(arena, &kms__v1__server_status__hsm__descriptor);
    if (message == NULL)
        return KMS_NO_MEMORY;
    message->available = info.available;
    message->manufacturer = ops_string(arena, info.manufacturer);
    message->model = ops_string(arena, info.model);
    message->serial = ops_string(arena, info.serial);
    message->token_label = ops_string(arena, info.label);
    message->firmware = ops_string(arena, info.firmware);
    message->profile = ops_string(arena, info.profile);
    message->erase_class = kms_arena_printf(arena, "%c", info.erase_class);
    message->sessions_total = info.sessions_total;
    message->sessions_free = info.sessions_free;
    message->session_objects = info.session_objects;
    message->recoveries = info.recoveries;
    const bool whole = message->manufacturer != NULL && message->model != NULL && message->serial != NULL &&
                       message->token_label != NULL && message->firmware != NULL &&
                       message->profile != NULL && message->erase_class != NULL;
    *ret_message = message;
    return whole ? KMS_OK : KMS_NO_MEMORY;
}

/* Hits and misses of the handle caches, and what the keys module has done. */
static enum kms_status keys_into(struct ops_run *run, Kms__V1__ServerStatus *status)
{
    struct kms_keys_stats stats;
    kms_keys_stats(run->ops->keys, &stats);
    Kms__V1__ServerStatus__Cache *cache =
        ops_message_new(run->call->arena, &kms__v1__server_status__cache__descriptor);
    if (cache == NULL)
        return KMS_NO_MEMORY;
    cache->kek_hits = stats.kek_hits;
    cache->kek_misses = stats.kek_misses;
    cache->kek_evictions = stats.kek_evictions;
    cache->kek_cached = stats.kek_cached;
    cache->page_hits = stats.page_hits;
    cache->page_misses = stats.page_misses;
    cache->page_evictions = stats.page_evictions;
    cache->page_cached = stats.page_cached;
    cache->too_small = stats.cache_too_small;
    status->cache = cache;
    status->keks_created = stats.keks_created;
    status->wraps = stats.wraps;
    status->unwraps = stats.unwraps;
    return KMS_OK;
}

/* How far the log is signed, and whether checkpoints get out of the machine. */
static enum kms_status checkpoints_into(struct ops_run *run, Kms__V1__ServerStatus__Audit *message)
{
    struct kms_arena *arena = run->call->arena;
    struct kms_audit_checkpoints_status made = {0};
    struct kms_audit_outbox_status sent = {0};
    if (run->ops->checkpoints != NULL)
        kms_audit_checkpoints_status(run->ops->checkpoints, &made);
    if (run->ops->outbox != NULL)
        kms_audit_outbox_status(run->ops->outbox, &sent);
    message->checkpoint_seq = made.seq;
    message->checkpoint_time = made.wall_ns != 0 ? ops_timestamp(arena, made.wall_ns) : NULL;
    message->checkpoint_late = made.late;
    message->checkpoint_failure = ops_string(arena, made.failure);
    message->second_directory_failure = ops_string(arena, sent.failure);
    message->second_directory_waiting = sent.waiting;
    message->syslog_failure = ops_string(arena, sent.syslog_failure);
    const bool whole = (made.wall_ns == 0 || message->checkpoint_time != NULL) &&
                       message->checkpoint_failure != NULL && message->second_directory_failure != NULL &&
                       message->syslog_failure != NULL;
    return whole ? KMS_OK : KMS_NO_MEMORY;
}

/* How far the audit log is, and whether it fails. */
static enum kms_status audit_into(struct ops_run *run, Kms__V1__ServerStatus *status)
{
    struct kms_arena *arena = run->call->arena;
    struct kms_audit_status audit;
    kms_audit_status(run->ops->audit, &audit);
    Kms__V1__ServerStatus__Audit *message =
        ops_message_new(arena, &kms__v1__server_status__audit__descriptor);
    if (message == NULL)
        return KMS_NO_MEMORY;
    message->last_seq = audit.last_seq;
    message->durable_seq = audit.durable_seq;
    message->failing = audit.failing;
    message->failure = ops_string(arena, audit.failure);
    message->head_hash = ops_string(arena, audit.head_hash);
    status->audit = message;
    KMS_TRY(checkpoints_into(run, message));
    return message->failure != NULL && message->head_hash != NULL ? KMS_OK : KMS_NO_MEMORY;
}

/* The RPC layer's counters, through the daemon. */
static enum kms_status calls_into(struct ops_run *run, Kms__V1__ServerStatus *status)
{
    struct kms_ops_call_stats stats = {0};
    if (run->ops->call_stats != NULL)
        run->ops->call_stats(run->ops->call_stats_context, &stats);
    Kms__V1__ServerStatus__Calls *calls =
        ops_message_new(run->call->arena, &kms__v1__server_status__calls__descriptor);
    if (calls == NULL)
        return KMS_NO_MEMORY;
    calls->calls = stats.calls;
    calls->messages = stats.messages;
    calls->failed = stats.failed;
    calls->refused_over_limit = stats.refused_over_limit;
    calls->live = stats.live;
    status->calls = calls;
    status->serving = stats.serving;
    return KMS_OK;
}

/* Which policy is in force, and what it and the freezes have kept back. */
static enum kms_status policy_into(struct ops_run *run, Kms__V1__ServerStatus *status)
{
    struct kms_auth_stats stats;
    kms_auth_stats(run->ops->auth, &stats);
    Kms__V1__ServerStatus__Policy *policy =
        ops_message_new(run->call->arena, &kms__v1__server_status__policy__descriptor);
    if (policy == NULL)
        return KMS_NO_MEMORY;
    policy->version = stats.policy_version;
    policy->bindings = stats.bindings;
    policy->frozen_tenants = stats.frozen[KMS_AUTH_TENANT];
    policy->frozen_customers = stats.frozen[KMS_AUTH_CUSTOMER];
    policy->frozen_purposes = stats.frozen[KMS_AUTH_PURPOSE];
    policy->frozen_identities = stats.frozen[KMS_AUTH_IDENTITY];
    policy->refused_frozen = stats.refused_frozen;
    policy->refused_rate = stats.refused_rate;
    status->policy = policy;
    return KMS_OK;
}

/* One more sentence, for which there is room. */
static enum kms_status add_sentence(Kms__V1__ServerStatus *status, char *sentence)
{
    if (sentence == NULL)
        return KMS_NO_MEMORY;
    status->degraded[status->n_degraded++] = sentence;
    return KMS_OK;
}

/* Everything in the message that somebody should look after. */
static enum kms_status degraded_into(struct ops_run *run, Kms__V1__ServerStatus *status)
{
    enum { OTHERS = 4 };
    struct kms_arena *arena = run->call->arena;
    const Kms__V1__BackupStatus *backup = status->backup;
    status->degraded = kms_arena_alloc(arena, (backup->n_targets + OTHERS) * sizeof(*status->degraded));
    if (status->degraded == NULL)
        return KMS_NO_MEMORY;
    if (backup->refusing)
        KMS_TRY(
            add_sentence(status, kms_arena_printf(arena, "no backup target takes changes: calls that change "
                                                         "something are refused, others go on")));
    for (size_t i = 0; i < backup->n_targets; i++) {
        const Kms__V1__BackupStatus__Target *target = backup->targets[i];
        if (target->state == KMS__V1__BACKUP_STATUS__TARGET__STATE__BEHIND)
            KMS_TRY(add_sentence(status, kms_arena_printf(arena, "backup target %s is %.0f s behind",
                                                          target->directory, target->lag_seconds)));
        else if (target->state != KMS__V1__BACKUP_STATUS__TARGET__STATE__OK)
            KMS_TRY(add_sentence(
                status, kms_arena_printf(arena, "backup target %s: %s", target->directory, target->failure)));
    }
    if (status->audit->checkpoint_late)
        KMS_TRY(add_sentence(status, kms_arena_printf(arena, "an audit checkpoint is late: %s",
                                                      status->audit->checkpoint_failure)));
    if (status->audit->second_directory_failure[0] != '\0')
        KMS_TRY(add_sentence(status, kms_arena_printf(arena, "checkpoints do not leave this machine: %s",
                                                      status->audit->second_directory_failure)));
    return KMS_OK;
}

static enum kms_status get_server_status(struct ops_run *run, const ProtobufCMessage *message,
                                         ProtobufCMessage **ret_reply)
{
    (void)message; /* the request is empty */
    struct kms_arena *arena = run->call->arena;
    KMS_TRY(ops_allow(run, NULL, NULL));
    Kms__V1__ServerStatus *status = ops_message_new(arena, &kms__v1__server_status__descriptor);
    if (status == NULL)
        return KMS_NO_MEMORY;
    status->version = ops_string(arena, run->ops->version);
    status->start_time = ops_timestamp(arena, run->ops->start_wall_ns);
    if (status->version == NULL || status->start_time == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(hsm_message(run, &status->hsm));
    KMS_TRY(keys_into(run, status));
    KMS_TRY(audit_into(run, status));
    KMS_TRY(calls_into(run, status));
    KMS_TRY(policy_into(run, status));
    KMS_TRY(ops_backup_message(run, &status->backup));
    KMS_TRY(degraded_into(run, status));
    *ret_reply = &status->base;
    return KMS_OK;
}

enum kms_status kms_ops_get_server_status(void *context, struct kms_call *call,
                                          const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_SERVER_STATUS, false, get_server_status, request, ret_reply);
}

static enum kms_status get_attestation_key(struct ops_run *run, const ProtobufCMessage *message,
                                           ProtobufCMessage **ret_reply)
{
    (void)message; /* the request is empty */
    struct kms_call *call = run->call;
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_FREE char *pem = NULL;
    KMS_TRY(kms_hsm_attestation_public_pem(run->ops->hsm, &pem, &call->error));
    char id[KMS_EVIDENCE_KEY_ID_SIZE];
    KMS_TRY(kms_signature_key_id(kms_slice_str(pem), id, &call->error));
    Kms__V1__AttestationKey *key = ops_message_new(call->arena, &kms__v1__attestation_key__descriptor);
    if (key == NULL)
        return KMS_NO_MEMORY;
    key->public_key_pem = ops_string(call->arena, pem);
    key->key_id = ops_string(call->arena, id);
    if (key->public_key_pem == NULL || key->key_id == NULL)
        return KMS_NO_MEMORY;
    *ret_reply = &key->base;
    return KMS_OK;
}

enum kms_status kms_ops_get_attestation_key(void *context, struct kms_call *call,
                                            const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_ATTESTATION_READ, false, get_attestation_key, request,
                       ret_reply);
}
