/* Goal: every change has exactly one encoding, and nothing else is accepted. */
#include "samples_shred.h"

#include "store/changelog.h"

#include <stdlib.h>

enum { KINDS = KMS_CHANGE_RECOVERY_COVER };

/* A batch in the middle of its life. */
static struct kms_batch_record sample_batch(void)
{
    struct kms_batch_record batch = {.uuid = sample_uuid(5, 1),
                                     .tenant = sample_tenant(7).uuid,
                                     .kind = KMS_BATCH_SHRED,
                                     .reference = "operations/17",
                                     .old_epoch = 3,
                                     .old_master_id = {1},
                                     .new_master_id = {2},
                                     .created_ns = 4,
                                     .document = (uint8_t *)strdup("{}"),
                                     .document_len = 2,
                                     .signature = {5, 6},
                                     .signature_len = 2,
                                     .state = KMS_BATCH_COMMITTED,
                                     .pages = 7,
                                     .keys_rewrapped = 8,
                                     .keys_shredded = 9,
                                     .customers = 10,
                                     .pages_digest = {11},
                                     .committed_ns = 12,
                                     .sealed_ns = 13};
    assert_non_null(batch.document);
    return batch;
}

/* A change of each kind, by kind number, with every member set. */
static struct kms_change sample_change(enum kms_change_kind kind)
{
    struct kms_change change = {.kind = kind};
    switch (kind) {
    case KMS_CHANGE_TENANT:
        change.tenant = sample_tenant(7);
        break;
    case KMS_CHANGE_PURPOSE:
        change.purpose = sample_purpose(7, "kyc");
        break;
    case KMS_CHANGE_CUSTOMER:
        change.customer = sample_customer(7, 9);
        change.customer.labels = strdup(change.customer.labels);
        break;
    case KMS_CHANGE_KEK:
        change.kek = sample_kek(7, 9, "kyc", 4);
        change.kek.wraps_reserved = 65536;
        break;
    case KMS_CHANGE_KEK_STATE:
        memset(change.kek_state.kek_id, 0x5a, KMS_KEK_ID_SIZE);
        change.kek_state.state = KMS_KEK_SHREDDED;
        break;
    case KMS_CHANGE_RESERVE:
        change.reserve.count = 3;
        change.reserve.list = calloc(3, sizeof *change.reserve.list);
        assert_non_null(change.reserve.list);
        for (uint8_t i = 0; i < 3; i++)
            change.reserve.list[i] = (struct kms_change_reservation){{i}, 65536U * (i + 1U)};
        break;
    case KMS_CHANGE_PAGE:
        change.page = sample_page(7, 1, 3);
        change.page.body = malloc(change.page.body_len);
        assert_non_null(change.page.body);
        memset(change.page.body, 0x11, change.page.body_len);
        break;
    case KMS_CHANGE_REQUEST:
        change.request = sample_request(4);
        break;
    case KMS_CHANGE_OPERATION:
    case KMS_CHANGE_OPERATION_STATE:
        change.operation = sample_operation(5);
        break;
    case KMS_CHANGE_APPROVAL:
        change.approval = sample_approval(5, "erin");
        break;
    case KMS_CHANGE_OPERATION_REMOVED:
        change.operation_removed = sample_uuid(7, 5);
        break;
    case KMS_CHANGE_SHRED_JOB:
        change.shred_job = sample_shred_job(7, 3);
        break;
    case KMS_CHANGE_SHRED_TARGET:
        change.shred_target = sample_shred_target(3, 9);
        break;
    case KMS_CHANGE_HOLD:
        change.hold = sample_hold(7, 9);
        break;
    case KMS_CHANGE_CERTIFICATE:
        change.certificate = sample_certificate(7, 2);
        change.certificate.document = malloc(change.certificate.document_len);
        assert_non_null(change.certificate.document);
        memset(change.certificate.document, 0x7b, change.certificate.document_len);
        break;
    case KMS_CHANGE_SHRED_SETTING:
        change.shred_setting = sample_shred_setting(7);
        break;
    case KMS_CHANGE_RETENTION:
        change.retention = sample_retention(7, 8); /* whose beginning is not known */
        break;
    case KMS_CHANGE_SHRED_CLOCK:
        change.shred_clock = sample_shred_clock();
        break;
    case KMS_CHANGE_BATCH:
        change.batch = sample_batch();
        break;
    case KMS_CHANGE_BATCH_STATE:
        change.batch = sample_batch();
        free(change.batch.document); /* it is none of the members of this record */
        change.batch.document = NULL;
        change.batch.document_len = 0;
        break;
    case KMS_CHANGE_TOMBSTONE:
        change.tombstone = (struct kms_tombstone_record){.tenant = sample_tenant(7).uuid,
                                                         .customer = sample_customer(7, 9).uuid,
                                                         .purpose = "kyc",
                                                         .version = 2,
                                                         .id_mac = {3},
                                                         .epoch = 4,
                                                         .batch = sample_uuid(5, 1),
                                                         .created_ns = 5};
        break;
    case KMS_CHANGE_FREE_SLOT:
    case KMS_CHANGE_SLOT_TAKEN:
        change.slot = (struct kms_change_slot){sample_tenant(7).uuid, 300};
        break;
    case KMS_CHANGE_KEK_SHREDDED:
        memset(change.kek_shredded, 0x5b, sizeof change.kek_shredded);
        break;
    case KMS_CHANGE_CUSTOMER_REMOVED:
        change.customer_removed = sample_customer(7, 9).uuid;
        break;
    case KMS_CHANGE_REWRAPPED:
        change.rewrapped = (struct kms_change_rewrapped){{7}, 70000};
        break;
    case KMS_CHANGE_POLICY:
        change.policy = sample_policy(3);
        break;
    case KMS_CHANGE_FREEZE:
    case KMS_CHANGE_UNFREEZE:
        change.freeze = sample_freeze(KMS_FREEZE_PURPOSE, 3);
        break;
    case KMS_CHANGE_RECOVERY_KEY:
        change.recovery_key = (struct kms_recovery_key_record){.epoch = 2,
                                                               .state = KMS_RECOVERY_RETIRED,
                                                               .enrolled_ns = 3,
                                                               .enrolled_by = "custodian/ann",
                                                               .enroll_operation = sample_uuid(6, 1),
                                                               .retire_operation = sample_uuid(6, 2),
                                                               .retired_ns = 4,
                                                               .retired_by = "custodian/bob",
                                                               .statement = "burnt",
                                                               .object_left = true,
                                                               .drill_ns = 5,
                                                               .drill_took_ns = 6,
                                                               .drill_by = "custodian/eve",
                                                               .drill_customers = 7};
        memset(change.recovery_key.fingerprint, 'a', sizeof change.recovery_key.fingerprint - 1);
        break;
    case KMS_CHANGE_RECOVERY_COVER:
        change.recovery_cover = (struct kms_recovery_cover_record){2, sample_tenant(7).uuid, 5};
        break;
    }
    return change;
}

static struct kms_buf encode(struct kms_change *change)
{
    struct kms_buf out = {0};
    assert_ok(kms_changelog_encode(change, &out));
    assert_int_equal(out.data[0], KMS_CHANGELOG_VERSION);
    assert_int_equal(out.data[1], change->kind);
    return out;
}

/* Decode bytes that must be refused; a copy of exact size lets the sanitizer see a read past the end. */
static void assert_refused(const uint8_t *data, size_t len, enum kms_status wanted)
{
    uint8_t *exact = malloc(len > 0 ? len : 1);
    assert_non_null(exact);
    if (len > 0)
        memcpy(exact, data, len);
    struct kms_change change = {0};
    struct kms_error err = {0};
    assert_status(wanted, kms_changelog_decode(kms_slice_of(exact, len), &change, &err));
    assert_true(err.cause[0] != '\0');
    assert_int_equal(change.kind, 0);
    free(exact);
}

static void every_kind_decodes_to_what_was_encoded(void **state)
{
    (void)state;
    for (int kind = 1; kind <= KINDS; kind++) {
        struct kms_change change = sample_change((enum kms_change_kind)kind);
        struct kms_buf first = encode(&change);
        struct kms_change decoded = {0};
        struct kms_error err = {0};
        assert_ok(kms_changelog_decode(kms_buf_slice(&first), &decoded, &err));
        struct kms_buf second = encode(&decoded);
        assert_true(kms_slice_equal(kms_buf_slice(&first), kms_buf_slice(&second)));
        kms_buf_clear(&first);
        kms_buf_clear(&second);
        kms_change_clear(&change);
        kms_change_clear(&decoded);
    }
}

static void members_survive_the_round_trip(void **state)
{
    (void)state;
    struct kms_error err = {0};
    struct kms_change change = sample_change(KMS_CHANGE_KEK);
    struct kms_buf bytes = encode(&change);
    struct kms_change decoded = {0};
    assert_ok(kms_changelog_decode(kms_buf_slice(&bytes), &decoded, &err));
    assert_memory_equal(decoded.kek.kek_id, change.kek.kek_id, KMS_KEK_ID_SIZE);
    assert_true(kms_uuid_equal(&decoded.kek.tenant, &change.kek.tenant));
    assert_true(kms_uuid_equal(&decoded.kek.customer, &change.kek.customer));
    assert_string_equal(decoded.kek.purpose, "kyc");
    assert_int_equal(decoded.kek.version, 4);
    assert_int_equal(decoded.kek.slot, change.kek.slot);
    assert_int_equal(decoded.kek.state, KMS_KEK_ENABLED);
    assert_int_equal(decoded.kek.wraps_reserved, 65536);
    assert_int_equal(decoded.kek.created_ns, change.kek.created_ns);
    kms_change_clear(&decoded);
    kms_buf_clear(&bytes);

    struct kms_change purpose = sample_change(KMS_CHANGE_PURPOSE);
    bytes = encode(&purpose);
    assert_ok(kms_changelog_decode(kms_buf_slice(&bytes), &decoded, &err));
    assert_true(decoded.purpose.required_by_law);
    assert_int_equal(decoded.purpose.retention_seconds, 315360000);
    assert_string_equal(decoded.purpose.legal_basis, purpose.purpose.legal_basis);
    kms_buf_clear(&bytes);
}

static void a_truncated_record_is_refused_at_every_length(void **state)
{
    (void)state;
    for (int kind = 1; kind <= KINDS; kind++) {
        struct kms_change change = sample_change((enum kms_change_kind)kind);
        struct kms_buf bytes = encode(&change);
        for (size_t len = 0; len < bytes.len; len++)
            assert_refused(bytes.data, len, KMS_STORE_CORRUPT);
        kms_buf_clear(&bytes);
        kms_change_clear(&change);
    }
}

static void the_beginning_of_a_retention_is_there_or_not(void **state)
{
    (void)state;
    struct kms_change change = {.kind = KMS_CHANGE_RETENTION, .retention = sample_retention(7, 9)};
    struct kms_buf bytes = encode(&change);
    struct kms_change decoded = {0};
    struct kms_error err = {0};
    assert_ok(kms_changelog_decode(kms_buf_slice(&bytes), &decoded, &err));
    assert_int_equal(decoded.retention.began_ns, 9);
    assert_ok(kms_changelog_decode(kms_slice_of(bytes.data, bytes.len - 8), &decoded, &err));
    assert_int_equal(decoded.retention.began_ns, 0);
    assert_int_equal(decoded.retention.due_ns, change.retention.due_ns);
    for (size_t len = 0; len < bytes.len; len++)
        if (len != bytes.len - 8)
            assert_refused(bytes.data, len, KMS_STORE_CORRUPT);
    memset(bytes.data + bytes.len - 8, 0, 8); /* not known is left out, and not 0 */
    assert_refused(bytes.data, bytes.len, KMS_STORE_CORRUPT);
    kms_buf_clear(&bytes);
}

static void an_extended_record_is_refused(void **state)
{
    (void)state;
    for (int kind = 1; kind <= KINDS; kind++) {
        struct kms_change change = sample_change((enum kms_change_kind)kind);
        struct kms_buf bytes = encode(&change);
        assert_ok(kms_buf_append(&bytes, "", 1));
        assert_refused(bytes.data, bytes.len, KMS_STORE_CORRUPT);
        kms_buf_clear(&bytes);
        kms_change_clear(&change);
    }
}

static void a_flipped_byte_is_refused_or_decodes_to_another_record(void **state)
{
    (void)state;
    for (int kind = 1; kind <= KINDS; kind++) {
        struct kms_change change = sample_change((enum kms_change_kind)kind);
        struct kms_buf bytes = encode(&change);
        for (size_t at = 0; at < bytes.len; at++) {
            bytes.data[at] ^= 0x80;
            struct kms_change decoded = {0};
            if (kms_changelog_decode(kms_buf_slice(&bytes), &decoded, NULL) == KMS_OK) {
                struct kms_buf again = encode(&decoded);
                assert_true(kms_slice_equal(kms_buf_slice(&bytes), kms_buf_slice(&again)));
                kms_buf_clear(&again);
                kms_change_clear(&decoded);
            }
            bytes.data[at] ^= 0x80;
        }
        kms_buf_clear(&bytes);
        kms_change_clear(&change);
    }
}

static void unknown_kinds_and_versions_are_refused(void **state)
{
    (void)state;
    struct kms_change change = sample_change(KMS_CHANGE_KEK_STATE);
    struct kms_buf bytes = encode(&change);
    bytes.data[1] = 0;
    assert_refused(bytes.data, bytes.len, KMS_STORE_CORRUPT);
    bytes.data[1] = KINDS + 1;
    assert_refused(bytes.data, bytes.len, KMS_STORE_CORRUPT);
    bytes.data[1] = KMS_CHANGE_KEK_STATE;
    bytes.data[0] = 0;
    assert_refused(bytes.data, bytes.len, KMS_STORE_CORRUPT);
    bytes.data[0] = KMS_CHANGELOG_VERSION + 1;
    assert_refused(bytes.data, bytes.len, KMS_STORE_NEWER);
    kms_buf_clear(&bytes);
}

static void values_out_of_range_are_refused(void **state)
{
    (void)state;
    struct kms_change kek = sample_change(KMS_CHANGE_KEK);
    kek.kek.version = 0;
    struct kms_buf bytes = encode(&kek);
    assert_refused(bytes.data, bytes.len, KMS_STORE_CORRUPT);
    kms_buf_clear(&bytes);

    struct kms_change tenant = sample_change(KMS_CHANGE_TENANT);
    tenant.tenant.epoch = UINT64_MAX;
    bytes = encode(&tenant);
    assert_refused(bytes.data, bytes.len, KMS_STORE_CORRUPT);
    kms_buf_clear(&bytes);

    tenant = sample_change(KMS_CHANGE_TENANT);
    tenant.tenant.id[3] = '\n';
    bytes = encode(&tenant);
    assert_refused(bytes.data, bytes.len, KMS_STORE_CORRUPT);
    kms_buf_clear(&bytes);
}

static void reservations_are_sorted_and_merged_when_encoded(void **state)
{
    (void)state;
    struct kms_change_reservation list[] = {{{9}, 10}, {{2}, 30}, {{9}, 20}, {{2}, 5}, {{1}, 7}};
    struct kms_buf bytes = {0};
    assert_ok(kms_changelog_reserve(list, 5, &bytes));
    assert_int_equal(bytes.len, 4 + 3 * 24);
    struct kms_change change = {0};
    assert_ok(kms_changelog_decode(kms_buf_slice(&bytes), &change, NULL));
    assert_int_equal(change.reserve.count, 3);
    assert_int_equal(change.reserve.list[0].wraps_reserved, 7);
    assert_int_equal(change.reserve.list[1].wraps_reserved, 30);
    assert_int_equal(change.reserve.list[2].wraps_reserved, 20);
    kms_change_clear(&change);
    kms_buf_clear(&bytes);
}

static void reservations_out_of_order_or_twice_or_none_are_refused(void **state)
{
    (void)state;
    struct kms_change change = sample_change(KMS_CHANGE_RESERVE);
    struct kms_buf bytes = encode(&change);
    uint8_t *entries = bytes.data + 4;
    entries[0] = 9; /* the first KEK id is now larger than the second */
    assert_refused(bytes.data, bytes.len, KMS_STORE_CORRUPT);
    entries[0] = 1; /* equal to the second */
    assert_refused(bytes.data, bytes.len, KMS_STORE_CORRUPT);
    const uint8_t none[] = {KMS_CHANGELOG_VERSION, KMS_CHANGE_RESERVE, 0, 0};
    assert_refused(none, sizeof none, KMS_STORE_CORRUPT);
    kms_buf_clear(&bytes);
    kms_change_clear(&change);
}

static void text_with_a_nul_inside_is_refused(void **state)
{
    (void)state;
    struct kms_change change = sample_change(KMS_CHANGE_CUSTOMER);
    struct kms_buf bytes = encode(&change);
    const size_t id_at = 2 + 16 + 16 + 2;
    assert_memory_equal(bytes.data + id_at, "customer-", 9);
    bytes.data[id_at + 3] = 0;
    assert_refused(bytes.data, bytes.len, KMS_STORE_CORRUPT);
    bytes.data[id_at + 3] = 't';
    const size_t labels_at = id_at + strlen(change.customer.id) + 4;
    assert_int_equal(bytes.data[labels_at], '{');
    bytes.data[labels_at + 2] = 0;
    assert_refused(bytes.data, bytes.len, KMS_STORE_CORRUPT);
    kms_buf_clear(&bytes);
    kms_change_clear(&change);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_decodes_to_what_was_encoded),
        cmocka_unit_test(members_survive_the_round_trip),
        cmocka_unit_test(a_truncated_record_is_refused_at_every_length),
        cmocka_unit_test(the_beginning_of_a_retention_is_there_or_not),
        cmocka_unit_test(an_extended_record_is_refused),
        cmocka_unit_test(a_flipped_byte_is_refused_or_decodes_to_another_record),
        cmocka_unit_test(unknown_kinds_and_versions_are_refused),
        cmocka_unit_test(values_out_of_range_are_refused),
        cmocka_unit_test(reservations_are_sorted_and_merged_when_encoded),
        cmocka_unit_test(reservations_out_of_order_or_twice_or_none_are_refused),
        cmocka_unit_test(text_with_a_nul_inside_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
