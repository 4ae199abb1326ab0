#include "hsm/p11_template.h"

static const CK_BBOOL truth = CK_TRUE;
static const CK_BBOOL falsehood = CK_FALSE;
static const CK_OBJECT_CLASS secret_key_class = CKO_SECRET_KEY;
static const CK_KEY_TYPE aes_type = CKK_AES;

void kms_p11_template_add(struct kms_p11_template *template, CK_ATTRIBUTE_TYPE type, const void *value,
                          CK_ULONG len)
{
    /* Cryptoki's templates are not const, but inputs are only read. */
    union {
        const void *in;
        void *out;
    } pun = {.in = value};
    KMS_ASSERT(template->count < KMS_P11_TEMPLATE_MAX);
    template->attributes[template->count++] = (CK_ATTRIBUTE){type, pun.out, len};
}

void kms_p11_template_flag(struct kms_p11_template *template, CK_ATTRIBUTE_TYPE type, bool value)
{
    kms_p11_template_add(template, type, value ? &truth : &falsehood, sizeof truth);
}

void kms_p11_template_aes(struct kms_p11_template *template)
{
    kms_p11_template_add(template, CKA_CLASS, &secret_key_class, sizeof secret_key_class);
    kms_p11_template_add(template, CKA_KEY_TYPE, &aes_type, sizeof aes_type);
}

void kms_p11_template_usage(struct kms_p11_template *template, unsigned usage)
{
    kms_p11_template_flag(template, CKA_ENCRYPT, (usage & KMS_P11_ENCRYPT) != 0);
    kms_p11_template_flag(template, CKA_DECRYPT, (usage & KMS_P11_ENCRYPT) != 0);
    kms_p11_template_flag(template, CKA_WRAP, (usage & KMS_P11_WRAP) != 0);
    kms_p11_template_flag(template, CKA_UNWRAP, (usage & KMS_P11_UNWRAP) != 0);
    kms_p11_template_flag(template, CKA_SIGN, (usage & KMS_P11_SIGN) != 0);
    kms_p11_template_flag(template, CKA_VERIFY, (usage & KMS_P11_SIGN) != 0);
    kms_p11_template_flag(template, CKA_DERIVE, false);
}

void kms_p11_template_extractable(struct kms_p11_template *template, const struct kms_p11 *p11)
{
    kms_p11_template_flag(template, CKA_EXTRACTABLE, p11->recovery);
    if (p11->recovery)
        kms_p11_template_flag(template, CKA_WRAP_WITH_TRUSTED, true);
}
