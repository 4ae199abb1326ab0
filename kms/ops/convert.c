#include "ops/convert.h"

#include "ops/checks.h"
#include "ops/messages.h"

#include <inttypes.h>
#include <jansson.h>

/* Percent-encode everything but RFC 3986's unreserved characters. */
static char *percent_encode(struct kms_arena *arena, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    const size_t len = strlen(text);
    char *out = kms_arena_alloc(arena, 3 * len + 1);
    if (out == NULL)
        return NULL;
    char *next = out;
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)text[i];
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                           c == '-' || c == '.' || c == '_' || c == '~';
        if (plain) {
            *next++ = (char)c;
        } else {
            *next++ = '%';
            *next++ = digits[c >> 4];
            *next++ = digits[c & 15];
        }
    }
    return out;
}

/* The etag of a revision. */
static char *etag_of(struct kms_arena *arena, uint64_t revision)
{
    return kms_arena_printf(arena, "%" PRIu64, revision);
}

/* A UUID as text in the arena. */
static char *uid_of(struct kms_arena *arena, const struct kms_uuid *uuid)
{
    char text[KMS_UUID_TEXT_SIZE];
    return ops_string(arena, kms_uuid_format(uuid, text));
}

Kms__V1__Tenant *ops_tenant_message(struct kms_arena *arena, const struct kms_tenant_record *tenant)
{
    Kms__V1__Tenant *message = ops_message_new(arena, &kms__v1__tenant__descriptor);
    if (message == NULL)
        return NULL;
    message->name = kms_arena_printf(arena, "tenants/%s", tenant->id);
    message->tenant = ops_string(arena, tenant->id);
    message->uid = uid_of(arena, &tenant->uuid);
    message->display_name = ops_string(arena, tenant->display_name);
    message->state = (Kms__V1__State)tenant->state;
    message->epoch = tenant->epoch;
    message->kek_slots = tenant->next_slot;
    message->tree_height = tenant->height;
    message->create_time = ops_timestamp(arena, tenant->created_ns);
    message->update_time = ops_timestamp(arena, tenant->updated_ns);
    message->etag = etag_of(arena, tenant->revision);
    const bool whole = message->name != NULL && message->tenant != NULL && message->uid != NULL &&
                       message->display_name != NULL && message->create_time != NULL &&
                       message->update_time != NULL && message->etag != NULL;
    return whole ? message : NULL;
}

Kms__V1__Purpose *ops_purpose_message(struct kms_arena *arena, const char *tenant_id,
                                      const struct kms_purpose_record *purpose)
{
    Kms__V1__Purpose *message = ops_message_new(arena, &kms__v1__purpose__descriptor);
    if (message == NULL)
        return NULL;
    message->name = kms_arena_printf(arena, "tenants/%s/purposes/%s", tenant_id, purpose->id);
    message->tenant = ops_string(arena, tenant_id);
    message->purpose = ops_string(arena, purpose->id);
    message->display_name = ops_string(arena, purpose->display_name);
    message->legal_basis = ops_string(arena, purpose->legal_basis);
    message->required_by_law = purpose->required_by_law;
    message->retention_seconds = purpose->retention_seconds;
    message->rotation_seconds = purpose->rotation_seconds;
    message->state = (Kms__V1__State)purpose->state;
    message->create_time = ops_timestamp(arena, purpose->created_ns);
    message->update_time = ops_timestamp(arena, purpose->updated_ns);
    message->etag = etag_of(arena, purpose->revision);
    const bool whole = message->name != NULL && message->tenant != NULL && message->purpose != NULL &&
                       message->display_name != NULL && message->legal_basis != NULL &&
                       message->create_time != NULL && message->update_time != NULL && message->etag != NULL;
    return whole ? message : NULL;
}

Kms__V1__KekVersion *ops_kek_message(struct kms_arena *arena, const struct kms_kek_record *kek, bool primary)
{
    Kms__V1__KekVersion *message = ops_message_new(arena, &kms__v1__kek_version__descriptor);
    if (message == NULL)
        return NULL;
    message->kek_id = kms_arena_alloc(arena, 2 * KMS_KEK_ID_SIZE + 1);
    if (message->kek_id != NULL)
        kms_hex_encode(kek->kek_id, KMS_KEK_ID_SIZE, message->kek_id);
    message->purpose = ops_string(arena, kek->purpose);
    message->version = kek->version;
    message->state = (Kms__V1__KekVersion__State)kek->state;
    message->primary = primary;
    message->wraps_reserved = kek->wraps_reserved;
    message->rewrapped = kek->rewrapped;
    message->create_time = ops_timestamp(arena, kek->created_ns);
    return message->kek_id != NULL && message->purpose != NULL && message->create_time != NULL ? message
                                                                                               : NULL;
}

/* The stored JSON object as entries of the message's map. */
static enum kms_status labels_into(struct kms_call *call, const char *json, Kms__V1__Customer *message)
{
    json_t *labels = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(labels)) {
        json_decref(labels);
        return kms_fail(&call->error, KMS_STORE_CORRUPT, "the labels of a customer are not a JSON object");
    }
    enum kms_status status = KMS_OK;
    const size_t count = json_object_size(labels);
    message->labels = kms_arena_alloc(call->arena, (count + 1) * sizeof(*message->labels));
    if (message->labels == NULL)
        status = KMS_NO_MEMORY;
    const char *key = NULL;
    const json_t *value = NULL;
    if (status == KMS_OK) {
        json_object_foreach(labels, key, value)
        {
            Kms__V1__Customer__LabelsEntry *entry =
                ops_message_new(call->arena, &kms__v1__customer__labels_entry__descriptor);
            const char *text = json_string_value(value);
            if (entry == NULL || text == NULL) {
                status = entry == NULL ? KMS_NO_MEMORY : KMS_STORE_CORRUPT;
                break;
            }
            entry->key = ops_string(call->arena, key);
            entry->value = ops_string(call->arena, text);
            if (entry->key == NULL || entry->value == NULL) {
                status = KMS_NO_MEMORY;
                break;
            }
            message->labels[message->n_labels++] = entry;
        }
    }
    json_decref(labels);
    return status;
}

enum kms_status ops_customer_message(struct kms_call *call, const char *tenant_id,
                                     const struct kms_customer_record *customer,
                                     Kms__V1__Customer **ret_message)
{
    struct kms_arena *arena = call->arena;
    Kms__V1__Customer *message = ops_message_new(arena, &kms__v1__customer__descriptor);
    const char *encoded = percent_encode(arena, customer->id);
    if (message == NULL || encoded == NULL)
        return KMS_NO_MEMORY;
    message->name = kms_arena_printf(arena, "tenants/%s/customers/%s", tenant_id, encoded);
    message->tenant = ops_string(arena, tenant_id);
    message->customer = ops_string(arena, customer->id);
    message->uid = uid_of(arena, &customer->uuid);
    message->state = (Kms__V1__State)customer->state;
    message->create_time = ops_timestamp(arena, customer->created_ns);
    message->update_time = ops_timestamp(arena, customer->updated_ns);
    message->etag = etag_of(arena, customer->revision);
    if (message->name == NULL || message->tenant == NULL || message->customer == NULL ||
        message->uid == NULL || message->create_time == NULL || message->update_time == NULL ||
        message->etag == NULL)
        return KMS_NO_MEMORY;
    /* most customers of a bulk have none: no parser needed */
    if (strcmp(customer->labels, "{}") != 0)
        KMS_TRY(labels_into(call, customer->labels, message));
    *ret_message = message;
    return KMS_OK;
}

enum kms_status ops_labels_json(struct kms_call *call, const Kms__V1__Customer *customer, char **ret_json)
{
    if (customer->n_labels > KMS_LABELS_MAX)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "labels: at most %d are allowed",
                               KMS_LABELS_MAX);
    json_t *labels = json_object();
    enum kms_status status = labels != NULL ? KMS_OK : KMS_NO_MEMORY;
    for (size_t i = 0; status == KMS_OK && i < customer->n_labels; i++) {
        const char *key = customer->labels[i]->key;
        const char *value = customer->labels[i]->value;
        status = ops_check_id(call, "label key", key);
        if (status == KMS_OK)
            status = ops_check_text(call, "label value", value, KMS_LABEL_VALUE_MAX);
        if (status == KMS_OK && json_object_get(labels, key) != NULL)
            status =
                kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "labels: '%s' stands there twice", key);
        if (status == KMS_OK && json_object_set_new(labels, key, json_string(value)) != 0)
            status = KMS_NO_MEMORY;
    }
    char *json = status == KMS_OK ? json_dumps(labels, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(labels);
    if (status == KMS_OK && json == NULL)
        status = KMS_NO_MEMORY;
    if (status == KMS_OK)
        *ret_json = json;
    return status;
}
