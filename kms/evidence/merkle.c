#include "evidence/merkle.h"

#include <openssl/evp.h>

/* SHA-256 over a prefix byte and up to two parts. */
static enum kms_status hash_parts(uint8_t prefix, struct kms_slice first, struct kms_slice second,
                                  struct kms_merkle_hash *ret_hash)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (context == NULL)
        return KMS_NO_MEMORY;
    const bool done = EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1 &&
                      EVP_DigestUpdate(context, &prefix, 1) == 1 &&
                      EVP_DigestUpdate(context, first.data, first.len) == 1 &&
                      EVP_DigestUpdate(context, second.data, second.len) == 1 &&
                      EVP_DigestFinal_ex(context, ret_hash->bytes, NULL) == 1;
    EVP_MD_CTX_free(context);
    return done ? KMS_OK : KMS_INTERNAL;
}

enum kms_status kms_merkle_leaf(struct kms_slice data, struct kms_merkle_hash *ret_hash)
{
    return hash_parts(0, data, kms_slice_of(NULL, 0), ret_hash);
}

/* An inner node; the output may be one of the inputs. */
static enum kms_status join(const struct kms_merkle_hash *left, const struct kms_merkle_hash *right,
                            struct kms_merkle_hash *ret_hash)
{
    struct kms_merkle_hash hash;
    KMS_TRY(hash_parts(1, kms_slice_of(left->bytes, KMS_MERKLE_SIZE),
                       kms_slice_of(right->bytes, KMS_MERKLE_SIZE), &hash));
    *ret_hash = hash;
    return KMS_OK;
}

/* The largest power of two below n, which is at least 2. */
static size_t split_of(size_t n)
{
    size_t split = 1;
    while (split * 2 < n)
        split *= 2;
    return split;
}

/* The recursion is as deep as the tree: at most 64. */
enum kms_status kms_merkle_root(const struct kms_merkle_hash *leaves, size_t count,
                                struct kms_merkle_hash *ret_root)
{
    if (count == 0) {
        struct kms_merkle_hash hash;
        if (EVP_Q_digest(NULL, "SHA256", NULL, "", 0, hash.bytes, NULL) != 1)
            return KMS_INTERNAL;
        *ret_root = hash;
        return KMS_OK;
    }
    if (count == 1) {
        *ret_root = leaves[0];
        return KMS_OK;
    }
    const size_t split = split_of(count);
    struct kms_merkle_hash left;
    struct kms_merkle_hash right;
    KMS_TRY(kms_merkle_root(leaves, split, &left));
    KMS_TRY(kms_merkle_root(leaves + split, count - split, &right));
    return join(&left, &right, ret_root);
}

enum kms_status kms_merkle_path(const struct kms_merkle_hash *leaves, size_t count, size_t index,
                                struct kms_merkle_hash ret_path[KMS_MERKLE_PATH_MAX], size_t *ret_len)
{
    KMS_ASSERT(index < count);
    size_t len = 0;
    struct kms_merkle_hash down[KMS_MERKLE_PATH_MAX]; /* from the root to the leaf */
    while (count > 1) {
        const size_t split = split_of(count);
        const bool in_left = index < split;
        KMS_ASSERT(len < KMS_MERKLE_PATH_MAX);
        KMS_TRY(kms_merkle_root(in_left ? leaves + split : leaves, in_left ? count - split : split,
                                &down[len++]));
        if (!in_left) {
            leaves += split;
            index -= split;
        }
        count = in_left ? split : count - split;
    }
    for (size_t i = 0; i < len; i++)
        ret_path[i] = down[len - 1 - i];
    *ret_len = len;
    return KMS_OK;
}

/* RFC 9162, section 2.1.3.2: `node` and `last` say where the path is, and where the list ends. */
enum kms_status kms_merkle_verify(const struct kms_merkle_hash *root, uint64_t count, uint64_t index,
                                  const struct kms_merkle_hash *leaf, const struct kms_merkle_hash *path,
                                  size_t path_len)
{
    if (index >= count)
        return KMS_TAMPERED;
    uint64_t node = index;
    uint64_t last = count - 1;
    struct kms_merkle_hash hash = *leaf;
    for (size_t i = 0; i < path_len; i++) {
        if (last == 0)
            return KMS_TAMPERED;
        if ((node & 1) != 0 || node == last) {
            KMS_TRY(join(&path[i], &hash, &hash));
            while ((node & 1) == 0 && node != 0) {
                node >>= 1;
                last >>= 1;
            }
        } else {
            KMS_TRY(join(&hash, &path[i], &hash));
        }
        node >>= 1;
        last >>= 1;
    }
    return last == 0 && memcmp(hash.bytes, root->bytes, KMS_MERKLE_SIZE) == 0 ? KMS_OK : KMS_TAMPERED;
}
