/*
 * Purpose:   what is remembered of each identity: counters, customers, places, and when it alerted last.
 * Owns:      a fixed number of subjects, and their tables of customers.
 * Threads:   one table belongs to one lock (its user's).
 * Never:     holds more subjects or slots than its limits.
 */
#ifndef KMS_DETECT_SUBJECTS_H
#define KMS_DETECT_SUBJECTS_H

#include "detect/detect.h"
#include "detect/distinct.h"

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

/** When one rule alerted, and what it kept to itself since. */
struct kms_subject_rule {
    int64_t since_ns;    /* monotonic time at which the burst that counts began */
    uint32_t told;       /* alerts since then */
    uint64_t suppressed; /* since the last one that was told */
};

struct kms_subject {
    char name[KMS_DETECT_IDENTITY_MAX + 1];
    char peer[KMS_PLACE_TEXT_SIZE]; /* of the last call, without the port: the place is places[0] */
    size_t peer_len;
    uint32_t place_count;
    struct kms_place places[KMS_DETECT_PLACES]; /* the most recent one first */
    struct kms_window denied;
    struct kms_distinct customers;
    struct kms_subject_rule rules[KMS_DETECT_RULES];
    struct kms_subject *newer, *older; /* in order of use */
    UT_hash_handle hh;
};

struct kms_subjects {
    struct kms_subject *pool;   /* of KMS_DETECT_SUBJECTS; pages that were never used cost nothing */
    size_t count;               /* of the pool in use, from its start */
    struct kms_subject *unused; /* taken from the pool and given back; linked by `older` */
    struct kms_subject *by_name;
    struct kms_subject *newest, *oldest;
    size_t slots; /* of all tables of customers */
    uint64_t forgotten;
};

enum kms_status kms_subjects_init(struct kms_subjects *subjects) KMS_MUST_USE;
void kms_subjects_clear(struct kms_subjects *subjects);
/**
 * The subject of a name (cut at KMS_DETECT_IDENTITY_MAX), made the newest; a new one takes the oldest one's place
 * when all are in use. NULL when there is no memory for it.
 */
struct kms_subject *kms_subjects_use(struct kms_subjects *subjects, const char *name);
/** Give up the customers of those that were idle longest until the limit of slots is kept; never those of `spare`. */
void kms_subjects_keep_limit(struct kms_subjects *subjects, const struct kms_subject *spare);
/**
 * Put a place in front. Returns false when it stood there before (anywhere); `*ret_first` says that the subject had none at
 * all. The least recent one is dropped for a seventeenth.
 */
bool kms_subject_add_place(struct kms_subject *subject, const struct kms_place *place, bool *ret_first);

#endif
