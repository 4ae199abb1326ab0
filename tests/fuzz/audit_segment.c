/*
 * Goal: whatever stands in a segment, recovery and verification agree on whether it is in order, recovery's cut
 * leaves a log in order, and neither reads or writes where it must not.
 */
#define _GNU_SOURCE
#include "audit/recover.h"
#include "audit/verify.h"
#include "core/cleanup.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char directory[] = "/tmp/kms-fuzz-audit-XXXXXX";
static char path[sizeof directory + KMS_AUDIT_NAME_SIZE];
static int segment = -1;

static void remove_directory(void)
{
    (void)unlink(path);
    (void)rmdir(directory);
}

/* One directory and one file for all inputs. */
static void prepare(void)
{
    if (segment >= 0)
        return;
    KMS_ASSERT(mkdtemp(directory) != NULL);
    char name[KMS_AUDIT_NAME_SIZE];
    (void)snprintf(path, sizeof path, "%s/%s", directory, kms_audit_segment_name(1, name));
    segment = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    KMS_ASSERT(segment >= 0 && atexit(remove_directory) == 0);
}

static enum kms_status recover(struct kms_audit_recovery *ret_recovery)
{
    struct kms_audit_head before;
    bool lost;
    struct kms_error err = {0};
    return kms_audit_recover_segment(segment, "segment", 1, ret_recovery, &before, &lost, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    prepare();
    KMS_ASSERT(ftruncate(segment, 0) == 0 && pwrite(segment, data, size, 0) == (ssize_t)size);
    struct kms_audit_recovery recovery = {0};
    const enum kms_status recovered = recover(&recovery);
    struct kms_audit_verify_result result;
    struct kms_error err = {0};
    const struct kms_audit_verify_options options = {.live = true};
    const enum kms_status verified = kms_audit_verify(directory, &options, &result, &err);
    KMS_ASSERT(recovered == KMS_OK || recovered == KMS_FAILED_PRECONDITION);
    KMS_ASSERT((verified == KMS_OK) == (recovered == KMS_OK));
    if (recovered != KMS_OK)
        return 0;
    KMS_ASSERT(result.last_seq == recovery.head.seq && recovery.end <= size);
    KMS_ASSERT(recovery.end + recovery.torn_bytes <= size);
    KMS_ASSERT(ftruncate(segment, (off_t)recovery.end) == 0);
    struct kms_audit_recovery again = {0};
    KMS_ASSERT(recover(&again) == KMS_OK && again.torn_bytes == 0);
    KMS_ASSERT(again.end == recovery.end && again.head.seq == recovery.head.seq);
    return 0;
}
