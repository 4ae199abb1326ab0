/* A page has one encoding; whatever else decodes to nothing. */
#include "core/ids.h"
#include "keys/page.h"
#include "unit/keys/vectors.h"

#include <openssl/hmac.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* A leaf with keys in some slots. */
static struct kms_page make_leaf(void)
{
    struct kms_page page = {
        .tenant = kms_uuid_random(), .level = 0, .index = 99, .key_epoch = 3, .generation = 17};
    for (unsigned i = 0; i < KMS_SHAPE_FAN_OUT; i += 3) {
        struct kms_page_slot *slot = &page.slots[i];
        *slot = (struct kms_page_slot){.used = true,
                                       .state = i % 2 == 0 ? KMS_KEK_ENABLED : KMS_KEK_DISABLED,
                                       .customer = kms_uuid_random(),
                                       .version = i + 1,
                                       .purpose = "service"};
        kms_system_random(slot->kek_id, sizeof slot->kek_id);
        kms_system_random(slot->blob, sizeof slot->blob);
    }
    return page;
}

/* A page above the leaves, full. */
static struct kms_page make_upper(void)
{
    struct kms_page page = {
        .tenant = kms_uuid_random(), .level = 2, .index = 5, .key_epoch = 1, .generation = 1};
    for (unsigned i = 0; i < KMS_SHAPE_FAN_OUT; i++) {
        page.slots[i].used = true;
        page.slots[i].state = KMS_KEK_ENABLED;
        kms_system_random(page.slots[i].blob, sizeof page.slots[i].blob);
    }
    return page;
}

static void a_page_comes_back_as_it_was(void **state)
{
    (void)state;
    const struct kms_page pages[] = {make_leaf(), make_upper()};
    for (size_t i = 0; i < 2; i++) {
        uint8_t body[KMS_PAGE_BODY_MAX];
        const size_t len = kms_page_encode(&pages[i], body);
        struct kms_page back;
        assert_int_equal(kms_page_decode(kms_slice_of(body, len), &back), KMS_OK);
        assert_int_equal(back.index, pages[i].index);
        assert_int_equal(back.generation, pages[i].generation);
        for (unsigned s = 0; s < KMS_SHAPE_FAN_OUT; s++) {
            assert_int_equal(back.slots[s].used, pages[i].slots[s].used);
            assert_int_equal(back.slots[s].state, pages[i].slots[s].state);
            assert_int_equal(back.slots[s].version, pages[i].slots[s].version);
            assert_string_equal(back.slots[s].purpose, pages[i].slots[s].purpose);
            assert_memory_equal(back.slots[s].kek_id, pages[i].slots[s].kek_id, KMS_KEK_ID_SIZE);
            assert_memory_equal(back.slots[s].blob, pages[i].slots[s].blob, KMS_WRAPPED_KEY_SIZE);
        }
        uint8_t again[KMS_PAGE_BODY_MAX];
        assert_int_equal(kms_page_encode(&back, again), len);
        assert_memory_equal(again, body, len);
    }
}

static void a_truncated_or_extended_page_is_refused(void **state)
{
    (void)state;
    const struct kms_page page = make_leaf();
    uint8_t body[KMS_PAGE_BODY_MAX + 1] = {0};
    struct kms_page back;
    const size_t len = kms_page_encode(&page, body);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(kms_page_decode(kms_slice_of(body, i), &back), KMS_TAMPERED);
    body[len] = 0;
    assert_int_equal(kms_page_decode(kms_slice_of(body, len + 1), &back), KMS_TAMPERED);
    assert_int_equal(kms_page_decode(kms_slice_of(NULL, 0), &back), KMS_TAMPERED);
}

static void a_changed_byte_is_refused_or_is_another_page(void **state)
{
    (void)state;
    const struct kms_page pages[] = {make_leaf(), make_upper()};
    unsigned refused = 0;
    for (size_t p = 0; p < 2; p++) {
        uint8_t body[KMS_PAGE_BODY_MAX];
        const size_t len = kms_page_encode(&pages[p], body);
        for (size_t i = 0; i < len * 8; i++) {
            body[i / 8] ^= (uint8_t)(1U << i % 8);
            struct kms_page back;
            uint8_t again[KMS_PAGE_BODY_MAX];
            if (kms_page_decode(kms_slice_of(body, len), &back) != KMS_OK) {
                refused++;
            } else { /* no two byte strings for one page */
                assert_int_equal(kms_page_encode(&back, again), len);
                assert_memory_equal(again, body, len);
            }
            body[i / 8] ^= (uint8_t)(1U << i % 8);
        }
    }
    assert_true(refused > 500);
}

/* Change one thing in a sound body and expect it to be refused. */
static void refuse_after(const struct kms_page *page, size_t offset, const void *bytes, size_t count)
{
    uint8_t body[KMS_PAGE_BODY_MAX];
    struct kms_page back;
    const size_t len = kms_page_encode(page, body);
    assert_int_equal(kms_page_decode(kms_slice_of(body, len), &back), KMS_OK);
    memcpy(body + offset, bytes, count);
    assert_int_equal(kms_page_decode(kms_slice_of(body, len), &back), KMS_TAMPERED);
}

static void fields_that_cannot_be_are_refused(void **state)
{
    (void)state;
    const struct kms_page leaf = make_leaf();
    const struct kms_page upper = make_upper();
    static const uint8_t zeroes[16];
    static const uint8_t ones[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const size_t slot = KMS_PAGE_HEADER_SIZE;
    refuse_after(&leaf, 0, "KMSPAGE2", 8);
    refuse_after(&leaf, 24, ones, 4);           /* level */
    refuse_after(&leaf, 28, ones, 8);           /* index */
    refuse_after(&leaf, 36, zeroes, 8);         /* key epoch */
    refuse_after(&leaf, 44, zeroes, 8);         /* generation */
    refuse_after(&leaf, slot, zeroes, 16);      /* KEK id */
    refuse_after(&leaf, slot + 16, zeroes, 16); /* customer */
    refuse_after(&leaf, slot + 32, zeroes, 4);  /* version */
    refuse_after(&leaf, slot + 36, "\0", 1);    /* state: none */
    refuse_after(&leaf, slot + 36, "\3", 1);    /* state: shredded */
    refuse_after(&leaf, slot + 37, "\0", 1);    /* no purpose */
    refuse_after(&leaf, slot + 37, "\x40", 1);  /* purpose of 64 bytes */
    refuse_after(&leaf, slot + 38, "\0", 1);    /* purpose with a NUL */
    refuse_after(&upper, slot, ones, 16);       /* KEK id in an upper page */
    refuse_after(&upper, slot + 16, ones, 16);  /* customer in an upper page */
    refuse_after(&upper, slot + 32, ones, 4);   /* version in an upper page */
    refuse_after(&upper, slot + 36, "\2", 1);   /* disabled child */
}

static void the_vectors_of_format_1_are_met(void **state)
{
    (void)state;
    FILE *file = fopen(KMS_VECTORS "/page-v1.txt", "r");
    assert_non_null(file);
    static struct vector_line line;
    static uint8_t body[4096];
    size_t body_len = 0;
    uint8_t key[32] = {0};
    unsigned checked = 0;
    while (vector_next(file, &line)) {
        if (strcmp(line.name, "key") == 0) {
            memcpy(key, line.bytes, sizeof key);
        } else if (strcmp(line.name, "body") == 0) {
            struct kms_page page;
            uint8_t again[KMS_PAGE_BODY_MAX];
            memcpy(body, line.bytes, body_len = line.len);
            assert_int_equal(kms_page_decode(kms_slice_of(body, body_len), &page), KMS_OK);
            assert_int_equal(kms_page_encode(&page, again), body_len);
            assert_memory_equal(again, body, body_len);
        } else if (strcmp(line.name, "mac") == 0) {
            uint8_t mac[32];
            unsigned len = 0;
            assert_non_null(HMAC(EVP_sha256(), key, sizeof key, body, body_len, mac, &len));
            assert_memory_equal(mac, line.bytes, sizeof mac);
            checked++;
        }
    }
    (void)fclose(file);
    assert_int_equal(checked, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_comes_back_as_it_was),
        cmocka_unit_test(a_truncated_or_extended_page_is_refused),
        cmocka_unit_test(a_changed_byte_is_refused_or_is_another_page),
        cmocka_unit_test(fields_that_cannot_be_are_refused),
        cmocka_unit_test(the_vectors_of_format_1_are_met),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
