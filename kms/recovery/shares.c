#include "recovery/shares.h"

#include "core/ids.h"

#include <libgfshare.h>

void kms_share_clear(struct kms_share *share)
{
    kms_secret_clear(&share->value);
    *share = (struct kms_share){0};
}

void kms_shares_clear(struct kms_share *shares, size_t count)
{
    for (size_t i = 0; i < count; i++)
        kms_share_clear(&shares[i]);
}

enum kms_status kms_shares_check(unsigned count, unsigned threshold, struct kms_error *err)
{
    if (threshold < KMS_SHARES_MIN || threshold > count || count > KMS_SHARES_MAX)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "a secret is split into 2 to %d shares, of which 2 or more open it: %u of %u "
                               "cannot be",
                               KMS_SHARES_MAX, threshold, count);
    return KMS_OK;
}

/* The library's own source is random(3). */
static void fill_random(unsigned char *out, unsigned int len)
{
    kms_system_random(out, len);
}

/* Overwrites what the context holds, by the function above, before it frees it. */
static void clear_context(gfshare_ctx **context)
{
    if (*context != NULL)
        gfshare_ctx_free(*context);
}
#define CONTEXT KMS_CLEANUP(clear_context) gfshare_ctx

/* Numbers 1..count, which are the places at which the polynomials are evaluated. */
static void number_all(unsigned char *numbers, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        numbers[i] = (unsigned char)(i + 1);
}

enum kms_status kms_shares_split(const struct kms_secret *secret, const uint8_t key[KMS_SHARE_KEY_SIZE],
                                 unsigned count, unsigned threshold, struct kms_share *ret_shares,
                                 struct kms_error *err)
{
    unsigned char numbers[KMS_SHARES_MAX];
    KMS_ASSERT(secret->len == KMS_SHARE_SIZE);
    KMS_TRY(kms_shares_check(count, threshold, err));
    number_all(numbers, count);
    gfshare_fill_rand = fill_random;
    CONTEXT *context = gfshare_ctx_init_enc(numbers, count, (unsigned char)threshold, KMS_SHARE_SIZE);
    if (context == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to split a secret");
    gfshare_ctx_enc_setsecret(context, secret->data);
    for (unsigned i = 0; i < count; i++) {
        ret_shares[i] = (struct kms_share){.number = i + 1, .count = count, .threshold = threshold};
        memcpy(ret_shares[i].key, key, KMS_SHARE_KEY_SIZE);
        if (kms_secret_new(KMS_SHARE_SIZE, &ret_shares[i].value) != KMS_OK) {
            kms_shares_clear(ret_shares, i);
            return kms_fail(err, KMS_NO_MEMORY, "no locked memory for a share");
        }
        gfshare_ctx_enc_getshare(context, (unsigned char)i, ret_shares[i].value.data);
        ret_shares[i].value.len = KMS_SHARE_SIZE;
    }
    return KMS_OK;
}

/* What messages call a share. */
static const char *name_of(const struct kms_share *share)
{
    return share->name != NULL ? share->name : "a share";
}

/* Two shares that may be joined. */
static enum kms_status check_pair(const struct kms_share *a, const struct kms_share *b, struct kms_error *err)
{
    if (memcmp(a->key, b->key, KMS_SHARE_KEY_SIZE) != 0 || a->count != b->count ||
        a->threshold != b->threshold)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "%s and %s are shares of different ceremonies: compare their lines \"key-1\"",
                               name_of(a), name_of(b));
    if (a->number == b->number)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "%s and %s are both share %u: one share counts once", name_of(a), name_of(b),
                               a->number);
    return KMS_OK;
}

/* Every share with every other. */
static enum kms_status check_all(const struct kms_share *shares, size_t count, struct kms_error *err)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = i + 1; k < count; k++)
            KMS_TRY(check_pair(&shares[i], &shares[k], err));
    }
    if (count == 0 || count < shares[0].threshold)
        return kms_fail_public(err, KMS_INVALID_ARGUMENT,
                               "%zu share%s given, and %u of the %u are needed; without them nothing can be "
                               "opened",
                               count, count == 1 ? " is" : "s are", count > 0 ? shares[0].threshold : 0,
                               count > 0 ? shares[0].count : 0);
    return KMS_OK;
}

enum kms_status kms_shares_join(const struct kms_share *shares, size_t count, struct kms_secret *ret_secret,
                                struct kms_error *err)
{
    unsigned char numbers[KMS_SHARES_MAX];
    KMS_SECRET secret = {0};
    KMS_TRY(check_all(shares, count, err));
    const unsigned used = shares[0].threshold;
    KMS_TRY(kms_shares_check(shares[0].count, used, err));
    for (unsigned i = 0; i < used; i++)
        numbers[i] = (unsigned char)shares[i].number;
    if (kms_secret_new(KMS_SHARE_SIZE, &secret) != KMS_OK)
        return kms_fail(err, KMS_NO_MEMORY, "no locked memory for the secret");
    gfshare_fill_rand = fill_random;
    CONTEXT *context = gfshare_ctx_init_dec(numbers, used, KMS_SHARE_SIZE);
    if (context == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to join shares");
    for (unsigned i = 0; i < used; i++)
        gfshare_ctx_dec_giveshare(context, (unsigned char)i, shares[i].value.data);
    gfshare_ctx_dec_extract(context, secret.data);
    secret.len = KMS_SHARE_SIZE;
    *ret_secret = secret;
    secret = (struct kms_secret){0};
    return KMS_OK;
}
