#include "detect/distinct.h"

#include <stdlib.h>

unsigned kms_distinct_shift(uint64_t limit)
{
    unsigned shift = 0;
    while (limit >> shift > KMS_DISTINCT_EXACT)
        shift++;
    return shift;
}

/* Is the slot's thing still in the window? */
static bool is_live(const struct kms_distinct *distinct, const struct kms_distinct_slot *slot)
{
    return slot->print != 0 && (uint32_t)distinct->window.newest - slot->slice < KMS_WINDOW_SLICES;
}

/*
 * The slot of a thing, or where it may be put: the first one on the way that holds nothing live. NULL when every
 * slot is live and other things are in them.
 */
static struct kms_distinct_slot *find(const struct kms_distinct *distinct, uint32_t print)
{
    struct kms_distinct_slot *room = NULL;
    const uint32_t mask = distinct->capacity - 1;
    for (uint32_t i = 0; i < distinct->capacity; i++) {
        struct kms_distinct_slot *slot = &distinct->slots[(print + i) & mask];
        if (slot->print == print)
            return slot;
        if (room == NULL && !is_live(distinct, slot))
            room = slot;
        if (slot->print == 0)
            break;
    }
    return room;
}

/* Another table with the live things only: twice as large when they are many. */
static void rebuild(struct kms_distinct *distinct, size_t *slots)
{
    uint32_t capacity = distinct->capacity;
    if (capacity == 0)
        capacity = KMS_DISTINCT_SLOTS_MIN;
    else if (distinct->window.total * 2 >= capacity && capacity < KMS_DISTINCT_SLOTS_MAX)
        capacity *= 2;
    struct kms_distinct larger = {
        .slots = calloc(capacity, sizeof *larger.slots), .capacity = capacity, .window = distinct->window};
    if (larger.slots == NULL)
        return;
    for (uint32_t i = 0; i < distinct->capacity; i++) {
        if (is_live(distinct, &distinct->slots[i])) {
            *find(&larger, distinct->slots[i].print) = distinct->slots[i];
            larger.used++;
        }
    }
    *slots += (size_t)capacity - distinct->capacity;
    free(distinct->slots);
    *distinct = larger;
}

/* Three quarters full, of live and dead together: looks become long. */
static bool is_crowded(const struct kms_distinct *distinct)
{
    return distinct->used * 4 >= distinct->capacity * 3;
}

uint64_t kms_distinct_see(struct kms_distinct *distinct, unsigned shift, uint64_t hash, int64_t slice,
                          size_t *slots)
{
    kms_window_move(&distinct->window, slice);
    if (shift > 0 && hash >> (64 - shift) != 0)
        return distinct->window.total << shift;
    const uint32_t print = (uint32_t)hash != 0 ? (uint32_t)hash : 1;
    if (is_crowded(distinct) && distinct->window.total * 4 < (uint64_t)KMS_DISTINCT_SLOTS_MAX * 3)
        rebuild(distinct, slots);
    struct kms_distinct_slot *slot = distinct->capacity > 0 ? find(distinct, print) : NULL;
    if (slot == NULL || (slot->print == 0 && is_crowded(distinct)))
        return distinct->window.total << shift;
    if (slot->print == print && is_live(distinct, slot))
        kms_window_take_back(&distinct->window,
                             distinct->window.newest - ((uint32_t)distinct->window.newest - slot->slice));
    else if (slot->print == 0)
        distinct->used++;
    *slot = (struct kms_distinct_slot){print, (uint32_t)distinct->window.newest};
    kms_window_add(&distinct->window);
    return distinct->window.total << shift;
}

void kms_distinct_clear(struct kms_distinct *distinct, size_t *slots)
{
    *slots -= distinct->capacity;
    free(distinct->slots);
    *distinct = (struct kms_distinct){0};
}
