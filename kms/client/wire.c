#include "client/wire.h"

#include "core/secret.h"

#include <grpc/byte_buffer_reader.h>

#include <stdlib.h>

/* Stands before the packed bytes, because gRPC hands back only one pointer when it releases them. */
struct packed {
    size_t len;
    uint8_t bytes[];
};

/* Runs at the last release of a sent message, perhaps on a thread of gRPC. */
static void wipe_packed(void *user_data)
{
    struct packed *packed = user_data;
    kms_wipe(packed->bytes, packed->len);
    free(packed);
}

grpc_byte_buffer *kms_wire_pack(const ProtobufCMessage *message)
{
    const size_t len = protobuf_c_message_get_packed_size(message);
    struct packed *packed = malloc(sizeof *packed + len);
    if (packed == NULL)
        return NULL;
    packed->len = len;
    (void)protobuf_c_message_pack(message, packed->bytes);
    grpc_slice slice = grpc_slice_new_with_user_data(packed->bytes, len, wipe_packed, packed);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    return buffer;
}

/* protobuf-c's allocator over an arena. */
static void *arena_alloc(void *allocator_data, size_t size)
{
    return kms_arena_alloc(allocator_data, size);
}

/* The arena wipes and releases everything at once. */
static void arena_free(void *allocator_data, void *pointer)
{
    (void)allocator_data;
    (void)pointer;
}

ProtobufCMessage *kms_wire_unpack_slice(struct kms_slice bytes, const ProtobufCMessageDescriptor *descriptor,
                                        struct kms_arena *arena)
{
    ProtobufCAllocator allocator = {arena_alloc, arena_free, arena};
    static const uint8_t nothing[1];
    return protobuf_c_message_unpack(descriptor, &allocator, bytes.len, bytes.len > 0 ? bytes.data : nothing);
}

/* Wipe the bytes of every slice where they lie. */
static void wipe_buffer(grpc_byte_buffer *buffer)
{
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, buffer))
        return;
    for (grpc_slice *slice; grpc_byte_buffer_reader_peek(&reader, &slice) != 0;)
        kms_wipe(GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice));
    grpc_byte_buffer_reader_destroy(&reader);
}

void kms_wire_discard(grpc_byte_buffer *buffer)
{
    if (buffer == NULL)
        return;
    wipe_buffer(buffer);
    grpc_byte_buffer_destroy(buffer);
}

/* One contiguous range with the whole message: in place when it is one slice, else a copy in the arena. */
static enum kms_status gather(grpc_byte_buffer *buffer, struct kms_arena *arena, struct kms_slice *ret_bytes)
{
    const size_t len = grpc_byte_buffer_length(buffer);
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, buffer))
        return KMS_INVALID_ARGUMENT;
    uint8_t *copy = NULL;
    size_t used = 0;
    *ret_bytes = kms_slice_of(NULL, 0);
    for (grpc_slice *slice; grpc_byte_buffer_reader_peek(&reader, &slice) != 0;) {
        const size_t part = GRPC_SLICE_LENGTH(*slice);
        if (part == len) {
            *ret_bytes = kms_slice_of(GRPC_SLICE_START_PTR(*slice), len);
            break;
        }
        if (copy == NULL && (copy = kms_arena_alloc(arena, len)) == NULL) {
            grpc_byte_buffer_reader_destroy(&reader);
            return KMS_TOO_LARGE;
        }
        memcpy(copy + used, GRPC_SLICE_START_PTR(*slice), part);
        used += part;
        *ret_bytes = kms_slice_of(copy, used);
    }
    grpc_byte_buffer_reader_destroy(&reader);
    return KMS_OK;
}

enum kms_status kms_wire_unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *descriptor,
                                struct kms_arena *arena, ProtobufCMessage **ret_message)
{
    struct kms_slice bytes;
    enum kms_status status = gather(buffer, arena, &bytes);
    if (status == KMS_OK) {
        ProtobufCMessage *message = kms_wire_unpack_slice(bytes, descriptor, arena);
        if (message != NULL)
            *ret_message = message;
        else
            status = KMS_INVALID_ARGUMENT;
    }
    kms_wire_discard(buffer);
    return status;
}
