#include "audit/chain.h"

#include "core/cleanup.h"

#include <openssl/evp.h>

struct kms_audit_chain {
    EVP_MD *sha256; /* fetched once: fetching for each record would cost more than hashing it */
    EVP_MD_CTX *context;
};

static const char line_start[] = "{\"seq\":";
static const char hash_start[] = ",\"hash\":\"";
static const char line_end[] = "\"}";
enum {
    START_LEN = sizeof line_start - 1,
    HASH_HEX_LEN = 2 * KMS_AUDIT_HASH_SIZE,
    HASH_START_LEN = sizeof hash_start - 1,
    SUFFIX_LEN = HASH_START_LEN + HASH_HEX_LEN + sizeof line_end - 1, /* always at the very end of a line */
    DIGITS_MAX = 20,
};
_Static_assert(KMS_AUDIT_CHAIN_OVERHEAD == START_LEN + DIGITS_MAX + SUFFIX_LEN + 1, "and the newline");

enum kms_status kms_audit_chain_new(struct kms_audit_chain **ret_chain)
{
    struct kms_audit_chain *chain = calloc(1, sizeof *chain);
    if (chain == NULL)
        return KMS_NO_MEMORY;
    chain->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    chain->context = EVP_MD_CTX_new();
    if (chain->sha256 == NULL || chain->context == NULL ||
        EVP_DigestInit_ex2(chain->context, chain->sha256, NULL) != 1) {
        kms_audit_chain_free(chain);
        return KMS_INTERNAL;
    }
    *ret_chain = chain;
    return KMS_OK;
}

void kms_audit_chain_free(struct kms_audit_chain *chain)
{
    if (chain == NULL)
        return;
    EVP_MD_CTX_free(chain->context);
    EVP_MD_free(chain->sha256);
    free(chain);
}

void kms_audit_chain_hash(struct kms_audit_chain *chain, const uint8_t previous[KMS_AUDIT_HASH_SIZE],
                          struct kms_slice bytes, uint8_t ret_hash[KMS_AUDIT_HASH_SIZE])
{
    /* The context was set up once; none of these can fail for a reason outside this program. */
    KMS_ASSERT(EVP_DigestInit_ex2(chain->context, NULL, NULL) == 1);
    KMS_ASSERT(EVP_DigestUpdate(chain->context, previous, KMS_AUDIT_HASH_SIZE) == 1);
    KMS_ASSERT(EVP_DigestUpdate(chain->context, bytes.data, bytes.len) == 1);
    KMS_ASSERT(EVP_DigestFinal_ex(chain->context, ret_hash, NULL) == 1);
}

/* Decimal digits of a sequence number, without a leading zero; returns how many. */
static size_t format_seq(uint64_t seq, char out[DIGITS_MAX])
{
    char digits[DIGITS_MAX];
    size_t count = 0;
    do
        digits[DIGITS_MAX - ++count] = (char)('0' + seq % 10);
    while ((seq /= 10) > 0);
    memcpy(out, digits + DIGITS_MAX - count, count);
    return count;
}

enum kms_status kms_audit_chain_append(struct kms_audit_chain *chain, struct kms_audit_head *head,
                                       struct kms_slice body, struct kms_buf *out)
{
    KMS_TRY(kms_buf_reserve(out, body.len + KMS_AUDIT_CHAIN_OVERHEAD));
    char *const line = (char *)out->data + out->len;
    char *next = line;
    memcpy(next, line_start, START_LEN);
    next += START_LEN;
    next += format_seq(head->seq + 1, next);
    memcpy(next, body.data, body.len);
    next += body.len;
    kms_audit_chain_hash(chain, head->hash, kms_slice_of(line, (size_t)(next - line)), head->hash);
    head->seq++;
    memcpy(next, hash_start, HASH_START_LEN);
    next += HASH_START_LEN;
    char hex[HASH_HEX_LEN + 1];
    kms_hex_encode(head->hash, KMS_AUDIT_HASH_SIZE, hex);
    memcpy(next, hex, HASH_HEX_LEN);
    next += HASH_HEX_LEN;
    *next++ = '"';
    *next++ = '}';
    *next++ = '\n';
    out->len += (size_t)(next - line);
    return KMS_OK;
}

/* The number at the start; returns its length, 0 when there is none, it has a leading zero or is too large. */
static size_t parse_seq(const uint8_t *p, size_t len, uint64_t *ret_seq)
{
    uint64_t seq = 0;
    size_t used = 0;
    for (; used < len && p[used] >= '0' && p[used] <= '9'; used++) {
        if (__builtin_mul_overflow(seq, 10U, &seq) ||
            __builtin_add_overflow(seq, (uint64_t)(p[used] - '0'), &seq))
            return 0;
    }
    if (used == 0 || p[0] == '0')
        return 0;
    *ret_seq = seq;
    return used;
}

/* Values of the digits of a hash in the one spelling that is written, lower case: a change of case is a change of the log. */
static const uint8_t hex_values[256] = {
    ['0'] = 0x10, ['1'] = 0x11, ['2'] = 0x12, ['3'] = 0x13, ['4'] = 0x14, ['5'] = 0x15,
    ['6'] = 0x16, ['7'] = 0x17, ['8'] = 0x18, ['9'] = 0x19, ['a'] = 0x1a, ['b'] = 0x1b,
    ['c'] = 0x1c, ['d'] = 0x1d, ['e'] = 0x1e, ['f'] = 0x1f,
};

/* Decode a hash; false when a character is none of those. No branch in the loop: half of verification's time was here. */
static bool take_hash(const uint8_t *hex, uint8_t ret_hash[KMS_AUDIT_HASH_SIZE])
{
    uint8_t good = 0x10;
    for (size_t i = 0; i < KMS_AUDIT_HASH_SIZE; i++) {
        const uint8_t high = hex_values[hex[2 * i]];
        const uint8_t low = hex_values[hex[2 * i + 1]];
        good &= high & low;
        ret_hash[i] = (uint8_t)(high << 4 | (low & 0x0f));
    }
    return good != 0;
}

bool kms_audit_chain_parse(struct kms_slice line, struct kms_audit_line *ret_line)
{
    if (line.len < START_LEN + 2 + SUFFIX_LEN || memcmp(line.data, line_start, START_LEN) != 0)
        return false;
    const size_t hashed_len = line.len - SUFFIX_LEN;
    const uint8_t *suffix = line.data + hashed_len;
    const uint8_t *hex = suffix + HASH_START_LEN;
    if (memcmp(suffix, hash_start, HASH_START_LEN) != 0 ||
        memcmp(hex + HASH_HEX_LEN, line_end, sizeof line_end - 1) != 0)
        return false;
    struct kms_audit_line parsed = {.hashed = kms_slice_of(line.data, hashed_len)};
    const size_t digits = parse_seq(line.data + START_LEN, hashed_len - START_LEN, &parsed.seq);
    const size_t body_at = START_LEN + digits;
    if (digits == 0 || body_at >= hashed_len || line.data[body_at] != ',')
        return false;
    if (!take_hash(hex, parsed.stated))
        return false;
    parsed.body = kms_slice_of(line.data + body_at, hashed_len - body_at);
    *ret_line = parsed;
    return true;
}
