#include "detect/detect.h"

#include "core/clock.h"
#include "core/lock.h"
#include "detect/subjects.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    KNOWN_PART = 64, /* subjects that one part of kms_detect_known() looks at */
    NS_PER_NS_OF_SLEW =
        1000, /* a clock may be slowed by one part in so many: twice what adjtimex(2) does at most */
};

/* Calls of nobody are counted together. */
static const char nobody[] = "";

struct canary_set {
    struct kms_uuid *slots; /* zero: empty */
    uint32_t mask;          /* slots - 1 */
};

struct kms_detect {
    struct kms_detect_config config;
    int64_t denied_slice_ns, sweep_slice_ns;
    unsigned sweep_shift;
    struct canary_set canaries; /* slots NULL: there are none */
    uint64_t key[2];            /* of the hash of customers */

    struct kms_mutex lock; /* protects everything below */
    pthread_cond_t wake;
    bool awake;
    struct kms_subjects subjects;
    struct kms_subject_rule service_rules[KMS_DETECT_RULES]; /* of alerts about nobody in particular */
    struct kms_detect_alert *queue;                          /* a ring */
    unsigned first, waiting;
    uint64_t lost, lost_told;
    bool known_changed;
    bool clock_known;
    int64_t offset_ns; /* wall minus monotonic clock: the largest that slewing explains */
    int64_t ticked_ns;
    uint64_t raised[KMS_DETECT_RULES], suppressed[KMS_DETECT_RULES];
};

static const struct rule_row {
    const char *name;
    uint32_t burst;
    const char *says;
} rule_rows[] = {
#define RULE_ROW(name, text, burst, says) [KMS_DETECT_##name] = {text, burst, says},
    KMS_DETECT_RULE_TABLE(RULE_ROW)
#undef RULE_ROW
};

const char *kms_detect_rule_name(enum kms_detect_rule rule)
{
    return (unsigned)rule < KMS_DETECT_RULES ? rule_rows[rule].name : "unknown";
}

const char *kms_detect_rule_says(enum kms_detect_rule rule)
{
    return (unsigned)rule < KMS_DETECT_RULES ? rule_rows[rule].says : "unknown";
}

void kms_detect_defaults(struct kms_detect_config *ret_config)
{
    *ret_config = (struct kms_detect_config){
        .denied_count = 50,
        .denied_window_seconds = 60,
        .sweep_customers = 1000,
        .sweep_window_seconds = 600,
        .ipv4_prefix = 24,
        .ipv6_prefix = 64,
        .clock_tolerance_ns = KMS_NS_PER_SECOND,
        .repeat_ns = 300 * KMS_NS_PER_SECOND,
    };
}

/* 64 well-mixed bits of a customer's id under the key: customers' ids are random, but made by nobody's client. */
static uint64_t hash_of(const struct kms_detect *detect, const struct kms_uuid *customer)
{
    uint64_t words[2];
    memcpy(words, customer->bytes, sizeof words);
    uint64_t hash = (words[0] ^ detect->key[0]) * UINT64_C(0x9e3779b97f4a7c15);
    hash ^= hash >> 32;
    hash = (hash ^ words[1] ^ detect->key[1]) * UINT64_C(0xd6e8feb86659fd93);
    hash ^= hash >> 32;
    hash *= UINT64_C(0xd6e8feb86659fd93);
    return hash ^ hash >> 32;
}

/* The slot of a customer, or the empty one where it would be. */
static struct kms_uuid *canary_slot(const struct kms_detect *detect, const struct kms_uuid *customer)
{
    uint32_t at = (uint32_t)hash_of(detect, customer);
    for (;; at++) {
        struct kms_uuid *slot = &detect->canaries.slots[at & detect->canaries.mask];
        if (kms_uuid_is_zero(slot) || kms_uuid_equal(slot, customer))
            return slot;
    }
}

/* A table that is at most half full. */
static enum kms_status add_canaries(struct kms_detect *detect)
{
    const struct kms_detect_config *config = &detect->config;
    if (config->canary_count == 0)
        return KMS_OK;
    uint32_t size = 2;
    while (size < 2 * config->canary_count)
        size *= 2;
    detect->canaries = (struct canary_set){calloc(size, sizeof *detect->canaries.slots), size - 1};
    if (detect->canaries.slots == NULL)
        return KMS_NO_MEMORY;
    for (size_t i = 0; i < config->canary_count; i++)
        *canary_slot(detect, &config->canaries[i]) = config->canaries[i];
    detect->config.canaries = NULL; /* the caller's */
    return KMS_OK;
}

static bool is_good(const struct kms_detect_config *config)
{
    return config->denied_count > 0 && config->denied_window_seconds > 0 && config->sweep_customers > 0 &&
           config->sweep_window_seconds > 0 && config->ipv4_prefix <= 32 && config->ipv6_prefix <= 128 &&
           config->canary_count <= KMS_DETECT_CANARIES && config->repeat_ns >= 0 &&
           config->clock_tolerance_ns >= 0;
}

enum kms_status kms_detect_new(const struct kms_detect_config *config, struct kms_detect **ret_detect)
{
    if (!is_good(config))
        return KMS_INVALID_ARGUMENT;
    struct kms_detect *detect = calloc(1, sizeof *detect);
    if (detect == NULL)
        return KMS_NO_MEMORY;
    detect->config = *config;
    detect->denied_slice_ns = kms_window_slice_ns(config->denied_window_seconds * KMS_NS_PER_SECOND);
    detect->sweep_slice_ns = kms_window_slice_ns(config->sweep_window_seconds * KMS_NS_PER_SECOND);
    detect->sweep_shift = kms_distinct_shift(config->sweep_customers);
    kms_system_random(detect->key, sizeof detect->key);
    kms_mutex_init(&detect->lock, KMS_LOCK_DETECT);
    kms_cond_init(&detect->wake);
    detect->queue = calloc(KMS_DETECT_QUEUE, sizeof *detect->queue);
    enum kms_status status = detect->queue != NULL ? kms_subjects_init(&detect->subjects) : KMS_NO_MEMORY;
    if (status == KMS_OK)
        status = add_canaries(detect);
    if (status != KMS_OK) {
        kms_detect_free(detect);
        return status;
    }
    *ret_detect = detect;
    return KMS_OK;
}

void kms_detect_free(struct kms_detect *detect)
{
    if (detect == NULL)
        return;
    kms_subjects_clear(&detect->subjects);
    free(detect->queue);
    free(detect->canaries.slots);
    (void)pthread_cond_destroy(&detect->wake);
    kms_mutex_clear(&detect->lock);
    free(detect);
}

/* Copy a text that may be NULL or too long, cut between characters. */
static void copy_text(char *out, size_t size, const char *text)
{
    size_t used = 0;
    while (text != NULL && text[used] != '\0') {
        const size_t len = kms_utf8_printable_prefix(text + used, strnlen(text + used, 4));
        if (len == 0 || used + len >= size)
            break;
        memcpy(out + used, text + used, len);
        used += len;
    }
    out[used] = '\0';
}

/* May this rule tell of this subject again? Else it is only counted. */
static bool may_tell(const struct kms_detect *detect, struct kms_subject_rule *rule, uint32_t burst,
                     int64_t now)
{
    if (rule->told == 0 || now - rule->since_ns >= detect->config.repeat_ns) {
        rule->since_ns = now;
        rule->told = 0;
    }
    return rule->told < burst;
}

/* What an alert says besides its rule and its event. */
struct finding {
    uint64_t count, threshold;
    uint32_t window_seconds;
};

/* Queue an alert, unless it is off, told already, or there is no room. `subject` NULL: about the service. */
static void raise_locked(struct kms_detect *detect, enum kms_detect_rule rule, struct kms_subject *subject,
                         const struct kms_detect_event *event, struct finding finding)
{
    if (detect->config.rules[rule].off)
        return;
    struct kms_subject_rule *memory = subject != NULL ? &subject->rules[rule] : &detect->service_rules[rule];
    if (!may_tell(detect, memory, rule_rows[rule].burst, kms_clock_mono_coarse_ns())) {
        memory->suppressed++;
        detect->suppressed[rule]++;
        return;
    }
    if (detect->waiting == KMS_DETECT_QUEUE) {
        detect->lost++; /* not told: the next event of this kind tries again */
        return;
    }
    struct kms_detect_alert *alert = &detect->queue[(detect->first + detect->waiting++) % KMS_DETECT_QUEUE];
    *alert = (struct kms_detect_alert){
        .rule = rule,
        .count = finding.count,
        .threshold = finding.threshold,
        .window_seconds = finding.window_seconds,
        .suppressed = memory->suppressed,
    };
    if (event != NULL) {
        copy_text(alert->identity, sizeof alert->identity, event->identity);
        copy_text(alert->peer, sizeof alert->peer, event->peer);
        copy_text(alert->action, sizeof alert->action, event->action);
        copy_text(alert->tenant, sizeof alert->tenant, event->tenant);
        copy_text(alert->request_id, sizeof alert->request_id, event->request_id);
        alert->customer = event->customer;
    }
    if (subject != NULL && subject->place_count > 0)
        (void)kms_place_format(&subject->places[0], alert->place);
    alert->freeze = detect->config.rules[rule].freeze && alert->identity[0] != '\0';
    memory->told++;
    memory->suppressed = 0;
    detect->raised[rule]++;
    (void)pthread_cond_signal(&detect->wake);
}

/* Where does the call come from? The same peer as the last time needs no look at its address. */
static void look_at_place_locked(struct kms_detect *detect, struct kms_subject *subject,
                                 const struct kms_detect_event *event)
{
    if (event->peer == NULL || event->identity == NULL)
        return;
    const size_t len = kms_place_peer_len(event->peer);
    if (len == subject->peer_len && len > 0 && memcmp(event->peer, subject->peer, len) == 0)
        return;
    const struct kms_place place =
        kms_place_of_peer(event->peer, detect->config.ipv4_prefix, detect->config.ipv6_prefix);
    bool first = false;
    const bool is_new = kms_subject_add_place(subject, &place, &first);
    subject->peer_len = len < sizeof subject->peer ? len : 0;
    memcpy(subject->peer, event->peer, subject->peer_len);
    detect->known_changed = detect->known_changed || is_new;
    if (is_new && !first)
        raise_locked(detect, KMS_DETECT_NEW_PLACE, subject, event, (struct finding){.count = 1});
}

/* Refused for who or what the caller is, or for a key that it should not have: what guessing looks like. */
static bool is_denied(enum kms_status status)
{
    return status == KMS_PERMISSION_DENIED || status == KMS_UNAUTHENTICATED || status == KMS_BLOB_REFUSED;
}

static void look_at_denial_locked(struct kms_detect *detect, struct kms_subject *subject,
                                  const struct kms_detect_event *event)
{
    if (!is_denied(event->status))
        return;
    const struct kms_detect_config *config = &detect->config;
    kms_window_move(&subject->denied, kms_clock_mono_coarse_ns() / detect->denied_slice_ns);
    kms_window_add(&subject->denied);
    if (subject->denied.total >= config->denied_count)
        raise_locked(
            detect, KMS_DETECT_DENIED_BURST, subject, event,
            (struct finding){subject->denied.total, config->denied_count, config->denied_window_seconds});
}

static void look_at_sweep_locked(struct kms_detect *detect, struct kms_subject *subject,
                                 const struct kms_detect_event *event)
{
    const struct kms_detect_config *config = &detect->config;
    if (!event->unwraps || event->status != KMS_OK || config->rules[KMS_DETECT_CUSTOMER_SWEEP].off)
        return;
    const size_t slots_before = detect->subjects.slots;
    const uint64_t customers =
        kms_distinct_see(&subject->customers, detect->sweep_shift, hash_of(detect, &event->customer),
                         kms_clock_mono_coarse_ns() / detect->sweep_slice_ns, &detect->subjects.slots);
    if (detect->subjects.slots > slots_before)
        kms_subjects_keep_limit(&detect->subjects, subject);
    if (customers >= config->sweep_customers)
        raise_locked(detect, KMS_DETECT_CUSTOMER_SWEEP, subject, event,
                     (struct finding){customers, config->sweep_customers, config->sweep_window_seconds});
}

/* Rules about the customer itself, whatever became of the call. */
static void look_at_customer_locked(struct kms_detect *detect, struct kms_subject *subject,
                                    const struct kms_detect_event *event)
{
    if (event->shred_scheduled)
        raise_locked(detect, KMS_DETECT_SHRED_SCHEDULED, subject, event, (struct finding){.count = 1});
    if (detect->canaries.slots != NULL && !kms_uuid_is_zero(canary_slot(detect, &event->customer)))
        raise_locked(detect, KMS_DETECT_CANARY, subject, event, (struct finding){.count = 1});
}

void kms_detect_observe(struct kms_detect *detect, const struct kms_detect_event *event)
{
    KMS_LOCKED(&detect->lock);
    struct kms_subject *subject =
        kms_subjects_use(&detect->subjects, event->identity != NULL ? event->identity : nobody);
    if (subject == NULL)
        return;
    look_at_place_locked(detect, subject, event);
    look_at_denial_locked(detect, subject, event);
    if (kms_uuid_is_zero(&event->customer))
        return;
    look_at_sweep_locked(detect, subject, event);
    look_at_customer_locked(detect, subject, event);
}

/* How far the clock went back. */
static void clock_went_back_locked(struct kms_detect *detect, int64_t step_ns)
{
    raise_locked(
        detect, KMS_DETECT_CLOCK_BACKWARDS, NULL, NULL,
        (struct finding){.count = (uint64_t)(step_ns / KMS_NS_PER_MS),
                         .threshold = (uint64_t)(detect->config.clock_tolerance_ns / KMS_NS_PER_MS)});
}

void kms_detect_tick(struct kms_detect *detect)
{
    KMS_LOCKED(&detect->lock);
    const int64_t now = kms_clock_mono_ns();
    const int64_t offset = kms_clock_wall_ns() - now;
    if (detect->clock_known) {
        detect->offset_ns -= (now - detect->ticked_ns) / NS_PER_NS_OF_SLEW;
        if (detect->offset_ns - offset > detect->config.clock_tolerance_ns) {
            clock_went_back_locked(detect, detect->offset_ns - offset);
            detect->offset_ns = offset;
        }
    }
    if (!detect->clock_known || offset > detect->offset_ns)
        detect->offset_ns = offset;
    detect->clock_known = true;
    detect->ticked_ns = now;
}

void kms_detect_compare_with_past(struct kms_detect *detect, int64_t wall_ns)
{
    KMS_LOCKED(&detect->lock);
    const int64_t step = wall_ns - kms_clock_wall_ns();
    if (step > detect->config.clock_tolerance_ns)
        clock_went_back_locked(detect, step);
}

void kms_detect_memory_was_lost(struct kms_detect *detect)
{
    KMS_LOCKED(&detect->lock);
    raise_locked(detect, KMS_DETECT_MEMORY_LOST, NULL, NULL, (struct finding){.count = 1});
}

bool kms_detect_take(struct kms_detect *detect, int64_t until_mono_ns, struct kms_detect_alert *ret_alert)
{
    KMS_LOCKED(&detect->lock);
    while (detect->waiting == 0 && !detect->awake && until_mono_ns > 0 &&
           kms_cond_wait(&detect->wake, &detect->lock, until_mono_ns))
        continue;
    if (detect->waiting > 0) {
        *ret_alert = detect->queue[detect->first];
        detect->first = (detect->first + 1) % KMS_DETECT_QUEUE;
        detect->waiting--;
        return true;
    }
    /* everything else was told; now tell that there was more */
    if (detect->lost == detect->lost_told)
        return false;
    raise_locked(detect, KMS_DETECT_OVERFLOW, NULL, NULL, (struct finding){.count = detect->lost});
    detect->lost_told = detect->lost;
    if (detect->waiting == 0)
        return false;
    *ret_alert = detect->queue[detect->first];
    detect->waiting--;
    return true;
}

void kms_detect_wake(struct kms_detect *detect)
{
    KMS_LOCKED(&detect->lock);
    detect->awake = true;
    (void)pthread_cond_broadcast(&detect->wake);
}

void kms_detect_know(struct kms_detect *detect, const char *identity, const struct kms_place *place)
{
    KMS_LOCKED(&detect->lock);
    bool first = false;
    struct kms_subject *subject = kms_subjects_use(&detect->subjects, identity);
    if (subject != NULL)
        (void)kms_subject_add_place(subject, place, &first);
}

bool kms_detect_known(struct kms_detect *detect, size_t *position,
                      void (*visit)(void *context, const char *identity, const struct kms_place *place),
                      void *context)
{
    KMS_LOCKED(&detect->lock);
    const struct kms_subjects *subjects = &detect->subjects;
    for (size_t n = 0; n < KNOWN_PART && *position < subjects->count; n++, (*position)++) {
        const struct kms_subject *subject = &subjects->pool[*position];
        for (uint32_t i = subject->place_count; i-- > 0;)
            visit(context, subject->name, &subject->places[i]);
    }
    return *position < subjects->count;
}

bool kms_detect_known_changed(struct kms_detect *detect)
{
    KMS_LOCKED(&detect->lock);
    const bool changed = detect->known_changed;
    detect->known_changed = false;
    return changed;
}

void kms_detect_stats(struct kms_detect *detect, struct kms_detect_stats *ret_stats)
{
    KMS_LOCKED(&detect->lock);
    *ret_stats = (struct kms_detect_stats){.lost = detect->lost,
                                           .forgotten = detect->subjects.forgotten,
                                           .subjects = detect->subjects.count,
                                           .slots = detect->subjects.slots};
    memcpy(ret_stats->raised, detect->raised, sizeof ret_stats->raised);
    memcpy(ret_stats->suppressed, detect->suppressed, sizeof ret_stats->suppressed);
}
