#include "hsm/p11_token.h"

#include "core/cleanup.h"
#include "core/log.h"
#include "hsm/p11_attest.h"
#include "hsm/p11_masters.h"
#include "hsm/p11_probe.h"
#include "hsm/p11_service.h"
#include "hsm/p11_session.h"
#include "hsm/p11_trusted.h"

#include <errno.h>
#include <fcntl.h>
#include <p11-kit/uri.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>

enum { LOCK_POLL_MS = 20, PIN_TRIES = 2 };

/* Cleanup function. */
static void uri_clear(P11KitUri **uri)
{
    p11_kit_uri_free(*uri);
}

/* Parse an RFC 7512 URI that names a token and nothing that the service takes from elsewhere. */
static enum kms_status parse_uri(const char *text, P11KitUri **ret_uri, struct kms_error *err)
{
    __attribute__((cleanup(uri_clear))) P11KitUri *uri = p11_kit_uri_new();
    if (uri == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for a PKCS#11 URI");
    const int result = p11_kit_uri_parse(text, P11_KIT_URI_FOR_ANY, uri);
    if (result != P11_KIT_URI_OK)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "hsm.token '%s' is not a PKCS#11 URI (%s); write it like pkcs11:token=kms",
                               text, p11_kit_uri_message(result));
    if (p11_kit_uri_get_pin_value(uri) != NULL || p11_kit_uri_get_pin_source(uri) != NULL)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "hsm.token must not hold a PIN; use hsm.pin_file, pin_env or pin_credential");
    CK_ULONG attributes = 0;
    (void)p11_kit_uri_get_attributes(uri, &attributes);
    if (p11_kit_uri_any_unrecognized(uri) || attributes > 0)
        return kms_fail_public(
            err, KMS_CONFIG_INVALID,
            "hsm.token may name only a token (token, manufacturer, model, serial, slot-id)");
    *ret_uri = KMS_TAKE(uri);
    return KMS_OK;
}

enum kms_status kms_p11_token_check_uri(const char *text, struct kms_error *err)
{
    P11KitUri *uri = NULL;
    KMS_TRY(parse_uri(text, &uri, err));
    p11_kit_uri_free(uri);
    return KMS_OK;
}

/* Copy one of CK_TOKEN_INFO's blank-padded fields. */
static void unpad(const CK_UTF8CHAR *field, size_t size, char *out)
{
    while (size > 0 && (field[size - 1] == ' ' || field[size - 1] == '\0'))
        size--;
    memcpy(out, field, size);
    out[size] = '\0';
    if (!kms_utf8_printable(out, size))
        out[0] = '\0';
}

/* Keep what the token says of itself. */
static void remember_token(struct kms_p11 *p11, const CK_TOKEN_INFO *token)
{
    KMS_LOCKED(&p11->pool_lock);
    struct kms_hsm_info *info = &p11->info;
    unpad(token->manufacturerID, sizeof token->manufacturerID, info->manufacturer);
    unpad(token->model, sizeof token->model, info->model);
    unpad(token->serialNumber, sizeof token->serialNumber, info->serial);
    unpad(token->label, sizeof token->label, info->label);
    (void)snprintf(info->firmware, sizeof info->firmware, "%u.%u", token->firmwareVersion.major,
                   token->firmwareVersion.minor);
}

/* Exactly one token must match. */
static enum kms_status choose_slot(struct kms_p11 *p11, const CK_SLOT_ID *slots, size_t count,
                                   CK_TOKEN_INFO *ret_info, struct kms_error *err)
{
    __attribute__((cleanup(uri_clear))) P11KitUri *uri = NULL;
    KMS_TRY(parse_uri(p11->token_uri, &uri, err));
    const CK_SLOT_ID wanted = p11_kit_uri_get_slot_id(uri);
    unsigned matches = 0;
    for (size_t i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        if (p11->ck->C_GetTokenInfo(slots[i], &info) != CKR_OK || !p11_kit_uri_match_token_info(uri, &info) ||
            (wanted != (CK_SLOT_ID)-1 && wanted != slots[i]))
            continue;
        matches++;
        p11->slot = slots[i];
        *ret_info = info;
    }
    if (matches == 0)
        return kms_fail_public(err, KMS_HSM_UNAVAILABLE,
                               "no token of %s matches %s; check hsm.token, that the HSM is connected, and "
                               "that the module's configuration names the token's place",
                               p11->module, p11->token_uri);
    if (matches > 1)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "%u tokens match %s; add serial= to hsm.token to name one", matches,
                               p11->token_uri);
    return KMS_OK;
}

/* One text for all the ways in which a token says so. */
static enum kms_status write_protected(struct kms_error *err)
{
    return kms_fail_public(
        err, KMS_CONFIG_INVALID,
        "the token is write-protected, but the service must create and destroy keys in it; "
        "make it writable");
}

/* A token that cannot serve is told apart before the PIN is tried. */
static enum kms_status check_token(struct kms_p11 *p11, const CK_TOKEN_INFO *info, struct kms_error *err)
{
    if ((info->flags & CKF_TOKEN_INITIALIZED) == 0)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "the token is not initialised; initialise it and set a user PIN");
    if ((info->flags & CKF_USER_PIN_INITIALIZED) == 0)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "the token has no user PIN yet; set one");
    if ((info->flags & CKF_WRITE_PROTECTED) != 0)
        return write_protected(err);
    const CK_ULONG most = info->ulMaxSessionCount;
    const CK_ULONG needed = 2UL * p11->session_count + 5;
    if (most != CK_EFFECTIVELY_INFINITE && most != CK_UNAVAILABLE_INFORMATION && most < needed)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "the token allows %lu sessions, but hsm.sessions: %u needs %lu; lower it",
                               most, p11->session_count, needed);
    return KMS_OK;
}

/* Refuse to try a PIN that could lock the token. */
static enum kms_status may_login(struct kms_p11 *p11, struct kms_error *err)
{
    CK_TOKEN_INFO info;
    char text[KMS_CKR_TEXT_SIZE];
    const CK_RV rv = p11->ck->C_GetTokenInfo(p11->slot, &info);
    if (rv != CKR_OK)
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "C_GetTokenInfo: %s", kms_ckr_name(rv, text));
    if ((info.flags & CKF_USER_PIN_LOCKED) != 0) {
        p11->pin_refused = true;
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "the token has locked its user PIN; the security officer must set a new one");
    }
    if ((info.flags & CKF_USER_PIN_FINAL_TRY) != 0 || p11->pin_failures >= PIN_TRIES) {
        p11->pin_refused = true;
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "the PIN was not tried, because the token would lock after another wrong one; "
                               "check the PIN, log in once with another tool, then start again");
    }
    return KMS_OK;
}

/* One try. The PIN goes straight from locked memory to the token. */
static enum kms_status login(struct kms_p11 *p11, bool starting, struct kms_error *err)
{
    KMS_TRY(may_login(p11, err));
    p11->login_tried = true;
    const CK_RV rv = p11->ck->C_Login(p11->spare->op, CKU_USER, p11->pin.data, p11->pin.len);
    if (rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN) {
        p11->pin_failures = 0;
        return KMS_OK;
    }
    char text[KMS_CKR_TEXT_SIZE];
    (void)kms_fail(err, KMS_CONFIG_INVALID, "C_Login: %s", kms_ckr_name(rv, text));
    switch (rv) {
    case CKR_PIN_INCORRECT:
    case CKR_PIN_INVALID:
    case CKR_PIN_LEN_RANGE:
        p11->pin_failures++;
        p11->pin_refused = starting || p11->pin_failures >= PIN_TRIES;
        return kms_fail_public(
            err, KMS_CONFIG_INVALID,
            "the token refuses the user PIN (tried once); put the right one into the place "
            "that hsm.pin_file, pin_env or pin_credential names");
    case CKR_PIN_LOCKED:
        p11->pin_refused = true;
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "the token has locked its user PIN; the security officer must set a new one");
    case CKR_PIN_EXPIRED:
        p11->pin_refused = true;
        return kms_fail_public(err, KMS_CONFIG_INVALID, "the token's user PIN has expired; set a new one");
    case CKR_USER_PIN_NOT_INITIALIZED:
        return kms_fail_public(err, KMS_CONFIG_INVALID, "the token has no user PIN yet; set one");
    default:
        return kms_fail_public(err, KMS_HSM_UNAVAILABLE,
                               "the token answers but the login failed; check that the HSM works");
    }
}

/* Believe the token rather than its flags: the session must be logged in, and able to write. */
static enum kms_status check_logged_in(struct kms_p11 *p11, struct kms_error *err)
{
    CK_SESSION_INFO info;
    char text[KMS_CKR_TEXT_SIZE];
    const CK_RV rv = p11->ck->C_GetSessionInfo(p11->spare->op, &info);
    if (rv != CKR_OK)
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "C_GetSessionInfo: %s", kms_ckr_name(rv, text));
    if (info.state == CKS_RO_USER_FUNCTIONS)
        return write_protected(err);
    if (info.state != CKS_RW_USER_FUNCTIONS)
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "after C_Login the session's state is %lu", info.state);
    return KMS_OK;
}

/* Several processes that start at once on one token disturb each other: one after the other, please. */
static enum kms_status take_startup_lock(struct kms_p11 *p11, int *ret_fd, struct kms_error *err)
{
    if (p11->startup_lock == NULL)
        return KMS_OK;
    KMS_CLOSE int fd = open(p11->startup_lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "cannot open hsm.startup_lock %s: %s",
                               p11->startup_lock, strerror(errno));
    const int64_t deadline = kms_clock_mono_ns() + p11->operation_timeout_ns;
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return kms_fail_public(err, KMS_CONFIG_INVALID, "cannot lock hsm.startup_lock %s: %s",
                                   p11->startup_lock, strerror(errno));
        if (kms_clock_mono_ns() >= deadline)
            return kms_fail_public(err, KMS_HSM_UNAVAILABLE,
                                   "another process has held %s for too long while it opens the token; look "
                                   "at it, then try again",
                                   p11->startup_lock);
        const struct timespec nap = {.tv_nsec = LOCK_POLL_MS * KMS_NS_PER_MS};
        (void)nanosleep(&nap, NULL);
    }
    *ret_fd = fd;
    fd = -1;
    return KMS_OK;
}

/* From C_Initialize to a token that was chosen and found fit. */
static enum kms_status find_token(struct kms_p11 *p11, struct kms_error *err)
{
    KMS_TRY(kms_p11_attest_load(p11, err));
    KMS_FREE CK_SLOT_ID *slots = NULL;
    size_t count = 0;
    KMS_TRY(kms_p11_attest_slots(p11, &slots, &count, err));
    CK_TOKEN_INFO info;
    KMS_TRY(choose_slot(p11, slots, count, &info, err));
    remember_token(p11, &info);
    return check_token(p11, &info, err);
}

/* The steps, in their order; undone as a whole by the caller. */
static enum kms_status connect_steps(struct kms_p11 *p11, bool starting, struct kms_error *err)
{
    KMS_CLOSE int lock = -1;
    KMS_TRY(take_startup_lock(p11, &lock, err));
    KMS_TRY(find_token(p11, err));
    KMS_TRY(kms_p11_session_open_spare(p11, err));
    KMS_TRY(login(p11, starting, err));
    KMS_TRY(check_logged_in(p11, err));
    KMS_TRY(kms_p11_service_open(p11->spare, starting && p11->create_service_keys, err));
    KMS_TRY(kms_p11_attest_fetch(p11, err));
    KMS_TRY(starting ? kms_p11_probe_all(p11, err) : kms_p11_probe_service_keys(p11, err));
    KMS_TRY(kms_p11_session_open_all(p11, err));
    if (atomic_load(&p11->lost))
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "the connection was lost while it was made");
    return KMS_OK;
}

enum kms_status kms_p11_token_connect(struct kms_p11 *p11, bool starting, struct kms_error *err)
{
    atomic_store(&p11->lost, false);
    atomic_fetch_add(&p11->generation, 1);
    atomic_store(&p11->session_objects, 0);
    p11->integrity = 0;
    p11->pin_refused = false;
    p11->login_tried = false;
    kms_p11_masters_forget_all(p11);
    const enum kms_status status = connect_steps(p11, starting, err);
    if (status != KMS_OK)
        kms_p11_token_disconnect(p11);
    return status;
}

void kms_p11_token_disconnect(struct kms_p11 *p11)
{
    kms_p11_attest_unload(p11);
}

/* The officer's PIN, tried once, and not at all when the token would lock it. */
static enum kms_status login_officer(struct kms_p11 *p11, struct kms_error *err)
{
    CK_TOKEN_INFO info;
    char text[KMS_CKR_TEXT_SIZE];
    CK_RV rv = p11->ck->C_GetTokenInfo(p11->slot, &info);
    if (rv != CKR_OK)
        return kms_fail(err, KMS_HSM_UNAVAILABLE, "C_GetTokenInfo: %s", kms_ckr_name(rv, text));
    if ((info.flags & (CKF_SO_PIN_LOCKED | CKF_SO_PIN_FINAL_TRY)) != 0)
        return kms_fail_public(
            err, KMS_CONFIG_INVALID,
            "the security officer's PIN was not tried: the token has locked it, or would after "
            "another wrong one");
    rv = p11->ck->C_Login(p11->spare->op, CKU_SO, p11->pin.data, p11->pin.len);
    if (rv == CKR_OK)
        return KMS_OK;
    (void)kms_fail(err, KMS_CONFIG_INVALID, "C_Login: %s", kms_ckr_name(rv, text));
    return kms_fail_public(err, KMS_CONFIG_INVALID,
                           "the token does not let the security officer in (tried once): check the PIN");
}

/* Between lock and end of the connection. */
static enum kms_status work_as_officer(struct kms_p11 *p11, const struct kms_rsa_public *key,
                                       struct kms_error *err)
{
    KMS_CLOSE int lock = -1;
    KMS_TRY(take_startup_lock(p11, &lock, err));
    KMS_TRY(find_token(p11, err));
    KMS_TRY(kms_p11_session_open_spare(p11, err));
    KMS_TRY(login_officer(p11, err));
    const enum kms_status status = kms_p11_trusted_create(p11->spare, key, err);
    (void)p11->ck->C_Logout(p11->spare->op);
    return status;
}

enum kms_status kms_p11_token_as_officer(struct kms_p11 *p11, const struct kms_rsa_public *key,
                                         struct kms_error *err)
{
    atomic_store(&p11->lost, false);
    atomic_fetch_add(&p11->generation, 1);
    const enum kms_status status = work_as_officer(p11, key, err);
    kms_p11_token_disconnect(p11);
    return status;
}

/* Between lock and end of the connection. */
static enum kms_status work_as_user(struct kms_p11 *p11, kms_hsm_transport_work work, void *context,
                                    struct kms_error *err)
{
    KMS_CLOSE int lock = -1;
    KMS_TRY(take_startup_lock(p11, &lock, err));
    KMS_TRY(find_token(p11, err));
    KMS_TRY(kms_p11_session_open_spare(p11, err));
    KMS_TRY(login(p11, true, err));
    KMS_TRY(check_logged_in(p11, err));
    return work(context, p11->spare, err);
}

enum kms_status kms_p11_token_as_user(struct kms_p11 *p11, kms_hsm_transport_work work, void *context,
                                      struct kms_error *err)
{
    atomic_store(&p11->lost, false);
    atomic_fetch_add(&p11->generation, 1);
    p11->login_tried = false;
    const enum kms_status status = work_as_user(p11, work, context, err);
    kms_p11_token_disconnect(p11);
    return status;
}
