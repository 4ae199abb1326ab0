/* Versions of the KEKs of a customer. */
#include "core/cleanup.h"
#include "ops/checks.h"
#include "ops/convert.h"
#include "ops/directory.h"
#include "ops/messages.h"
#include "ops/page_token.h"

#include <inttypes.h>
#include <stdio.h>

/* Versions of one purpose are few (rotation makes one a period); the whole set is read and one page cut out
 * of it. */
enum { VERSIONS_READ_MAX = 100000 };

/* "purpose/version": the order of the list and the last place of a page. */
enum { POSITION_SIZE = KMS_PURPOSE_ID_MAX + 12 };
static void position_of(const struct kms_kek_record *kek, char out[POSITION_SIZE])
{
    (void)snprintf(out, POSITION_SIZE, "%s/%010" PRIu32, kek->purpose, kek->version);
}

/* Does entry i hold the highest enabled version of its purpose? The list is ordered by purpose and version.
 */
static bool is_primary(const struct kms_kek_record *list, size_t count, size_t i)
{
    if (list[i].state != KMS_KEK_ENABLED)
        return false;
    for (size_t k = i + 1; k < count && strcmp(list[k].purpose, list[i].purpose) == 0; k++) {
        if (list[k].state == KMS_KEK_ENABLED)
            return false;
    }
    return true;
}

/* Cut one page out of the list. */
static enum kms_status cut_page(struct kms_call *call, const struct kms_kek_record *list, size_t count,
                                size_t limit, struct kms_slice query, const char *after,
                                Kms__V1__ListKekVersionsResponse *reply)
{
    char position[POSITION_SIZE] = "";
    reply->versions = kms_arena_alloc(call->arena, limit * sizeof(*reply->versions));
    if (reply->versions == NULL)
        return KMS_NO_MEMORY;
    size_t i = 0;
    for (; i < count && reply->n_versions < limit; i++) {
        position_of(&list[i], position);
        if (after != NULL && strcmp(position, after) <= 0)
            continue;
        Kms__V1__KekVersion *version = ops_kek_message(call->arena, &list[i], is_primary(list, count, i));
        if (version == NULL)
            return KMS_NO_MEMORY;
        reply->versions[reply->n_versions++] = version;
    }
    if (i < count)
        return ops_page_token_make(call, query, position, &reply->next_page_token);
    return KMS_OK;
}

static enum kms_status list_kek_versions(struct ops_run *run, const ProtobufCMessage *message,
                                         ProtobufCMessage **ret_reply)
{
    const Kms__V1__ListKekVersionsRequest *request = (const void *)message;
    struct kms_call *call = run->call;
    size_t limit = 0;
    const char *after = NULL;
    KMS_TRY(ops_check_id(call, "tenant", request->tenant));
    KMS_TRY(ops_check_customer(call, request->customer));
    KMS_TRY(ops_check_optional_id(call, "purpose", request->purpose));
    KMS_TRY(ops_check_page_size(call, request->page_size, &limit));
    KMS_TRY(ops_allow(run, request->tenant, NULL));
    Kms__V1__ListKekVersionsRequest unpaged = *request;
    static char empty[] = "";
    unpaged.page_size = 0;
    unpaged.page_token = empty;
    struct kms_slice query;
    KMS_TRY(ops_pack(call, &unpaged.base, &query));
    KMS_TRY(ops_page_token_parse(call, query, request->page_token, &after));

    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(run->ops->store, false, &txn, &call->error));
    struct kms_tenant_record tenant;
    KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
    KMS_TRY(ops_find_tenant(call, &txn, request->tenant, &tenant));
    KMS_TRY(ops_find_customer(call, &txn, &tenant, request->customer, &customer));
    run->event.customer = customer.uuid;
    KMS_FREE struct kms_kek_record *list = NULL;
    size_t count = 0;
    KMS_TRY(txn.store->ops->kek_list(txn.txn, &customer.uuid, ops_named(request->purpose), 0,
                                     VERSIONS_READ_MAX, &list, &count, &call->error));
    Kms__V1__ListKekVersionsResponse *reply =
        ops_message_new(call->arena, &kms__v1__list_kek_versions_response__descriptor);
    if (reply == NULL)
        return KMS_NO_MEMORY;
    KMS_TRY(cut_page(call, list, count, limit, query, after, reply));
    *ret_reply = &reply->base;
    return KMS_OK;
}

enum kms_status kms_ops_list_kek_versions(void *context, struct kms_call *call,
                                          const ProtobufCMessage *request, ProtobufCMessage **ret_reply)
{
    return ops_control(context, call, KMS_ACTION_KEYVERSION_READ, false, list_kek_versions, request,
                       ret_reply);
}
