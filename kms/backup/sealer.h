/*
 * Purpose:   AES-256-GCM over the frames of one backup file.
 * Owns:      the cipher's state with the file key in it.
 * Threads:   one thread at a time.
 * Never:     uses a nonce twice, or gives out plaintext whose tag was not checked.
 */
#ifndef KMS_BACKUP_SEALER_H
#define KMS_BACKUP_SEALER_H

#include "backup/container.h"

struct kms_backup_sealer;

/** The key is copied into the cipher; `header` is all KMS_BACKUP_HEADER_SIZE bytes of the file. */
enum kms_status kms_backup_sealer_new(const uint8_t key[KMS_BACKUP_FILE_KEY_SIZE],
                                      const uint8_t header[KMS_BACKUP_HEADER_SIZE], bool sealing,
                                      struct kms_backup_sealer **ret_sealer,
                                      struct kms_error *err) KMS_MUST_USE;
/** NULL-safe. */
void kms_backup_sealer_free(struct kms_backup_sealer *sealer);
/** The next frame, in place: `len` bytes become ciphertext, the tag goes to `ret_tag`. */
enum kms_status kms_backup_sealer_seal(struct kms_backup_sealer *sealer, uint8_t *data, size_t len, bool last,
                                       uint8_t ret_tag[KMS_BACKUP_TAG_SIZE],
                                       struct kms_error *err) KMS_MUST_USE;
/** The reverse. TAMPERED: not authentic; `data` is wiped. */
enum kms_status kms_backup_sealer_open(struct kms_backup_sealer *sealer, uint8_t *data, size_t len, bool last,
                                       const uint8_t tag[KMS_BACKUP_TAG_SIZE],
                                       struct kms_error *err) KMS_MUST_USE;
/** Frames so far. */
uint64_t kms_backup_sealer_frames(const struct kms_backup_sealer *sealer);

#endif
