#include "rpc/validate.h"

enum { TAG_BYTES_MAX = 5, LENGTH_BYTES_MAX = 5, VARINT_BYTES_MAX = 10 };

/* What protobuf-c's allocator callbacks need to know. */
struct unpacking {
    struct kms_arena *arena;
    bool exhausted;
};

/* True as soon as one path of message fields is longer than the limit; a recursive type always has one. */
static bool deeper_than(const ProtobufCMessageDescriptor *descriptor, unsigned levels)
{
    if (levels == 0)
        return true;
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        if (field->type == PROTOBUF_C_TYPE_MESSAGE && deeper_than(field->descriptor, levels - 1))
            return true;
    }
    return false;
}

bool kms_rpc_validate_nests_deep(const ProtobufCMessageDescriptor *descriptor)
{
    return deeper_than(descriptor, KMS_RPC_NESTING_MAX);
}

/* Base-128 number of at most `max_bytes` bytes; protobuf-c takes no longer ones, so that both see the same structure. */
static uint64_t take_varint(struct kms_reader *reader, unsigned max_bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < max_bytes; i++) {
        const uint8_t byte = kms_reader_u8(reader);
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if ((byte & 0x80) == 0)
            return value;
    }
    reader->failed = true;
    return 0;
}

/* Walks the wire format, entering only what protobuf-c would enter: message fields that the type knows. */
static bool wire_is_shallow(const ProtobufCMessageDescriptor *descriptor, struct kms_reader reader,
                            unsigned levels)
{
    if (levels == 0)
        return false;
    while (reader.left > 0 && !reader.failed) {
        const uint64_t tag = take_varint(&reader, TAG_BYTES_MAX);
        switch (tag & 7) {
        case PROTOBUF_C_WIRE_TYPE_VARINT:
            (void)take_varint(&reader, VARINT_BYTES_MAX);
            break;
        case PROTOBUF_C_WIRE_TYPE_64BIT:
            (void)kms_reader_take(&reader, 8);
            break;
        case PROTOBUF_C_WIRE_TYPE_32BIT:
            (void)kms_reader_take(&reader, 4);
            break;
        case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED: {
            const size_t len = (size_t)take_varint(&reader, LENGTH_BYTES_MAX);
            const uint8_t *data = kms_reader_take(&reader, len);
            const ProtobufCFieldDescriptor *field =
                protobuf_c_message_descriptor_get_field(descriptor, (unsigned)(tag >> 3));
            if (data != NULL && field != NULL && field->type == PROTOBUF_C_TYPE_MESSAGE &&
                !wire_is_shallow(field->descriptor, kms_reader_of(kms_slice_of(data, len)), levels - 1))
                return false;
            break;
        }
        default:
            return false; /* groups: protobuf-c refuses them too */
        }
    }
    return !reader.failed;
}

/* Memory for protobuf-c; remembers that the limit was the reason of a failure. */
static void *arena_alloc(void *context, size_t size)
{
    struct unpacking *unpacking = context;
    void *memory = kms_arena_alloc(unpacking->arena, size);
    if (memory == NULL)
        unpacking->exhausted = true;
    return memory;
}

/* The arena is wiped and released as a whole. */
static void arena_free(void *context, void *pointer)
{
    (void)context;
    (void)pointer;
}

/* A string is what was sent: no NUL before its end, and UTF-8. */
static enum kms_status check_string(const ProtobufCFieldDescriptor *field, const char *text,
                                    struct kms_error *err)
{
    if (text == NULL || text == field->default_value)
        return KMS_OK;
    const size_t len = kms_arena_size_of(text) - 1;
    if (memchr(text, 0, len) != NULL)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "field '%s' contains a NUL character", field->name);
    if (!kms_utf8_valid(text, len))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "field '%s' is not valid UTF-8", field->name);
    return KMS_OK;
}

static enum kms_status check_message(const ProtobufCMessage *message, struct kms_error *err);

/* One value of a field that needs a look: a string or a message; `place` is where the pointer to it is stored. */
static enum kms_status check_value(const ProtobufCFieldDescriptor *field, const void *place,
                                   struct kms_error *err)
{
    if (field->type == PROTOBUF_C_TYPE_STRING)
        return check_string(field, *(char *const *)place, err);
    const ProtobufCMessage *inner = *(ProtobufCMessage *const *)place;
    return inner == NULL ? KMS_OK : check_message(inner, err);
}

/* A member of a oneof is present only when the case selects it; otherwise its storage belongs to another member. */
static bool is_absent_oneof(const ProtobufCFieldDescriptor *field, const char *base)
{
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0)
        return false;
    return *(const uint32_t *)(const void *)(base + field->quantifier_offset) != field->id;
}

/* All values of a repeated field. */
static enum kms_status check_repeated(const ProtobufCFieldDescriptor *field, const char *base,
                                      bool look_inside, struct kms_error *err)
{
    const size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
    if (count > KMS_RPC_REPEATED_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "field '%s' has more than %d elements", field->name,
                               KMS_RPC_REPEATED_MAX);
    if (!look_inside)
        return KMS_OK;
    void *const *values = *(void *const *const *)(const void *)(base + field->offset);
    for (size_t i = 0; i < count; i++)
        KMS_TRY(check_value(field, &values[i], err));
    return KMS_OK;
}

/* Walks the unpacked message; its depth is limited already. */
static enum kms_status check_message(const ProtobufCMessage *message, struct kms_error *err)
{
    const char *base = (const char *)message;
    for (unsigned i = 0; i < message->n_unknown_fields; i++)
        if (message->unknown_fields[i].tag == 0)
            return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the request has a field with the number 0");
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        const bool look_inside =
            field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE;
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
            KMS_TRY(check_repeated(field, base, look_inside, err));
        else if (look_inside && !is_absent_oneof(field, base))
            KMS_TRY(check_value(field, base + field->offset, err));
    }
    return KMS_OK;
}

enum kms_status kms_rpc_validate_unpack(struct kms_arena *arena, const ProtobufCMessageDescriptor *descriptor,
                                        bool scan, struct kms_slice bytes, ProtobufCMessage **ret_message,
                                        struct kms_error *err)
{
    if (scan && !wire_is_shallow(descriptor, kms_reader_of(bytes), KMS_RPC_NESTING_MAX))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the request is malformed or nested deeper than %d messages",
                               KMS_RPC_NESTING_MAX);
    struct unpacking unpacking = {.arena = arena};
    ProtobufCAllocator allocator = {.alloc = arena_alloc, .free = arena_free, .allocator_data = &unpacking};
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, &allocator, bytes.len, bytes.data);
    if (message == NULL && unpacking.exhausted)
        return kms_fail_public(err, KMS_TOO_LARGE,
                               "the request needs more memory than the service allows for one call");
    if (message == NULL)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the request is not a well-formed %s",
                               descriptor->name);
    KMS_TRY(check_message(message, err));
    *ret_message = message;
    return KMS_OK;
}
