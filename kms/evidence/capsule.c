#include "evidence/capsule.h"

#include "core/cleanup.h"
#include "evidence/signature.h"

#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEX_DIGITS_OF_KEY = 64, HEX_DIGITS_OF_ID = 2 * KMS_CAPSULE_ID_SIZE, EPOCH_DIGITS_MAX = 19 };

static const char name_service[] = "service.capsule";
static const char name_suffix[] = ".capsule";
static const char label_prefix[] = "kms/";
static const char *const role_names[] = {"master", "integrity", "backup"};
static const char *const mechanism_names[] = {"RSA-OAEP-SHA1", "RSA-OAEP-SHA256"};
enum { ROLES = sizeof role_names / sizeof *role_names };
enum { MECHANISMS = sizeof mechanism_names / sizeof *mechanism_names };

static void clear_json(json_t **json)
{
    json_decref(*json);
}

void kms_capsule_clear(struct kms_capsule *capsule)
{
    free(capsule->keys);
    *capsule = (struct kms_capsule){0};
}

const char *kms_capsule_name(const struct kms_uuid *tenant, uint64_t epoch, char out[KMS_CAPSULE_NAME_SIZE])
{
    char uuid[KMS_UUID_TEXT_SIZE];
    if (kms_uuid_is_zero(tenant))
        (void)snprintf(out, KMS_CAPSULE_NAME_SIZE, "%s", name_service);
    else
        (void)snprintf(out, KMS_CAPSULE_NAME_SIZE, "%s.%" PRIu64 "%s", kms_uuid_format(tenant, uuid), epoch,
                       name_suffix);
    return out;
}

/* "<uuid><separator><epoch>", and nothing that could also be written otherwise; what follows is in *ret_rest. */
static bool parse_place(const char *text, char separator, struct kms_uuid *ret_tenant, uint64_t *ret_epoch,
                        const char **ret_rest)
{
    char uuid[KMS_UUID_TEXT_SIZE];
    char again[KMS_UUID_TEXT_SIZE];
    struct kms_uuid tenant;
    if (strlen(text) < sizeof uuid)
        return false;
    memcpy(uuid, text, sizeof uuid - 1);
    uuid[sizeof uuid - 1] = '\0';
    if (kms_uuid_parse(uuid, &tenant) != KMS_OK || kms_uuid_is_zero(&tenant) ||
        strcmp(kms_uuid_format(&tenant, again), uuid) != 0 || text[sizeof uuid - 1] != separator)
        return false;
    const char *digits = text + sizeof uuid;
    const size_t len = strspn(digits, "0123456789");
    if (len == 0 || len > EPOCH_DIGITS_MAX || digits[0] == '0')
        return false;
    const uint64_t epoch = strtoull(digits, NULL, 10);
    if (epoch > INT64_MAX)
        return false;
    *ret_tenant = tenant;
    *ret_epoch = epoch;
    *ret_rest = digits + len;
    return true;
}

bool kms_capsule_name_parse(const char *name, struct kms_uuid *ret_tenant, uint64_t *ret_epoch)
{
    struct kms_uuid tenant = {{0}};
    uint64_t epoch = 0;
    const char *rest = NULL;
    if (strcmp(name, name_service) != 0 &&
        (!parse_place(name, '.', &tenant, &epoch, &rest) || strcmp(rest, name_suffix) != 0))
        return false;
    *ret_tenant = tenant;
    *ret_epoch = epoch;
    return true;
}

bool kms_capsule_master_label(const char *label, struct kms_uuid *ret_tenant, uint64_t *ret_epoch)
{
    struct kms_uuid tenant;
    uint64_t epoch = 0;
    const char *rest = NULL;
    if (strncmp(label, label_prefix, sizeof label_prefix - 1) != 0 ||
        !parse_place(label + sizeof label_prefix - 1, '/', &tenant, &epoch, &rest) || rest[0] != '\0')
        return false;
    *ret_tenant = tenant;
    *ret_epoch = epoch;
    return true;
}

/* So many lower-case hex digits and nothing else. */
static bool is_hex(const char *text, size_t digits)
{
    return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

/* The label that a key of this role has; for a master key the place that the capsule is for. */
static bool label_fits(const struct kms_capsule *capsule, const struct kms_capsule_key *key)
{
    struct kms_uuid tenant;
    uint64_t epoch = 0;
    if (key->role == KMS_CAPSULE_INTEGRITY)
        return strcmp(key->label, "kms/integrity") == 0;
    if (key->role == KMS_CAPSULE_BACKUP)
        return strcmp(key->label, "kms/backup") == 0;
    if (!kms_capsule_master_label(key->label, &tenant, &epoch))
        return false;
    return capsule->transport || (kms_uuid_equal(&tenant, &capsule->tenant) && epoch == capsule->epoch);
}

/* For sorting ids, so that two keys with one id are found among thousands. */
static int compare_ids(const void *left, const void *right)
{
    return memcmp(left, right, KMS_CAPSULE_ID_SIZE);
}

/* Whether no two keys have one id. */
static enum kms_status check_ids(const struct kms_capsule *capsule, struct kms_error *err)
{
    KMS_FREE uint8_t(*ids)[KMS_CAPSULE_ID_SIZE] = calloc(capsule->count, sizeof *ids);
    if (ids == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a capsule");
    for (size_t i = 0; i < capsule->count; i++)
        memcpy(ids[i], capsule->keys[i].id, sizeof *ids);
    qsort(ids, capsule->count, sizeof *ids, compare_ids);
    for (size_t i = 1; i < capsule->count; i++) {
        if (compare_ids(ids[i - 1], ids[i]) == 0)
            return kms_fail_public(err, KMS_INVALID_ARGUMENT, "two keys of the capsule have one id");
    }
    return KMS_OK;
}

/* Which keys a capsule of its kind holds. */
static enum kms_status check_keys(const struct kms_capsule *capsule, struct kms_error *err)
{
    size_t roles[ROLES] = {0};
    for (size_t i = 0; i < capsule->count; i++) {
        const struct kms_capsule_key *key = &capsule->keys[i];
        if (key->wrapped_len < KMS_CAPSULE_WRAPPED_MIN || key->wrapped_len > KMS_CAPSULE_WRAPPED_MAX)
            return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                                   "a key of the capsule is not wrapped under RSA of 3072 to 4096 bits");
        if (!label_fits(capsule, key))
            return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                                   "a key of the capsule has a label that its role and place do not give it");
        roles[key->role]++;
    }
    const bool own = roles[KMS_CAPSULE_INTEGRITY] == 1 && roles[KMS_CAPSULE_BACKUP] == 1;
    const bool none = roles[KMS_CAPSULE_INTEGRITY] == 0 && roles[KMS_CAPSULE_BACKUP] == 0;
    const size_t masters = roles[KMS_CAPSULE_MASTER];
    const bool fits = capsule->transport                   ? own
                      : kms_uuid_is_zero(&capsule->tenant) ? own && masters == 0
                                                           : none && masters == 1;
    if (!fits)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the capsule does not hold the keys of its kind");
    return check_ids(capsule, err);
}

/* Everything that makes a capsule one: the encoder's last look, and the parser's. */
static enum kms_status check(const struct kms_capsule *capsule, struct kms_error *err)
{
    const bool own = kms_uuid_is_zero(&capsule->tenant);
    const size_t most = capsule->transport ? KMS_TRANSPORT_KEYS_MAX : 2;
    const bool places = capsule->transport ? own && capsule->epoch == 0 && capsule->recovery_epoch == 0
                                           : (own ? capsule->epoch == 0 : capsule->epoch >= 1) &&
                                                 capsule->recovery_epoch >= 1;
    if (!places || capsule->epoch > INT64_MAX || capsule->recovery_epoch > INT64_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the capsule's tenant, epoch and recovery epoch do not go together");
    if (!is_hex(capsule->deployment, HEX_DIGITS_OF_ID) || !is_hex(capsule->wrapping_key, HEX_DIGITS_OF_KEY))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the capsule names no deployment or no key that it is wrapped for");
    if (capsule->made[0] == '\0' || strspn(capsule->made, "0123456789-:.TZ") != strlen(capsule->made))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the capsule does not say when it was made");
    if (capsule->count == 0 || capsule->count > most)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the capsule holds no keys, or too many");
    return check_keys(capsule, err);
}

/* Base64 (RFC 4648); an EVP_EncodeBlock writes its NUL too. */
static size_t base64_size(size_t len)
{
    return (len + 2) / 3 * 4 + 1;
}

/* One key as JSON; NULL without memory. */
static json_t *key_json(const struct kms_capsule_key *key)
{
    char id[HEX_DIGITS_OF_ID + 1];
    unsigned char wrapped[(KMS_CAPSULE_WRAPPED_MAX + 2) / 3 * 4 + 1];
    kms_hex_encode(key->id, sizeof key->id, id);
    (void)EVP_EncodeBlock(wrapped, key->wrapped, (int)key->wrapped_len);
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", id, "label", key->label, "mechanism",
                     mechanism_names[key->mechanism], "role", role_names[key->role], "wrapped",
                     (const char *)wrapped);
}

/* The members that only a recovery capsule has. */
static bool add_recovery_members(const struct kms_capsule *capsule, json_t *root)
{
    char uuid[KMS_UUID_TEXT_SIZE] = "";
    if (!kms_uuid_is_zero(&capsule->tenant))
        (void)kms_uuid_format(&capsule->tenant, uuid);
    return json_object_set_new(root, "tenant", json_string(uuid)) == 0 &&
           json_object_set_new(root, "epoch", json_integer((json_int_t)capsule->epoch)) == 0 &&
           json_object_set_new(root, "recovery_epoch", json_integer((json_int_t)capsule->recovery_epoch)) ==
               0 &&
           json_object_set_new(root, "recovery_key", json_string(capsule->wrapping_key)) == 0;
}

/* The document; NULL without memory. */
static json_t *capsule_json(const struct kms_capsule *capsule)
{
    KMS_CLEANUP(clear_json)
    json_t *root = json_pack("{s:s, s:s, s:s, s:[]}", "deployment", capsule->deployment, "format",
                             capsule->transport ? KMS_TRANSPORT_FORMAT : KMS_CAPSULE_FORMAT, "made",
                             capsule->made, "keys");
    bool complete = root != NULL &&
                    (capsule->transport
                         ? json_object_set_new(root, "transport_key", json_string(capsule->wrapping_key)) == 0
                         : add_recovery_members(capsule, root));
    json_t *keys = json_object_get(root, "keys");
    for (size_t i = 0; complete && i < capsule->count; i++)
        complete = json_array_append_new(keys, key_json(&capsule->keys[i])) == 0;
    return complete ? KMS_TAKE(root) : NULL;
}

enum kms_status kms_capsule_encode(const struct kms_capsule *capsule, struct kms_buf *line,
                                   struct kms_error *err)
{
    KMS_TRY(check(capsule, err));
    KMS_CLEANUP(clear_json) json_t *root = capsule_json(capsule);
    KMS_FREE char *text = root != NULL ? json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    if (text == NULL || kms_buf_append_str(line, text) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to write a capsule");
    return KMS_OK;
}

enum kms_status kms_capsule_seal(struct kms_slice line, struct kms_slice signature, struct kms_buf *file,
                                 struct kms_error *err)
{
    unsigned char base64[(KMS_EVIDENCE_SIGNATURE_MAX + 2) / 3 * 4 + 1];
    KMS_ASSERT(signature.len <= KMS_EVIDENCE_SIGNATURE_MAX);
    const int len = EVP_EncodeBlock(base64, signature.data, (int)signature.len);
    if (kms_buf_reserve(file, line.len + (size_t)len + 2) != KMS_OK ||
        kms_buf_append(file, line.data, line.len) != KMS_OK || kms_buf_append_str(file, "\n") != KMS_OK ||
        kms_buf_append(file, base64, (size_t)len) != KMS_OK || kms_buf_append_str(file, "\n") != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to write a capsule");
    return KMS_OK;
}

enum kms_status kms_capsule_write_transport(const struct kms_capsule *capsule, struct kms_buf *file,
                                            struct kms_error *err)
{
    if (!capsule->transport)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "the capsule is no transport capsule");
    KMS_TRY(kms_capsule_encode(capsule, file, err));
    if (kms_buf_append_str(file, "\n") != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to write a capsule");
    return KMS_OK;
}

/* A text member, copied; false when it is missing, no text, too long, or holds a NUL. */
static bool take_text(const json_t *object, const char *name, char *out, size_t size)
{
    const json_t *value = json_object_get(object, name);
    const size_t len = json_string_length(value);
    if (!json_is_string(value) || len >= size || strlen(json_string_value(value)) != len)
        return false;
    memcpy(out, json_string_value(value), len + 1);
    return true;
}

/* A number that is not negative. */
static bool take_number(const json_t *object, const char *name, uint64_t *ret_number)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *ret_number = (uint64_t)json_integer_value(value);
    return true;
}

/* One of a list of words, as its index. */
static bool take_word(const json_t *object, const char *name, const char *const *words, size_t count,
                      size_t *ret_index)
{
    const char *text = json_string_value(json_object_get(object, name));
    for (size_t i = 0; text != NULL && i < count; i++) {
        if (strcmp(text, words[i]) == 0) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

/* Base64 into `out`, which has room for `size` bytes. That it is written as this service writes it, the comparison at the end tells. */
static bool decode_base64(struct kms_slice text, uint8_t *out, size_t size, size_t *ret_len)
{
    if (text.len == 0 || text.len % 4 != 0 || text.len >= base64_size(size))
        return false;
    const size_t padding = (size_t)(text.data[text.len - 1] == '=') + (text.data[text.len - 2] == '=');
    KMS_FREE uint8_t *decoded = malloc(text.len / 4 * 3);
    const int got = decoded != NULL ? EVP_DecodeBlock(decoded, text.data, (int)text.len) : -1;
    if (got < 0 || (size_t)got < padding || (size_t)got - padding > size)
        return false;
    *ret_len = (size_t)got - padding;
    memcpy(out, decoded, *ret_len);
    return true;
}

/* One key of the list. */
static bool take_key(const json_t *object, struct kms_capsule_key *ret_key)
{
    size_t role = 0;
    size_t mechanism = 0;
    const json_t *id = json_object_get(object, "id");
    const json_t *wrapped = json_object_get(object, "wrapped");
    if (!take_word(object, "role", role_names, ROLES, &role) ||
        !take_word(object, "mechanism", mechanism_names, MECHANISMS, &mechanism) || !json_is_string(id) ||
        !json_is_string(wrapped) || !take_text(object, "label", ret_key->label, sizeof ret_key->label))
        return false;
    ret_key->role = (enum kms_capsule_role)role;
    ret_key->mechanism = (enum kms_capsule_mechanism)mechanism;
    return kms_hex_decode(json_string_value(id), json_string_length(id), ret_key->id, sizeof ret_key->id) ==
               KMS_OK &&
           decode_base64(kms_slice_of(json_string_value(wrapped), json_string_length(wrapped)),
                         ret_key->wrapped, sizeof ret_key->wrapped, &ret_key->wrapped_len);
}

/* Everything but the keys. */
static bool take_head(const json_t *root, struct kms_capsule *capsule)
{
    char uuid[KMS_UUID_TEXT_SIZE];
    if (!take_text(root, "deployment", capsule->deployment, sizeof capsule->deployment) ||
        !take_text(root, "made", capsule->made, sizeof capsule->made) ||
        !take_text(root, capsule->transport ? "transport_key" : "recovery_key", capsule->wrapping_key,
                   sizeof capsule->wrapping_key))
        return false;
    if (capsule->transport)
        return true;
    return take_number(root, "epoch", &capsule->epoch) &&
           take_number(root, "recovery_epoch", &capsule->recovery_epoch) &&
           take_text(root, "tenant", uuid, sizeof uuid) &&
           (uuid[0] == '\0' || kms_uuid_parse(uuid, &capsule->tenant) == KMS_OK);
}

/* Which of the two forms it is. */
static enum kms_status take_format(const json_t *root, bool *ret_transport, struct kms_error *err)
{
    const char *format = json_string_value(json_object_get(root, "format"));
    const bool transport = format != NULL && strcmp(format, KMS_TRANSPORT_FORMAT) == 0;
    if (format == NULL || (!transport && strcmp(format, KMS_CAPSULE_FORMAT) != 0))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the file is no %s and no %s: it is no capsule, or from a newer version",
                               KMS_CAPSULE_FORMAT, KMS_TRANSPORT_FORMAT);
    *ret_transport = transport;
    return KMS_OK;
}

/* All members into an empty capsule, which the caller clears. */
static enum kms_status take_all(const json_t *root, struct kms_capsule *capsule, struct kms_error *err)
{
    KMS_TRY(take_format(root, &capsule->transport, err));
    const json_t *keys = json_object_get(root, "keys");
    const size_t count = json_array_size(keys);
    if (!take_head(root, capsule) || count == 0 || count > KMS_TRANSPORT_KEYS_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the capsule lacks a member, or one is of another form");
    capsule->keys = calloc(count, sizeof *capsule->keys);
    if (capsule->keys == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for %zu keys of a capsule", count);
    for (; capsule->count < count; capsule->count++) {
        if (!take_key(json_array_get(keys, capsule->count), &capsule->keys[capsule->count]))
            return kms_fail_public(err, KMS_INVALID_ARGUMENT, "key %zu of the capsule is of another form",
                                   capsule->count);
    }
    return KMS_OK;
}

/*
 * Only the form that this service writes is taken: a member that nobody knows, a space, another spelling of a number or a key, all
 * are differences to what the content would be written as.
 */
static enum kms_status check_spelling(const struct kms_capsule *capsule, struct kms_slice line,
                                      struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf again = {0};
    KMS_TRY(kms_capsule_encode(capsule, &again, err));
    if (again.len != line.len || memcmp(again.data, line.data, line.len) != 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the capsule is not written in the one form that it has");
    return KMS_OK;
}

enum kms_status kms_capsule_parse(struct kms_slice line, struct kms_capsule *ret_capsule,
                                  struct kms_error *err)
{
    json_error_t problem;
    if (line.len > KMS_TRANSPORT_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the capsule is larger than %d bytes",
                               KMS_TRANSPORT_MAX);
    KMS_CLEANUP(clear_json)
    json_t *root = json_loadb((const char *)line.data, line.len, JSON_REJECT_DUPLICATES, &problem);
    if (!json_is_object(root))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT, "the capsule is no JSON object");
    KMS_CLEANUP(kms_capsule_clear) struct kms_capsule capsule = {0};
    KMS_TRY(take_all(root, &capsule, err));
    KMS_TRY(check_spelling(&capsule, line, err));
    *ret_capsule = capsule;
    capsule = (struct kms_capsule){0};
    return KMS_OK;
}

/* The first line of a file without its newline; false when there is none within the limit. */
static bool split_line(struct kms_slice file, size_t limit, struct kms_slice *ret_line,
                       struct kms_slice *ret_rest)
{
    const uint8_t *end = file.len > 0 && file.len <= limit ? memchr(file.data, '\n', file.len) : NULL;
    if (end == NULL)
        return false;
    const size_t len = (size_t)(end - file.data);
    *ret_line = kms_slice_of(file.data, len);
    *ret_rest = kms_slice_of(end + 1, file.len - len - 1);
    return true;
}

/* The signature that ends a recovery capsule, in exactly one spelling. */
static bool take_signature(struct kms_slice rest, uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX],
                           size_t *ret_len)
{
    unsigned char again[(KMS_EVIDENCE_SIGNATURE_MAX + 2) / 3 * 4 + 1];
    if (rest.len < 2 || rest.data[rest.len - 1] != '\n' ||
        !decode_base64(kms_slice_of(rest.data, rest.len - 1), signature, KMS_EVIDENCE_SIGNATURE_MAX, ret_len))
        return false;
    const int len = EVP_EncodeBlock(again, signature, (int)*ret_len);
    return (size_t)len == rest.len - 1 && memcmp(again, rest.data, rest.len - 1) == 0;
}

enum kms_status kms_capsule_open(struct kms_slice file, struct kms_slice attestation_pem,
                                 struct kms_capsule *ret_capsule, struct kms_error *err)
{
    uint8_t signature[KMS_EVIDENCE_SIGNATURE_MAX];
    size_t len = 0;
    struct kms_slice line;
    struct kms_slice rest;
    if (!split_line(file, KMS_CAPSULE_MAX, &line, &rest) || !take_signature(rest, signature, &len))
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the file is no recovery capsule: it is not two lines of at most %d bytes, of "
                               "which the second is a signature",
                               KMS_CAPSULE_MAX);
    KMS_TRY(kms_signature_verify(attestation_pem, line, kms_slice_of(signature, len), err));
    KMS_CLEANUP(kms_capsule_clear) struct kms_capsule capsule = {0};
    KMS_TRY(kms_capsule_parse(line, &capsule, err));
    if (capsule.transport)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the file is a transport capsule, no recovery capsule");
    *ret_capsule = capsule;
    capsule = (struct kms_capsule){0};
    return KMS_OK;
}

enum kms_status kms_capsule_open_transport(struct kms_slice file, struct kms_capsule *ret_capsule,
                                           struct kms_error *err)
{
    struct kms_slice line;
    struct kms_slice rest;
    if (!split_line(file, KMS_TRANSPORT_MAX, &line, &rest) || rest.len != 0)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the file is no transport capsule: it is not one line of at most %d bytes",
                               KMS_TRANSPORT_MAX);
    KMS_CLEANUP(kms_capsule_clear) struct kms_capsule capsule = {0};
    KMS_TRY(kms_capsule_parse(line, &capsule, err));
    if (!capsule.transport)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "the file is a recovery capsule, no transport capsule");
    *ret_capsule = capsule;
    capsule = (struct kms_capsule){0};
    return KMS_OK;
}
