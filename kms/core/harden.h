/*
 * Purpose:   make the process a safe place for secrets before any is loaded.
 * Owns:      process-wide settings.
 * Threads:   call once, before the first thread.
 * Never:     goes on silently when a protection that was asked for cannot be had.
 */
#ifndef KMS_CORE_HARDEN_H
#define KMS_CORE_HARDEN_H

#include "core/status.h"

/**
 * No core dumps (RLIMIT_CORE 0, PR_SET_DUMPABLE 0), no new privileges, umask 077, memory locked as it is
 * touched (mlockall with MCL_ONFAULT), as many descriptors as the hard limit allows. FAILED_PRECONDITION with
 * the fix in the message when the locked-memory limit is too low.
 */
enum kms_status kms_harden_process(struct kms_error *err) KMS_MUST_USE;

#endif
