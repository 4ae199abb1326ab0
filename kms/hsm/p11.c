#include "hsm/p11.h"

#include "core/cleanup.h"
#include "core/log.h"
#include "hsm/p11_alone.h"
#include "hsm/p11_attest.h"
#include "hsm/p11_crypto.h"
#include "hsm/p11_keys.h"
#include "hsm/p11_markers.h"
#include "hsm/p11_masters.h"
#include "hsm/p11_probe.h"
#include "hsm/p11_recover.h"
#include "hsm/p11_service.h"
#include "hsm/p11_session.h"
#include "hsm/p11_token.h"
#include "hsm/p11_trusted.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

enum { LOOKUP_TRIES = 5, LOOKUP_PAUSE_MS = 50, MODULE_PATH_MAX = 4096 };

/* Release a kms_p11 whose threads have ended and whose connection is closed. */
static void release(struct kms_p11 *p11)
{
    kms_p11_masters_forget_all(p11);
    if (p11->library != NULL)
        (void)dlclose(p11->library);
    KMS_ASSERT(pthread_cond_destroy(&p11->pool_changed) == 0);
    KMS_ASSERT(pthread_cond_destroy(&p11->gate_changed) == 0);
    kms_mutex_clear(&p11->pool_lock);
    kms_mutex_clear(&p11->masters_lock);
    kms_secret_clear(&p11->pin);
    free(p11->module);
    free(p11->init_args);
    free(p11->token_uri);
    free(p11->startup_lock);
    free(p11->sessions);
    free(p11);
}

/* kms_hsm_free(). Whoever hangs in the module, or has not given back a session, keeps what he uses. */
static void p11_free(struct kms_hsm *hsm)
{
    struct kms_p11 *p11 = kms_p11_of(hsm);
    if (!kms_p11_recover_stop(p11)) {
        kms_log_error("hsm", "an HSM operation has not come back; its connection is left as it is");
        return;
    }
    kms_p11_token_disconnect(p11);
    release(p11);
}

static void p11_info(struct kms_hsm *hsm, struct kms_hsm_info *ret_info)
{
    struct kms_p11 *p11 = kms_p11_of(hsm);
    KMS_LOCKED(&p11->pool_lock);
    struct kms_hsm_info info = p11->info;
    const int64_t objects = atomic_load(&p11->session_objects);
    memcpy(info.profile, p11->profile.name, sizeof info.profile);
    info.erase_class = p11->profile.erase_class;
    info.provider_retention_days = p11->profile.provider_retention_days;
    info.generation = atomic_load(&p11->generation);
    info.sessions_total = p11->session_count;
    info.sessions_free = p11->free_count;
    info.session_objects = objects > 0 ? (uint64_t)objects : 0;
    info.recoveries = p11->recoveries;
    info.available = p11->gate == KMS_P11_GATE_OPEN;
    *ret_info = info;
}

static const struct kms_hsm_ops p11_ops = {
    .free = p11_free,
    .checkout = kms_p11_session_checkout,
    .checkout_background = kms_p11_session_checkout_background,
    .checkin = kms_p11_session_checkin,
    .random = kms_p11_crypto_random,
    .master_create = kms_p11_masters_create,
    .master_find = kms_p11_masters_find,
    .master_destroy = kms_p11_masters_destroy,
    .master_list = kms_p11_masters_list,
    .marker_put = kms_p11_markers_put,
    .marker_find = kms_p11_markers_find,
    .marker_remove = kms_p11_markers_remove,
    .generate_wrapped = kms_p11_keys_generate_wrapped,
    .unwrap = kms_p11_keys_unwrap,
    .wrap = kms_p11_keys_wrap,
    .destroy = kms_p11_keys_destroy,
    .gcm_seal = kms_p11_crypto_gcm_seal,
    .gcm_open = kms_p11_crypto_gcm_open,
    .mac = kms_p11_crypto_mac,
    .mac_alone = kms_p11_crypto_mac_alone,
    .backup_key = kms_p11_service_backup_key,
    .service_keys = kms_p11_service_keys,
    .recovery_find = kms_p11_trusted_find,
    .recovery_wrap = kms_p11_trusted_wrap,
    .recovery_remove = kms_p11_trusted_remove,
    .sign = kms_p11_attest_sign,
    .attestation_public_pem = kms_p11_attest_public_pem,
    .ping = kms_p11_probe_ping,
    .info = p11_info,
};

/* An empty kms_p11 with its locks. */
static struct kms_p11 *new_p11(void)
{
    struct kms_p11 *p11 = calloc(1, sizeof *p11);
    if (p11 == NULL)
        return NULL;
    p11->hsm.ops = &p11_ops;
    p11->gate = KMS_P11_GATE_LOST;
    kms_mutex_init(&p11->pool_lock, KMS_LOCK_HSM_POOL);
    kms_mutex_init(&p11->masters_lock, KMS_LOCK_HSM_MASTERS);
    kms_cond_init(&p11->pool_changed);
    kms_cond_init(&p11->gate_changed);
    return p11;
}

/* Copy an optional string of the configuration. */
static enum kms_status copy_text(const char *text, char **ret_copy, struct kms_error *err)
{
    if (text == NULL || text[0] == '\0')
        return KMS_OK;
    *ret_copy = strdup(text);
    return *ret_copy != NULL ? KMS_OK : kms_fail(err, KMS_NO_MEMORY, "no memory for the HSM's configuration");
}

/* Copy what the configuration says and check what can be checked without the token. */
static enum kms_status configure(struct kms_p11 *p11, const struct kms_hsm_p11_config *config,
                                 struct kms_error *err)
{
    p11->pin = *config->pin;
    *config->pin = (struct kms_secret){0};
    if (p11->pin.len == 0)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "there is no user PIN; set hsm.pin_file, pin_env or pin_credential");
    if (config->module == NULL || config->token_uri == NULL || config->profile == NULL)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "hsm.module, hsm.token and hsm.profile are needed");
    KMS_TRY(copy_text(config->module, &p11->module, err));
    KMS_TRY(copy_text(config->init_args, &p11->init_args, err));
    KMS_TRY(copy_text(config->token_uri, &p11->token_uri, err));
    KMS_TRY(copy_text(config->startup_lock, &p11->startup_lock, err));
    if (p11->module == NULL || p11->token_uri == NULL)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "hsm.module and hsm.token must not be empty");
    KMS_TRY(kms_p11_token_check_uri(p11->token_uri, err));
    KMS_TRY(kms_profile_load(config->profile, &p11->profile, err));
    if (!p11->profile.tested)
        kms_log_warning("hsm", "the profile '%s' was never tested with such a token", p11->profile.name);
    p11->session_count = config->sessions > 0 ? config->sessions : p11->profile.sessions_default;
    if (p11->session_count > p11->profile.sessions_maximum)
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "hsm.sessions is %u, but the profile '%s' allows %u at most",
                               p11->session_count, p11->profile.name, p11->profile.sessions_maximum);
    p11->operation_timeout_ns =
        config->operation_timeout_ns > 0 ? config->operation_timeout_ns : 10 * KMS_NS_PER_SECOND;
    p11->create_service_keys = config->create_service_keys;
    p11->recovery = config->recovery;
    if (p11->recovery && p11->profile.recovery_oaep == KMS_PROFILE_OAEP_NONE)
        return kms_fail_public(
            err, KMS_CONFIG_INVALID,
            "recovery.enabled is true, but the profile '%s' says that this kind of token does not keep "
            "keys for trusted wrapping keys alone",
            p11->profile.name);
    p11->sessions = calloc(p11->session_count + 2, sizeof *p11->sessions);
    if (p11->sessions == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory for %u sessions", p11->session_count);
    p11->spare = &p11->sessions[p11->session_count];
    p11->background = &p11->sessions[p11->session_count + 1];
    kms_p11_keys_prepare(p11);
    return KMS_OK;
}

/* Our own reference to the module: its function list, which libp11 keeps to itself. */
static enum kms_status load_module(struct kms_p11 *p11, struct kms_error *err)
{
    p11->library = dlopen(p11->module, RTLD_NOW | RTLD_LOCAL);
    if (p11->library == NULL) {
        (void)kms_fail(err, KMS_CONFIG_INVALID, "dlopen: %s", dlerror());
        return kms_fail_public(err, KMS_CONFIG_INVALID,
                               "cannot load hsm.module %s; install it or correct the path", p11->module);
    }
    CK_C_GetFunctionList get_list = NULL;
    *(void **)&get_list = dlsym(p11->library, "C_GetFunctionList");
    if (get_list == NULL || get_list(&p11->ck) != CKR_OK || p11->ck == NULL)
        return kms_fail_public(err, KMS_CONFIG_INVALID, "hsm.module %s is not a PKCS#11 library",
                               p11->module);
    if (p11->profile.mutexes_given)
        p11->ck = kms_p11_alone_guard(p11->ck);
    return KMS_OK;
}

/* A token that is not there at the first look may be there at the next, when processes start together. */
static enum kms_status connect_patiently(struct kms_p11 *p11, struct kms_error *err)
{
    const int64_t deadline = kms_clock_mono_ns() + p11->operation_timeout_ns;
    for (int tries = 1;; tries++) {
        if (err != NULL)
            *err = (struct kms_error){0};
        const enum kms_status status = kms_p11_token_connect(p11, true, err);
        if (status != KMS_HSM_UNAVAILABLE || p11->login_tried || tries == LOOKUP_TRIES ||
            kms_clock_mono_ns() >= deadline)
            return status;
        const struct timespec nap = {.tv_nsec = LOOKUP_PAUSE_MS * KMS_NS_PER_MS};
        (void)nanosleep(&nap, NULL);
    }
}

/* A state that is configured and has its module, but no connection; the caller releases it. */
static enum kms_status prepare(const struct kms_hsm_p11_config *config, struct kms_p11 **ret_p11,
                               struct kms_error *err)
{
    struct kms_p11 *p11 = new_p11();
    if (p11 == NULL) {
        kms_secret_clear(config->pin);
        return kms_fail(err, KMS_NO_MEMORY, "no memory for the HSM's state");
    }
    enum kms_status status = configure(p11, config, err);
    if (status == KMS_OK)
        status = load_module(p11, err);
    if (status != KMS_OK) {
        release(p11);
        return status;
    }
    *ret_p11 = p11;
    return KMS_OK;
}

enum kms_status kms_hsm_p11_open(const struct kms_hsm_p11_config *config, struct kms_hsm **ret_hsm,
                                 struct kms_error *err)
{
    struct kms_p11 *p11 = NULL;
    KMS_TRY(prepare(config, &p11, err));
    enum kms_status status = connect_patiently(p11, err);
    if (status != KMS_OK) {
        release(p11);
        return status;
    }
    kms_p11_session_open_gate(p11, false);
    status = kms_p11_recover_start(p11, err);
    if (status != KMS_OK) {
        p11_free(&p11->hsm);
        return status;
    }
    kms_log_info("hsm", "token '%s' (%s %s) is open with %u sessions, profile %s, erase class %c",
                 p11->info.label, p11->info.manufacturer, p11->info.model, p11->session_count,
                 p11->profile.name, p11->profile.erase_class);
    *ret_hsm = &p11->hsm;
    return KMS_OK;
}

enum kms_status kms_hsm_p11_trust(const struct kms_hsm_p11_config *config, struct kms_slice pem,
                                  char ret_fingerprint[KMS_HSM_FINGERPRINT_SIZE], struct kms_error *err)
{
    struct kms_rsa_public key;
    struct kms_p11 *p11 = NULL;
    KMS_TRY(prepare(config, &p11, err));
    enum kms_status status = kms_rsa_public_from_pem(pem, &key, err);
    if (status == KMS_OK)
        status = kms_p11_token_as_officer(p11, &key, err);
    release(p11);
    if (status == KMS_OK || status == KMS_ALREADY_EXISTS)
        memcpy(ret_fingerprint, key.fingerprint, sizeof key.fingerprint);
    return status;
}

enum kms_status kms_hsm_transport_run(const struct kms_hsm_p11_config *config, kms_hsm_transport_work work,
                                      void *context, struct kms_error *err)
{
    struct kms_p11 *p11 = NULL;
    KMS_TRY(prepare(config, &p11, err));
    const enum kms_status status = kms_p11_token_as_user(p11, work, context, err);
    release(p11);
    return status;
}
