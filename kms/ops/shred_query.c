/* Shred jobs looked at and cancelled; what is known of one customer; the clock of waiting windows. */
#include "core/clock.h"
#include "ops/checks.h"
#include "ops/directory.h"
#include "ops/messages.h"
#include "ops/page_token.h"
#include "ops/shred_job.h"

#include <stdio.h>

static enum kms_status get_job(struct ops_run *run, const ProtobufCMessage *message,
                               ProtobufCMessage **ret_reply)
{
    const Kms__V1__GetShredJobRequest *request = (const void *)message;
    struct kms_shred_job_record job;
    struct kms_tenant_record tenant;
    KMS_TRY(ops_shred_allow_job(run, request->job, &job, &tenant));
    KMS_TXN txn = {0};
    Kms__V1__ShredJob *reply = NULL;
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &run->call->error));
    KMS_TRY(ops_shred_job_message(run->call, &txn, tenant.id, &job, &reply));
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_get_shred_job(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_SHRED_READ, false, get_job, request, ret_reply);
}

/* The place in a list as a page token's text. */
static enum kms_status place_of(struct kms_call *call, const char *after, struct kms_uuid *place,
                                const struct kms_uuid **ret_place)
{
    *ret_place = NULL;
    if (after == NULL)
        return KMS_OK;
    if (kms_uuid_parse(after, place) != KMS_OK)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "page_token: is damaged; begin without one");
    *ret_place = place;
    return KMS_OK;
}

/* Records of one page, collected before their messages are made: the list's statement is free again by then. */
struct job_page {
    struct kms_shred_job_record *list;
    size_t count;
};

static enum kms_status keep_job(void *context, const struct kms_shred_job_record *job)
{
    struct job_page *page = context;
    page->list[page->count++] = *job;
    return KMS_OK;
}

/* The messages of a page and the token of the next. */
static enum kms_status reply_jobs(struct ops_run *run, struct kms_txn *txn, const char *tenant_id,
                                  const struct job_page *page, size_t limit, struct kms_slice query,
                                  ProtobufCMessage **ret_reply)
{
    struct kms_call *call = run->call;
    Kms__V1__ListShredJobsResponse *reply =
        ops_message_new(call->arena, &kms__v1__list_shred_jobs_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    reply->jobs = kms_arena_alloc(call->arena, (page->count + 1) * sizeof(*reply->jobs));
    if (reply->jobs == NULL)
        return KMS_NO_MEMORY;
    for (; reply->n_jobs < page->count; reply->n_jobs++)
        KMS_TRY(ops_shred_job_message(call, txn, tenant_id, &page->list[reply->n_jobs],
                                      &reply->jobs[reply->n_jobs]));
    if (page->count == limit)
        KMS_TRY(ops_page_token_make(call, query, reply->jobs[limit - 1]->uid, &reply->next_page_token));
    *ret_reply = &reply->base;
    return KMS_OK;
}

static enum kms_status list_jobs(struct ops_run *run, const ProtobufCMessage *message,
                                 ProtobufCMessage **ret_reply)
{
    const Kms__V1__ListShredJobsRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    size_t limit = 0;
    const char *after = NULL;
    struct kms_uuid place;
    const struct kms_uuid *behind;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_page_size(call, request->page_size, &limit));
    if ((unsigned)request->state > KMS_SHRED_JOB_CANCELLED)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "state: is not a state");
    KMS_TRY(ops_allow(run, request->tenant, NULL));
    Kms__V1__ListShredJobsRequest unpaged = *request;
    static char empty[] = "";
    unpaged.page_size = 0;
    unpaged.page_token = empty;
    struct kms_slice query;
    KMS_TRY(ops_pack(call, &unpaged.base, &query));
    KMS_TRY(ops_page_token_parse(call, query, request->page_token, &after));
    KMS_TRY(place_of(call, after, &place, &behind));

    KMS_TXN txn = {0};
    struct kms_tenant_record tenant;
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    KMS_TRY(ops_find_tenant(call, &txn, request->tenant, &tenant));
    struct job_page page = {.list = kms_arena_alloc(call->arena, limit * sizeof *page.list)};
    if (page.list == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(txn.store->ops->shred.job_list(txn.txn, &tenant.uuid, (enum kms_shred_job_state)request->state,
                                           behind, limit, keep_job, &page, &call->error));
    return reply_jobs(run, &txn, tenant.id, &page, limit, query, ret_reply);
}

enum kms_status kms_ops_list_shred_jobs(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                        ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_SHRED_READ, false, list_jobs, request, ret_reply);
}

struct target_page {
    struct kms_shred_target_record *list;
    size_t count;
};

static enum kms_status keep_target(void *context, const struct kms_shred_target_record *target)
{
    struct target_page *page = context;
    page->list[page->count++] = *target;
    return KMS_OK;
}

/* The state to filter by, as it is stored. */
static enum kms_status state_of(struct kms_call *call, Kms__V1__ShredTarget__State asked,
                                enum kms_shred_target_state *ret_state)
{
    switch (asked) {
    case KMS__V1__SHRED_TARGET__STATE__STATE_UNSPECIFIED:
        *ret_state = 0;
        return KMS_OK;
    case KMS__V1__SHRED_TARGET__STATE__PENDING:
        *ret_state = KMS_SHRED_TARGET_PENDING;
        return KMS_OK;
    case KMS__V1__SHRED_TARGET__STATE__SHREDDED:
        *ret_state = KMS_SHRED_TARGET_SHREDDED;
        return KMS_OK;
    case KMS__V1__SHRED_TARGET__STATE__CANCELLED:
        *ret_state = KMS_SHRED_TARGET_CANCELLED;
        return KMS_OK;
    case KMS__V1__SHRED_TARGET__STATE__FAILED:
        *ret_state = KMS_SHRED_TARGET_FAILED;
        return KMS_OK;
    default:
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "state: can be PENDING, SHREDDED, CANCELLED or FAILED");
    }
}

static enum kms_status list_targets(struct ops_run *run, const ProtobufCMessage *message,
                                    ProtobufCMessage **ret_reply)
{
    const Kms__V1__ListShredTargetsRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    size_t limit = 0;
    const char *after = NULL;
    struct kms_uuid place;
    const struct kms_uuid *behind;
    struct kms_shred_job_record job;
    struct kms_tenant_record tenant;
    struct kms_shred_target_filter filter = {.job = &job.uid};
    KMS_TRY(ops_check_page_size(call, request->page_size, &limit));
    KMS_TRY(state_of(call, request->state, &filter.state));
    KMS_TRY(ops_shred_allow_job(run, request->job, &job, &tenant));
    Kms__V1__ListShredTargetsRequest unpaged = *request;
    static char empty[] = "";
    unpaged.page_size = 0;
    unpaged.page_token = empty;
    struct kms_slice query;
    KMS_TRY(ops_pack(call, &unpaged.base, &query));
    KMS_TRY(ops_page_token_parse(call, query, request->page_token, &after));
    KMS_TRY(place_of(call, after, &place, &behind));

    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    struct target_page page = {.list = kms_arena_alloc(call->arena, limit * sizeof *page.list)};
    Kms__V1__ListShredTargetsResponse *reply =
        ops_message_new(call->arena, &kms__v1__list_shred_targets_response__descriptor);
    if (page.list == NULL || reply == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(
        txn.store->ops->shred.target_list(txn.txn, &filter, behind, limit, keep_target, &page, &call->error));
    reply->targets = kms_arena_alloc(call->arena, (page.count + 1) * sizeof(*reply->targets));
    if (reply->targets == NULL)
        return KMS_NO_MEMORY;
    for (; reply->n_targets < page.count; reply->n_targets++)
        KMS_TRY(ops_shred_target_message(run, &txn, &job, &page.list[reply->n_targets],
                                         &reply->targets[reply->n_targets]));
    if (page.count == limit)
        KMS_TRY(ops_page_token_make(call, query, reply->targets[limit - 1]->customer_uid,
                                    &reply->next_page_token));
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_list_shred_targets(void *context, struct kms_call *call,
                                           const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_SHRED_READ, false, list_targets, request, ret_reply);
}

enum { STATUS_TARGETS_MAX = 1000, STATUS_RETENTIONS_MAX = 1000 };

/* Targets of a customer with their jobs; those of other tenants and of drafts are nobody's business here. */
static enum kms_status status_targets(struct ops_run *run, struct kms_txn *txn,
                                      const struct kms_tenant_record *tenant, const struct kms_uuid *customer,
                                      Kms__V1__ShredStatus *reply)
{
    struct kms_call *call = run->call;
    const struct kms_shred_target_filter filter = {.customer = customer};
    struct target_page page = {.list = kms_arena_alloc(call->arena, STATUS_TARGETS_MAX * sizeof *page.list)};
    reply->targets = kms_arena_alloc(call->arena, STATUS_TARGETS_MAX * sizeof(*reply->targets));
    if (page.list == NULL || reply->targets == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(txn->store->ops->shred.target_list(txn->txn, &filter, NULL, STATUS_TARGETS_MAX, keep_target,
                                               &page, &call->error));
    for (size_t i = 0; i < page.count; i++) {
        struct kms_shred_job_record job;
        KMS_TRY(txn->store->ops->shred.job_get(txn->txn, &page.list[i].job, &job, &call->error));
        if (!kms_uuid_equal(&job.tenant, &tenant->uuid) || job.state == KMS_SHRED_JOB_DRAFT)
            continue;
        KMS_TRY(ops_shred_target_message(run, txn, &job, &page.list[i], &reply->targets[reply->n_targets]));
        reply->n_targets++;
    }
    return KMS_OK;
}

struct retention_page {
    struct kms_call *call;
    struct kms_txn *txn;
    Kms__V1__ShredStatus *reply;
    const struct kms_uuid *tenant;
};

static enum kms_status add_retention(void *context, const struct kms_retention_record *retention)
{
    const struct retention_page *page = context;
    struct kms_arena *arena = page->call->arena;
    int64_t end_ns = 0;
    if (!kms_uuid_equal(&retention->tenant, page->tenant))
        return KMS_OK;
    KMS_TRY(ops_shred_retention_end(page->txn, retention, &end_ns, &page->call->error));
    Kms__V1__ShredStatus__Retention *message =
        ops_message_new(arena, &kms__v1__shred_status__retention__descriptor);
    if (message == NULL || (message->purpose = ops_string(arena, retention->purpose)) == NULL ||
        (message->until = ops_timestamp(arena, end_ns)) == NULL)
        return KMS_NO_MEMORY;
    page->reply->retentions[page->reply->n_retentions++] = message;
    return KMS_OK;
}

static enum kms_status get_status(struct ops_run *run, const ProtobufCMessage *message,
                                  ProtobufCMessage **ret_reply)
{
    const Kms__V1__GetShredStatusRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_customer(call, request->customer));
    KMS_TRY(ops_allow(run, request->tenant, NULL));
    KMS_TXN txn = {0};
    struct kms_tenant_record tenant;
    struct kms_uuid customer;
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    KMS_TRY(ops_find_tenant(call, &txn, request->tenant, &tenant));
    KMS_TRY(ops_shred_find_customer(call, &txn, &tenant, request->customer, &customer));
    run->event.customer = customer;
    Kms__V1__ShredStatus *reply = ops_message_new(call->arena, &kms__v1__shred_status__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    char text[OPS_SHRED_BARRIER_MAX];
    reply->retentions = kms_arena_alloc(call->arena, STATUS_RETENTIONS_MAX * sizeof(*reply->retentions));
    reply->tenant = ops_string(call->arena, tenant.id);
    reply->customer_uid = ops_string(call->arena, kms_uuid_format(&customer, text));
    KMS_TRY(ops_shred_barrier(run->ops, &txn, &tenant.uuid, "", &customer, text, &call->error));
    reply->hold = ops_string(call->arena, text);
    if (reply->retentions == NULL || reply->tenant == NULL || reply->customer_uid == NULL ||
        reply->hold == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(status_targets(run, &txn, &tenant, &customer, reply));
    struct retention_page page = {call, &txn, reply, &tenant.uuid};
    KMS_TRY(txn.store->ops->shred.retention_list(txn.txn, &customer, 0, STATUS_RETENTIONS_MAX, add_retention,
                                                 &page, &call->error));
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_get_shred_status(void *context, struct kms_call *call,
                                         const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_SHRED_READ, false, get_status, request, ret_reply);
}

static enum kms_status clock_reply(struct ops_run *run, ProtobufCMessage **ret_reply)
{
    struct kms_arena *arena = run->call->arena;
    const struct ops_shred_time time = ops_shred_now(run->ops->shred);
    Kms__V1__ShredClock *reply = ops_message_new(arena, &kms__v1__shred_clock__descriptor);
    if (reply == NULL || (reply->wall_time = ops_timestamp(arena, time.wall_ns)) == NULL ||
        (reply->trusted_time = ops_timestamp(arena, time.trusted_ns)) == NULL)
        return KMS_NO_MEMORY;
    reply->suspect = time.suspect;
    *ret_reply = &reply->base;
    return KMS_OK;
}

static enum kms_status get_clock(struct ops_run *run, const ProtobufCMessage *message,
                                 ProtobufCMessage **ret_reply)
{
    (void)message;
    KMS_TRY(ops_allow(run, NULL, NULL));
    return clock_reply(run, ret_reply);
}

enum kms_status kms_ops_get_shred_clock(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                        ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_SHRED_READ, false, get_clock, request, ret_reply);
}

static enum kms_status confirm_clock(struct ops_run *run, const ProtobufCMessage *message,
                                     ProtobufCMessage **ret_reply)
{
    (void)message;
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(ops_shred_believe_wall(run->ops->shred, run->ops->store, &run->call->error));
    return clock_reply(run, ret_reply);
}

enum kms_status kms_ops_confirm_shred_clock(void *context, struct kms_call *call,
                                            const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_SHRED_CLOCK, true, confirm_clock, request, ret_reply);
}
