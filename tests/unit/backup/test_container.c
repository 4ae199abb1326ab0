/* Goal: a backup file gives back what was put in, in order, or says that it does not: cut, changed, spliced, foreign, newer. */
#define _GNU_SOURCE /* memfd_create() */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "soft_keeper.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FRAMES = 3, RECORDS = 4 };

static struct kms_error err;

#define assert_status(expected, actual)                                                                      \
    assert_string_equal(kms_status_name(actual), kms_status_name(expected))
#define assert_ok(actual) assert_status(KMS_OK, actual)

/* A file in memory with these bytes. */
static int file_of(struct kms_slice bytes)
{
    const int fd = memfd_create("backup", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes.data, bytes.len), bytes.len);
    return fd;
}

/* Payload of record n: its text, n times. */
static struct kms_slice payload(unsigned n, char room[64])
{
    return kms_slice_of(room, (size_t)snprintf(room, 64, "record %u", n));
}

/* A file of FRAMES frames with RECORDS records each; `last` ends it. */
static struct kms_buf sample(uint8_t deployment, bool last)
{
    const struct kms_backup_keeper keeper = soft_keeper(deployment);
    struct kms_backup_header header = {.kind = KMS_BACKUP_LOG, .seq = 100};
    struct kms_buf out = {0};
    struct kms_backup_writer *writer = NULL;
    char room[64];
    assert_ok(kms_backup_writer_new(&keeper, &header, &out, &writer, &err));
    for (unsigned frame = 0; frame < FRAMES; frame++) {
        for (unsigned i = 0; i < RECORDS; i++) {
            const unsigned n = frame * RECORDS + i;
            assert_ok(kms_backup_writer_add(writer, 101 + n, 7, payload(n, room), &err));
        }
        assert_ok(kms_backup_writer_seal(writer, last && frame == FRAMES - 1, &out, &err));
    }
    assert_int_equal(kms_backup_writer_end(writer).frames, FRAMES);
    kms_backup_writer_free(writer);
    return out;
}

/* Read a file to its end: the status that ended it (NOT_FOUND: in order) and the number of good records. */
static enum kms_status read_all(struct kms_slice bytes, uint8_t deployment, unsigned *ret_records,
                                bool *ret_closed)
{
    const struct kms_backup_keeper keeper = soft_keeper(deployment);
    const int fd = file_of(bytes);
    struct kms_backup_reader *reader = NULL;
    unsigned records = 0;
    enum kms_status status = kms_backup_reader_new(&keeper, fd, &reader, &err);
    while (status == KMS_OK && (status = kms_backup_reader_frame(reader, &err)) == KMS_OK) {
        struct kms_backup_record record;
        while ((status = kms_backup_reader_record(reader, &record, &err)) == KMS_OK) {
            char room[64];
            assert_true(kms_slice_equal(record.payload, payload(records, room)));
            assert_int_equal(record.seq, 101 + records);
            assert_int_equal(record.time_ns, 7);
            records++;
        }
        assert_status(KMS_NOT_FOUND, status);
        status = KMS_OK;
    }
    if (ret_closed != NULL)
        *ret_closed = reader != NULL && kms_backup_reader_place(reader)->closed;
    kms_backup_reader_free(reader);
    (void)close(fd);
    *ret_records = records;
    return status;
}

static void what_was_written_is_read_back(void **state)
{
    (void)state;
    for (int last = 0; last <= 1; last++) {
        struct kms_buf file = sample(1, last == 1);
        unsigned records = 0;
        bool closed = false;
        assert_status(KMS_NOT_FOUND, read_all(kms_buf_slice(&file), 1, &records, &closed));
        assert_int_equal(records, FRAMES * RECORDS);
        assert_int_equal(closed, last);
        kms_buf_clear(&file);
    }
}

static void every_flipped_bit_is_refused(void **state)
{
    (void)state;
    struct kms_buf file = sample(1, true);
    for (size_t i = 0; i < file.len; i++) {
        file.data[i] ^= 1;
        unsigned records = 0;
        const enum kms_status status = read_all(kms_buf_slice(&file), 1, &records, NULL);
        assert_true(status == KMS_TAMPERED || status == KMS_OUT_OF_RANGE ||
                    status == KMS_FAILED_PRECONDITION || status == KMS_STORE_NEWER);
        file.data[i] ^= 1;
    }
    kms_buf_clear(&file);
}

static void a_file_that_is_cut_anywhere_ends_early_and_says_so(void **state)
{
    (void)state;
    struct kms_buf file = sample(1, true);
    unsigned whole_frames = 0;
    for (size_t len = 0; len < file.len; len++) {
        unsigned records = 0;
        bool closed = true;
        const enum kms_status status = read_all(kms_slice_of(file.data, len), 1, &records, &closed);
        /* between two frames it looks like the open log of a service that ended: not closed */
        assert_true(status == KMS_OUT_OF_RANGE || (status == KMS_NOT_FOUND && !closed));
        whole_frames += status == KMS_NOT_FOUND;
    }
    assert_int_equal(whole_frames, FRAMES);
    kms_buf_clear(&file);
}

static void nothing_may_stand_behind_the_last_frame(void **state)
{
    (void)state;
    struct kms_buf file = sample(1, true);
    assert_ok(kms_buf_append(&file, "x", 1));
    unsigned records = 0;
    assert_status(KMS_TAMPERED, read_all(kms_buf_slice(&file), 1, &records, NULL));
    kms_buf_clear(&file);
}

static void frames_of_another_file_and_in_another_order_are_refused(void **state)
{
    (void)state;
    struct kms_buf file = sample(1, true);
    struct kms_buf other = sample(1, true);
    assert_int_equal(file.len, other.len);
    const size_t frame =
        (file.len - KMS_BACKUP_HEADER_SIZE) / FRAMES; /* records differ in length from number 10 on */
    unsigned records = 0;
    uint8_t *first = file.data + KMS_BACKUP_HEADER_SIZE;
    memcpy(first, other.data + KMS_BACKUP_HEADER_SIZE, frame); /* spliced */
    assert_status(KMS_TAMPERED, read_all(kms_buf_slice(&file), 1, &records, NULL));
    assert_int_equal(records, 0);
    kms_buf_clear(&file);
    file = sample(1, true);
    const size_t len =
        KMS_BACKUP_FRAME_HEAD + kms_get_be32(file.data + KMS_BACKUP_HEADER_SIZE) + KMS_BACKUP_TAG_SIZE;
    first = file.data + KMS_BACKUP_HEADER_SIZE;
    memmove(first, first + len, file.len - KMS_BACKUP_HEADER_SIZE - len); /* the first one left out */
    file.len -= len;
    assert_status(KMS_TAMPERED, read_all(kms_buf_slice(&file), 1, &records, NULL));
    assert_int_equal(records, 0);
    kms_buf_clear(&file);
    kms_buf_clear(&other);
}

static void a_file_of_another_deployment_is_told_apart(void **state)
{
    (void)state;
    struct kms_buf file = sample(1, true);
    unsigned records = 0;
    assert_status(KMS_FAILED_PRECONDITION, read_all(kms_buf_slice(&file), 2, &records, NULL));
    assert_non_null(strstr(err.public_text, "deployment"));
    kms_buf_clear(&file);
}

static void a_later_format_is_told_apart(void **state)
{
    (void)state;
    struct kms_buf file = sample(1, true);
    file.data[6] = 2;
    unsigned records = 0;
    assert_status(KMS_STORE_NEWER, read_all(kms_buf_slice(&file), 1, &records, NULL));
    kms_buf_clear(&file);
}

static void the_header_says_where_the_file_before_ended(void **state)
{
    (void)state;
    const struct kms_backup_keeper keeper = soft_keeper(1);
    struct kms_backup_header header = {
        .kind = KMS_BACKUP_LOG, .seq = 5, .previous = {kms_uuid_random(), 9, "0123456789abcde"}};
    struct kms_buf out = {0};
    struct kms_backup_writer *writer = NULL;
    assert_ok(kms_backup_writer_new(&keeper, &header, &out, &writer, &err));
    const int fd = file_of(kms_buf_slice(&out));
    struct kms_backup_reader *reader = NULL;
    assert_ok(kms_backup_reader_new(&keeper, fd, &reader, &err));
    const struct kms_backup_place *place = kms_backup_reader_place(reader);
    assert_memory_equal(&place->header.previous, &header.previous, sizeof header.previous);
    assert_memory_equal(&place->header.file, &header.file, sizeof header.file);
    assert_int_equal(place->header.seq, 5);
    assert_int_equal(place->header.created_ns, header.created_ns);
    kms_backup_reader_free(reader);
    kms_backup_writer_free(writer);
    kms_buf_clear(&out);
    (void)close(fd);
}

static void a_record_that_is_too_large_is_refused_and_a_full_frame_says_so(void **state)
{
    (void)state;
    const struct kms_backup_keeper keeper = soft_keeper(1);
    struct kms_backup_header header = {.kind = KMS_BACKUP_BASE};
    struct kms_buf out = {0};
    struct kms_backup_writer *writer = NULL;
    assert_ok(kms_backup_writer_new(&keeper, &header, &out, &writer, &err));
    uint8_t *large = calloc(1, KMS_BACKUP_RECORD_MAX + 1);
    assert_non_null(large);
    assert_false(kms_backup_writer_full(writer));
    assert_status(KMS_TOO_LARGE,
                  kms_backup_writer_add(writer, 1, 0, kms_slice_of(large, KMS_BACKUP_RECORD_MAX + 1), &err));
    assert_ok(kms_backup_writer_add(writer, 1, 0, kms_slice_of(large, KMS_BACKUP_RECORD_MAX), &err));
    assert_true(kms_backup_writer_full(writer));
    assert_ok(kms_backup_writer_seal(writer, true, &out, &err));
    free(large);
    kms_backup_writer_free(writer);
    kms_buf_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read_back),
        cmocka_unit_test(every_flipped_bit_is_refused),
        cmocka_unit_test(a_file_that_is_cut_anywhere_ends_early_and_says_so),
        cmocka_unit_test(nothing_may_stand_behind_the_last_frame),
        cmocka_unit_test(frames_of_another_file_and_in_another_order_are_refused),
        cmocka_unit_test(a_file_of_another_deployment_is_told_apart),
        cmocka_unit_test(a_later_format_is_told_apart),
        cmocka_unit_test(the_header_says_where_the_file_before_ended),
        cmocka_unit_test(a_record_that_is_too_large_is_refused_and_a_full_frame_says_so),
    };
    return cmocka_run_group_tests_name("backup/container", tests, NULL, NULL);
}
