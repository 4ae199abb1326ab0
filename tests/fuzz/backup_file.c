/*
 * Goal: no bytes make the reader of backup files crash, read outside of them or go on behind what is not authentic. The first byte
 * says how many of the following pass through unsealed: with a valid key the fuzzer reaches the records within a frame.
 */
#define _GNU_SOURCE
#include "unit/backup/soft_keeper.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Read whatever there is; returns the number of records. */
static unsigned read_file(struct kms_slice bytes)
{
    const struct kms_backup_keeper keeper = soft_keeper(1);
    const int fd = memfd_create("fuzz", MFD_CLOEXEC);
    KMS_ASSERT(fd >= 0 && write(fd, bytes.data, bytes.len) == (ssize_t)bytes.len);
    struct kms_error err = {0};
    struct kms_backup_reader *reader = NULL;
    unsigned records = 0;
    enum kms_status status = kms_backup_reader_new(&keeper, fd, &reader, &err);
    while (status == KMS_OK && (status = kms_backup_reader_frame(reader, &err)) == KMS_OK) {
        struct kms_backup_record record;
        enum kms_status more;
        while ((more = kms_backup_reader_record(reader, &record, &err)) == KMS_OK)
            records++;
        if (more != KMS_NOT_FOUND)
            status = more;
    }
    KMS_ASSERT(status != KMS_OK);
    kms_backup_reader_free(reader);
    (void)close(fd);
    return records;
}

/* A file whose only frame holds these bytes in place of records, properly sealed. */
static struct kms_buf sealed_file(struct kms_slice content)
{
    const struct kms_backup_keeper keeper = soft_keeper(1);
    struct kms_backup_header header = {.kind = KMS_BACKUP_LOG};
    struct kms_buf out = {0};
    struct kms_backup_writer *writer = NULL;
    KMS_ASSERT(kms_backup_writer_new(&keeper, &header, &out, &writer, NULL) == KMS_OK);
    KMS_ASSERT(kms_backup_writer_raw(writer, content) == KMS_OK);
    KMS_ASSERT(kms_backup_writer_seal(writer, true, &out, NULL) == KMS_OK);
    kms_backup_writer_free(writer);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 1 << 20)
        return 0;
    const struct kms_slice rest = kms_slice_of(data + 1, size - 1);
    if (data[0] % 2 == 0) {
        KMS_ASSERT(read_file(rest) == 0); /* nobody guesses a tag */
        return 0;
    }
    struct kms_buf file = sealed_file(rest);
    (void)read_file(kms_buf_slice(&file));
    kms_buf_clear(&file);
    return 0;
}
