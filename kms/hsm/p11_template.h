/*
 * Purpose:   building attribute templates.
 * Owns:      nothing.
 * Threads:   each template belongs to one thread while it is built.
 * Never:     leaves a usage bit unsaid: a bit that is not listed is FALSE in the template.
 */
#ifndef KMS_HSM_P11_TEMPLATE_H
#define KMS_HSM_P11_TEMPLATE_H

#include "hsm/p11_state.h"

/** Add an attribute; `value` must live as long as the template. */
void kms_p11_template_add(struct kms_p11_template *template, CK_ATTRIBUTE_TYPE type, const void *value,
                          CK_ULONG len);
/** Add a boolean attribute. */
void kms_p11_template_flag(struct kms_p11_template *template, CK_ATTRIBUTE_TYPE type, bool value);
/** Class SECRET_KEY and key type AES. */
void kms_p11_template_aes(struct kms_p11_template *template);

/** Usage bits of a secret key. */
enum { KMS_P11_ENCRYPT = 1, KMS_P11_WRAP = 2, KMS_P11_UNWRAP = 4, KMS_P11_SIGN = 8 };
/** All usage bits of a secret key: TRUE for those in `usage` (ENCRYPT with DECRYPT, SIGN with VERIFY). */
void kms_p11_template_usage(struct kms_p11_template *template, unsigned usage);

/**
 * Whether the value may ever leave the token: not at all, or, with recovery keys, wrapped under a trusted key and in no other way.
 */
void kms_p11_template_extractable(struct kms_p11_template *template, const struct kms_p11 *p11);

#endif
