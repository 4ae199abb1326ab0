/*
 * Request messages of every method: whatever the bytes are, unpacking ends, stays within its memory, and what it lets through
 * packs into a message that is let through again. The first byte chooses the type, the second one the limit of memory.
 */
#include "rpc/validate.h"

#include <google/protobuf/descriptor.pb-c.h>
#include <grpc/health/v1/health.pb-c.h>
#include <grpc/reflection/v1alpha/reflection.pb-c.h>
#include <stdlib.h>

#include "kms/v1/datakeys.pb-c.h"
#include "kms/v1/directory.pb-c.h"
#include "kms/v1/server.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCServiceDescriptor *const services[] = {
    &kms__v1__data_key_service__descriptor, &kms__v1__directory_service__descriptor,
    &kms__v1__server_service__descriptor, &grpc__health__v1__health__descriptor,
    &grpc__reflection__v1alpha__server_reflection__descriptor};

/* The n-th request type, around the end; the last one nests without bound. */
static const ProtobufCMessageDescriptor *type_of(unsigned n)
{
    for (size_t s = 0; s < sizeof services / sizeof services[0]; s++) {
        if (n < services[s]->n_methods)
            return services[s]->methods[n].input;
        n -= services[s]->n_methods;
    }
    return &google__protobuf__descriptor_proto__descriptor;
}

/* Unpack with a limit of memory; NULL when refused. */
static const ProtobufCMessage *unpack(struct kms_arena *arena, const ProtobufCMessageDescriptor *type,
                                      struct kms_slice bytes)
{
    struct kms_error err = {.status = KMS_OK};
    ProtobufCMessage *message = NULL;
    const bool scan = kms_rpc_validate_nests_deep(type);
    if (kms_rpc_validate_unpack(arena, type, scan, bytes, &message, &err) == KMS_OK)
        return message;
    KMS_ASSERT(kms_utf8_valid(err.public_text, strlen(err.public_text)));
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const ProtobufCMessageDescriptor *type = type_of(data[0]);
    struct kms_arena *arena = NULL;
    struct kms_arena *again = NULL;
    const size_t limit = data[1] == 0xff ? (size_t)8 * 1024 * 1024 : (size_t)data[1] * 64;
    KMS_ASSERT(kms_arena_new(limit, &arena) == KMS_OK);
    KMS_ASSERT(kms_arena_new((size_t)64 * 1024 * 1024, &again) == KMS_OK);
    const ProtobufCMessage *message = unpack(arena, type, kms_slice_of(data + 2, size - 2));
    KMS_ASSERT(kms_arena_used(arena) <= limit);
    if (message != NULL) {
        const size_t packed = protobuf_c_message_get_packed_size(message);
        uint8_t *bytes = malloc(packed + 1);
        KMS_ASSERT(bytes != NULL && protobuf_c_message_pack(message, bytes) == packed);
        KMS_ASSERT(unpack(again, type, kms_slice_of(bytes, packed)) != NULL);
        free(bytes);
    }
    kms_arena_free(arena);
    kms_arena_free(again);
    return 0;
}
