/* Samples of store/store_shred.h: deterministic by number, every member set. */
#ifndef TESTS_STORE_SAMPLES_SHRED_H
#define TESTS_STORE_SAMPLES_SHRED_H

#include "support.h"

struct kms_shred_job_record sample_shred_job(unsigned tenant, unsigned number);
/* Of job `job`; customer 2 is shredded in batch 2, the others are pending. */
struct kms_shred_target_record sample_shred_target(unsigned job, unsigned customer);
struct kms_hold_record sample_hold(unsigned tenant, unsigned customer); /* its number is the customer's */
struct kms_certificate_record sample_certificate(unsigned tenant, unsigned number); /* document is static */
struct kms_shred_setting_record sample_shred_setting(unsigned tenant);
struct kms_retention_record sample_retention(unsigned tenant, unsigned customer);
struct kms_shred_clock_record sample_shred_clock(void);

#endif
