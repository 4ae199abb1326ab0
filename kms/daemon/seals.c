#include "daemon/seals.h"

#include "core/clock.h"
#include "daemon/records.h"

#include <inttypes.h>
#include <stdio.h>

/* An attack, or a broken disk, may be found thousands of times a second: the audit log needs the first one. */
#define ALARM_EVERY_NS KMS_NS_PER_SECOND

/* A record about the seals, durable when this returns OK. */
static enum kms_status record(struct kms_audit *audit, const char *action, enum kms_status outcome,
                              const char *reason, const char *detail, struct kms_error *err)
{
    const struct kms_audit_event event = {.type = "alert",
                                          .action = action,
                                          .outcome = kms_status_name(outcome),
                                          .reason = reason,
                                          .detail_json = detail};
    KMS_TRY(kms_audit_append(audit, &event, err));
    return kms_audit_commit(audit, err);
}

static enum kms_status make_mac(void *context, struct kms_slice message, uint8_t ret_mac[KMS_STORE_SEAL_SIZE],
                                struct kms_error *err)
{
    _Static_assert((int)KMS_STORE_SEAL_SIZE == (int)KMS_HSM_MAC_SIZE, "the head's MAC is the HSM's");
    const struct kms_seals *seals = context;
    return kms_hsm_mac_alone(seals->hsm, message, ret_mac, err);
}

/* The caller is refused in any case; this is for who has to look. */
static void raise_alarm(void *context, const char *text)
{
    struct kms_seals *seals = context;
    struct kms_error err = {0};
    int64_t last = atomic_load(&seals->last_alarm_ns);
    const int64_t now = kms_clock_mono_ns();
    atomic_fetch_add(&seals->alarms, 1);
    kms_log_error("store", "ALARM: %s", text);
    if (seals->audit == NULL || (last != 0 && now - last < ALARM_EVERY_NS) ||
        !atomic_compare_exchange_strong(&seals->last_alarm_ns, &last, now))
        return;
    const enum kms_status status = record(seals->audit, "records.tampered", KMS_TAMPERED, text, NULL, &err);
    if (status != KMS_OK)
        kms_log_error("store", "the alarm is not in the audit log yet: %s", kms_error_cause(&err, status));
}

enum kms_status kms_seals_begin(struct kms_seals *seals, struct kms_hsm *hsm, struct kms_audit *audit,
                                struct kms_store *store, bool anew, struct kms_error *err)
{
    struct kms_error ignored = {0};
    seals->sealer = (struct kms_store_sealer){.mac = make_mac, .alarm = raise_alarm, .context = seals};
    seals->hsm = hsm;
    seals->audit = audit;
    const enum kms_status status = store->ops->seal.begin(store, &seals->sealer, anew, err);
    if ((status == KMS_TAMPERED || status == KMS_FAILED_PRECONDITION) && audit != NULL &&
        record(audit, "records.refused", status, kms_error_public(err, status), NULL, &ignored) != KMS_OK)
        kms_log_error("store", "what was found is not in the audit log: %s",
                      kms_error_cause(&ignored, ignored.status));
    return status;
}

/* The work, with everything open. */
static enum kms_status seal_records(struct kms_seals *seals, const struct kms_offline *offline,
                                    struct kms_error *err)
{
    struct kms_store *store = offline->store;
    char detail[64];
    KMS_TRY(kms_seals_begin(seals, offline->hsm, offline->audit, store, true, err));
    const uint64_t generation = store->ops->seal.generation(store);
    (void)snprintf(detail, sizeof detail, "{\"generation\":%" PRIu64 "}", generation);
    KMS_TRY(record(offline->audit, "records.seal", KMS_OK,
                   "the records in the database were sealed as they are, with the daemon stopped", detail,
                   err));
    kms_log_warning("store", "the records in the database are sealed as they are, generation %" PRIu64,
                    generation);
    return KMS_OK;
}

enum kms_status kms_daemon_seal_records(const struct kms_config *config, struct kms_error *err)
{
    struct kms_seals seals = {0}; /* outlives the store */
    KMS_CLEANUP(kms_offline_close) struct kms_offline offline = {0};
    KMS_TRY(kms_offline_open(config, &offline, err));
    return seal_records(&seals, &offline, err);
}
