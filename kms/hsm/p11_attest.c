#define _GNU_SOURCE
#include "hsm/p11_attest.h"

#include "core/cleanup.h"
#include "core/log.h"
#include "hsm/p11_alone.h"
#include "hsm/p11_session.h"

#include <libp11.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { DIGEST_SIZE = 32, PEM_MAX = 4096 };

struct kms_p11_attest {
    PKCS11_CTX *context;
    bool loaded;
    PKCS11_SLOT *slots;
    unsigned slot_count;
    EVP_PKEY *key;
    char *pem;
};

/* Why libp11 failed: the Cryptoki code in OpenSSL's error queue, or CKR_OK when there is none. */
static CK_RV take_error(void)
{
    CK_RV rv = CKR_OK;
    for (unsigned long code; (code = ERR_get_error()) != 0;) {
        if (ERR_GET_LIB(code) == ERR_get_CKR_code())
            rv = (CK_RV)ERR_GET_REASON(code);
    }
    return rv;
}

/* A failure of libp11 with its code as the cause. */
static enum kms_status failed(const char *what, struct kms_error *err)
{
    char text[KMS_CKR_TEXT_SIZE];
    const CK_RV rv = take_error();
    return kms_fail(err, KMS_HSM_UNAVAILABLE, "%s: %s", what,
                    rv == CKR_OK ? "libp11 gave no reason" : kms_ckr_name(rv, text));
}

/* libp11 calls the module by itself, and not when another call in it does not come back. */
static enum kms_status other_hangs(struct kms_error *err)
{
    return kms_fail(err, KMS_HSM_UNAVAILABLE, "another HSM operation has not come back");
}

/* With mutexes of ours; libp11 then finds the module initialised. Else libp11 does it. */
static enum kms_status initialize(struct kms_p11 *p11, struct kms_error *err)
{
    char text[KMS_CKR_TEXT_SIZE];
    const CK_RV rv = p11->profile.mutexes_given ? kms_p11_alone_initialize() : CKR_OK;
    return rv == CKR_OK ? KMS_OK
                        : kms_fail(err, KMS_HSM_UNAVAILABLE, "C_Initialize: %s", kms_ckr_name(rv, text));
}

enum kms_status kms_p11_attest_load(struct kms_p11 *p11, struct kms_error *err)
{
    KMS_ASSERT(p11->attest == NULL);
    ERR_clear_error();
    struct kms_p11_attest *attest = calloc(1, sizeof *attest);
    if (attest == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for libp11's context");
    p11->attest = attest;
    attest->context = PKCS11_CTX_new();
    if (attest->context == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for libp11's context");
    KMS_TRY(initialize(p11, err));
    if (!kms_p11_alone_enter())
        return other_hangs(err);
    PKCS11_CTX_init_args(attest->context, p11->init_args);
    attest->loaded = PKCS11_CTX_load(attest->context, p11->module) == 0;
    kms_p11_alone_leave();
    return attest->loaded ? KMS_OK : failed("C_Initialize", err);
}

enum kms_status kms_p11_attest_slots(struct kms_p11 *p11, CK_SLOT_ID **ret_slots, size_t *ret_count,
                                     struct kms_error *err)
{
    struct kms_p11_attest *attest = p11->attest;
    KMS_ASSERT(attest != NULL && attest->slots == NULL);
    if (!kms_p11_alone_enter())
        return other_hangs(err);
    const int enumerated = PKCS11_enumerate_slots(attest->context, &attest->slots, &attest->slot_count);
    kms_p11_alone_leave();
    if (enumerated != 0) {
        attest->slots = NULL;
        attest->slot_count = 0;
        return failed("looking for tokens (C_GetSlotList, C_GetTokenInfo)", err);
    }
    CK_SLOT_ID *slots = calloc(attest->slot_count + 1, sizeof *slots);
    if (slots == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for %u slots", attest->slot_count);
    size_t count = 0;
    for (unsigned i = 0; i < attest->slot_count; i++) {
        if (attest->slots[i].token != NULL)
            slots[count++] = PKCS11_get_slotid_from_slot(&attest->slots[i]);
    }
    *ret_slots = slots;
    *ret_count = count;
    return KMS_OK;
}

/* The slot of libp11 that we logged in to. */
static PKCS11_SLOT *our_slot(const struct kms_p11_attest *attest, CK_SLOT_ID id)
{
    for (unsigned i = 0; i < attest->slot_count; i++) {
        if (attest->slots[i].token != NULL && PKCS11_get_slotid_from_slot(&attest->slots[i]) == id)
            return &attest->slots[i];
    }
    return NULL;
}

/* The public half as PEM, kept for as long as the connection. */
static enum kms_status make_pem(struct kms_p11_attest *attest, struct kms_error *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a PEM text");
    char *text = NULL;
    if (PEM_write_bio_PUBKEY(bio, attest->key) == 1) {
        char *data = NULL;
        const long len = BIO_get_mem_data(bio, &data);
        if (len > 0 && len < PEM_MAX)
            text = strndup(data, (size_t)len);
    }
    BIO_free(bio);
    if (text == NULL)
        return failed("reading the public half of the attestation key", err);
    attest->pem = text;
    return KMS_OK;
}

/* What the helper thread of a fetch works on, and leaves behind when it does not come back. */
struct fetch {
    struct kms_p11_attest *attest;
    CK_SLOT_ID slot;
    enum kms_status status;
    struct kms_error error;
};

/* Find the key by its label among the token's private keys. */
static enum kms_status fetch_key(struct fetch *fetch)
{
    struct kms_p11_attest *attest = fetch->attest;
    PKCS11_SLOT *slot = our_slot(attest, fetch->slot);
    PKCS11_KEY *keys = NULL;
    unsigned count = 0;
    ERR_clear_error();
    if (slot == NULL)
        return kms_fail(&fetch->error, KMS_HSM_UNAVAILABLE, "libp11 does not see the token any more");
    if (PKCS11_enumerate_keys(slot->token, &keys, &count) != 0)
        return failed("looking for the attestation key", &fetch->error);
    for (unsigned i = 0; i < count && attest->key == NULL; i++) {
        if (keys[i].label != NULL && strcmp(keys[i].label, KMS_P11_LABEL_ATTESTATION) == 0 &&
            PKCS11_get_key_type(&keys[i]) == EVP_PKEY_EC)
            attest->key = PKCS11_get_private_key(&keys[i]);
    }
    return attest->key == NULL ? failed("fetching the attestation key", &fetch->error)
                               : make_pem(attest, &fetch->error);
}

static void *fetch_thread(void *argument)
{
    struct fetch *fetch = argument;
    if (!kms_p11_alone_enter()) {
        fetch->status = other_hangs(&fetch->error);
        return NULL;
    }
    fetch->status = fetch_key(fetch);
    kms_p11_alone_leave();
    return NULL;
}

/*
 * libp11 0.4.12 waits for ever when its first C_OpenSession fails. A session of our own was opened a moment
 * ago, so that is unlikely; should it happen all the same, the thread and libp11's context are given up.
 */
static enum kms_status join_or_give_up(struct kms_p11 *p11, pthread_t thread, struct fetch *fetch,
                                       struct kms_error *err)
{
    struct timespec until;
    KMS_ASSERT(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_sec += 1 + p11->operation_timeout_ns / KMS_NS_PER_SECOND;
    if (pthread_timedjoin_np(thread, NULL, &until) == 0) {
        const enum kms_status status = fetch->status;
        if (status != KMS_OK && err != NULL)
            *err = fetch->error;
        free(fetch);
        return status;
    }
    (void)pthread_detach(thread);
    p11->attest = NULL;
    (void)p11->ck->C_Finalize(NULL);
    kms_log_error("hsm", "libp11 hung while it looked for the attestation key; its context is given up");
    return kms_fail(err, KMS_HSM_UNAVAILABLE, "libp11 hung while it looked for the attestation key");
}

enum kms_status kms_p11_attest_fetch(struct kms_p11 *p11, struct kms_error *err)
{
    CK_SESSION_HANDLE test = 0;
    char text[KMS_CKR_TEXT_SIZE];
    const CK_RV rv = p11->ck->C_OpenSession(p11->slot, CKF_SERIAL_SESSION, NULL, NULL, &test);
    if (rv != CKR_OK)
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "C_OpenSession: %s", kms_ckr_name(rv, text));
    (void)p11->ck->C_CloseSession(test);
    struct fetch *fetch = calloc(1, sizeof *fetch);
    if (fetch == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to fetch the attestation key");
    fetch->attest = p11->attest;
    fetch->slot = p11->slot;
    pthread_t thread;
    if (pthread_create(&thread, NULL, fetch_thread, fetch) != 0) {
        free(fetch);
        return kms_fail(err, KMS_NO_MEMORY, "no thread to fetch the attestation key");
    }
    return join_or_give_up(p11, thread, fetch, err);
}

void kms_p11_attest_unload(struct kms_p11 *p11)
{
    struct kms_p11_attest *attest = p11->attest;
    if (attest == NULL)
        return;
    const bool entered =
        kms_p11_alone_enter(); /* else libp11 tries all the same: the connection is at its end */
    EVP_PKEY_free(attest->key);
    if (attest->slots != NULL)
        PKCS11_release_all_slots(attest->context, attest->slots, attest->slot_count);
    if (attest->loaded)
        PKCS11_CTX_unload(attest->context);
    if (entered)
        kms_p11_alone_leave();
    if (attest->context != NULL)
        PKCS11_CTX_free(attest->context);
    free(attest->pem);
    free(attest);
    p11->attest = NULL;
    ERR_clear_error();
}

enum kms_status kms_p11_attest_sign_now(struct kms_p11 *p11, struct kms_slice message,
                                        uint8_t ret_signature[KMS_HSM_SIGNATURE_MAX], size_t *ret_len,
                                        struct kms_error *err)
{
    uint8_t digest[DIGEST_SIZE];
    ERR_clear_error();
    if (EVP_Digest(message.data, message.len, digest, NULL, EVP_sha256(), NULL) != 1)
        return kms_fail(err, KMS_INTERNAL, "SHA-256 failed");
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(p11->attest->key, NULL);
    size_t len = KMS_HSM_SIGNATURE_MAX;
    uint8_t signature[KMS_HSM_SIGNATURE_MAX];
    if (!kms_p11_alone_enter()) {
        EVP_PKEY_CTX_free(context);
        return other_hangs(err);
    }
    const bool signed_well = context != NULL && EVP_PKEY_sign_init(context) == 1 &&
                             EVP_PKEY_sign(context, signature, &len, digest, sizeof digest) == 1;
    kms_p11_alone_leave();
    EVP_PKEY_CTX_free(context);
    if (!signed_well) {
        char text[KMS_CKR_TEXT_SIZE];
        const CK_RV rv = take_error();
        if (rv == CKR_HOST_MEMORY)
            return kms_fail(err, KMS_NO_MEMORY, "signing: CKR_HOST_MEMORY");
        /* Signing 32 bytes cannot fail on a device that works, whatever the code. */
        kms_p11_session_lost(p11, atomic_load(&p11->generation), "signing", rv);
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "signing with the attestation key: %s",
                        kms_ckr_name(rv, text));
    }
    memcpy(ret_signature, signature, len);
    *ret_len = len;
    return KMS_OK;
}

bool kms_p11_attest_verify(struct kms_p11 *p11, struct kms_slice message, struct kms_slice signature)
{
    BIO *bio = BIO_new_mem_buf(p11->attest->pem, -1);
    EVP_PKEY *public = bio != NULL ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    const bool good =
        public != NULL && context != NULL &&
        EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, public) == 1 &&
        EVP_DigestVerify(context, signature.data, signature.len, message.data, message.len) == 1;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(public);
    BIO_free(bio);
    ERR_clear_error();
    return good;
}

enum kms_status kms_p11_attest_sign(struct kms_hsm *hsm, struct kms_slice message,
                                    uint8_t ret_signature[KMS_HSM_SIGNATURE_MAX], size_t *ret_len,
                                    struct kms_error *err)
{
    struct kms_p11 *p11 = kms_p11_of(hsm);
    KMS_TRY(kms_p11_session_take_spare(p11, kms_clock_mono_ns() + p11->operation_timeout_ns, err));
    const enum kms_status status = kms_p11_attest_sign_now(p11, message, ret_signature, ret_len, err);
    kms_p11_session_return_spare(p11);
    return status;
}

enum kms_status kms_p11_attest_public_pem(struct kms_hsm *hsm, char **ret_pem, struct kms_error *err)
{
    struct kms_p11 *p11 = kms_p11_of(hsm);
    KMS_TRY(kms_p11_session_take_spare(p11, kms_clock_mono_ns() + p11->operation_timeout_ns, err));
    char *pem = strdup(p11->attest->pem);
    kms_p11_session_return_spare(p11);
    if (pem == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a PEM text");
    *ret_pem = pem;
    return KMS_OK;
}
