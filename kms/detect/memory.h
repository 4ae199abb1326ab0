/*
 * Purpose:   the file that remembers from which places each identity has come.
 * Owns:      nothing; the file is written anew as a whole, beside the old one, and takes its place.
 * Threads:   one file belongs to one thread at a time.
 * Never:     takes a part of a damaged file.
 *
 *     kms-places 1
 *     <place> <identity>            one line for each, an identity's most recent place last
 *     end <number of those lines>
 */
#ifndef KMS_DETECT_MEMORY_H
#define KMS_DETECT_MEMORY_H

#include "detect/detect.h"

#define KMS_DETECT_MEMORY_MAX ((size_t)128 * 1024 * 1024) /* bytes of the file: every place at its limits */

/** Read a file's text into `detect` (NULL: only check it). FAILED_PRECONDITION: the line that is wrong; nothing was taken. */
enum kms_status kms_detect_memory_parse(struct kms_slice text, struct kms_detect *detect,
                                        struct kms_error *err) KMS_MUST_USE;
/** What the file has to say now. NO_MEMORY. */
enum kms_status kms_detect_memory_text(struct kms_detect *detect, struct kms_buf *ret_text) KMS_MUST_USE;
/** Read the file; one that is not there is empty. Statuses of kms_file_read() and kms_detect_memory_parse(). */
enum kms_status kms_detect_memory_load(const char *path, struct kms_detect *detect,
                                       struct kms_error *err) KMS_MUST_USE;
/** Write the file, durably, mode 0600. IO, NO_MEMORY: the old one is still there. */
enum kms_status kms_detect_memory_save(const char *path, struct kms_detect *detect,
                                       struct kms_error *err) KMS_MUST_USE;

#endif
