#include "auth/crl.h"

#include "core/clock.h"
#include "core/cleanup.h"
#include "core/file.h"

#include <stdlib.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

/* Clocks of the CA and of this host may differ a little. */
#define CLOCK_SKEW_NS (INT64_C(5) * 60 * KMS_NS_PER_SECOND)

struct issuer {
    uint8_t key[KMS_IDENTITY_KEY_SIZE];
    int64_t until_ns; /* nextUpdate */
};

/* One of the client CAs. */
struct authority {
    uint8_t name[KMS_IDENTITY_KEY_SIZE];
    uint8_t key_id[KMS_IDENTITY_KEY_SIZE]; /* zero: it has none */
    bool revoked, unlisted; /* it, or one above it, is on a list, or of an issuer without one */
    int64_t until_ns;       /* the first end of the lists that say so */
};

struct kms_crl {
    struct issuer issuers[KMS_CRL_LISTS_MAX];
    size_t issuer_count;
    uint8_t (*revoked)[KMS_IDENTITY_KEY_SIZE]; /* sorted digests of issuer and serial number */
    size_t revoked_count, revoked_capacity;
    struct authority *authorities;
    size_t authority_count;
};

/* What one load works on. */
struct load {
    struct kms_crl *crl;
    STACK_OF(X509) * authorities;
    const char *name;
    unsigned number; /* of the list in its file, from 1 */
    int64_t now_ns;
    struct kms_error *err;
};

/* Cleanup functions for OpenSSL's types and ours. */
static void free_bio(BIO **bio)
{
    (void)BIO_free(*bio);
}

static void free_list(X509_CRL **list)
{
    X509_CRL_free(*list);
}

static void free_authorities(STACK_OF(X509) * *stack)
{
    sk_X509_pop_free(*stack, X509_free);
}

static void free_crl(struct kms_crl **crl)
{
    kms_crl_free(*crl);
}

/* All refusals of a list look alike: file, number of the list, reason. */
static enum kms_status refuse(const struct load *load, const char *what)
{
    ERR_clear_error();
    return kms_fail_public(load->err, KMS_CONFIG_INVALID, "%.160s: revocation list %u %s", load->name,
                           load->number, what);
}

/* A PEM file ends without another block; anything else that stops the reader is damage. */
static bool is_pem_end(void)
{
    const unsigned long error = ERR_peek_last_error();
    const bool end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    return end;
}

/* The certificates that may have signed a list. */
static enum kms_status read_authorities(struct load *load, struct kms_slice pem)
{
    KMS_CLEANUP(free_bio) BIO *bio = BIO_new_mem_buf(pem.len > 0 ? (const void *)pem.data : "", (int)pem.len);
    if (bio == NULL)
        return KMS_NO_MEMORY;
    X509 *authority = NULL;
    while ((authority = PEM_read_bio_X509(bio, NULL, kms_identity_no_password, NULL)) != NULL) {
        if (sk_X509_num(load->authorities) == KMS_CRL_AUTHORITIES_MAX) {
            X509_free(authority);
            return kms_fail_public(load->err, KMS_CONFIG_INVALID,
                                   "the file of client CAs holds more than %d certificates",
                                   KMS_CRL_AUTHORITIES_MAX);
        }
        if (sk_X509_push(load->authorities, authority) <= 0) {
            X509_free(authority);
            return KMS_NO_MEMORY;
        }
    }
    if (!is_pem_end() || sk_X509_num(load->authorities) == 0)
        return kms_fail_public(load->err, KMS_CONFIG_INVALID,
                               "the file of client CAs holds no readable PEM certificate");
    return KMS_OK;
}

/* Signed by a CA that we trust for clients; several may have one name while a CA changes its key. */
static enum kms_status verify_signature(const struct load *load, X509_CRL *list)
{
    bool known = false;
    for (int i = 0; i < sk_X509_num(load->authorities); i++) {
        X509 *authority = sk_X509_value(load->authorities, i);
        if (X509_NAME_cmp(X509_get_subject_name(authority), X509_CRL_get_issuer(list)) != 0)
            continue;
        known = true;
        EVP_PKEY *key = X509_get0_pubkey(authority);
        if (key != NULL && (X509_get_key_usage(authority) & KU_CRL_SIGN) != 0 &&
            X509_CRL_verify(list, key) == 1)
            return KMS_OK;
    }
    return refuse(load, known ? "has a signature that does not verify with the client CA's key"
                              : "was not issued by a client CA");
}

/* In force now. */
static enum kms_status check_dates(const struct load *load, const X509_CRL *list, int64_t *ret_until_ns)
{
    int64_t from_ns = 0;
    if (!kms_identity_time(X509_CRL_get0_lastUpdate(list), &from_ns) ||
        X509_CRL_get0_nextUpdate(list) == NULL ||
        !kms_identity_time(X509_CRL_get0_nextUpdate(list), ret_until_ns))
        return refuse(load, "lacks thisUpdate or nextUpdate");
    char time_text[KMS_TIME_TEXT_SIZE];
    char text[96];
    if (*ret_until_ns < load->now_ns) {
        (void)snprintf(text, sizeof text, "expired at %s; get a new one from the CA",
                       kms_clock_format(*ret_until_ns, time_text));
        return refuse(load, text);
    }
    if (from_ns > load->now_ns + CLOCK_SKEW_NS) {
        (void)snprintf(text, sizeof text, "is not valid before %s", kms_clock_format(from_ns, time_text));
        return refuse(load, text);
    }
    return KMS_OK;
}

/* Critical extensions change what a list means: only parts of it, or only changes. */
static enum kms_status check_extensions(const struct load *load, X509_CRL *list)
{
    if (X509_CRL_get_ext_by_critical(list, 1, -1) >= 0)
        return refuse(load,
                      "is a delta, partitioned or indirect list, which is not supported; use a full one");
    return KMS_OK;
}

/* Room for more digests. */
static bool reserve(struct kms_crl *crl, size_t extra)
{
    if (crl->revoked_capacity - crl->revoked_count >= extra)
        return true;
    const size_t capacity = crl->revoked_count + extra;
    void *grown = reallocarray(crl->revoked, capacity, KMS_IDENTITY_KEY_SIZE);
    if (grown == NULL)
        return false;
    crl->revoked = grown;
    crl->revoked_capacity = capacity;
    return true;
}

/* Every entry becomes a digest; a serial number that is too long cannot be of a certificate that we accept. */
static enum kms_status add_entries(const struct load *load, X509_CRL *list,
                                   const uint8_t issuer[KMS_IDENTITY_KEY_SIZE])
{
    struct kms_crl *crl = load->crl;
    STACK_OF(X509_REVOKED) *entries = X509_CRL_get_REVOKED(list);
    const int count = entries != NULL ? sk_X509_REVOKED_num(entries) : 0;
    if (count > 0 && !reserve(crl, (size_t)count))
        return KMS_NO_MEMORY;
    for (int i = 0; i < count; i++) {
        const X509_REVOKED *entry = sk_X509_REVOKED_value(entries, i);
        const ASN1_INTEGER *serial = X509_REVOKED_get0_serialNumber(entry);
        if (X509_REVOKED_get_ext_by_critical(entry, 1, -1) >= 0)
            return refuse(load, "has an entry with a critical extension, which is not supported");
        if (ASN1_STRING_length(serial) > KMS_IDENTITY_SERIAL_MAX)
            continue;
        if (!kms_identity_serial_key(issuer, serial, crl->revoked[crl->revoked_count]))
            return KMS_NO_MEMORY;
        crl->revoked_count++;
    }
    return KMS_OK;
}

/* Note the issuer, or tighten the date when it is there already. */
static enum kms_status add_issuer(const struct load *load, const uint8_t key[KMS_IDENTITY_KEY_SIZE],
                                  int64_t until_ns)
{
    struct kms_crl *crl = load->crl;
    for (size_t i = 0; i < crl->issuer_count; i++) {
        if (memcmp(crl->issuers[i].key, key, KMS_IDENTITY_KEY_SIZE) == 0) {
            if (until_ns < crl->issuers[i].until_ns)
                crl->issuers[i].until_ns = until_ns;
            return KMS_OK;
        }
    }
    if (crl->issuer_count == KMS_CRL_LISTS_MAX)
        return refuse(load, "is one too many in this file");
    struct issuer *issuer = &crl->issuers[crl->issuer_count++];
    memcpy(issuer->key, key, KMS_IDENTITY_KEY_SIZE);
    issuer->until_ns = until_ns;
    return KMS_OK;
}

/* One list: nothing of it counts before all of it was checked. */
static enum kms_status add_list(const struct load *load, X509_CRL *list)
{
    int64_t until_ns = 0;
    uint8_t issuer[KMS_IDENTITY_KEY_SIZE];
    KMS_TRY(verify_signature(load, list));
    KMS_TRY(check_extensions(load, list));
    KMS_TRY(check_dates(load, list, &until_ns));
    if (!kms_identity_issuer_key(X509_CRL_get_issuer(list), issuer))
        return KMS_NO_MEMORY;
    KMS_TRY(add_issuer(load, issuer, until_ns));
    return add_entries(load, list, issuer);
}

/* Every list of the file; damage anywhere refuses the whole file. */
static enum kms_status read_lists(struct load *load, struct kms_slice pem)
{
    KMS_CLEANUP(free_bio) BIO *bio = BIO_new_mem_buf(pem.len > 0 ? (const void *)pem.data : "", (int)pem.len);
    if (bio == NULL)
        return KMS_NO_MEMORY;
    for (;;) {
        load->number++;
        KMS_CLEANUP(free_list)
        X509_CRL *list = PEM_read_bio_X509_CRL(bio, NULL, kms_identity_no_password, NULL);
        if (list == NULL)
            break;
        KMS_TRY(add_list(load, list));
    }
    if (!is_pem_end())
        return refuse(load, "cannot be parsed");
    if (load->number == 1)
        return refuse(load, "is missing: the file holds no PEM block 'X509 CRL'");
    return KMS_OK;
}

/* The order for sorting and looking up. */
static int compare_digests(const void *a, const void *b)
{
    return memcmp(a, b, KMS_IDENTITY_KEY_SIZE);
}

/* What the lists say of one certificate; `*ret_until_ns` is the end of its issuer's. Lists that have expired do not count here. */
static enum kms_crl_answer look_up(const struct kms_crl *crl, const uint8_t issuer[KMS_IDENTITY_KEY_SIZE],
                                   const uint8_t revoked[KMS_IDENTITY_KEY_SIZE], int64_t *ret_until_ns)
{
    size_t i = 0;
    while (i < crl->issuer_count && memcmp(crl->issuers[i].key, issuer, KMS_IDENTITY_KEY_SIZE) != 0)
        i++;
    if (i == crl->issuer_count)
        return KMS_CRL_NO_LIST;
    *ret_until_ns = crl->issuers[i].until_ns;
    return crl->revoked_count > 0 && bsearch(revoked, crl->revoked, crl->revoked_count, KMS_IDENTITY_KEY_SIZE,
                                             compare_digests) != NULL
               ? KMS_CRL_REVOKED
               : KMS_CRL_GOOD;
}

/* May the authority at `parent` have issued the one at `child`? */
static bool is_parent(const struct load *load, int parent, int child)
{
    X509 *of = sk_X509_value(load->authorities, child);
    return parent != child && (X509_get_extension_flags(of) & EXFLAG_SS) == 0 &&
           X509_check_issued(sk_X509_value(load->authorities, parent), of) == X509_V_OK;
}

/* One authority by itself, under the list of its issuer if that is in the file. */
static enum kms_status judge_authority(const struct load *load, int at, struct authority *ret_authority)
{
    X509 *certificate = sk_X509_value(load->authorities, at);
    uint8_t issuer[KMS_IDENTITY_KEY_SIZE];
    uint8_t serial[KMS_IDENTITY_KEY_SIZE];
    struct authority authority = {.until_ns = INT64_MAX};
    if (!kms_identity_issuer_key(X509_get_subject_name(certificate), authority.name) ||
        !kms_identity_key_id(X509_get0_subject_key_id(certificate), authority.key_id) ||
        !kms_identity_issuer_key(X509_get_issuer_name(certificate), issuer))
        return KMS_NO_MEMORY;
    int parent = 0;
    while (parent < sk_X509_num(load->authorities) && !is_parent(load, parent, at))
        parent++;
    if (parent < sk_X509_num(load->authorities)) {
        if (!kms_identity_serial_key(issuer, X509_get0_serialNumber(certificate), serial))
            return kms_fail_public(load->err, KMS_CONFIG_INVALID,
                                   "the file of client CAs holds one with a serial number of over %d bytes",
                                   KMS_IDENTITY_SERIAL_MAX);
        const enum kms_crl_answer answer = look_up(load->crl, issuer, serial, &authority.until_ns);
        authority.revoked = answer == KMS_CRL_REVOKED;
        authority.unlisted = answer == KMS_CRL_NO_LIST;
    }
    *ret_authority = authority;
    return KMS_OK;
}

/* What is true of an authority is true of those below it. */
static bool inherit(struct authority *child, const struct authority *parent)
{
    const struct authority before = *child;
    child->revoked = child->revoked || parent->revoked;
    child->unlisted = child->unlisted || parent->unlisted;
    child->until_ns = parent->until_ns < child->until_ns ? parent->until_ns : child->until_ns;
    return child->revoked != before.revoked || child->unlisted != before.unlisted ||
           child->until_ns != before.until_ns;
}

/* All authorities, each with what is true of those above it; they may have certified each other in a circle. */
static enum kms_status judge_authorities(const struct load *load)
{
    struct kms_crl *crl = load->crl;
    const int count = sk_X509_num(load->authorities);
    crl->authorities = calloc((size_t)count, sizeof *crl->authorities);
    if (crl->authorities == NULL)
        return KMS_NO_MEMORY;
    crl->authority_count = (size_t)count;
    for (int i = 0; i < count; i++)
        KMS_TRY(judge_authority(load, i, &crl->authorities[i]));
    for (bool changed = true;
         changed;) { /* ends: a member changes in one direction only, among finitely many values */
        changed = false;
        for (int child = 0; child < count; child++)
            for (int parent = 0; parent < count; parent++)
                if (is_parent(load, parent, child))
                    changed |= inherit(&crl->authorities[child], &crl->authorities[parent]);
    }
    return KMS_OK;
}

enum kms_status kms_crl_parse(const char *name, struct kms_slice crl_pem, struct kms_slice ca_pem,
                              int64_t now_ns, struct kms_crl **ret_crl, struct kms_error *err)
{
    if (crl_pem.len > KMS_CRL_FILE_MAX || ca_pem.len > KMS_CRL_CA_FILE_MAX)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "%.160s or its client CA file is too large", name);
    KMS_CLEANUP(free_crl) struct kms_crl *crl = calloc(1, sizeof *crl);
    KMS_CLEANUP(free_authorities) STACK_OF(X509) *authorities = sk_X509_new_null();
    if (crl == NULL || authorities == NULL)
        return KMS_NO_MEMORY;
    struct load load = {.crl = crl, .authorities = authorities, .name = name, .now_ns = now_ns, .err = err};
    ERR_clear_error();
    KMS_TRY(read_authorities(&load, ca_pem));
    KMS_TRY(read_lists(&load, crl_pem));
    if (crl->revoked_count > 0)
        qsort(crl->revoked, crl->revoked_count, KMS_IDENTITY_KEY_SIZE, compare_digests);
    KMS_TRY(judge_authorities(&load));
    *ret_crl = KMS_TAKE(crl);
    return KMS_OK;
}

enum kms_status kms_crl_load(const char *crl_path, const char *ca_path, int64_t now_ns,
                             struct kms_crl **ret_crl, struct kms_error *err)
{
    KMS_CLEANUP(kms_buf_clear) struct kms_buf crl_pem = {0};
    KMS_CLEANUP(kms_buf_clear) struct kms_buf ca_pem = {0};
    KMS_TRY(kms_file_read(ca_path, KMS_CRL_CA_FILE_MAX, &ca_pem, err));
    KMS_TRY(kms_file_read(crl_path, KMS_CRL_FILE_MAX, &crl_pem, err));
    const enum kms_status status =
        kms_crl_parse(crl_path, kms_buf_slice(&crl_pem), kms_buf_slice(&ca_pem), now_ns, ret_crl, err);
    if (status == KMS_CONFIG_INVALID && err != NULL)
        return kms_fail_public(err, status, "%s (client CAs: %.100s)", err->public_text, ca_path);
    return status;
}

void kms_crl_free(struct kms_crl *crl)
{
    if (crl == NULL)
        return;
    free(crl->revoked);
    free(crl->authorities);
    free(crl);
}

/* Did this authority issue the certificate, as far as names and key identifiers tell? */
static bool issued(const struct authority *authority, const struct kms_certificate *certificate)
{
    static const uint8_t none[KMS_IDENTITY_KEY_SIZE];
    return memcmp(authority->name, certificate->issuer, sizeof none) == 0 &&
           (memcmp(authority->key_id, none, sizeof none) == 0 ||
            memcmp(certificate->authority, none, sizeof none) == 0 ||
            memcmp(authority->key_id, certificate->authority, sizeof none) == 0);
}

enum kms_crl_answer kms_crl_check(const struct kms_crl *crl, const struct kms_certificate *certificate,
                                  int64_t now_ns, int64_t *ret_until_ns)
{
    struct authority chain = {.until_ns = INT64_MAX};
    bool known = false;
    const enum kms_crl_answer own = look_up(crl, certificate->issuer, certificate->revoked, &chain.until_ns);
    if (own != KMS_CRL_GOOD)
        return own;
    for (size_t i = 0; i < crl->authority_count; i++) {
        if (!issued(&crl->authorities[i], certificate))
            continue;
        known = true;
        (void)inherit(&chain, &crl->authorities[i]);
    }
    if (chain.revoked)
        return KMS_CRL_CHAIN_REVOKED;
    if (!known || chain.unlisted)
        return KMS_CRL_NO_LIST;
    if (chain.until_ns < now_ns)
        return KMS_CRL_EXPIRED;
    *ret_until_ns = chain.until_ns;
    return KMS_CRL_GOOD;
}

size_t kms_crl_size(const struct kms_crl *crl)
{
    return crl->revoked_count;
}
