/* What the service says of its recovery keys, and the note of a drill. */
#include "core/clock.h"
#include "ops/checks.h"
#include "ops/escrow.h"
#include "ops/messages.h"
#include "ops/recovery.h"
#include "ops/tenants.h"

#include "kms/v1/recovery.pb-c.h"

#include <stdio.h>
#include <stdlib.h>

enum { WITHOUT_NAMED_MAX = 100 };
#define DRILL_MILLISECONDS_MAX (UINT64_C(31) * 86400 * 1000)

/* A time that may be unset; false when the arena is full. */
static bool set_time(struct kms_arena *arena, int64_t wall_ns, Google__Protobuf__Timestamp **ret_time)
{
    *ret_time = wall_ns != 0 ? ops_timestamp(arena, wall_ns) : NULL;
    return wall_ns == 0 || *ret_time != NULL;
}

/* A key as a message, without its tenants; NULL when the arena is full. */
static Kms__V1__RecoveryKey *key_message(struct kms_arena *arena, const struct kms_recovery_key_record *key)
{
    Kms__V1__RecoveryKey *message = ops_message_new(arena, &kms__v1__recovery_key__descriptor);
    if (message == NULL)
        return NULL;
    message->epoch = key->epoch;
    message->fingerprint = ops_string(arena, key->fingerprint);
    message->state = (Kms__V1__RecoveryKey__State)key->state;
    message->enrolled_by = ops_string(arena, key->enrolled_by);
    message->retired_by = ops_string(arena, key->retired_by);
    message->statement = ops_string(arena, key->statement);
    message->object_left = key->object_left;
    message->drill_by = ops_string(arena, key->drill_by);
    message->drill_customers = key->drill_customers;
    message->drill_milliseconds = (uint64_t)(key->drill_took_ns / KMS_NS_PER_MS);
    const bool complete = set_time(arena, key->enrolled_ns, &message->enroll_time) &&
                          set_time(arena, key->retired_ns, &message->retire_time) &&
                          set_time(arena, key->drill_ns, &message->drill_time) &&
                          message->fingerprint != NULL && message->enrolled_by != NULL &&
                          message->retired_by != NULL && message->statement != NULL &&
                          message->drill_by != NULL;
    return complete ? message : NULL;
}

/* Keys on their way into the reply. */
struct listing {
    struct kms_store *store;
    struct kms_arena *arena;
    Kms__V1__RecoveryKey **list;
    size_t count, room;
};

static enum kms_status take_key(void *context, const struct kms_recovery_key_record *key)
{
    struct listing *listing = context;
    if (listing->count == listing->room) {
        const size_t room = listing->room == 0 ? 8 : 2 * listing->room;
        Kms__V1__RecoveryKey **list = kms_arena_alloc(listing->arena, room * sizeof(Kms__V1__RecoveryKey *));
        if (list == NULL)
            return KMS_NO_MEMORY;
        if (listing->count > 0)
            memcpy(list, listing->list, listing->count * sizeof(Kms__V1__RecoveryKey *));
        listing->list = list;
        listing->room = room;
    }
    listing->list[listing->count] = key_message(listing->arena, key);
    return listing->list[listing->count++] != NULL ? KMS_OK : KMS_NO_MEMORY;
}

/* The tenant's name among the first that a key does not cover. */
static enum kms_status name_tenant(struct kms_arena *arena, const struct kms_tenant_record *tenant,
                                   Kms__V1__RecoveryKey *key)
{
    if (key->n_first_without == WITHOUT_NAMED_MAX)
        return KMS_OK;
    if (key->first_without == NULL)
        key->first_without = kms_arena_alloc(arena, WITHOUT_NAMED_MAX * sizeof *key->first_without);
    char *name = ops_string(arena, tenant->id);
    if (key->first_without == NULL || name == NULL)
        return KMS_NO_MEMORY;
    key->first_without[key->n_first_without++] = name;
    return KMS_OK;
}

/* Which keys cover a tenant, counted; whom a retired key leaves out does not matter any more. */
static enum kms_status count_tenant(void *context, const struct kms_tenant_record *tenant,
                                    struct kms_error *err)
{
    const struct listing *listing = context;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(listing->store, false, &txn, err));
    for (size_t i = 0; i < listing->count; i++) {
        uint64_t first = 0;
        Kms__V1__RecoveryKey *key = listing->list[i];
        const enum kms_status status =
            listing->store->ops->recovery.cover_get(txn.txn, key->epoch, &tenant->uuid, &first, err);
        if (status != KMS_OK && status != KMS_NOT_FOUND)
            return status;
        key->tenants_covered += status == KMS_OK;
        if (status == KMS_NOT_FOUND && key->state == KMS__V1__RECOVERY_KEY__STATE__ACTIVE) {
            key->tenants_without++;
            KMS_TRY(name_tenant(listing->arena, tenant, key));
        }
    }
    return KMS_OK;
}

static enum kms_status get_status(struct ops_run *run, const ProtobufCMessage *message,
                                  ProtobufCMessage **ret_reply)
{
    (void)message;
    struct kms_call *call = run->call;
    struct listing listing = {.store = run->ops->store, .arena = call->arena};
    struct ops_escrow_status status = {0};
    KMS_TRY(ops_allow(run, NULL, NULL));
    Kms__V1__RecoveryStatus *reply = ops_message_new(call->arena, &kms__v1__recovery_status__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
        KMS_TRY(txn.store->ops->recovery.key_list(txn.txn, take_key, &listing, &call->error));
    }
    KMS_TRY(ops_each_tenant(run->ops->store, count_tenant, &listing, &call->error));
    if (run->ops->escrow != NULL)
        ops_escrow_status(run->ops->escrow, &status);
    reply->enabled = run->ops->escrow != NULL;
    reply->keys = listing.list;
    reply->n_keys = listing.count;
    reply->capsules_expected = status.expected;
    reply->capsules_missing = status.missing;
    reply->failure = ops_string(call->arena, status.failure);
    if (!set_time(call->arena, status.checked_ns, &reply->check_time) || reply->failure == NULL)
        return KMS_NO_MEMORY;
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_get_recovery_status(void *context, struct kms_call *call,
                                            const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_RECOVERY_READ, false, get_status, request, ret_reply);
}

/* The note itself. */
static enum kms_status note_drill(struct ops_run *run, const Kms__V1__RecordRecoveryDrillRequest *request,
                                  int64_t time_ns, struct kms_recovery_key_record *ret_key)
{
    struct kms_call *call = run->call;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, true, &txn, &call->error));
    const enum kms_status status =
        txn.store->ops->recovery.key_get(txn.txn, request->fingerprint, ret_key, &call->error);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(&call->error, status, "there is no recovery key %.64s", request->fingerprint);
    KMS_TRY(status);
    if (ret_key->state != KMS_RECOVERY_ACTIVE)
        return kms_fail_public(&call->error, KMS_FAILED_PRECONDITION,
                               "the recovery key %s is retired: nothing can be rehearsed with it",
                               ret_key->fingerprint);
    ret_key->drill_ns = time_ns;
    ret_key->drill_took_ns = (int64_t)request->milliseconds * KMS_NS_PER_MS;
    ret_key->drill_customers = request->customers;
    (void)snprintf(ret_key->drill_by, sizeof ret_key->drill_by, "%s", call->identity->name);
    KMS_TRY(txn.store->ops->recovery.key_put(txn.txn, ret_key, &call->error));
    return kms_txn_commit(&txn, &call->error);
}

static enum kms_status record_drill(struct ops_run *run, const ProtobufCMessage *message,
                                    ProtobufCMessage **ret_reply)
{
    const Kms__V1__RecordRecoveryDrillRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    struct kms_recovery_key_record key;
    int64_t time_ns = 0;
    const int64_t now = kms_clock_wall_ns();
    if (request->milliseconds > DRILL_MILLISECONDS_MAX)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "milliseconds: must be 31 days at most");
    if (request->customers > INT64_MAX)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "customers: is too large");
    KMS_TRY(ops_timestamp_ns(call, "time", request->time, &time_ns));
    if (time_ns > now + KMS_NS_PER_SECOND * 60)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "time: lies in the future");
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(note_drill(run, request, time_ns != 0 ? time_ns : now, &key));
    Kms__V1__RecoveryKey *reply = key_message(call->arena, &key);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_record_recovery_drill(void *context, struct kms_call *call,
                                              const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_RECOVERY_DRILL, true, record_drill, request, ret_reply);
}
