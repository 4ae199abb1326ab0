/* Unwraps of changing customers by changing identities, all rules on: nothing is the same as in the event before. */
#include "bench/detection.h"

#include "bench/report.h"
#include "core/clock.h"
#include "detect/detect.h"

#include <stdio.h>
#include <stdlib.h>

enum { IDENTITIES = 64, PER_LOOK = 10000 };
static const double target_ns = 1000;

/* Some events; `*number` makes customers that differ. */
static void observe_some(struct kms_detect *detect, char identities[IDENTITIES][64], uint64_t *number)
{
    struct kms_detect_event event = {.peer = "ipv4:192.0.2.7:4711",
                                     .action = "datakey.unwrap",
                                     .tenant = "acme",
                                     .request_id = "r",
                                     .unwraps = true,
                                     .status = KMS_OK};
    for (int i = 0; i < PER_LOOK; i++) {
        const uint64_t mixed = ++*number * UINT64_C(0x9e3779b97f4a7c15);
        event.identity = identities[*number % IDENTITIES];
        memcpy(event.customer.bytes, &mixed, sizeof mixed);
        kms_detect_observe(detect, &event);
    }
}

void detection_measure(double seconds)
{
    static const struct kms_uuid canary = {.bytes = {1, 2, 3}};
    struct kms_detect_config config;
    kms_detect_defaults(&config);
    config.canaries = &canary;
    config.canary_count = 1;
    struct kms_detect *detect = NULL;
    if (kms_detect_new(&config, &detect) != KMS_OK) {
        (void)fprintf(stderr, "no memory for the rules of detection\n");
        exit(1);
    }
    static char identities[IDENTITIES][64];
    for (int i = 0; i < IDENTITIES; i++)
        (void)snprintf(identities[i], sizeof identities[i], "spiffe://kms.example/app/service-%d", i);
    uint64_t number = 0;
    const int64_t begun = kms_clock_mono_ns();
    int64_t took = 0;
    while ((double)took < seconds * (double)KMS_NS_PER_SECOND) {
        observe_some(detect, identities, &number);
        took = kms_clock_mono_ns() - begun;
    }
    kms_detect_free(detect);
    const double each = (double)took / (double)number;
    report_add(&(struct report_row){.what = "detection, one unwrap",
                                    .unit = "ns",
                                    .value = each,
                                    .baseline_name = "one microsecond",
                                    .baseline = target_ns,
                                    .ratio = each / target_ns,
                                    .target = 1,
                                    .at_most = true});
}
