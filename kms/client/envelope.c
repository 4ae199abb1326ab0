#include <kms/envelope.h>

#include "client/chunks.h"
#include "client/fault.h"

#include <errno.h>

/* What one stream needs; cleared in one place, whatever happened. */
struct pump {
    const struct kms_envelope_io *io;
    struct kms_chunks *chunks;
    bool sealing;
    size_t unit; /* input bytes of a full chunk */
    uint8_t *in; /* unit + 1 bytes: one is read ahead, to know which chunk is the last */
    uint8_t *out;
    size_t out_size;
    uint64_t input_done;
};

static void pump_clear(struct pump *pump)
{
    kms_chunks_free(pump->chunks);
    if (pump->in != NULL)
        kms_wipe(pump->in, pump->unit + 1);
    if (pump->out != NULL)
        kms_wipe(pump->out, pump->out_size);
    free(pump->in);
    free(pump->out);
}

/* Read until `size` bytes are there or the input ends. */
static enum kms_client_status read_full(const struct kms_envelope_io *io, uint8_t *data, size_t size,
                                        size_t *ret_len, struct kms_client_error *err)
{
    size_t len = 0;
    while (len < size) {
        const int64_t got = io->read(io->context, data + len, size - len);
        if (got < 0 || (uint64_t)got > size - len)
            return kms_fault_set(err, KMS_CLIENT_IO, "cannot read the input: %s", strerror(errno));
        if (got == 0)
            break;
        len += (size_t)got;
    }
    *ret_len = len;
    return KMS_CLIENT_OK;
}

static enum kms_client_status write_all(const struct kms_envelope_io *io, const uint8_t *data, size_t len,
                                        struct kms_client_error *err)
{
    if (len > 0 && io->write(io->context, data, len) != 0)
        return kms_fault_set(err, KMS_CLIENT_IO, "cannot write the output: %s", strerror(errno));
    return KMS_CLIENT_OK;
}

/* Content key, cipher and buffers, from the header and the opened data key. */
static enum kms_client_status pump_init(struct pump *pump, const struct kms_format_header *header,
                                        struct kms_slice header_bytes, const struct kms_datakey *key,
                                        struct kms_client_error *err)
{
    uint8_t hash[KMS_FORMAT_HASH_SIZE];
    enum kms_client_status status = kms_format_hash(header_bytes, hash, err);
    if (status != KMS_CLIENT_OK)
        return status;
    KMS_SECRET content_key = {0};
    status =
        kms_format_content_key(header, kms_slice_of(key->plaintext, key->plaintext_len), &content_key, err);
    if (status == KMS_CLIENT_OK)
        status = kms_chunks_new(header, hash, &content_key, pump->sealing, &pump->chunks, err);
    if (status != KMS_CLIENT_OK)
        return status;
    pump->unit = header->chunk_size + (pump->sealing ? 0 : (size_t)KMS_FORMAT_TAG_SIZE);
    pump->out_size = header->chunk_size + (size_t)KMS_FORMAT_TAG_SIZE;
    pump->in = malloc(pump->unit + 1);
    pump->out = malloc(pump->out_size);
    return pump->in != NULL && pump->out != NULL ? KMS_CLIENT_OK : kms_fault_no_memory(err);
}

/* One chunk from the input buffer to the output. */
static enum kms_client_status pump_chunk(struct pump *pump, size_t len, bool last,
                                         struct kms_client_error *err)
{
    size_t out_len;
    enum kms_client_status status;
    if (pump->sealing) {
        out_len = len + KMS_FORMAT_TAG_SIZE;
        status = kms_chunks_seal(pump->chunks, pump->in, len, last, pump->out, err);
    } else {
        out_len = len >= KMS_FORMAT_TAG_SIZE ? len - KMS_FORMAT_TAG_SIZE : 0;
        status = kms_chunks_open(pump->chunks, pump->in, len, last, pump->out, err);
    }
    if (status == KMS_CLIENT_OK)
        status = write_all(pump->io, pump->out, out_len, err);
    if (status != KMS_CLIENT_OK)
        return status;
    pump->input_done += len;
    if (pump->io->progress != NULL && pump->io->progress(pump->io->context, pump->input_done) != 0)
        return kms_fault_set(err, KMS_CLIENT_CANCELLED, "stopped on request");
    return KMS_CLIENT_OK;
}

/* All chunks. A chunk is the last one when nothing can be read behind it. */
static enum kms_client_status pump_run(struct pump *pump, struct kms_client_error *err)
{
    size_t ahead = 0;
    for (;;) {
        size_t got = 0;
        enum kms_client_status status =
            read_full(pump->io, pump->in + ahead, pump->unit + 1 - ahead, &got, err);
        if (status != KMS_CLIENT_OK)
            return status;
        const size_t have = ahead + got;
        const bool last = have <= pump->unit;
        status = pump_chunk(pump, last ? have : pump->unit, last, err);
        if (status != KMS_CLIENT_OK || last)
            return status;
        pump->in[0] = pump->in[pump->unit];
        ahead = 1;
    }
}

/* The part of a data-key request that follows from the scope. */
static struct kms_datakey_request request_for(const struct kms_envelope_scope *scope)
{
    return (struct kms_datakey_request){.tenant = scope->tenant,
                                        .customer = scope->customer,
                                        .purpose = scope->purpose,
                                        .context = scope->context,
                                        .context_count = scope->context_count,
                                        .spec = KMS_DATAKEY_AES_256};
}

/* Header and chunks under a data key that is there. */
static enum kms_client_status encrypt_under(const struct kms_datakey *key, const struct kms_envelope_io *io,
                                            struct kms_client_error *err)
{
    struct kms_format_header header;
    enum kms_client_status status =
        kms_format_new(kms_slice_of(key->wrapped, key->wrapped_len), &header, err);
    if (status != KMS_CLIENT_OK)
        return status;
    uint8_t bytes[KMS_FORMAT_HEADER_MAX];
    const size_t size = kms_format_write(&header, bytes);
    KMS_CLEANUP(pump_clear) struct pump pump = {.io = io, .sealing = true};
    status = pump_init(&pump, &header, kms_slice_of(bytes, size), key, err);
    if (status == KMS_CLIENT_OK)
        status = write_all(io, bytes, size, err);
    return status == KMS_CLIENT_OK ? pump_run(&pump, err) : status;
}

enum kms_client_status kms_envelope_encrypt_stream(struct kms_datakey_source source,
                                                   const struct kms_envelope_scope *scope,
                                                   const struct kms_envelope_io *io,
                                                   struct kms_client_error *err)
{
    KMS_CLEANUP(kms_datakey_clear) struct kms_datakey key = {0};
    struct kms_datakey_request request = request_for(scope);
    request.expected_bytes = io->expected_bytes;
    const enum kms_client_status status = source.generate(source.context, &request, &key, err);
    return status == KMS_CLIENT_OK ? encrypt_under(&key, io, err) : status;
}

/* Read the whole header into `bytes`, which the header then points into. */
static enum kms_client_status read_header(const struct kms_envelope_io *io,
                                          uint8_t bytes[KMS_FORMAT_HEADER_MAX],
                                          struct kms_format_header *ret_header, size_t *ret_size,
                                          struct kms_client_error *err)
{
    size_t got = 0;
    size_t wrapped_len = 0;
    enum kms_client_status status = read_full(io, bytes, KMS_FORMAT_FIXED_SIZE, &got, err);
    if (status == KMS_CLIENT_OK && got == KMS_FORMAT_FIXED_SIZE) {
        status = kms_format_read_fixed(bytes, ret_header, &wrapped_len, err);
        if (status == KMS_CLIENT_OK)
            status = read_full(io, bytes + KMS_FORMAT_FIXED_SIZE, wrapped_len, &wrapped_len, err);
    }
    if (status != KMS_CLIENT_OK)
        return status;
    return kms_format_parse(kms_slice_of(bytes, got + wrapped_len), ret_header, ret_size, err);
}

enum kms_client_status kms_envelope_decrypt_stream(struct kms_datakey_source source,
                                                   const struct kms_envelope_scope *scope,
                                                   const struct kms_envelope_io *io,
                                                   struct kms_client_error *err)
{
    uint8_t bytes[KMS_FORMAT_HEADER_MAX];
    struct kms_format_header header;
    size_t size = 0;
    enum kms_client_status status = read_header(io, bytes, &header, &size, err);
    if (status != KMS_CLIENT_OK)
        return status;
    KMS_CLEANUP(kms_datakey_clear) struct kms_datakey key = {0};
    struct kms_datakey_request request = request_for(scope);
    request.input = header.wrapped.data;
    request.input_len = header.wrapped.len;
    status = source.unwrap(source.context, &request, &key, err);
    if (status != KMS_CLIENT_OK)
        return status;
    KMS_CLEANUP(pump_clear) struct pump pump = {.io = io, .input_done = size};
    status = pump_init(&pump, &header, kms_slice_of(bytes, size), &key, err);
    return status == KMS_CLIENT_OK ? pump_run(&pump, err) : status;
}

/* A buffer as a stream: from borrowed bytes into memory whose size is an upper bound of the output. */
struct memory {
    const uint8_t *in;
    size_t in_left;
    uint8_t *out;
    size_t out_size;
    size_t out_len;
};

static int64_t memory_read(void *context, uint8_t *data, size_t size)
{
    struct memory *memory = context;
    const size_t len = size < memory->in_left ? size : memory->in_left;
    if (len > 0)
        memcpy(data, memory->in, len);
    memory->in = len > 0 ? memory->in + len : memory->in;
    memory->in_left -= len;
    return (int64_t)len;
}

static int memory_write(void *context, const uint8_t *data, size_t len)
{
    struct memory *memory = context;
    KMS_ASSERT(len <= memory->out_size - memory->out_len);
    memcpy(memory->out + memory->out_len, data, len);
    memory->out_len += len;
    return 0;
}

typedef enum kms_client_status (*stream_function)(struct kms_datakey_source,
                                                  const struct kms_envelope_scope *,
                                                  const struct kms_envelope_io *, struct kms_client_error *);

/* Run a stream function over buffers. */
static enum kms_client_status over_memory(stream_function function, struct kms_datakey_source source,
                                          const struct kms_envelope_scope *scope, struct memory *memory,
                                          uint8_t **ret_data, size_t *ret_len, struct kms_client_error *err)
{
    memory->out = malloc(memory->out_size);
    if (memory->out == NULL)
        return kms_fault_no_memory(err);
    const struct kms_envelope_io io = {
        .context = memory, .read = memory_read, .write = memory_write, .expected_bytes = memory->in_left};
    const enum kms_client_status status = function(source, scope, &io, err);
    if (status != KMS_CLIENT_OK) {
        kms_envelope_free(memory->out, memory->out_len);
        return status;
    }
    *ret_data = memory->out;
    *ret_len = memory->out_len;
    return KMS_CLIENT_OK;
}

enum kms_client_status kms_envelope_encrypt(struct kms_datakey_source source,
                                            const struct kms_envelope_scope *scope, const void *data,
                                            size_t len, uint8_t **ret_data, size_t *ret_len,
                                            struct kms_client_error *err)
{
    const size_t chunks = len / KMS_FORMAT_CHUNK_SIZE + 1;
    if (len > SIZE_MAX / 2)
        return kms_fault_set(err, KMS_CLIENT_INVALID, "the buffer is too large");
    struct memory memory = {
        .in = data, .in_left = len, .out_size = KMS_FORMAT_HEADER_MAX + len + chunks * KMS_FORMAT_TAG_SIZE};
    return over_memory(kms_envelope_encrypt_stream, source, scope, &memory, ret_data, ret_len, err);
}

enum kms_client_status kms_envelope_decrypt(struct kms_datakey_source source,
                                            const struct kms_envelope_scope *scope, const void *data,
                                            size_t len, uint8_t **ret_data, size_t *ret_len,
                                            struct kms_client_error *err)
{
    struct memory memory = {.in = data, .in_left = len, .out_size = len + 1};
    return over_memory(kms_envelope_decrypt_stream, source, scope, &memory, ret_data, ret_len, err);
}

void kms_envelope_free(uint8_t *data, size_t len)
{
    if (data == NULL)
        return;
    kms_wipe(data, len);
    free(data);
}
