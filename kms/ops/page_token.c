#include "ops/page_token.h"

#include "store/store.h"

#include <openssl/evp.h>

/* The longest place in a list is that of a freeze: its scope, its tenant and its name. */
enum {
    TOKEN_VERSION = 1,
    BINDING_SIZE = 8,
    HEADER_SIZE = 1 + BINDING_SIZE,
    LAST_ID_MAX = 2 + KMS_FREEZE_TENANT_MAX + 1 + KMS_FREEZE_NAME_MAX
};
_Static_assert((int)LAST_ID_MAX >= (int)KMS_CUSTOMER_ID_MAX, "customers are listed by their ids");

/* The bytes that tie a token to its method and query. */
static enum kms_status binding_of(struct kms_call *call, struct kms_slice query, uint8_t out[BINDING_SIZE])
{
    const size_t method_len = strlen(call->method);
    uint8_t *joined = kms_arena_alloc(call->arena, method_len + 1 + query.len);
    uint8_t digest[EVP_MAX_MD_SIZE];
    if (joined == NULL)
        return KMS_NO_MEMORY;
    memcpy(joined, call->method, method_len);
    if (query.len > 0)
        memcpy(joined + method_len + 1, query.data, query.len);
    if (EVP_Q_digest(NULL, "SHA256", NULL, joined, method_len + 1 + query.len, digest, NULL) != 1)
        return KMS_INTERNAL;
    memcpy(out, digest, BINDING_SIZE);
    return KMS_OK;
}

enum kms_status ops_page_token_make(struct kms_call *call, struct kms_slice query, const char *last_id,
                                    char **ret_token)
{
    const size_t id_len = strlen(last_id);
    KMS_ASSERT(id_len <= LAST_ID_MAX);
    uint8_t bytes[HEADER_SIZE + LAST_ID_MAX] = {TOKEN_VERSION};
    KMS_TRY(binding_of(call, query, bytes + 1));
    memcpy(bytes + HEADER_SIZE, last_id, id_len);
    char *token = kms_arena_alloc(call->arena, 2 * (HEADER_SIZE + id_len) + 1);
    if (token == NULL)
        return KMS_NO_MEMORY;
    kms_hex_encode(bytes, HEADER_SIZE + id_len, token);
    *ret_token = token;
    return KMS_OK;
}

enum kms_status ops_page_token_parse(struct kms_call *call, struct kms_slice query, const char *token,
                                     const char **ret_after)
{
    if (token[0] == '\0') {
        *ret_after = NULL;
        return KMS_OK;
    }
    const size_t len = strlen(token);
    uint8_t bytes[HEADER_SIZE + LAST_ID_MAX + 1] = {0};
    uint8_t binding[BINDING_SIZE];
    KMS_TRY(binding_of(call, query, binding));
    const bool good = len % 2 == 0 && len / 2 > HEADER_SIZE && len / 2 <= HEADER_SIZE + LAST_ID_MAX &&
                      kms_hex_decode(token, len, bytes, len / 2) == KMS_OK && bytes[0] == TOKEN_VERSION &&
                      memcmp(bytes + 1, binding, BINDING_SIZE) == 0 &&
                      kms_utf8_printable(bytes + HEADER_SIZE, len / 2 - HEADER_SIZE);
    if (!good)
        return kms_fail_public(
            &call->error, KMS_INVALID_ARGUMENT,
            "page_token: was not made by this method with these arguments; begin again without one");
    char *after = kms_arena_strndup(call->arena, (const char *)bytes + HEADER_SIZE, len / 2 - HEADER_SIZE);
    if (after == NULL)
        return KMS_NO_MEMORY;
    *ret_after = after;
    return KMS_OK;
}
