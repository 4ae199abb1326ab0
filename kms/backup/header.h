/*
 * Purpose:   the bytes of a backup file's header.
 * Owns:      nothing.
 * Threads:   pure functions.
 * Never:     knows a key.
 */
#ifndef KMS_BACKUP_HEADER_H
#define KMS_BACKUP_HEADER_H

#include "backup/container.h"

/** The first KMS_BACKUP_BOUND_SIZE bytes. */
void kms_backup_header_encode(const struct kms_backup_header *header, uint8_t out[KMS_BACKUP_BOUND_SIZE]);
/** TAMPERED: no backup file, or one that no service has written; STORE_NEWER: of a later format. */
enum kms_status kms_backup_header_decode(const uint8_t bytes[KMS_BACKUP_BOUND_SIZE],
                                         struct kms_backup_header *ret_header,
                                         struct kms_error *err) KMS_MUST_USE;

#endif
