/* The roots of the key trees: master keys in the HSM and what the database says of them. */
#include "keys/intent.h"
#include "keys/keys_internal.h"
#include "keys/settle.h"
#include "keys/tree.h"

#include "core/log.h"
#include "core/testpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { TENANTS_AT_ONCE = 256 };
static const char label_prefix[] = "kms/";

void kms_roots_label(const struct kms_uuid *tenant, uint64_t epoch, char out[KMS_HSM_LABEL_MAX + 1])
{
    char uuid[KMS_UUID_TEXT_SIZE];
    (void)snprintf(out, KMS_HSM_LABEL_MAX + 1, "%s%s/%llu", label_prefix, kms_uuid_format(tenant, uuid),
                   (unsigned long long)epoch);
}

/* Read `kms/<uuid>/<epoch>`; false for any other text. */
static bool parse_label(const char *label, struct kms_uuid *ret_tenant, uint64_t *ret_epoch)
{
    char uuid[KMS_UUID_TEXT_SIZE] = {0};
    const size_t prefix = sizeof label_prefix - 1;
    if (strlen(label) < prefix + KMS_UUID_TEXT_SIZE || strncmp(label, label_prefix, prefix) != 0 ||
        label[prefix + KMS_UUID_TEXT_SIZE - 1] != '/')
        return false;
    memcpy(uuid, label + prefix, KMS_UUID_TEXT_SIZE - 1);
    const char *digits = label + prefix + KMS_UUID_TEXT_SIZE;
    if (kms_uuid_parse(uuid, ret_tenant) != KMS_OK || digits[0] < '1' || digits[0] > '9')
        return false;
    char *end = NULL;
    errno = 0;
    const unsigned long long epoch = strtoull(digits, &end, 10);
    if (errno != 0 || *end != '\0')
        return false;
    *ret_epoch = epoch;
    return true;
}

/* What is written together with a tenant's record. */
struct together {
    uint64_t escrow_ticket;
    kms_keys_also also; /* NULL: nothing */
    void *context;
};

/* The tenant's record and its master key are one: the record follows the key, and the key goes if it cannot. */
static enum kms_status insert_tenant(struct kms_keys *keys, const struct kms_tenant_record *tenant,
                                     const struct together *together, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, true, &txn, err));
    const enum kms_status status = txn.store->ops->tenant_insert(txn.txn, tenant, err);
    if (status == KMS_ALREADY_EXISTS)
        return kms_fail_public(err, status, "tenant '%s' exists already", tenant->id);
    KMS_TRY(status);
    const struct kms_keys_escrow *escrow = keys->config.escrow;
    if (escrow != NULL)
        KMS_TRY(escrow->write(escrow->context, txn.txn, &tenant->uuid, tenant->epoch, together->escrow_ticket,
                              err));
    if (together->also != NULL)
        KMS_TRY(together->also(together->context, &txn, err));
    return kms_txn_commit(&txn, err);
}

/* A token key takes milliseconds to make: ask first whether the name is free. */
static enum kms_status check_name_is_free(struct kms_keys *keys, const char *id, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    struct kms_tenant_record there;
    const enum kms_status status = txn.store->ops->tenant_by_id(txn.txn, id, &there, err);
    if (status == KMS_OK)
        return kms_fail_public(err, KMS_ALREADY_EXISTS, "tenant '%s' exists already", id);
    return status == KMS_NOT_FOUND ? KMS_OK : status;
}

/* Behind the key: what recovers it, then the record. No session is held while that is written. */
static enum kms_status record_tenant(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                     struct together *together, struct kms_error *err)
{
    const struct kms_keys_escrow *escrow = work->keys->config.escrow;
    if (escrow != NULL) {
        kms_work_pause(work);
        KMS_TRY(escrow->prepare(escrow->context, &tenant->uuid, tenant->epoch, tenant->master_id,
                                &together->escrow_ticket, err));
        kms_test_point("tenant.escrowed");
    }
    return insert_tenant(work->keys, tenant, together, err);
}

/* A master key that no record follows goes again. */
static void undo_master(struct kms_keys_work *work, const struct kms_tenant_record *tenant, const char *label)
{
    if (kms_work_resume(work, NULL) != KMS_OK ||
        work->keys->hsm->ops->master_destroy(work->session, tenant->master_id, NULL) != KMS_OK)
        kms_log_error("keys",
                      "the master key '%s' was made for a tenant that could not be stored, and could not be "
                      "destroyed again; it protects nothing and may be removed by hand",
                      label);
    if (work->keys->config.escrow != NULL)
        work->keys->config.escrow->gone(work->keys->config.escrow->context, &tenant->uuid);
}

/* With the session: key, then record. */
static enum kms_status create_tenant(struct kms_keys_work *work, struct kms_tenant_record *tenant,
                                     struct together *together, struct kms_error *err)
{
    char label[KMS_HSM_LABEL_MAX + 1];
    kms_roots_label(&tenant->uuid, tenant->epoch, label);
    struct kms_hsm_key master;
    KMS_TRY(work->keys->hsm->ops->master_create(work->session, tenant->master_id, label, &master, err));
    const enum kms_status status = record_tenant(work, tenant, together, err);
    if (status != KMS_OK)
        undo_master(work, tenant, label);
    return status;
}

enum kms_status kms_keys_tenant_create(struct kms_keys *keys, struct kms_tenant_record *tenant,
                                       kms_keys_also also, void *context, struct kms_error *err)
{
    KMS_TRY(check_name_is_free(keys, tenant->id, err));
    tenant->epoch = 1;
    tenant->height = 0;
    tenant->next_slot = 0;
    memset(tenant->root_blob, 0, sizeof tenant->root_blob);
    kms_system_random(tenant->master_id, sizeof tenant->master_id);
    struct kms_keys_work *work = NULL;
    struct together together = {.also = also, .context = context};
    KMS_TRY(kms_keys_control_begin(keys, &work, err));
    const enum kms_status status = create_tenant(work, tenant, &together, err);
    kms_keys_work_end(work);
    return status;
}

/* One master key that the HSM holds. */
struct root {
    struct kms_uuid tenant;
    uint64_t epoch;
    uint8_t id[KMS_MASTER_ID_SIZE];
    bool known; /* the database has that tenant */
};

/* All master keys of the HSM, by tenant. */
struct roots {
    struct root *list;
    size_t count;
};

static void roots_clear(struct roots *roots)
{
    free(roots->list);
}

static int compare_roots(const void *left, const void *right)
{
    return memcmp(((const struct root *)left)->tenant.bytes, ((const struct root *)right)->tenant.bytes,
                  KMS_UUID_SIZE);
}

/* Ask the HSM once for all its master keys; keys of other kinds are none of ours. */
static enum kms_status list_roots(struct kms_keys_work *work, struct roots *roots, struct kms_error *err)
{
    KMS_FREE struct kms_hsm_master_info *list = NULL;
    size_t count = 0;
    KMS_TRY(work->keys->hsm->ops->master_list(work->session, &list, &count, err));
    roots->list = calloc(count + 1, sizeof *roots->list);
    if (roots->list == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to compare the HSM's master keys");
    for (size_t i = 0; i < count; i++) {
        struct root *root = &roots->list[roots->count];
        if (!parse_label(list[i].label, &root->tenant, &root->epoch))
            continue;
        memcpy(root->id, list[i].id, sizeof root->id);
        roots->count++;
    }
    qsort(roots->list, roots->count, sizeof *roots->list, compare_roots);
    return KMS_OK;
}

/* The first master key of a tenant in the list; the others are behind it. */
static size_t first_root(const struct roots *roots, const struct kms_uuid *tenant)
{
    size_t low = 0;
    size_t high = roots->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (memcmp(roots->list[middle].tenant.bytes, tenant->bytes, KMS_UUID_SIZE) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Whether a row says why the HSM holds that key. */
static bool is_explained(const struct root *root, const struct kms_tenant_record *tenant,
                         const struct kms_batch_record *batch)
{
    if (memcmp(root->id, tenant->master_id, sizeof root->id) == 0)
        return root->epoch == tenant->epoch;
    if (batch->state != KMS_BATCH_INTENT && batch->state != KMS_BATCH_COMMITTED)
        return false;
    return (memcmp(root->id, batch->old_master_id, sizeof root->id) == 0 &&
            root->epoch == batch->old_epoch) ||
           (memcmp(root->id, batch->new_master_id, sizeof root->id) == 0 &&
            root->epoch == batch->old_epoch + 1);
}

/* In a token that is new, what is not of this database is a restore's that was killed: of an older one, perhaps. */
static enum kms_status refuse_root(const struct root *root, struct kms_error *err)
{
    char label[KMS_HSM_LABEL_MAX + 1];
    kms_roots_label(&root->tenant, root->epoch, label);
    return kms_fail_public(
        err, KMS_FAILED_PRECONDITION,
        "the token holds the master key '%s', which nothing in the backup explains: a "
        "restore that was killed, or somebody, has left it there, and what was shredded "
        "since may open under it; restore into an empty token, with a transport key of its own",
        label);
}

/* The HSM's keys of a tenant against its rows: a newer one ends the start, another one is an alarm, or refused. */
static enum kms_status explain_roots(const struct roots *roots, const struct kms_tenant_record *tenant,
                                     const struct kms_batch_record *batch, bool refuse, struct kms_error *err)
{
    for (size_t i = first_root(roots, &tenant->uuid);
         i < roots->count && kms_uuid_equal(&roots->list[i].tenant, &tenant->uuid); i++) {
        struct root *root = &roots->list[i];
        root->known = true;
        if (is_explained(root, tenant, batch))
            continue;
        if (root->epoch > tenant->epoch)
            return kms_fail_public(
                err, KMS_FAILED_PRECONDITION,
                "the HSM holds epoch %llu of tenant '%s' but the database only epoch %llu: the "
                "database was rolled back; restore the newest backup (nothing was changed)",
                (unsigned long long)root->epoch, tenant->id, (unsigned long long)tenant->epoch);
        if (refuse)
            return refuse_root(root, err);
        kms_log_error(
            "keys",
            "the HSM holds a master key of tenant '%s', epoch %llu, that nothing in the database explains; "
            "it is left alone: an operator must find out why",
            tenant->id, (unsigned long long)root->epoch);
    }
    return KMS_OK;
}

/* The master key must open the top page's key, or it is not the master key of this tree. */
static enum kms_status check_top_page(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                      struct kms_hsm_key master, struct kms_error *err)
{
    if (tenant->height == 0)
        return KMS_OK;
    const struct kms_hsm_ops *hsm = work->keys->hsm->ops;
    struct kms_hsm_key top;
    const enum kms_status status =
        hsm->unwrap(work->session, master, tenant->root_blob, KMS_HSM_PAGE_SERVE, &top, err);
    if (status == KMS_BLOB_REFUSED)
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "the key tree of tenant '%s' does not open under its master key: the database is "
            "damaged or of another HSM; restore the newest backup",
            tenant->id);
    KMS_TRY(status);
    return hsm->destroy(work->session, top);
}

/* The tenant's master key is there, works, and is that of this tree. */
static enum kms_status check_master(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                    struct kms_error *err)
{
    struct kms_hsm_key master;
    const enum kms_status status =
        work->keys->hsm->ops->master_find(work->session, tenant->master_id, &master, err);
    char label[KMS_HSM_LABEL_MAX + 1];
    kms_roots_label(&tenant->uuid, tenant->epoch, label);
    if (status == KMS_NOT_FOUND)
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "the master key '%s' of tenant '%s' is not in the HSM: connect the token that holds "
            "it, or restore it by its vendor's means",
            label, tenant->id);
    if (status == KMS_HSM_REFUSED)
        return kms_fail_public(
            err, KMS_FAILED_PRECONDITION,
            "the master key '%s' of tenant '%s' is in the HSM but does not work (a torn or "
            "changed object): restore the token by its vendor's means",
            label, tenant->id);
    KMS_TRY(status);
    return check_top_page(work, tenant, master, err);
}

/* The tenant's unfinished batch; state 0 when there is none. */
static enum kms_status read_batch(struct kms_keys *keys, const struct kms_tenant_record *tenant,
                                  struct kms_batch_record *ret_batch, struct kms_error *err)
{
    KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
    KMS_TRY(kms_txn_begin(keys->store, false, &txn, err));
    const enum kms_status status =
        keys->store->ops->rekey.batch_unfinished(txn.txn, &tenant->uuid, ret_batch, err);
    return status == KMS_NOT_FOUND ? KMS_OK : status;
}

/* What a crash has left in the middle is brought to its end. A committed batch that cannot be sealed yet is no reason to stop. */
static enum kms_status settle_batch(struct kms_keys_work *work, const struct kms_tenant_record *tenant,
                                    struct kms_batch_record *batch, const struct kms_rekey_hooks *hooks,
                                    struct kms_error *err)
{
    const bool committed = batch->state == KMS_BATCH_COMMITTED;
    const enum kms_status status = kms_settle(work, batch, hooks, err);
    if (status == KMS_OK) {
        if (batch->state != 0)
            kms_log_info("keys", "the unfinished batch of tenant '%s' is %s now", tenant->id,
                         batch->state == KMS_BATCH_SEALED ? "sealed" : "undone");
        return KMS_OK;
    }
    if (!committed || !kms_status_retryable(status) || status == KMS_HSM_STALE ||
        status == KMS_HSM_UNAVAILABLE)
        return status;
    kms_log_warning("keys", "the batch of tenant '%s' is committed but cannot be sealed yet: %s", tenant->id,
                    kms_error_cause(err, status));
    if (err != NULL)
        *err = (struct kms_error){0};
    return kms_work_resume(work, err);
}

/* What is wanted of a check. */
struct check {
    const struct kms_rekey_hooks *hooks; /* NULL: none */
    bool only_compare;                   /* batches are left as they are */
    bool refuse_unexplained;             /* a master key that nothing explains is no mere alarm */
};

/* One tenant of the database against the HSM. */
static enum kms_status check_root(struct kms_keys_work *work, const struct roots *roots,
                                  const struct kms_tenant_record *tenant, const struct check *check,
                                  struct kms_error *err)
{
    KMS_CLEANUP(kms_batch_record_clear) struct kms_batch_record batch = {0};
    KMS_TRY(read_batch(work->keys, tenant, &batch, err));
    KMS_TRY(explain_roots(roots, tenant, &batch, check->refuse_unexplained, err));
    if (!check->only_compare)
        KMS_TRY(settle_batch(work, tenant, &batch, check->hooks, err));
    else if (batch.state != 0)
        KMS_TRY(kms_intent_verify(work->keys, &batch, err));
    return check_master(work, tenant, err);
}

/* Every tenant, in portions, so that memory does not grow with their number. */
static enum kms_status check_tenants(struct kms_keys_work *work, const struct roots *roots,
                                     const struct check *check, struct kms_error *err)
{
    struct kms_store *store = work->keys->store;
    char after[KMS_TENANT_ID_MAX + 1] = "";
    size_t count = TENANTS_AT_ONCE;
    while (count == TENANTS_AT_ONCE) {
        KMS_FREE struct kms_tenant_record *list = NULL;
        {
            KMS_CLEANUP(kms_txn_clear) struct kms_txn txn = {0};
            KMS_TRY(kms_txn_begin(store, false, &txn, err));
            KMS_TRY(store->ops->tenant_list(txn.txn, after[0] == '\0' ? NULL : after, TENANTS_AT_ONCE, &list,
                                            &count, err));
        }
        for (size_t i = 0; i < count; i++)
            KMS_TRY(check_root(work, roots, &list[i], check, err));
        if (count > 0)
            memcpy(after, list[count - 1].id, sizeof after);
    }
    return KMS_OK;
}

/* Left over from a creation that crashed, or of a tenant that a restore has lost: only an operator can know. */
static enum kms_status report_unknown(const struct roots *roots, bool refuse, struct kms_error *err)
{
    for (size_t i = 0; i < roots->count; i++) {
        const struct root *root = &roots->list[i];
        char uuid[KMS_UUID_TEXT_SIZE];
        if (root->known)
            continue;
        if (refuse)
            return refuse_root(root, err);
        kms_log_warning(
            "keys",
            "the HSM holds a master key 'kms/%s/%llu' of a tenant that the database does not know; "
            "it is left alone",
            kms_uuid_format(&root->tenant, uuid), (unsigned long long)root->epoch);
    }
    return KMS_OK;
}

/* The whole check, once more from the start when the device was lost in the middle. */
static enum kms_status attempt_check(struct kms_keys_work *work, void *arguments, struct kms_error *err)
{
    KMS_CLEANUP(roots_clear) struct roots roots = {0};
    const struct check *check = arguments;
    KMS_TRY(list_roots(work, &roots, err));
    KMS_TRY(check_tenants(work, &roots, check, err));
    return report_unknown(&roots, check->refuse_unexplained, err);
}

/* With a session of its own. */
static enum kms_status run_check(struct kms_keys *keys, struct check check, struct kms_error *err)
{
    struct kms_keys_work *work = NULL;
    KMS_TRY(kms_keys_control_begin(keys, &work, err));
    const enum kms_status status = kms_work_run(work, attempt_check, &check, err);
    kms_keys_work_end(work);
    return status;
}

enum kms_status kms_keys_check_roots(struct kms_keys *keys, const struct kms_rekey_hooks *hooks,
                                     struct kms_error *err)
{
    return run_check(keys, (struct check){.hooks = hooks}, err);
}

enum kms_status kms_keys_compare_roots(struct kms_keys *keys, bool nothing_else, struct kms_error *err)
{
    return run_check(keys, (struct check){.only_compare = true, .refuse_unexplained = nothing_else}, err);
}
