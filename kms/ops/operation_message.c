#include "ops/operation_message.h"

#include "ops/messages.h"

/* Bytes copied into the arena; false when it is full. */
static bool copy_bytes(struct kms_arena *arena, const void *data, size_t len, ProtobufCBinaryData *ret_bytes)
{
    ret_bytes->len = len;
    ret_bytes->data = len > 0 ? kms_arena_alloc(arena, len) : NULL;
    if (len > 0 && ret_bytes->data != NULL)
        memcpy(ret_bytes->data, data, len);
    return len == 0 || ret_bytes->data != NULL;
}

/* One approval; NULL when the arena is full. */
static Kms__V1__Operation__Approval *approval_message(struct kms_arena *arena,
                                                      const struct kms_approval_record *approval)
{
    Kms__V1__Operation__Approval *message = ops_message_new(arena, &kms__v1__operation__approval__descriptor);
    if (message == NULL)
        return NULL;
    message->identity = ops_string(arena, approval->identity);
    message->person = ops_string(arena, approval->person);
    message->certificate = ops_string(arena, approval->certificate);
    message->time = ops_timestamp(arena, approval->time_ns);
    const bool whole = message->identity != NULL && message->person != NULL && message->certificate != NULL &&
                       message->time != NULL &&
                       copy_bytes(arena, approval->signature, approval->signature_len, &message->signature);
    return whole ? message : NULL;
}

/* Every approval; false when the arena is full. */
static bool add_approvals(struct kms_arena *arena, const struct kms_approval_record *approvals, size_t count,
                          Kms__V1__Operation *message)
{
    message->approvals = kms_arena_alloc(arena, (count + 1) * sizeof(*message->approvals));
    if (message->approvals == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        message->approvals[i] = approval_message(arena, &approvals[i]);
        if (message->approvals[i] == NULL)
            return false;
        message->n_approvals++;
    }
    return true;
}

/* The times that are known; false when the arena is full. */
static bool add_times(struct kms_arena *arena, const struct kms_operation_record *operation,
                      Kms__V1__Operation *message)
{
    message->create_time = ops_timestamp(arena, operation->created_ns);
    message->expire_time = ops_timestamp(arena, operation->expires_ns);
    if (operation->started_ns != 0)
        message->start_time = ops_timestamp(arena, operation->started_ns);
    if (operation->finished_ns != 0)
        message->finish_time = ops_timestamp(arena, operation->finished_ns);
    return message->create_time != NULL && message->expire_time != NULL &&
           (operation->started_ns == 0 || message->start_time != NULL) &&
           (operation->finished_ns == 0 || message->finish_time != NULL);
}

/* The names and texts; false when the arena is full. */
static bool add_texts(struct kms_arena *arena, const struct kms_operation_record *operation,
                      Kms__V1__Operation *message)
{
    char uid[KMS_UUID_TEXT_SIZE];
    char digest[2 * KMS_OPERATION_DIGEST_SIZE + 1];
    kms_hex_encode(operation->digest, sizeof operation->digest, digest);
    message->uid = ops_string(arena, kms_uuid_format(&operation->uuid, uid));
    message->name = kms_arena_printf(arena, "operations/%s", uid);
    message->kind = ops_string(arena, operation->kind);
    message->tenant = ops_string(arena, operation->tenant);
    message->requester = ops_string(arena, operation->requester);
    message->digest = ops_string(arena, digest);
    message->result = ops_string(arena, operation->result != NULL ? operation->result : "");
    message->reason = ops_string(arena, operation->reason);
    message->ended_by = ops_string(arena, operation->ended_by);
    return message->uid != NULL && message->name != NULL && message->kind != NULL &&
           message->tenant != NULL && message->requester != NULL && message->digest != NULL &&
           message->result != NULL && message->reason != NULL && message->ended_by != NULL;
}

Kms__V1__Operation *ops_operation_message(struct kms_arena *arena,
                                          const struct kms_operation_record *operation,
                                          const struct kms_approval_record *approvals, size_t count)
{
    Kms__V1__Operation *message = ops_message_new(arena, &kms__v1__operation__descriptor);
    if (message == NULL)
        return NULL;
    message->state = (Kms__V1__Operation__State)operation->state; /* the same numbers */
    message->approvals_needed = operation->approvals_needed;
    message->policy_generation = operation->policy_generation;
    message->done = operation->done;
    message->total = operation->total;
    message->attempts = operation->attempts;
    const bool whole = add_texts(arena, operation, message) && add_times(arena, operation, message) &&
                       add_approvals(arena, approvals, count, message) &&
                       copy_bytes(arena, operation->document, operation->document_len, &message->document);
    return whole ? message : NULL;
}

enum kms_status ops_operation_reply(struct kms_call *call, const struct kms_operation_record *operation,
                                    const struct kms_approval_record *approvals, size_t count,
                                    ProtobufCMessage **ret_reply)
{
    Kms__V1__Operation *message = ops_operation_message(call->arena, operation, approvals, count);
    if (message == NULL)
        return kms_fail(&call->error, KMS_NO_MEMORY, "no room for the message of an operation");
    *ret_reply = &message->base;
    return KMS_OK;
}

char *ops_operation_detail(struct kms_arena *arena, const struct kms_operation_record *operation,
                           size_t approvals)
{
    char uid[KMS_UUID_TEXT_SIZE];
    char digest[2 * KMS_OPERATION_DIGEST_SIZE + 1];
    kms_hex_encode(operation->digest, sizeof operation->digest, digest);
    /* kinds are constants of the program without a character that JSON escapes */
    return kms_arena_printf(arena,
                            "{\"operation\":\"%s\",\"kind\":\"%s\",\"digest\":\"%s\",\"state\":\"%s\","
                            "\"approvals\":%zu,\"approvals_needed\":%u}",
                            kms_uuid_format(&operation->uuid, uid), operation->kind, digest,
                            kms_operation_state_name(operation->state), approvals,
                            (unsigned)operation->approvals_needed);
}

enum kms_status ops_operation_note(struct ops_run *run, const struct kms_operation_record *operation,
                                   size_t approvals)
{
    run->event.detail_json = ops_operation_detail(run->call->arena, operation, approvals);
    return run->event.detail_json != NULL ? KMS_OK : KMS_NO_MEMORY;
}
