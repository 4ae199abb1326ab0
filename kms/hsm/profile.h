/*
 * Purpose:   what one kind of token needs done differently, read from hsm-config/profiles/ *.yaml.
 * Owns:      nothing; a profile is a plain value.
 * Threads:   no shared state.
 * Never:     guesses: every field must be in the file.
 */
#ifndef KMS_HSM_PROFILE_H
#define KMS_HSM_PROFILE_H

#include "core/status.h"

#include <stdint.h>

enum { KMS_PROFILE_NAME_SIZE = 33 };

enum kms_profile_gcm_iv {
    KMS_PROFILE_IV_CALLER, /* the token uses the 12 bytes that it is given */
    KMS_PROFILE_IV_TOKEN   /* the token insists on making the IV: not supported, refused at start */
};

/** How the token wraps keys for a recovery key: RSA-OAEP (RFC 8017) with this hash, also in MGF1, and an empty label. */
enum kms_profile_oaep {
    KMS_PROFILE_OAEP_NONE, /* it does not keep keys for trusted wrapping keys alone: recovery keys cannot be used */
    KMS_PROFILE_OAEP_SHA1,
    KMS_PROFILE_OAEP_SHA256
};

struct kms_profile {
    char name[KMS_PROFILE_NAME_SIZE];
    bool tested; /* the project's tests have run on such a token; a warning is logged when not */
    unsigned long wrap_mechanism; /* RFC 3394 key wrap, 40-byte blobs */
    bool value_len_on_unwrap;     /* CKA_VALUE_LEN must be in the template of C_UnwrapKey */
    bool allowed_mechanisms;      /* the token accepts CKA_ALLOWED_MECHANISMS */
    bool unwrap_template;         /* the token accepts CKA_UNWRAP_TEMPLATE */
    bool life_cycle_attributes;   /* the token accepts CKA_COPYABLE and CKA_DESTROYABLE */
    bool
        enforces_extractable; /* C_WrapKey refuses a key with CKA_EXTRACTABLE=F; a warning is logged when not */
    bool mutexes_given;       /* a module in this process that takes its mutexes from us: see p11_alone.h */
    enum kms_profile_gcm_iv gcm_iv;
    enum kms_profile_oaep recovery_oaep;
    unsigned sessions_default;
    unsigned sessions_maximum; /* of the pool; the token sees two for each, and two more */
    uint64_t session_objects_maximum;
    char erase_class;                 /* 'A', 'B' or 'C' */
    unsigned provider_retention_days; /* class B: how long the provider's backups keep destroyed keys */
    unsigned long refused_data_code;  /* further CKR for data that does not open, to be checked; 0: none */
};

/**
 * Read and check a profile. CONFIG_INVALID with the file, line and what is wrong; also when the profile says
 * that the token makes GCM IVs itself. `*ret_profile` is written only on success.
 */
enum kms_status kms_profile_load(const char *path, struct kms_profile *ret_profile,
                                 struct kms_error *err) KMS_MUST_USE;

#endif
