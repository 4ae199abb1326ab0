/* Freezes: create, list, and unfreeze as an operation. */
#include "ops/freeze.h"

#include "core/cleanup.h"
#include "core/clock.h"
#include "ops/checks.h"
#include "ops/directory.h"
#include "ops/messages.h"
#include "ops/operation.h"
#include "ops/page_token.h"

#include "kms/v1/freeze.pb-c.h"

#include <stdio.h>

/* Which freezes the service made by itself. */
#define DETECTION_IDENTITY "service:detection"

/* What is frozen, as auth is told. */
static struct kms_auth_frozen frozen_of(const struct kms_freeze_record *freeze)
{
    return (struct kms_auth_frozen){(enum kms_auth_scope)freeze->scope, freeze->tenant, freeze->name,
                                    freeze->reason};
}

/* The names of the scope, and no others. */
static enum kms_status check_names(struct kms_call *call, const Kms__V1__Freeze *wanted)
{
    const bool in_tenant = wanted->scope == KMS__V1__FREEZE__SCOPE__TENANT ||
                           wanted->scope == KMS__V1__FREEZE__SCOPE__CUSTOMER ||
                           wanted->scope == KMS__V1__FREEZE__SCOPE__PURPOSE;
    const struct {
        const char *field, *value;
        bool wanted;
    } names[] = {{"tenant", wanted->tenant, in_tenant},
                 {"customer", wanted->customer, wanted->scope == KMS__V1__FREEZE__SCOPE__CUSTOMER},
                 {"purpose", wanted->purpose, wanted->scope == KMS__V1__FREEZE__SCOPE__PURPOSE},
                 {"identity", wanted->identity, wanted->scope == KMS__V1__FREEZE__SCOPE__IDENTITY}};
    if (!in_tenant && wanted->scope != KMS__V1__FREEZE__SCOPE__IDENTITY)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "scope: must be TENANT, CUSTOMER, PURPOSE or IDENTITY");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if ((names[i].value[0] != '\0') != names[i].wanted)
            return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "%s: %s", names[i].field,
                                   names[i].wanted ? "must be given" : "does not belong to this scope");
    }
    if (in_tenant)
        KMS_TRY(ops_check_id(call, "tenant", wanted->tenant));
    KMS_TRY(ops_check_text(call, "customer", wanted->customer, KMS_CUSTOMER_ID_MAX));
    KMS_TRY(ops_check_optional_id(call, "purpose", wanted->purpose));
    KMS_TRY(ops_check_text(call, "identity", wanted->identity, KMS_IDENTITY_MAX));
    if (wanted->identity[0] != '\0' && strchr(wanted->identity, ':') == NULL)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT,
                               "identity: must be spiffe://domain/path, dns:host or cn:name");
    return ops_check_text(call, "reason", wanted->reason, KMS_FREEZE_REASON_MAX);
}

/* What a request means as a record: everything that it names must exist, but for identities. */
static enum kms_status resolve(struct ops_run *run, const Kms__V1__Freeze *wanted,
                               struct kms_freeze_record *ret_freeze)
{
    struct kms_call *call = run->call;
    struct kms_freeze_record freeze = {.scope = (enum kms_freeze_scope)wanted->scope,
                                       .created_ns = kms_clock_wall_ns()};
    (void)snprintf(freeze.reason, sizeof freeze.reason, "%s", wanted->reason);
    (void)snprintf(freeze.identity, sizeof freeze.identity, "%s", call->identity->name);
    if (freeze.scope == KMS_FREEZE_IDENTITY) {
        (void)snprintf(freeze.name, sizeof freeze.name, "%s", wanted->identity);
        *ret_freeze = freeze;
        return KMS_OK;
    }
    KMS_TXN txn = {0};
    struct kms_tenant_record tenant;
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    KMS_TRY(ops_find_tenant(call, &txn, wanted->tenant, &tenant));
    if (freeze.scope == KMS_FREEZE_CUSTOMER) {
        KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
        KMS_TRY(ops_find_customer(call, &txn, &tenant, wanted->customer, &customer));
        run->event.customer = customer.uuid;
        char uuid[KMS_UUID_TEXT_SIZE];
        (void)snprintf(freeze.name, sizeof freeze.name, "%s", kms_uuid_format(&customer.uuid, uuid));
    } else {
        (void)snprintf(freeze.tenant, sizeof freeze.tenant, "%s", tenant.id);
    }
    if (freeze.scope == KMS_FREEZE_PURPOSE) {
        struct kms_purpose_record purpose;
        KMS_TRY(ops_find_purpose(call, &txn, &tenant, wanted->purpose, &purpose));
        (void)snprintf(freeze.name, sizeof freeze.name, "%s", purpose.id);
    }
    *ret_freeze = freeze;
    return KMS_OK;
}

/* The tenant and the external id of a frozen customer; both "" when it does not exist any more. */
static enum kms_status describe_customer(struct kms_arena *arena, struct kms_txn *txn,
                                         const struct kms_freeze_record *freeze, Kms__V1__Freeze *message,
                                         struct kms_error *err)
{
    struct kms_uuid uuid;
    struct kms_tenant_record tenant;
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    message->customer_uid = ops_string(arena, freeze->name);
    enum kms_status status = kms_uuid_parse(freeze->name, &uuid);
    if (status == KMS_OK)
        status = txn->store->ops->customer_by_uuid(txn->txn, &uuid, &customer, err);
    if (status == KMS_OK)
        status = txn->store->ops->tenant_by_uuid(txn->txn, &customer.tenant, &tenant, err);
    if (status == KMS_NOT_FOUND)
        return KMS_OK;
    KMS_TRY(status);
    message->customer = ops_string(arena, customer.id);
    message->tenant = ops_string(arena, tenant.id);
    return message->customer != NULL && message->tenant != NULL && message->customer_uid != NULL
               ? KMS_OK
               : KMS_NO_MEMORY;
}

/* A record as a message. */
static enum kms_status freeze_message(struct kms_arena *arena, struct kms_txn *txn,
                                      const struct kms_freeze_record *freeze, Kms__V1__Freeze **ret_message,
                                      struct kms_error *err)
{
    Kms__V1__Freeze *message = ops_message_new(arena, &kms__v1__freeze__descriptor);
    if (message == NULL)
        return KMS_NO_MEMORY;
    message->scope = (Kms__V1__Freeze__Scope)freeze->scope;
    message->tenant = ops_string(arena, freeze->tenant);
    message->purpose = ops_string(arena, freeze->scope == KMS_FREEZE_PURPOSE ? freeze->name : "");
    message->identity = ops_string(arena, freeze->scope == KMS_FREEZE_IDENTITY ? freeze->name : "");
    message->reason = ops_string(arena, freeze->reason);
    message->frozen_by = ops_string(arena, freeze->identity);
    message->create_time = ops_timestamp(arena, freeze->created_ns);
    if (message->tenant == NULL || message->purpose == NULL || message->identity == NULL ||
        message->reason == NULL || message->frozen_by == NULL || message->create_time == NULL)
        return KMS_NO_MEMORY;
    if (freeze->scope == KMS_FREEZE_CUSTOMER)
        KMS_TRY(describe_customer(arena, txn, freeze, message, err));
    *ret_message = message;
    return KMS_OK;
}

/* Store it, unless it is there. */
static enum kms_status store_freeze(struct kms_store *store, const struct kms_freeze_record *freeze,
                                    struct kms_error *err)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(store, true, &txn, err));
    KMS_TRY(store->ops->freeze.insert(txn.txn, freeze, err));
    return kms_txn_commit(&txn, err);
}

/*
 * In memory first: what has to stop stops even when the disk does not take it. And again when it is stored: the end of an older
 * freeze on the runner's thread may have taken it out of memory meanwhile.
 */
static enum kms_status freeze_now(struct kms_ops *ops, const struct kms_freeze_record *freeze,
                                  struct kms_error *err)
{
    const struct kms_auth_frozen frozen = frozen_of(freeze);
    KMS_TRY(kms_auth_freeze(ops->auth, &frozen));
    const enum kms_status status = store_freeze(ops->store, freeze, err);
    KMS_TRY(kms_auth_freeze(ops->auth, &frozen));
    if (status == KMS_OK || status == KMS_ALREADY_EXISTS)
        return status;
    return kms_fail_public(
        err, status,
        "it is frozen, but that could not be stored and is forgotten at the next start of the "
        "service: try again");
}

static enum kms_status create_freeze(struct ops_run *run, const ProtobufCMessage *message,
                                     ProtobufCMessage **ret_reply)
{
    const Kms__V1__CreateFreezeRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    if (request->freeze == NULL)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "freeze: must be given");
    KMS_TRY(check_names(call, request->freeze));
    run->event.reason = request->freeze->reason;
    KMS_TRY(ops_allow(run, ops_named(request->freeze->tenant), ops_named(request->freeze->purpose)));
    struct kms_freeze_record freeze;
    KMS_TRY(resolve(run, request->freeze, &freeze));
    run->event.detail_json =
        kms_arena_printf(call->arena, "{\"scope\":\"%s\"}", kms_freeze_scope_text(freeze.scope));
    const enum kms_status status = freeze_now(run->ops, &freeze, &call->error);
    if (status == KMS_ALREADY_EXISTS)
        return kms_fail_public(&call->error, status, "it is frozen already");
    KMS_TRY(status);
    KMS_TXN txn = {0};
    Kms__V1__Freeze *reply = NULL;
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    KMS_TRY(freeze_message(call->arena, &txn, &freeze, &reply, &call->error));
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_create_freeze(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                      ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_FREEZE_CREATE, true, create_freeze, request, ret_reply);
}

/* Collects one page. */
struct listing {
    struct kms_txn *txn;
    struct ops_run *run;
    Kms__V1__ListFreezesResponse *reply;
    size_t seen;
    struct kms_freeze_record last;
};

/* A freeze in a tenant is for who may read there; identities are for who may read the policy, where they stand. */
static bool may_see(struct ops_run *run, const Kms__V1__Freeze *freeze)
{
    const bool of_all = freeze->tenant[0] == '\0';
    return kms_auth_decide(run->ops->auth, run->call->identity,
                           of_all ? KMS_ACTION_POLICY_READ : KMS_ACTION_FREEZE_READ,
                           ops_named(freeze->tenant), NULL, NULL) == KMS_OK;
}

static enum kms_status add_freeze(void *context, const struct kms_freeze_record *freeze)
{
    struct listing *listing = context;
    Kms__V1__Freeze *message = NULL;
    struct kms_call *call = listing->run->call;
    KMS_TRY(freeze_message(call->arena, listing->txn, freeze, &message, &call->error));
    if (may_see(listing->run, message))
        listing->reply->freezes[listing->reply->n_freezes++] = message;
    listing->seen++;
    listing->last = *freeze;
    return KMS_OK;
}

/* Where a list goes on: "<digit of the scope>/tenant/name", of which only the name may hold slashes. */
static enum kms_status parse_place(struct kms_call *call, const char *text,
                                   struct kms_freeze_record *ret_place)
{
    struct kms_freeze_record place = {.scope = (enum kms_freeze_scope)(text[0] - '0')};
    const char *tenant = text[0] != '\0' && text[1] == '/' ? text + 2 : NULL;
    const char *slash = tenant != NULL ? strchr(tenant, '/') : NULL;
    if (slash == NULL)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "page_token: was not made by this method");
    (void)snprintf(place.tenant, sizeof place.tenant, "%.*s", (int)(slash - tenant), tenant);
    (void)snprintf(place.name, sizeof place.name, "%s", slash + 1);
    *ret_place = place;
    return KMS_OK;
}

static enum kms_status list_freezes(struct ops_run *run, const ProtobufCMessage *message,
                                    ProtobufCMessage **ret_reply)
{
    const Kms__V1__ListFreezesRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    const struct kms_slice query = kms_slice_str("freezes");
    const char *after = NULL;
    size_t limit = 0;
    struct kms_freeze_record place = {0};
    KMS_TRY(ops_check_page_size(call, request->page_size, &limit));
    KMS_TRY(ops_allow(run, NULL, NULL));
    KMS_TRY(ops_page_token_parse(call, query, request->page_token, &after));
    if (after != NULL)
        KMS_TRY(parse_place(call, after, &place));
    Kms__V1__ListFreezesResponse *reply =
        ops_message_new(call->arena, &kms__v1__list_freezes_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    reply->freezes = kms_arena_alloc(call->arena, limit * sizeof(*reply->freezes));
    if (reply->freezes == NULL)
        return KMS_NO_MEMORY;
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    struct listing listing = {.run = run, .txn = &txn, .reply = reply};
    KMS_TRY(txn.store->ops->freeze.list(txn.txn, after != NULL ? &place : NULL, limit, add_freeze, &listing,
                                        &call->error));
    if (listing.seen == limit) {
        const char *last = kms_arena_printf(call->arena, "%d/%s/%s", (int)listing.last.scope,
                                            listing.last.tenant, listing.last.name);
        if (last == NULL)
            return KMS_NO_MEMORY;
        KMS_TRY(ops_page_token_make(call, query, last, &reply->next_page_token));
    }
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_list_freezes(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                     ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_FREEZE_READ, false, list_freezes, request, ret_reply);
}

/* Looks for one freeze, whose record then says why and by whom. */
struct search {
    struct kms_freeze_record *freeze;
    bool found;
};

static enum kms_status compare_freeze(void *context, const struct kms_freeze_record *freeze)
{
    struct search *search = context;
    if (freeze->scope == search->freeze->scope && strcmp(freeze->tenant, search->freeze->tenant) == 0 &&
        strcmp(freeze->name, search->freeze->name) == 0) {
        *search->freeze = *freeze;
        search->found = true;
    }
    return KMS_OK;
}

/* The stored record of that scope, tenant and name. NOT_FOUND. */
static enum kms_status find_stored(struct kms_txn *txn, struct kms_freeze_record *freeze,
                                   struct kms_error *err)
{
    struct search search = {freeze, false};
    KMS_TRY(txn->store->ops->freeze.list(txn->txn, NULL, SIZE_MAX, compare_freeze, &search, err));
    return search.found ? KMS_OK : kms_fail_public(err, KMS_NOT_FOUND, "it is not frozen");
}

/* What a request names, as it is stored. */
static enum kms_status find_freeze(struct ops_run *run, struct kms_freeze_record *freeze)
{
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &run->call->error));
    return find_stored(&txn, freeze, &run->call->error);
}

static enum kms_status unfreeze(struct ops_run *run, const ProtobufCMessage *message,
                                ProtobufCMessage **ret_reply)
{
    const Kms__V1__UnfreezeRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    const Kms__V1__Freeze *wanted = request->freeze;
    if (wanted == NULL)
        return kms_fail_public(&call->error, KMS_INVALID_ARGUMENT, "freeze: must be given");
    KMS_TRY(check_names(call, wanted));
    run->event.reason = wanted->reason;
    KMS_TRY(ops_allow(run, ops_named(wanted->tenant), ops_named(wanted->purpose)));
    KMS_TRY(ops_operation_repeated(run, message, ret_reply));
    if (*ret_reply != NULL)
        return KMS_OK;
    struct kms_freeze_record freeze;
    char time[KMS_TIME_TEXT_SIZE];
    KMS_TRY(resolve(run, wanted, &freeze));
    KMS_TRY(find_freeze(run, &freeze));
    json_t *parameters =
        json_pack(/* a customer by UUID: operations are kept longer than its own id may be */
                  "{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "frozen_at",
                  kms_clock_format(freeze.created_ns, time), "frozen_because", freeze.reason, "frozen_by",
                  freeze.identity, "name", freeze.name, "reason", wanted->reason, "scope",
                  kms_freeze_scope_text(freeze.scope), "tenant", freeze.tenant);
    return ops_operation_request(run, &ops_unfreeze_kind, ops_named(wanted->tenant), parameters, 0,
                                 ret_reply);
}

enum kms_status kms_ops_unfreeze(void *context, struct kms_call *call, const ProtobufCMessage *request,
                                 ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_UNFREEZE_REQUEST, true, unfreeze, request, ret_reply);
}

/* A text among the parameters; "" when it is not there. */
static const char *parameter(const struct ops_operation *operation, const char *name)
{
    const char *text = json_string_value(json_object_get(operation->parameters, name));
    return text != NULL ? text : "";
}

/* The scope of that text. */
static enum kms_freeze_scope scope_of(const char *text)
{
    enum kms_freeze_scope scope = KMS_FREEZE_TENANT;
    while (scope < KMS_FREEZE_IDENTITY && strcmp(kms_freeze_scope_text(scope), text) != 0)
        scope++;
    return scope;
}

/* Take the freeze out of the store, if it is the one whose end was approved. NOT_FOUND: there is none. */
static enum kms_status remove_stored(struct kms_ops *ops, const struct ops_operation *operation,
                                     struct kms_freeze_record *freeze, struct kms_error *err)
{
    char time[KMS_TIME_TEXT_SIZE];
    KMS_TXN txn = {0};
    KMS_TRY(kms_txn_begin(ops->store, true, &txn, err));
    KMS_TRY(find_stored(&txn, freeze, err));
    if (strcmp(kms_clock_format(freeze->created_ns, time), parameter(operation, "frozen_at")) != 0)
        return kms_fail_public(err, KMS_FAILED_PRECONDITION,
                               "it was frozen again at %s, after what was approved: request the end of that "
                               "freeze",
                               time);
    KMS_TRY(ops->store->ops->freeze.remove(txn.txn, freeze->scope, freeze->tenant, freeze->name, err));
    return kms_txn_commit(&txn, err);
}

/* Has somebody frozen it again between the store's change and the memory's? Then that counts. */
static enum kms_status restore_newer(struct kms_ops *ops, struct kms_freeze_record *freeze,
                                     struct kms_error *err)
{
    enum kms_status status;
    {
        KMS_TXN txn = {0};
        KMS_TRY(kms_txn_begin(ops->store, false, &txn, err));
        status = find_stored(&txn, freeze, err);
    }
    if (status == KMS_NOT_FOUND)
        return KMS_OK;
    KMS_TRY(status);
    const struct kms_auth_frozen frozen = frozen_of(freeze);
    return kms_auth_freeze(ops->auth, &frozen);
}

/*
 * Stored first: what is not durable must not let anybody in. May be repeated; where nothing is stored at the first run, what the
 * memory holds is another freeze, which could not be stored.
 */
static enum kms_status execute_unfreeze(struct kms_ops *ops, struct ops_operation *operation,
                                        char **ret_result, struct kms_error *err)
{
    (void)ret_result; /* nothing to say */
    struct kms_freeze_record freeze = {.scope = scope_of(parameter(operation, "scope"))};
    (void)snprintf(freeze.tenant, sizeof freeze.tenant, "%s", parameter(operation, "tenant"));
    (void)snprintf(freeze.name, sizeof freeze.name, "%s", parameter(operation, "name"));
    const enum kms_status status = remove_stored(ops, operation, &freeze, err);
    if (status == KMS_NOT_FOUND && !operation->again)
        return KMS_OK;
    if (status != KMS_OK && status != KMS_NOT_FOUND)
        return status;
    const struct kms_auth_frozen frozen = frozen_of(&freeze);
    kms_auth_unfreeze(ops->auth, &frozen);
    return restore_newer(ops, &freeze, err);
}

const struct ops_operation_kind ops_unfreeze_kind = {
    .name = "unfreeze",
    .request = KMS_ACTION_UNFREEZE_REQUEST,
    .approve = KMS_ACTION_UNFREEZE_APPROVE,
    .approvals = 2,
    .resumable = true,
    .urgent = true,
    .execute = execute_unfreeze,
};

enum kms_status ops_freeze_identity(struct kms_ops *ops, const char *identity, const char *reason,
                                    struct kms_error *err)
{
    struct kms_freeze_record freeze = {
        .scope = KMS_FREEZE_IDENTITY, .identity = DETECTION_IDENTITY, .created_ns = kms_clock_wall_ns()};
    if (strlen(identity) >= sizeof freeze.name)
        return kms_fail(err, KMS_INVALID_ARGUMENT, "the identity is too long to be one");
    (void)snprintf(freeze.name, sizeof freeze.name, "%s", identity);
    (void)snprintf(freeze.reason, sizeof freeze.reason, "%s", reason);
    const enum kms_status status = freeze_now(ops, &freeze, err);
    return status == KMS_ALREADY_EXISTS ? KMS_OK : status;
}
