#include "detect/subjects.h"

#include <stdlib.h>

enum kms_status kms_subjects_init(struct kms_subjects *subjects)
{
    *subjects = (struct kms_subjects){.pool = calloc(KMS_DETECT_SUBJECTS, sizeof *subjects->pool)};
    return subjects->pool != NULL ? KMS_OK : KMS_NO_MEMORY;
}

void kms_subjects_clear(struct kms_subjects *subjects)
{
    HASH_CLEAR(hh, subjects->by_name);
    for (size_t i = 0; i < subjects->count; i++)
        kms_distinct_clear(&subjects->pool[i].customers, &subjects->slots);
    free(subjects->pool);
    *subjects = (struct kms_subjects){0};
}

/* Take a subject out of the order of use. */
static void unlink_subject(struct kms_subjects *subjects, struct kms_subject *subject)
{
    *(subject->newer != NULL ? &subject->newer->older : &subjects->newest) = subject->older;
    *(subject->older != NULL ? &subject->older->newer : &subjects->oldest) = subject->newer;
}

/* Put it at the end that is used last. */
static void link_newest(struct kms_subjects *subjects, struct kms_subject *subject)
{
    subject->newer = NULL;
    subject->older = subjects->newest;
    *(subjects->newest != NULL ? &subjects->newest->newer : &subjects->oldest) = subject;
    subjects->newest = subject;
}

/* An empty subject: from the pool, else the oldest one's. */
static struct kms_subject *take_room(struct kms_subjects *subjects)
{
    struct kms_subject *unused = subjects->unused;
    if (unused != NULL) {
        subjects->unused = unused->older;
        unused->older = NULL;
        return unused;
    }
    if (subjects->count < KMS_DETECT_SUBJECTS)
        return &subjects->pool[subjects->count++];
    struct kms_subject *oldest = subjects->oldest;
    if (oldest == NULL)
        return NULL;
    unlink_subject(subjects, oldest);
    HASH_DEL(subjects->by_name, oldest);
    kms_distinct_clear(&oldest->customers, &subjects->slots);
    memset(oldest, 0, sizeof *oldest);
    subjects->forgotten++;
    return oldest;
}

struct kms_subject *kms_subjects_use(struct kms_subjects *subjects, const char *name)
{
    const size_t len = strnlen(name, KMS_DETECT_IDENTITY_MAX);
    struct kms_subject *subject = subjects->newest;
    if (subject != NULL && strncmp(subject->name, name, len) == 0 && subject->name[len] == '\0')
        return subject;
    HASH_FIND(hh, subjects->by_name, name, len, subject);
    if (subject != NULL) {
        unlink_subject(subjects, subject);
        link_newest(subjects, subject);
        return subject;
    }
    subject = take_room(subjects);
    if (subject == NULL)
        return NULL;
    memcpy(subject->name, name, len);
    HASH_ADD_KEYPTR(hh, subjects->by_name, subject->name, len, subject);
    if (subject->hh.tbl == NULL) { /* no memory for the index */
        memset(subject, 0, sizeof *subject);
        subject->older = subjects->unused;
        subjects->unused = subject;
        return NULL;
    }
    link_newest(subjects, subject);
    return subject;
}

void kms_subjects_keep_limit(struct kms_subjects *subjects, const struct kms_subject *spare)
{
    for (struct kms_subject *subject = subjects->oldest;
         subject != NULL && subjects->slots > KMS_DETECT_SLOTS; subject = subject->newer) {
        if (subject != spare)
            kms_distinct_clear(&subject->customers, &subjects->slots);
    }
}

bool kms_subject_add_place(struct kms_subject *subject, const struct kms_place *place, bool *ret_first)
{
    uint32_t at = 0;
    while (at < subject->place_count && !kms_place_equal(&subject->places[at], place))
        at++;
    const bool is_new = at == subject->place_count;
    *ret_first = subject->place_count == 0;
    if (is_new && subject->place_count < KMS_DETECT_PLACES)
        subject->place_count++;
    else if (is_new)
        at = KMS_DETECT_PLACES - 1;
    memmove(&subject->places[1], &subject->places[0], at * sizeof subject->places[0]);
    subject->places[0] = *place;
    return is_new;
}
