/*
 * Purpose:   the canonical bytes of one page of the key tree: what the page's MAC is computed over.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     performs cryptography; accepts two encodings of one page.
 *
 * Page, format 1; sizes in bytes, integers big-endian, no padding:
 *
 *     0          8         24      28      36          44           52     54
 *     +----------+---------+-------+-------+-----------+------------+------+------------------------
 *     | tag      | tenant  | level | index | key epoch | generation | used | one record for each set
 *     | KMSPAGE1 | UUID 16 | 4     | 8     | 8         | 8          | 2    | bit of `used`, from bit 0
 *     +----------+---------+-------+-------+-----------+------------+------+------------------------
 *
 *     key epoch    the tenant's epoch in which the page's own key was made: at most one is made for a place in an epoch, so
 *                  place and key epoch name a key
 *     generation   grows by one with every change of the page
 *     used         bit i is set when slot i (0..15) holds a key
 *
 *     record of a slot:
 *     0        16         32        36      37      38        38+n     78+n
 *     +--------+----------+---------+-------+-------+---------+--------+
 *     | KEK id | customer | version | state | n     | purpose | blob   |
 *     | 16     | UUID 16  | 4       | 1     | 1     | n       | 40     |
 *     +--------+----------+---------+-------+-------+---------+--------+
 *
 * blob is the AES-KW wrapping of the slot's key by the page's key. In pages above level 0 a slot holds the
 * key of a child page: KEK id, customer, version and n are zero and state is ENABLED.
 */
#ifndef KMS_KEYS_PAGE_H
#define KMS_KEYS_PAGE_H

#include "keys/shape.h"
#include "store/store.h"

enum {
    KMS_PAGE_HEADER_SIZE = 54,
    KMS_PAGE_SLOT_SIZE = 78, /* without the purpose */
    KMS_PAGE_BODY_MAX = KMS_PAGE_HEADER_SIZE + KMS_SHAPE_FAN_OUT * (KMS_PAGE_SLOT_SIZE + KMS_PURPOSE_ID_MAX)
};

struct kms_page_slot {
    bool used;
    enum kms_kek_state state; /* ENABLED or DISABLED: a shredded key has no slot */
    uint8_t kek_id[KMS_KEK_ID_SIZE];
    struct kms_uuid customer;
    uint32_t version;
    char purpose[KMS_PURPOSE_ID_MAX + 1];
    uint8_t blob[KMS_WRAPPED_KEY_SIZE];
};

struct kms_page {
    struct kms_uuid tenant;
    uint32_t level;
    uint64_t index;
    uint64_t key_epoch;
    uint64_t generation;
    struct kms_page_slot slots[KMS_SHAPE_FAN_OUT];
    uint8_t mac[KMS_PAGE_MAC_SIZE]; /* of a verified page; beside the canonical bytes, not among them */
};

/** Write the canonical bytes; returns their number. A page that decode would refuse is a programming error. */
size_t kms_page_encode(const struct kms_page *page, uint8_t out[KMS_PAGE_BODY_MAX]);
/** Strict: TAMPERED, with the page left undefined, for anything that kms_page_encode() cannot have written. */
enum kms_status kms_page_decode(struct kms_slice body, struct kms_page *ret_page) KMS_MUST_USE;

#endif
