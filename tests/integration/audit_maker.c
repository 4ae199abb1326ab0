/*
 * Goal: an audit log of millions of records over many days, made by the writer of kmsd with a clock of its own.
 *
 * usage: kms-audit-maker DIR RECORDS DAYS        DIR must not exist yet
 * The records are those of a service under an even load: calls of 100 identities for 100,000 customers from 2026-01-01 on, one segment a day or
 * for each 256 MiB, whichever ends first.
 */
#include "audit/audit.h"
#include "core/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { GROUP = 1024, CUSTOMERS = 100000, IDENTITIES = 100 };
static const int64_t a_day_ns = INT64_C(24) * 3600 * KMS_NS_PER_SECOND;
static const int64_t begin_ns = INT64_C(1767225600) * KMS_NS_PER_SECOND;

static _Atomic int64_t now_ns;

static int64_t made_up_time(void)
{
    return now_ns;
}

static int64_t machine_time(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * KMS_NS_PER_SECOND + now.tv_nsec;
}

static void must(enum kms_status status, const struct kms_error *err)
{
    if (status == KMS_OK)
        return;
    (void)fprintf(stderr, "kms-audit-maker: %s\n", kms_error_cause(err, status));
    exit(1);
}

/* Record `number` of all. */
static void append(struct kms_audit *audit, unsigned long number)
{
    struct kms_error err = {0};
    struct kms_uuid customer = {{0x5a, 0x17, 0x20, 0x41, 0x91, 0x77, 0x4a, 0x3e, 0x9d}};
    const unsigned long of = number * 7919 % CUSTOMERS;
    char request_id[40];
    char identity[64];
    for (size_t k = 0; k < 4; k++)
        customer.bytes[15 - k] = (uint8_t)(of >> 8 * k);
    (void)snprintf(request_id, sizeof request_id, "852fb3f04c83afd2-%016lx", number);
    (void)snprintf(identity, sizeof identity, "spiffe://kms.example/app/%lu", number % IDENTITIES);
    const bool denied = number % 1000 == 999;
    const struct kms_audit_event event = {.type = "call",
                                          .action = number % 3 == 0 ? "datakey.generate" : "datakey.unwrap",
                                          .request_id = request_id,
                                          .identity = identity,
                                          .peer = "ipv4:127.0.0.1:43210",
                                          .tenant = "demo-bank",
                                          .customer = customer,
                                          .purpose = "service",
                                          .kek_version = 1,
                                          .outcome = denied ? "PERMISSION_DENIED" : "OK"};
    must(kms_audit_append(audit, &event, &err), &err);
}

int main(int argc, char **argv)
{
    static const struct kms_clock_source source = {.wall_ns = made_up_time, .mono_ns = machine_time};
    const unsigned long records = argc == 4 ? strtoul(argv[2], NULL, 10) : 0;
    const long days = argc == 4 ? strtol(argv[3], NULL, 10) : 0;
    if (records == 0 || days <= 0) {
        (void)fprintf(stderr, "usage: %s DIR RECORDS DAYS\n", argv[0]);
        return 2;
    }
    struct kms_error err = {0};
    struct kms_audit *audit = NULL;
    const struct kms_audit_config config = {.directory = argv[1], .segment_age_ns = a_day_ns};
    now_ns = begin_ns;
    kms_clock_set_source(&source);
    must(kms_audit_open(&config, &audit, &err), &err);
    for (unsigned long i = 0; i < records; i++) {
        now_ns = begin_ns + (int64_t)((double)days * (double)a_day_ns * ((double)i / (double)records));
        append(audit, i);
        if (i % GROUP == GROUP - 1)
            must(kms_audit_commit(audit, &err), &err);
    }
    must(kms_audit_commit(audit, &err), &err);
    kms_audit_free(audit);
    return 0;
}
