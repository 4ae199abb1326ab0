#include "rpc/codec.h"

#include "core/secret.h"
#include "rpc/validate.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <stdlib.h>

/* The bytes of a reply; wiped when core drops the last reference to the slice over them. */
struct reply_bytes {
    size_t len;
    uint8_t data[];
};

/*
 * Called by core, on any thread; `len` hands the bytes over. Core's own reference count does so already, but no tool that
 * watches this code sees that.
 */
static void reply_bytes_free(void *pointer)
{
    struct reply_bytes *bytes = pointer;
    kms_wipe(bytes->data, __atomic_load_n(&bytes->len, __ATOMIC_ACQUIRE));
    free(bytes);
}

/* Overwrite the received bytes where they are: they lie in the read buffer of the TLS layer. */
static void wipe_payload(grpc_byte_buffer *payload)
{
    grpc_byte_buffer_reader reader;
    grpc_slice *slice;
    if (!grpc_byte_buffer_reader_init(&reader, payload))
        return;
    while (grpc_byte_buffer_reader_peek(&reader, &slice))
        kms_wipe(GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice));
    grpc_byte_buffer_reader_destroy(&reader);
}

/* Room of at least `size` bytes; what it held before was wiped. */
static enum kms_status reserve_scratch(struct kms_rpc_bench *bench, size_t size, struct kms_error *err)
{
    if (bench->scratch_size >= size)
        return KMS_OK;
    free(bench->scratch);
    bench->scratch = malloc(size);
    bench->scratch_size = bench->scratch == NULL ? 0 : size;
    return bench->scratch != NULL
               ? KMS_OK
               : kms_fail(err, KMS_NO_MEMORY, "no memory for a request of %zu bytes", size);
}

/* One run of bytes from one or many slices; borrowed from the payload or from the scratch memory. */
static enum kms_status flatten(struct kms_rpc_bench *bench, grpc_byte_buffer *payload,
                               struct kms_slice *ret_bytes, struct kms_error *err)
{
    const size_t total = grpc_byte_buffer_length(payload);
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, payload))
        return kms_fail(err, KMS_INTERNAL, "core's byte buffer cannot be read");
    grpc_slice *slice = NULL;
    enum kms_status status = KMS_OK;
    if (!grpc_byte_buffer_reader_peek(&reader, &slice)) {
        *ret_bytes = (struct kms_slice){NULL, 0};
    } else if (GRPC_SLICE_LENGTH(*slice) == total) {
        *ret_bytes = kms_slice_of(GRPC_SLICE_START_PTR(*slice), total);
    } else if ((status = reserve_scratch(bench, total, err)) == KMS_OK) {
        size_t used = 0;
        do {
            memcpy(bench->scratch + used, GRPC_SLICE_START_PTR(*slice), GRPC_SLICE_LENGTH(*slice));
            used += GRPC_SLICE_LENGTH(*slice);
        } while (grpc_byte_buffer_reader_peek(&reader, &slice));
        *ret_bytes = kms_slice_of(bench->scratch, used);
    }
    grpc_byte_buffer_reader_destroy(&reader);
    return status;
}

enum kms_status kms_rpc_codec_decode(struct kms_rpc_bench *bench, const struct kms_rpc_route *route,
                                     grpc_byte_buffer *payload, ProtobufCMessage **ret_message,
                                     struct kms_error *err)
{
    if (payload == NULL)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the call has no request message");
    if (payload->type != GRPC_BB_RAW || payload->data.raw.compression != GRPC_COMPRESS_NONE)
        return kms_fail_public(err, KMS_UNIMPLEMENTED,
                               "compressed messages are not accepted; send them uncompressed");
    struct kms_slice bytes = {NULL, 0};
    KMS_TRY(flatten(bench, payload, &bytes, err));
    const enum kms_status status =
        kms_rpc_validate_unpack(bench->arena, route->input, route->scan, bytes, ret_message, err);
    if (bytes.data == bench->scratch && bytes.data != NULL)
        kms_wipe(bench->scratch, bytes.len);
    wipe_payload(payload);
    return status;
}

enum kms_status kms_rpc_codec_encode(const ProtobufCMessage *message, grpc_byte_buffer **ret_payload,
                                     struct kms_error *err)
{
    const size_t size = protobuf_c_message_get_packed_size(message);
    struct reply_bytes *bytes = malloc(sizeof *bytes + size);
    if (bytes == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a reply of %zu bytes", size);
    (void)protobuf_c_message_pack(message, bytes->data);
    __atomic_store_n(&bytes->len, size, __ATOMIC_RELEASE);
    grpc_slice slice = grpc_slice_new_with_user_data(bytes->data, size, reply_bytes_free, bytes);
    *ret_payload = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice); /* the buffer has its own reference */
    return KMS_OK;
}

void kms_rpc_codec_discard(grpc_byte_buffer *payload)
{
    if (payload == NULL)
        return;
    wipe_payload(payload);
    grpc_byte_buffer_destroy(payload);
}

grpc_slice kms_rpc_codec_slice(const void *data, size_t len)
{
    return grpc_slice_from_copied_buffer(data, len);
}
