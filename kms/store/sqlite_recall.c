#include "store/sqlite_impl.h"

#include <string.h>

int kms_sqlite_recall_begin(struct kms_store_txn *txn)
{
    /* changes with every commit, whoever makes it: equal numbers on one connection mean that no byte has changed between them */
    return sqlite3_file_control(txn->conn->db, "main", SQLITE_FCNTL_DATA_VERSION, &txn->version);
}

/* What the connection has read in the state that the transaction sees, and whoever asks may have unchecked; NULL: nothing. */
static const struct kms_sqlite_recall *current(const struct kms_store_txn *txn)
{
    const struct kms_sqlite_recall *recall = &txn->conn->recall;
    return txn->seal_trusts && recall->version == txn->version ? recall : NULL;
}

/* The place for what was read now, without what is older; NULL: nothing is noted. */
static struct kms_sqlite_recall *renewed(struct kms_store_txn *txn)
{
    if (txn->write)
        return NULL;
    struct kms_sqlite_recall *recall = &txn->conn->recall;
    if (recall->version != txn->version)
        *recall = (struct kms_sqlite_recall){.version = txn->version};
    return recall;
}

bool kms_sqlite_recall_tenant(const struct kms_store_txn *txn, const struct kms_uuid *uuid, const char *id,
                              struct kms_tenant_record *ret_tenant, int64_t *ret_no)
{
    const struct kms_sqlite_recall *recall = current(txn);
    if (recall == NULL || !recall->has_tenant ||
        (uuid != NULL ? !kms_uuid_equal(&recall->tenant.uuid, uuid) : strcmp(recall->tenant.id, id) != 0))
        return false;
    *ret_tenant = recall->tenant;
    *ret_no = recall->tenant_no;
    return true;
}

void kms_sqlite_note_tenant(struct kms_store_txn *txn, const struct kms_tenant_record *tenant, int64_t no)
{
    struct kms_sqlite_recall *recall = renewed(txn);
    if (recall == NULL)
        return;
    recall->has_tenant = true;
    recall->tenant_no = no;
    recall->tenant = *tenant;
}

bool kms_sqlite_recall_purpose(const struct kms_store_txn *txn, const struct kms_uuid *tenant, const char *id,
                               struct kms_purpose_record *ret_purpose)
{
    const struct kms_sqlite_recall *recall = current(txn);
    if (recall == NULL || !recall->has_purpose || !kms_uuid_equal(&recall->purpose.tenant, tenant) ||
        strcmp(recall->purpose.id, id) != 0)
        return false;
    *ret_purpose = recall->purpose;
    return true;
}

void kms_sqlite_note_purpose(struct kms_store_txn *txn, const struct kms_purpose_record *purpose)
{
    struct kms_sqlite_recall *recall = renewed(txn);
    if (recall == NULL)
        return;
    recall->has_purpose = true;
    recall->purpose = *purpose;
}
