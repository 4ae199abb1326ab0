/* kmsd.yaml: whatever the bytes, they are refused with a text or give a configuration that keeps its promises. */
#include "daemon/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    KMS_CONFIG config = {0};
    struct kms_error err = {0};
    const enum kms_status status =
        kms_config_parse("/etc/kms/kmsd.yaml", kms_slice_of(data, size), &config, &err);
    if (status != KMS_OK) {
        KMS_ASSERT(status == KMS_CONFIG_INVALID && err.public_text[0] != '\0');
        KMS_ASSERT(kms_utf8_valid(err.public_text, strlen(err.public_text)));
        return 0;
    }
    KMS_ASSERT(config.listen_count >= 1 && config.store.path[0] == '/');
    KMS_ASSERT(config.policy == NULL || (config.policy[0] == '/' && config.bootstrap_admin == NULL));
    KMS_ASSERT(config.tls.certificate[0] == '/' && config.audit.directory[0] == '/');
    KMS_ASSERT(config.limits.threads >= 1 && config.limits.threads <= 64);
    KMS_ASSERT(config.cache.absolute_seconds >= config.cache.idle_seconds);
    KMS_ASSERT(config.detection.places_file[0] == '/' && config.detection.repeat_seconds >= 1);
    KMS_ASSERT(config.detection.denied_burst.limit >= 2 && config.detection.customer_sweep.limit >= 2);
    KMS_ASSERT(config.detection.canary.customers_count <= 1000);
    KMS_ASSERT((config.hsm.pin_file != NULL) + (config.hsm.pin_env != NULL) +
                   (config.hsm.pin_credential != NULL) ==
               1);
    return 0;
}
