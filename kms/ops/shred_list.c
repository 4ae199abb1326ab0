#include "ops/shred_list.h"

#include <openssl/evp.h>

struct ops_shred_hasher ops_shred_hasher_begin(void)
{
    struct ops_shred_hasher hasher = {.context = EVP_MD_CTX_new()};
    hasher.good = hasher.context != NULL && EVP_DigestInit_ex(hasher.context, EVP_sha256(), NULL) == 1;
    return hasher;
}

void ops_shred_hasher_add(struct ops_shred_hasher *hasher, const struct kms_uuid *customer)
{
    char line[KMS_UUID_TEXT_SIZE];
    (void)kms_uuid_format(customer, line);
    line[KMS_UUID_TEXT_SIZE - 1] = '\n';
    hasher->good = hasher->good && EVP_DigestUpdate(hasher->context, line, sizeof line) == 1;
}

enum kms_status ops_shred_hasher_end(struct ops_shred_hasher *hasher,
                                     uint8_t ret_hash[OPS_SHRED_LIST_HASH_SIZE])
{
    const bool good = hasher->good && EVP_DigestFinal_ex(hasher->context, ret_hash, NULL) == 1;
    ops_shred_hasher_clear(hasher);
    return good ? KMS_OK : KMS_NO_MEMORY;
}

void ops_shred_hasher_clear(struct ops_shred_hasher *hasher)
{
    EVP_MD_CTX_free(hasher->context);
    *hasher = (struct ops_shred_hasher){0};
}
