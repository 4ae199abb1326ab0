/*
 * Purpose:   kms_audit_open() with another table of file operations, for tests that make a disk fail.
 * Owns:      nothing.
 * Threads:   as audit.h.
 * Never:     is used outside this module and its tests.
 */
#ifndef KMS_AUDIT_AUDIT_IO_H
#define KMS_AUDIT_AUDIT_IO_H

#include "audit/audit.h"
#include "audit/io.h"

/**
 * Records that may wait for the disk, in bytes; further ones wait for room, or are refused while the log fails.
 * Also the largest group, so that what a crash can leave behind stays under KMS_AUDIT_TORN_MAX.
 */
enum { KMS_AUDIT_BUFFER_MAX = 4 * 1024 * 1024 };

/** `io` lives until the writer thread has ended: for ever, if it hangs. Else as kms_audit_open(). */
enum kms_status kms_audit_open_io(const struct kms_audit_config *config, const struct kms_audit_io *io,
                                  struct kms_audit **ret_audit, struct kms_error *err) KMS_MUST_USE;

#endif
