#include "client/trailer.h"

#include "client/fault.h"
#include "client/wire.h"

#include <stdio.h>

void kms_trailer_init(struct kms_trailer *trailer)
{
    *trailer = (struct kms_trailer){.message = grpc_empty_slice()};
    grpc_metadata_array_init(&trailer->metadata);
}

void kms_trailer_clear(struct kms_trailer *trailer)
{
    grpc_metadata_array_destroy(&trailer->metadata);
    grpc_slice_unref(trailer->message);
}

/* The google.rpc.Status that the service has attached; NULL when there is none that can be read. */
static const Google__Rpc__Status *find_details(const grpc_metadata_array *metadata, struct kms_arena *arena)
{
    for (size_t i = 0; i < metadata->count; i++) {
        const grpc_metadata *entry = &metadata->metadata[i];
        if (grpc_slice_str_cmp(entry->key, "grpc-status-details-bin") != 0)
            continue;
        const struct kms_slice bytes =
            kms_slice_of(GRPC_SLICE_START_PTR(entry->value), GRPC_SLICE_LENGTH(entry->value));
        if (bytes.len > KMS_WIRE_DETAILS_MAX)
            return NULL;
        return (const Google__Rpc__Status *)kms_wire_unpack_slice(bytes, &google__rpc__status__descriptor,
                                                                  arena);
    }
    return NULL;
}

enum kms_client_status kms_trailer_status(const struct kms_client *client, const struct kms_trailer *trailer,
                                          struct kms_arena *arena, struct kms_client_error *err)
{
    if (trailer->code == GRPC_STATUS_OK)
        return KMS_CLIENT_OK;
    const struct kms_slice message =
        kms_slice_of(GRPC_SLICE_START_PTR(trailer->message), GRPC_SLICE_LENGTH(trailer->message));
    const Google__Rpc__Status *details = find_details(&trailer->metadata, arena);
    const enum kms_client_status status = kms_fault_from_service(err, (int)trailer->code, message, details);
    /* without details it does not come from the service, but from the way there */
    if (status == KMS_CLIENT_DEADLINE && details == NULL &&
        grpc_channel_check_connectivity_state(client->channel, 0) != GRPC_CHANNEL_READY)
        return kms_fault_set(
            err, KMS_CLIENT_UNAVAILABLE,
            "no connection to %s before the deadline of %u ms; is the service running there?",
            client->endpoint, client->deadline_ms);
    if (status == KMS_CLIENT_UNAVAILABLE && details == NULL && err != NULL) {
        char text[sizeof err->message];
        (void)snprintf(text, sizeof text, "%.200s: %.300s", client->endpoint, err->message);
        (void)snprintf(err->message, sizeof err->message, "%s", text);
    }
    return status;
}
