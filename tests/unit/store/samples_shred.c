#include "samples_shred.h"

#include <stdio.h>

/* Kinds of sample_uuid() that support.c does not use. */
enum { JOB = 60, BATCH, HOLD, CERTIFICATE, OPERATION };
#define A_DAY_NS (INT64_C(86400) * 1000000000)

struct kms_shred_job_record sample_shred_job(unsigned tenant, unsigned number)
{
    struct kms_shred_job_record job = {
        .uid = sample_uuid(JOB, number),
        .tenant = sample_tenant(tenant).uuid,
        .origin = KMS_SHRED_BY_CLOSURE,
        .state = KMS_SHRED_JOB_SCHEDULED,
        .purpose = "service",
        .version = 3,
        .requested_by = "spiffe://kms.example/operator/alice",
        .requested_ns = A_DAY_NS,
        .window_seconds = 604800,
        .due_ns = 8 * A_DAY_NS + number,
        .operation = sample_uuid(OPERATION, number),
    };
    (void)snprintf(job.reason, sizeof job.reason, "account closed, case %u", number);
    memset(job.list_hash, (int)number, sizeof job.list_hash);
    return job;
}

struct kms_shred_target_record sample_shred_target(unsigned job, unsigned customer)
{
    struct kms_shred_target_record target = {.job = sample_uuid(JOB, job),
                                             .customer = sample_customer(1, customer).uuid,
                                             .state = KMS_SHRED_TARGET_PENDING,
                                             .changed_ns = 5 * A_DAY_NS,
                                             .reason = "as told"};
    if (customer == 2) {
        target.state = KMS_SHRED_TARGET_SHREDDED;
        target.batch = sample_uuid(BATCH, 2);
    }
    return target;
}

struct kms_hold_record sample_hold(unsigned tenant, unsigned customer)
{
    return (struct kms_hold_record){.uid = sample_uuid(HOLD, customer),
                                    .tenant = sample_tenant(tenant).uuid,
                                    .customer = sample_customer(1, customer).uuid,
                                    .reference = "AZ 1 O 23/26",
                                    .reason = "court order",
                                    .placed_by = "spiffe://kms.example/operator/alice",
                                    .placed_ns = A_DAY_NS,
                                    .released_by = "spiffe://kms.example/operator/bob",
                                    .released_ns = 2 * A_DAY_NS};
}

struct kms_certificate_record sample_certificate(unsigned tenant, unsigned number)
{
    static uint8_t document[] = "{\"format\":\"kms.certificate.v1\"}";
    return (struct kms_certificate_record){.uid = sample_uuid(CERTIFICATE, number),
                                           .tenant = sample_tenant(tenant).uuid,
                                           .batch = sample_uuid(BATCH, number),
                                           .kind = KMS_CERTIFICATE_DESTRUCTION,
                                           .created_ns = 3 * A_DAY_NS,
                                           .document = document,
                                           .document_len = sizeof document - 1,
                                           .signature = {0x30, 0x06, 2, 1, 1, 2, 1, 1},
                                           .signature_len = 8};
}

struct kms_shred_setting_record sample_shred_setting(unsigned tenant)
{
    return (struct kms_shred_setting_record){sample_tenant(tenant).uuid, 86400, true};
}

struct kms_retention_record sample_retention(unsigned tenant, unsigned customer)
{
    return (struct kms_retention_record){.tenant = sample_tenant(tenant).uuid,
                                         .customer = sample_customer(1, customer).uuid,
                                         .purpose = "kyc",
                                         .due_ns = A_DAY_NS * (int64_t)customer,
                                         .began_ns = customer % 2 == 0 ? 0 : customer};
}

struct kms_shred_clock_record sample_shred_clock(void)
{
    return (struct kms_shred_clock_record){9 * A_DAY_NS, 77, "0b4c3c3a-6d0c-4b53-9a3b-6a6d1f7f2a10"};
}
