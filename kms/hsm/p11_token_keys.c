#include "hsm/p11_token_keys.h"

#include "hsm/p11_template.h"

static const CK_OBJECT_CLASS secret_key_class = CKO_SECRET_KEY;
static const CK_KEY_TYPE generic_type = CKK_GENERIC_SECRET;
static const CK_MECHANISM_TYPE gcm_only = CKM_AES_GCM;

/* Behind class and type: in the token for good, and out of it for a recovery key at most. */
static void add_token_key(const struct kms_p11 *p11, unsigned usage, struct kms_p11_template *template)
{
    kms_p11_template_flag(template, CKA_TOKEN, true);
    kms_p11_template_flag(template, CKA_PRIVATE, true);
    kms_p11_template_flag(template, CKA_SENSITIVE, true);
    kms_p11_template_extractable(template, p11);
    kms_p11_template_usage(template, usage);
    if (p11->profile.life_cycle_attributes)
        kms_p11_template_flag(template, CKA_COPYABLE, false);
}

/* Last: SoftHSM, when it unwraps a key, takes the attributes in their order and changes nothing behind this one. */
static void add_fixed(struct kms_p11_template *template)
{
    kms_p11_template_flag(template, CKA_MODIFIABLE, false);
}

/* Label first: a token that is killed in the middle leaves nothing that can be found by its id but not be told from others. */
static void add_name(const uint8_t *id, const char *label, struct kms_p11_template *template)
{
    kms_p11_template_add(template, CKA_LABEL, label, strlen(label));
    kms_p11_template_add(template, CKA_ID, id, KMS_HSM_KEY_ID_SIZE);
}

void kms_p11_token_keys_master(const struct kms_p11 *p11, const uint8_t *id, const char *label,
                               struct kms_p11_template *unwrap_template,
                               struct kms_p11_template *ret_template)
{
    *ret_template = (struct kms_p11_template){0};
    *unwrap_template = (struct kms_p11_template){0};
    kms_p11_template_aes(ret_template);
    add_token_key(p11, KMS_P11_WRAP | KMS_P11_UNWRAP, ret_template);
    add_name(id, label, ret_template);
    if (p11->profile.life_cycle_attributes)
        kms_p11_template_flag(ret_template, CKA_DESTROYABLE, true);
    if (p11->profile.allowed_mechanisms)
        kms_p11_template_add(ret_template, CKA_ALLOWED_MECHANISMS, &p11->profile.wrap_mechanism,
                             sizeof p11->profile.wrap_mechanism);
    if (p11->profile.unwrap_template) {
        kms_p11_template_flag(unwrap_template, CKA_TOKEN, false);
        kms_p11_template_flag(unwrap_template, CKA_PRIVATE, true);
        kms_p11_template_flag(unwrap_template, CKA_SENSITIVE, true);
        kms_p11_template_add(ret_template, CKA_UNWRAP_TEMPLATE, unwrap_template->attributes,
                             unwrap_template->count * sizeof unwrap_template->attributes[0]);
    }
    add_fixed(ret_template);
}

void kms_p11_token_keys_integrity(const struct kms_p11 *p11, const uint8_t *id,
                                  struct kms_p11_template *ret_template)
{
    *ret_template = (struct kms_p11_template){0};
    kms_p11_template_add(ret_template, CKA_CLASS, &secret_key_class, sizeof secret_key_class);
    kms_p11_template_add(ret_template, CKA_KEY_TYPE, &generic_type, sizeof generic_type);
    add_token_key(p11, KMS_P11_SIGN, ret_template);
    add_name(id, KMS_P11_LABEL_INTEGRITY, ret_template);
    add_fixed(ret_template);
}

void kms_p11_token_keys_backup(const struct kms_p11 *p11, const uint8_t *id,
                               struct kms_p11_template *ret_template)
{
    *ret_template = (struct kms_p11_template){0};
    kms_p11_template_aes(ret_template);
    add_token_key(p11, KMS_P11_ENCRYPT, ret_template);
    if (p11->profile.allowed_mechanisms)
        kms_p11_template_add(ret_template, CKA_ALLOWED_MECHANISMS, &gcm_only, sizeof gcm_only);
    add_name(id, KMS_P11_LABEL_BACKUP, ret_template);
    add_fixed(ret_template);
}
