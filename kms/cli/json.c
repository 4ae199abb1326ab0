#include "cli/json.h"

#include "core/bytes.h"
#include "core/clock.h"

#include <google/protobuf/timestamp.pb-c.h>
#include <openssl/evp.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { BASE64_INPUT_MAX = 1 << 24 };

json_t *kms_cli_json_base64(const void *data, size_t len)
{
    if (len > BASE64_INPUT_MAX)
        return NULL;
    char *text = malloc((len + 2) / 3 * 4 + 1);
    if (text == NULL)
        return NULL;
    const int written = EVP_EncodeBlock((unsigned char *)text, data, (int)len);
    json_t *json = json_stringn(text, (size_t)written);
    explicit_bzero(text, (size_t)written);
    free(text);
    return json;
}

json_t *kms_cli_json_text(const char *text)
{
    if (kms_utf8_valid(text, strlen(text)))
        return json_string(text);
    char *copy = strdup(text);
    if (copy == NULL)
        return NULL;
    for (char *c = copy; *c != '\0'; c++)
        *c = (unsigned char)*c >= 0x80 ? '?' : *c;
    json_t *json = json_string(copy);
    free(copy);
    return json;
}

/* Timestamps without a value are null; fractions are shown to the microsecond. */
static json_t *timestamp(const Google__Protobuf__Timestamp *time)
{
    const int64_t seconds_max = INT64_C(9000000000); /* what fits into nanoseconds of 64 bits */
    char text[KMS_TIME_TEXT_SIZE];
    if (time->seconds < 0 || time->seconds > seconds_max)
        return json_null();
    return json_string(kms_clock_format(time->seconds * KMS_NS_PER_SECOND + time->nanos, text));
}

/* The name of an enum's value without the type's prefix; a number when this program does not know it. */
static json_t *enum_name(const ProtobufCEnumDescriptor *descriptor, int value)
{
    const ProtobufCEnumValue *row = protobuf_c_enum_descriptor_get_value(descriptor, value);
    return row != NULL ? json_string(row->name) : json_integer(value);
}

static json_t *one_value(const ProtobufCFieldDescriptor *field, const void *place);

/* A map arrives as repeated entries with key = 1 and value = 2, both text in this API. */
static bool is_map_entry(const ProtobufCMessageDescriptor *descriptor)
{
    static const char suffix[] = "Entry";
    const size_t len = strlen(descriptor->short_name);
    return descriptor->n_fields == 2 && len > strlen(suffix) &&
           strcmp(descriptor->short_name + len - strlen(suffix), suffix) == 0 &&
           strcmp(descriptor->fields[0].name, "key") == 0 && strcmp(descriptor->fields[1].name, "value") == 0;
}

/* A map as an object. */
static json_t *map_object(size_t count, const char *array)
{
    json_t *object = json_object();
    for (size_t i = 0; i < count; i++) {
        const ProtobufCMessage *entry;
        memcpy(&entry, array + i * sizeof entry, sizeof entry);
        const char *const base = (const char *)entry;
        const char *key;
        memcpy(&key, base + entry->descriptor->fields[0].offset, sizeof key);
        (void)json_object_set_new(
            object, key,
            one_value(&entry->descriptor->fields[1], base + entry->descriptor->fields[1].offset));
    }
    return object;
}

/* Size of one element of a repeated field of the kinds that this API uses. */
static size_t element_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    default:
        return 4;
    }
}

/* A repeated field as an array, or as an object when it is a map. */
static json_t *repeated(const ProtobufCFieldDescriptor *field, const char *base)
{
    size_t count;
    const char *array;
    memcpy(&count, base + field->quantifier_offset, sizeof count);
    memcpy(&array, base + field->offset, sizeof array);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE && is_map_entry(field->descriptor))
        return map_object(count, array);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        (void)json_array_append_new(list, one_value(field, array + i * element_size(field->type)));
    return list;
}

/* A sub-message; unset ones are null. */
static json_t *sub_message(const void *place)
{
    const ProtobufCMessage *message;
    memcpy(&message, place, sizeof message);
    if (message == NULL)
        return json_null();
    if (message->descriptor == &google__protobuf__timestamp__descriptor)
        return timestamp((const Google__Protobuf__Timestamp *)message);
    return kms_cli_json_of(message);
}

/* A number of 64 bits, unsigned ones as far as JSON libraries go. */
static json_t *wide(const void *place)
{
    int64_t number;
    memcpy(&number, place, sizeof number);
    return json_integer(number);
}

/* One value of any kind but the repeated. */
static json_t *one_value(const ProtobufCFieldDescriptor *field, const void *place)
{
    int32_t small;
    const char *text;
    ProtobufCBinaryData bytes;
    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        return sub_message(place);
    case PROTOBUF_C_TYPE_STRING:
        memcpy(&text, place, sizeof text);
        return kms_cli_json_text(text != NULL ? text : "");
    case PROTOBUF_C_TYPE_BYTES:
        memcpy(&bytes, place, sizeof bytes);
        return kms_cli_json_base64(bytes.data, bytes.len);
    case PROTOBUF_C_TYPE_ENUM:
        memcpy(&small, place, sizeof small);
        return enum_name(field->descriptor, small);
    case PROTOBUF_C_TYPE_BOOL:
        memcpy(&small, place, sizeof small);
        return json_boolean(small);
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        memcpy(&small, place, sizeof small);
        return json_integer(small);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        memcpy(&small, place, sizeof small);
        return json_integer((uint32_t)small);
    default:
        return wide(place);
    }
}

json_t *kms_cli_json_of(const ProtobufCMessage *message)
{
    json_t *object = json_object();
    const char *base = (const char *)message;
    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
            (void)json_object_set_new(object, field->name, repeated(field, base));
        else
            (void)json_object_set_new(object, field->name, one_value(field, base + field->offset));
    }
    return object;
}
