#include "client/cache_id.h"

#include "client/fault.h"

#include <openssl/evp.h>

#include <stdlib.h>

enum { CONTEXT_ENTRIES_MAX = 64 };

/* Order by key; equal keys are the service's to refuse, their order does no harm. */
static int compare_entries(const void *a, const void *b)
{
    const struct kms_datakey_context *x = a;
    const struct kms_datakey_context *y = b;
    return strcmp(x->key, y->key);
}

/* Add bytes behind their length, so that no two inputs run into each other. */
static bool add(EVP_MD_CTX *hash, const void *data, size_t len)
{
    uint8_t prefix[8];
    kms_put_be64(prefix, len);
    return EVP_DigestUpdate(hash, prefix, sizeof prefix) == 1 &&
           (len == 0 || EVP_DigestUpdate(hash, data, len) == 1);
}

/* Add a string; NULL means the same to the service as empty. */
static bool add_text(EVP_MD_CTX *hash, const char *text)
{
    return add(hash, text, text != NULL ? strlen(text) : 0);
}

/* Everything that the key depends on. */
static bool add_request(EVP_MD_CTX *hash, enum kms_datakey_verb verb,
                        const struct kms_datakey_request *request)
{
    struct kms_datakey_context sorted[CONTEXT_ENTRIES_MAX];
    const size_t count = request->context_count;
    KMS_ASSERT(count <= CONTEXT_ENTRIES_MAX);
    if (count > 0)
        memcpy(sorted, request->context, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_entries);
    const uint8_t spec = (uint8_t)(request->spec != 0 ? request->spec : KMS_DATAKEY_AES_256);
    const uint8_t kind[2] = {(uint8_t)verb, verb == KMS_DATAKEY_GENERATE ? spec : 0};
    bool done = add(hash, kind, sizeof kind) && add_text(hash, request->tenant) &&
                add_text(hash, request->customer) && add_text(hash, request->purpose);
    for (size_t i = 0; done && i < count; i++)
        done = add_text(hash, sorted[i].key) && add_text(hash, sorted[i].value);
    return done && (verb == KMS_DATAKEY_GENERATE || add(hash, request->input, request->input_len));
}

enum kms_client_status kms_cache_id_of(enum kms_datakey_verb verb, const struct kms_datakey_request *request,
                                       struct kms_cache_id *ret_id, struct kms_client_error *err)
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    const bool done = hash != NULL && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1 &&
                      add_request(hash, verb, request) && EVP_DigestFinal_ex(hash, ret_id->bytes, NULL) == 1;
    EVP_MD_CTX_free(hash);
    return done ? KMS_CLIENT_OK : kms_fault_set(err, KMS_CLIENT_INTERNAL, "OpenSSL cannot compute SHA-256");
}
