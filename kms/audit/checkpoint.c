#define _GNU_SOURCE /* memmem */
#include "audit/checkpoint.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>

static const char line_start[] = "{\"checkpoint\":";
static const char signature_start[] = ",\"signature\":\"";
static const char line_end[] = "\"}";
enum {
    BASE64_MAX = (KMS_AUDIT_SIGNATURE_MAX + 2) / 3 * 4, /* characters */
    HASH_HEX = 2 * KMS_AUDIT_HASH_SIZE,
};
_Static_assert(KMS_AUDIT_CHECKPOINT_MAX >= sizeof line_start + KMS_AUDIT_STATEMENT_MAX +
                                               sizeof signature_start + BASE64_MAX + sizeof line_end,
               "a whole line must fit");

size_t kms_audit_statement_format(const struct kms_audit_checkpoint *checkpoint,
                                  char out[KMS_AUDIT_STATEMENT_MAX])
{
    char daemon[KMS_UUID_TEXT_SIZE];
    char hash[HASH_HEX + 1];
    kms_hex_encode(checkpoint->head.hash, KMS_AUDIT_HASH_SIZE, hash);
    const int len =
        snprintf(out, KMS_AUDIT_STATEMENT_MAX,
                 "{\"daemon\":\"%s\",\"hash\":\"%s\",\"key\":\"%s\",\"kind\":\"kms.audit.checkpoint\","
                 "\"segment\":%" PRIu64 ",\"seq\":%" PRIu64 ",\"time\":\"%s\"}",
                 kms_uuid_format(&checkpoint->daemon, daemon), hash, checkpoint->key, checkpoint->segment,
                 checkpoint->head.seq, checkpoint->time);
    KMS_ASSERT(len > 0 && len < KMS_AUDIT_STATEMENT_MAX);
    return (size_t)len;
}

size_t kms_audit_checkpoint_format(struct kms_slice statement, struct kms_slice signature,
                                   char out[KMS_AUDIT_CHECKPOINT_MAX])
{
    KMS_ASSERT(signature.len <= KMS_AUDIT_SIGNATURE_MAX && statement.len < KMS_AUDIT_STATEMENT_MAX);
    uint8_t base64[BASE64_MAX + 1];
    (void)EVP_EncodeBlock(base64, signature.data, (int)signature.len);
    const int len = snprintf(out, KMS_AUDIT_CHECKPOINT_MAX, "%s%.*s%s%s%s", line_start, (int)statement.len,
                             (const char *)statement.data, signature_start, (const char *)base64, line_end);
    return (size_t)len;
}

/* The next literal of a text. */
static bool take_literal(struct kms_slice *text, const char *literal)
{
    const size_t len = strlen(literal);
    if (text->len < len || memcmp(text->data, literal, len) != 0)
        return false;
    *text = kms_slice_of(text->data + len, text->len - len);
    return true;
}

/* The next `len` characters as a string. */
static bool take_string(struct kms_slice *text, size_t len, char *out)
{
    if (text->len < len)
        return false;
    memcpy(out, text->data, len);
    out[len] = '\0';
    *text = kms_slice_of(text->data + len, text->len - len);
    return true;
}

/* The next decimal number. */
static bool take_number(struct kms_slice *text, uint64_t *ret_number)
{
    uint64_t number = 0;
    size_t used = 0;
    for (; used < text->len && text->data[used] >= '0' && text->data[used] <= '9'; used++) {
        if (__builtin_mul_overflow(number, 10U, &number) ||
            __builtin_add_overflow(number, (uint64_t)(text->data[used] - '0'), &number))
            return false;
    }
    *ret_number = number;
    *text = kms_slice_of(text->data + used, text->len - used);
    return used > 0;
}

/* The statement that a text begins with. Exactly as it is written: it must come out the same again. */
static bool take_statement(struct kms_slice *text, struct kms_audit_checkpoint *checkpoint)
{
    const struct kms_slice from = *text;
    char daemon[KMS_UUID_TEXT_SIZE];
    char hash[HASH_HEX + 1];
    if (!take_literal(text, "{\"daemon\":\"") || !take_string(text, sizeof daemon - 1, daemon) ||
        !take_literal(text, "\",\"hash\":\"") || !take_string(text, HASH_HEX, hash) ||
        !take_literal(text, "\",\"key\":\"") ||
        !take_string(text, sizeof checkpoint->key - 1, checkpoint->key) ||
        !take_literal(text, "\",\"kind\":\"kms.audit.checkpoint\",\"segment\":") ||
        !take_number(text, &checkpoint->segment) || !take_literal(text, ",\"seq\":") ||
        !take_number(text, &checkpoint->head.seq) || !take_literal(text, ",\"time\":\"") ||
        !take_string(text, KMS_AUDIT_TIME_LEN, checkpoint->time) || !take_literal(text, "\"}"))
        return false;
    uint8_t key[(KMS_AUDIT_KEY_ID_SIZE - 1) / 2];
    int64_t time_ns;
    if (kms_uuid_parse(daemon, &checkpoint->daemon) != KMS_OK ||
        kms_hex_decode(hash, HASH_HEX, checkpoint->head.hash, KMS_AUDIT_HASH_SIZE) != KMS_OK ||
        kms_hex_decode(checkpoint->key, sizeof checkpoint->key - 1, key, sizeof key) != KMS_OK ||
        !kms_audit_time_parse(checkpoint->time, &time_ns))
        return false;
    char again[KMS_AUDIT_STATEMENT_MAX];
    const size_t len = kms_audit_statement_format(checkpoint, again);
    return len == from.len - text->len && memcmp(again, from.data, len) == 0;
}

/* Base64 of a signature up to the quote, in its one spelling. */
static bool take_signature(struct kms_slice *text, uint8_t signature[KMS_AUDIT_SIGNATURE_MAX],
                           size_t *ret_len)
{
    const uint8_t *quote = text->len > 0 ? memchr(text->data, '"', text->len) : NULL;
    const size_t len = quote == NULL ? 0 : (size_t)(quote - text->data);
    uint8_t decoded[BASE64_MAX];
    if (len == 0 || len > BASE64_MAX || EVP_DecodeBlock(decoded, text->data, (int)len) < 0)
        return false;
    const size_t padding = (size_t)(text->data[len - 1] == '=') + (size_t)(text->data[len - 2] == '=');
    const size_t bytes = len / 4 * 3 - padding;
    uint8_t again[BASE64_MAX + 1];
    if (bytes > KMS_AUDIT_SIGNATURE_MAX || EVP_EncodeBlock(again, decoded, (int)bytes) != (int)len ||
        memcmp(again, text->data, len) != 0)
        return false;
    memcpy(signature, decoded, bytes);
    *ret_len = bytes;
    *text = kms_slice_of(text->data + len, text->len - len);
    return true;
}

bool kms_audit_checkpoint_parse(struct kms_slice text, struct kms_audit_signed_checkpoint *ret_checkpoint)
{
    const uint8_t *start =
        text.len > 0 ? memmem(text.data, text.len, line_start, sizeof line_start - 1) : NULL;
    if (start == NULL)
        return false;
    start += sizeof line_start - 1;
    struct kms_slice rest = kms_slice_of(start, text.len - (size_t)(start - text.data));
    struct kms_audit_signed_checkpoint parsed;
    if (!take_statement(&rest, &parsed.checkpoint))
        return false;
    parsed.statement = kms_slice_of(start, (size_t)(rest.data - start));
    if (!take_literal(&rest, signature_start) ||
        !take_signature(&rest, parsed.signature, &parsed.signature_len) || !take_literal(&rest, line_end))
        return false;
    *ret_checkpoint = parsed;
    return true;
}
