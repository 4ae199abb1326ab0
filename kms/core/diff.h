/*
 * Purpose:   the difference of two texts, line by line, as people read it.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     leaves a changed line out.
 */
#ifndef KMS_CORE_DIFF_H
#define KMS_CORE_DIFF_H

#include "core/bytes.h"

/**
 * `mark`: ' ' in both, '-' only in the old text, '+' only in the new one, '@' lines in both are left out before the line whose number
 * in the new text is `number`. `line` has no line end and is empty for '@'. Another status than OK ends the walk and is returned.
 */
typedef enum kms_status (*kms_diff_visit)(void *context, char mark, struct kms_slice line, size_t number);

/**
 * Walk over the difference with `around` lines of both texts around each change; nothing is visited when the texts are equal. A
 * change of very many lines may be shown larger than it is. NO_MEMORY.
 */
enum kms_status kms_diff_lines(struct kms_slice old_text, struct kms_slice new_text, size_t around,
                               kms_diff_visit visit, void *context) KMS_MUST_USE;

#endif
