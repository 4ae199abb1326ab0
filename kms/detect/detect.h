/*
 * Purpose:   rules over the stream of audited events that raise alerts: what an attacker or a fault would do, and an
 *            honest client would not.
 * Owns:      what is remembered of each identity, and the queue of alerts.
 * Threads:   every function from any thread; kms_detect_observe() takes one lock for well under a microsecond.
 * Never:     blocks a call, refuses one by itself, or uses more memory than its limits, whatever a client does.
 *
 * Limits: KMS_DETECT_SUBJECTS identities (the one that was idle longest is forgotten for a new one), KMS_DETECT_PLACES
 * places of each, KMS_DETECT_SLOTS slots of customers for all of them together (those of the one that was idle
 * longest are given up), KMS_DETECT_QUEUE alerts that wait (what does not fit is counted, and that is an alert).
 */
#ifndef KMS_DETECT_DETECT_H
#define KMS_DETECT_DETECT_H

#include "core/bytes.h"
#include "core/ids.h"
#include "detect/place.h"

enum {
    KMS_DETECT_SUBJECTS = 16384,
    KMS_DETECT_PLACES = 16,
    KMS_DETECT_SLOTS = 4 * 1024 * 1024,
    KMS_DETECT_QUEUE = 256,
    KMS_DETECT_CANARIES = 1000,
    KMS_DETECT_IDENTITY_MAX = 256,
    KMS_DETECT_WORD_MAX = 63
};

/*
 * name (in alerts, metrics and the configuration: never renamed), how many alerts of one identity may come within the
 * time of `repeat`, what it says
 */
#define KMS_DETECT_RULE_TABLE(X)                                                                             \
    X(DENIED_BURST, "denied_burst", 1, "many calls of this identity were denied")                            \
    X(CUSTOMER_SWEEP, "customer_sweep", 1, "this identity unwraps for unusually many customers")             \
    X(CANARY, "canary", 4, "the keys of a customer that nobody should use were asked for")                   \
    X(SHRED_SCHEDULED, "shred_scheduled", 4, "the keys of a customer that is to be shredded are in use")     \
    X(NEW_PLACE, "new_place", 8, "this identity calls from a network that it never came from")               \
    X(CLOCK_BACKWARDS, "clock_backwards", 4, "the wall clock went backwards")                                \
    X(MEMORY_LOST, "memory_lost", 1, "what was known of earlier places is lost")                             \
    X(OVERFLOW, "overflow", 1, "alerts were lost because they came faster than they could be told")

enum kms_detect_rule {
#define KMS_DETECT_ENUM(name, text, burst, says) KMS_DETECT_##name,
    KMS_DETECT_RULE_TABLE(KMS_DETECT_ENUM)
#undef KMS_DETECT_ENUM
        KMS_DETECT_RULES
};

/** "denied_burst"; never NULL. */
const char *kms_detect_rule_name(enum kms_detect_rule rule);
/** One sentence for a person; never NULL. */
const char *kms_detect_rule_says(enum kms_detect_rule rule);

struct kms_detect_config {
    struct {
        bool off;
        bool freeze; /* its alerts ask for the identity to be frozen */
    } rules[KMS_DETECT_RULES];
    uint32_t denied_count, denied_window_seconds;   /* alert from so many in so long */
    uint32_t sweep_customers, sweep_window_seconds; /* the same */
    const struct kms_uuid *canaries;                /* copied */
    size_t canary_count;                            /* KMS_DETECT_CANARIES at most */
    uint32_t ipv4_prefix, ipv6_prefix;              /* bits of an address that make a place */
    int64_t clock_tolerance_ns;                     /* a step back of at most so much is no alert */
    int64_t repeat_ns;                              /* one identity and rule alerts again after so long */
};

/** One event, as far as a rule looks at it. Everything is borrowed; any pointer may be NULL. */
struct kms_detect_event {
    const char *identity; /* NULL: nobody was identified */
    const char *peer;     /* see kms_place_of_peer() */
    const char *action, *tenant, *request_id;
    struct kms_uuid customer; /* zero: none */
    bool unwraps;             /* gives out the plaintext of a data key that exists */
    bool shred_scheduled;     /* the customer waits to be shredded */
    enum kms_status status;   /* how it ended */
};

struct kms_detect_alert {
    enum kms_detect_rule rule;
    char identity[KMS_DETECT_IDENTITY_MAX + 1]; /* "": none */
    char peer[2 * KMS_DETECT_WORD_MAX + 1];
    char place[KMS_PLACE_TEXT_SIZE];
    char action[KMS_DETECT_WORD_MAX + 1], tenant[KMS_DETECT_WORD_MAX + 1];
    char request_id[KMS_DETECT_WORD_MAX + 1]; /* of the event that raised it */
    struct kms_uuid customer;                 /* zero: none */
    uint64_t count;          /* what was counted: calls, customers, milliseconds of the clock */
    uint64_t threshold;      /* 0: the first one is one too many */
    uint32_t window_seconds; /* 0: no window */
    uint64_t suppressed;     /* alerts of this rule and identity since the last one that was told */
    bool freeze;             /* the identity is to be frozen */
};

struct kms_detect;

/** Defaults, every rule on and none freezing: what an empty `detection:` section means. */
void kms_detect_defaults(struct kms_detect_config *ret_config);
/** NO_MEMORY; INVALID_ARGUMENT for windows or thresholds of 0, prefixes that are too long, too many canaries. */
enum kms_status kms_detect_new(const struct kms_detect_config *config,
                               struct kms_detect **ret_detect) KMS_MUST_USE;
/** NULL-safe; no other call may be under way. */
void kms_detect_free(struct kms_detect *detect);

/** Look at one event. Never blocks, allocates rarely and within the limits. */
void kms_detect_observe(struct kms_detect *detect, const struct kms_detect_event *event);
/**
 * Compare the wall clock with the monotonic one; about once a second. A clock that a time service slews (500 ppm at
 * most) never alerts; what steps back further than the tolerance does, in one step or in many.
 */
void kms_detect_tick(struct kms_detect *detect);
/** At start: the wall time of the newest record that an earlier run left. 0: there is none. */
void kms_detect_compare_with_past(struct kms_detect *detect, int64_t wall_ns);
/** Raise MEMORY_LOST. */
void kms_detect_memory_was_lost(struct kms_detect *detect);

/**
 * Take the oldest alert, waiting for one until `until_mono_ns` (0: not at all) or kms_detect_wake(). False when there
 * is none.
 */
bool kms_detect_take(struct kms_detect *detect, int64_t until_mono_ns, struct kms_detect_alert *ret_alert);
/** End the wait of kms_detect_take(), now and from now on. */
void kms_detect_wake(struct kms_detect *detect);

/** Remember that an identity has come from a place before; used when the memory is read back. */
void kms_detect_know(struct kms_detect *detect, const char *identity, const struct kms_place *place);
/**
 * Call `visit` for a part of what kms_detect_know() would have to be told, the most recent place of an identity last;
 * begins with *position 0 and moves it on. False when nothing is left. The lock is held for a part only.
 */
bool kms_detect_known(struct kms_detect *detect, size_t *position,
                      void (*visit)(void *context, const char *identity, const struct kms_place *place),
                      void *context);
/** Has kms_detect_known() changed since the last call of this function? */
bool kms_detect_known_changed(struct kms_detect *detect);

struct kms_detect_stats {
    uint64_t raised[KMS_DETECT_RULES];     /* alerts, told or waiting */
    uint64_t suppressed[KMS_DETECT_RULES]; /* repetitions that were only counted */
    uint64_t lost;                         /* did not fit into the queue */
    uint64_t forgotten;                    /* identities that made room for others */
    size_t subjects, slots;                /* in use */
};
void kms_detect_stats(struct kms_detect *detect, struct kms_detect_stats *ret_stats);

#endif
