#define _GNU_SOURCE
#include "replay.h"

#include "samples_shred.h"
#include "store/apply.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Operations in several states, one of which is removed again. */
static void write_operations(struct kms_store *store)
{
    struct kms_error err = {0};
    struct kms_txn txn = begin_write(store);
    for (unsigned i = 1; i <= 3; i++) {
        KMS_CLEANUP(kms_operation_record_clear) struct kms_operation_record operation = sample_operation(i);
        assert_ok(store->ops->operation.insert(txn.txn, &operation, &err));
        KMS_CLEANUP(kms_approval_record_clear)
        struct kms_approval_record approval = sample_approval(i, "erin");
        assert_ok(store->ops->operation.approve(txn.txn, &approval, &err));
        operation.state = KMS_OPERATION_REJECTED;
        if (i == 2)
            assert_ok(store->ops->operation.update(txn.txn, &operation, KMS_OPERATION_PENDING, &err));
        if (i == 3)
            assert_ok(store->ops->operation.remove(txn.txn, &operation.uuid, &err));
    }
    commit(&txn);
}

/* Two versions of the policy, and freezes of every scope, one of which is lifted. */
static void write_policies(struct kms_store *store)
{
    struct kms_error err = {0};
    struct kms_txn txn = begin_write(store);
    for (uint64_t version = 1; version <= 2; version++) {
        KMS_CLEANUP(kms_policy_record_clear) struct kms_policy_record policy = sample_policy(version);
        assert_ok(store->ops->policy.insert(txn.txn, &policy, &err));
    }
    for (unsigned scope = KMS_FREEZE_TENANT; scope <= KMS_FREEZE_IDENTITY; scope++) {
        const struct kms_freeze_record freeze = sample_freeze((enum kms_freeze_scope)scope, scope);
        assert_ok(store->ops->freeze.insert(txn.txn, &freeze, &err));
    }
    const struct kms_freeze_record lifted = sample_freeze(KMS_FREEZE_PURPOSE, KMS_FREEZE_PURPOSE);
    assert_ok(store->ops->freeze.remove(txn.txn, lifted.scope, lifted.tenant, lifted.name, &err));
    commit(&txn);
}

struct kms_recovery_key_record sample_recovery_key(uint64_t epoch)
{
    struct kms_recovery_key_record key = {.epoch = epoch,
                                          .state = KMS_RECOVERY_ACTIVE,
                                          .enrolled_ns = 7,
                                          .enrolled_by = "spiffe://kms.example/custodian/ann",
                                          .enroll_operation = sample_uuid(6, (unsigned)epoch)};
    memset(key.fingerprint, 'a' + (int)(epoch % 6), sizeof key.fingerprint - 1);
    return key;
}

/* Two recovery keys, the first of which was rehearsed and is retired, and what they cover of the tenant of fill(). */
static void write_recovery(struct kms_store *store)
{
    struct kms_error err = {0};
    const struct kms_store_recovery_ops *ops = &store->ops->recovery;
    struct kms_txn txn = begin_write(store);
    for (uint64_t epoch = 1; epoch <= 2; epoch++) {
        const struct kms_recovery_key_record key = sample_recovery_key(epoch);
        assert_ok(ops->key_put(txn.txn, &key, &err));
        struct kms_recovery_cover_record cover = {epoch, sample_tenant(1).uuid, 5 + epoch};
        assert_ok(ops->cover_put(txn.txn, &cover, &err));
        cover.first_epoch = 3;
        assert_ok(ops->cover_put(txn.txn, &cover, &err));
        cover.first_epoch = 9;
        assert_ok(ops->cover_put(txn.txn, &cover, &err));
    }
    struct kms_recovery_key_record retired = sample_recovery_key(1);
    retired.state = KMS_RECOVERY_RETIRED;
    retired.retire_operation = sample_uuid(6, 9);
    retired.retired_ns = 11;
    retired.object_left = true;
    retired.drill_ns = 8;
    retired.drill_took_ns = 9;
    retired.drill_customers = 10;
    (void)snprintf(retired.retired_by, sizeof retired.retired_by, "custodian/bob");
    (void)snprintf(retired.drill_by, sizeof retired.drill_by, "custodian/eve");
    (void)snprintf(retired.statement, sizeof retired.statement, "all shares were burnt");
    assert_ok(ops->key_put(txn.txn, &retired, &err));
    commit(&txn);
}

/* Every kind of record of store/store_shred.h, in the tenant of fill(). */
static void write_of_shredding(struct kms_store *store, struct kms_txn *txn)
{
    struct kms_error err = {0};
    struct kms_shred_job_record job = sample_shred_job(1, 1);
    assert_ok(store->ops->shred.job_put(txn->txn, &job, &err));
    job.state = KMS_SHRED_JOB_DONE;
    assert_ok(store->ops->shred.job_put(txn->txn, &job, &err));
    for (unsigned i = 1; i <= 3; i++) {
        const struct kms_shred_target_record target = sample_shred_target(1, i);
        assert_ok(store->ops->shred.target_put(txn->txn, &target, &err));
    }
    const struct kms_hold_record hold = sample_hold(1, 4);
    assert_ok(store->ops->shred.hold_put(txn->txn, &hold, &err));
    const struct kms_certificate_record certificate = sample_certificate(1, 1);
    assert_ok(store->ops->shred.certificate_insert(txn->txn, &certificate, &err));
    const struct kms_shred_setting_record setting = sample_shred_setting(1);
    assert_ok(store->ops->shred.setting_put(txn->txn, &setting, &err));
    struct kms_retention_record retention = sample_retention(1, 5);
    assert_ok(store->ops->shred.retention_put(txn->txn, &retention, &err));
    retention = sample_retention(1, 6);
    assert_ok(store->ops->shred.retention_put(txn->txn, &retention, &err));
    retention.due_ns = 0;
    assert_ok(store->ops->shred.retention_put(txn->txn, &retention, &err));
    const struct kms_shred_clock_record clock = sample_shred_clock();
    assert_ok(store->ops->shred.clock_put(txn->txn, &clock, &err));
}

struct kms_batch_record sample_batch(unsigned tenant, unsigned number)
{
    static uint8_t document[] = "{\"batch\":\"...\"}";
    return (struct kms_batch_record){.uuid = sample_uuid(5, number),
                                     .tenant = sample_tenant(tenant).uuid,
                                     .kind = KMS_BATCH_SHRED,
                                     .reference = "operations/17",
                                     .old_epoch = number,
                                     .old_master_id = {1, (uint8_t)number},
                                     .new_master_id = {2, (uint8_t)number},
                                     .created_ns = 4,
                                     .document = document,
                                     .document_len = sizeof document - 1,
                                     .signature = {5, 6},
                                     .signature_len = 70,
                                     .state = KMS_BATCH_INTENT};
}

struct kms_tombstone_record sample_tombstone(unsigned tenant, unsigned customer, const char *purpose)
{
    struct kms_tombstone_record tombstone = {.tenant = sample_tenant(tenant).uuid,
                                             .customer = sample_customer(tenant, customer).uuid,
                                             .id_mac = {3, (uint8_t)customer},
                                             .epoch = 4,
                                             .batch = sample_uuid(5, 1),
                                             .created_ns = 5};
    (void)snprintf(tombstone.purpose, sizeof tombstone.purpose, "%s", purpose);
    return tombstone;
}

/* Of the 40 customers one loses a version, one everything; another one gets a slot that became free. */
static void shred_a_bit(struct kms_store *store)
{
    struct kms_error err = {0};
    const struct kms_store_rekey_ops *ops = &store->ops->rekey;
    struct kms_txn txn = begin_write(store);
    struct kms_batch_record batch = sample_batch(1, 1);
    const struct kms_uuid gone = sample_customer(1, 32).uuid;
    assert_ok(ops->batch_insert(txn.txn, &batch, &err));
    assert_ok(ops->kek_shred(txn.txn, sample_kek(1, 31, "service", 1).kek_id, &err));
    assert_ok(ops->customer_remove(txn.txn, &gone, &err));
    assert_ok(ops->kek_add_rewrapped(txn.txn, sample_kek(1, 33, "service", 1).kek_id, 44, &err));
    struct kms_tombstone_record tombstone = sample_tombstone(1, 32, "");
    assert_ok(ops->tombstone_put(txn.txn, &tombstone, &err));
    batch.state = KMS_BATCH_SEALED;
    batch.pages = 6;
    assert_ok(ops->batch_update(txn.txn, &batch, &err));
    assert_ok(ops->free_slot_take(txn.txn, &batch.tenant, sample_kek(1, 31, "service", 1).slot, &err));
    commit(&txn);
}

void write_a_bit_of_everything(struct kms_store *store)
{
    struct kms_error err = {0};
    fill(store, 40);
    write_operations(store);
    write_policies(store);
    write_recovery(store);
    struct kms_txn txn = begin_write(store);
    struct kms_tenant_record tenant = sample_tenant(1);
    tenant.next_slot = 41;
    assert_ok(store->ops->tenant_update(txn.txn, &tenant, &err));
    struct kms_purpose_record purpose = sample_purpose(1, "service");
    purpose.revision = 9;
    assert_ok(store->ops->purpose_update(txn.txn, &purpose, &err));
    struct kms_customer_record customer = sample_customer(1, 3);
    customer.state = KMS_CUSTOMER_CLOSED;
    assert_ok(store->ops->customer_update(txn.txn, &customer, &err));
    for (uint64_t i = 0; i < 3; i++) {
        const struct kms_page_record page = sample_page(1, (uint32_t)i, i);
        assert_ok(store->ops->page_put(txn.txn, &page, &err));
    }
    struct kms_page_record page = sample_page(1, 0, 0);
    page.body_len = 5;
    assert_ok(store->ops->page_put(txn.txn, &page, &err));
    const struct kms_request_record request = sample_request(1);
    assert_ok(store->ops->request_put(txn.txn, &request, &err));
    commit(&txn);
    txn = begin_write(store);
    for (unsigned i = 1; i <= 30; i++) {
        const struct kms_kek_record kek = sample_kek(1, i, "service", 1);
        uint64_t first = 0;
        assert_ok(store->ops->kek_reserve(txn.txn, kek.kek_id, i, &first, &err));
        assert_ok(store->ops->kek_reserve(txn.txn, kek.kek_id, 65536, &first, &err));
        if (i % 3 == 0)
            assert_ok(store->ops->kek_set_state(txn.txn, kek.kek_id, KMS_KEK_SHREDDED, &err));
    }
    write_of_shredding(store, &txn);
    commit(&txn);
    shred_a_bit(store);
}

void replay_log(const char *from, struct kms_store *to)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *stmt = NULL;
    assert_int_equal(sqlite3_open(from, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(db, "SELECT seq, kind, payload FROM change_log ORDER BY seq", -1, &stmt, NULL),
        SQLITE_OK);
    struct kms_txn txn = begin_write(to);
    int rc;
    for (int64_t seq = 1; (rc = sqlite3_step(stmt)) == SQLITE_ROW; seq++) {
        assert_int_equal(sqlite3_column_int64(stmt, 0), seq);
        const struct kms_slice payload =
            kms_slice_of(sqlite3_column_blob(stmt, 2), (size_t)sqlite3_column_bytes(stmt, 2));
        struct kms_change change = {0};
        struct kms_error err = {0};
        assert_ok(kms_changelog_decode(payload, &change, &err));
        assert_int_equal(change.kind, sqlite3_column_int(stmt, 1));
        assert_ok(kms_store_apply(to, txn.txn, &change, &err));
        kms_change_clear(&change);
    }
    assert_int_equal(rc, SQLITE_DONE);
    commit(&txn);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Each prints one text column for each row. */
static const char *const dumps[] = {
    "SELECT 'tenant '||hex(uuid)||' '||id||' '||display_name||' '||state||' '||epoch||' "
    "'||hex(master_id)||' "
    "'||"
    "hex(root_blob)||' '||height||' '||next_slot||' '||revision||' '||created_ns||' '||updated_ns "
    "FROM tenant ORDER BY uuid",
    "SELECT 'purpose '||hex(t.uuid)||' '||p.id||' '||p.display_name||' '||legal_basis||' '||p.state||' "
    "'||"
    "required_by_law||' '||retention_seconds||' '||rotation_seconds||' '||p.revision||' "
    "'||p.created_ns||' "
    "'||"
    "p.updated_ns FROM purpose p JOIN tenant t ON t.no = p.tenant_no ORDER BY t.uuid, p.id",
    "SELECT 'customer '||hex(c.uuid)||' '||hex(t.uuid)||' '||c.id||' '||labels||' '||c.state||' "
    "'||c.revision"
    "||' '||c.created_ns||' '||c.updated_ns FROM customer c JOIN tenant t ON t.no = c.tenant_no "
    "ORDER BY c.uuid",
    "SELECT 'kek '||hex(kek_id)||' '||hex(t.uuid)||' '||hex(c.uuid)||' '||purpose||' '||version||' "
    "'||slot||' '"
    "||k.state||' '||wraps_reserved||' '||k.created_ns||' '||rewrapped FROM kek k JOIN tenant t ON t.no = "
    "k.tenant_no "
    "JOIN customer c ON c.no = k.customer_no ORDER BY kek_id",
    "SELECT 'page '||hex(t.uuid)||' '||level||' '||page_index||' '||hex(mac)||' '||hex(body) "
    "FROM tree_page p JOIN tenant t ON t.no = p.tenant_no ORDER BY t.uuid, level, page_index",
    "SELECT 'request '||identity||' '||request_id||' '||hex(request_hash)||' '||created_ns FROM request "
    "ORDER BY identity, request_id",
    "SELECT 'operation '||hex(uuid)||' '||kind||' '||tenant||' '||requester||' '||hex(digest)||' "
    "'||approvals_needed||' '"
    "||policy_generation||' '||created_ns||' '||expires_ns||' '||state||' '||attempts||' '||done||' "
    "'||total||' '"
    "||not_before_ns||' '||started_ns||' '||finished_ns||' '||ended_by||' '||reason||' '||result||' "
    "'||hex(document) "
    "FROM operation ORDER BY uuid",
    "SELECT 'approval '||hex(o.uuid)||' '||person||' '||identity||' '||certificate||' "
    "'||hex(signature)||' "
    "'||time_ns "
    "FROM approval a JOIN operation o ON o.no = a.operation_no ORDER BY o.uuid, person",
    "SELECT 'shred_job '||hex(j.uid)||' '||hex(t.uuid)||' '||origin||' '||j.state||' '||purpose||' "
    "'||version||' '||"
    "requested_by||' '||reason||' '||requested_ns||' '||window_seconds||' '||due_ns||' "
    "'||hex(operation)||' "
    "'||"
    "hex(list_hash) FROM shred_job j JOIN tenant t ON t.no = j.tenant_no ORDER BY j.uid",
    "SELECT 'shred_target '||hex(j.uid)||' '||hex(customer)||' '||s.state||' '||hex(batch)||' "
    "'||changed_ns||' '||"
    "s.reason FROM shred_target s JOIN shred_job j ON j.no = s.job_no ORDER BY j.uid, customer",
    "SELECT 'hold '||hex(h.uid)||' '||hex(t.uuid)||' '||hex(customer)||' '||reference||' '||reason||' "
    "'||placed_by||' "
    "'||placed_ns||' '||released_by||' '||released_ns FROM hold h JOIN tenant t ON t.no = h.tenant_no "
    "ORDER "
    "BY h.uid",
    "SELECT 'certificate '||hex(c.uid)||' '||hex(t.uuid)||' '||hex(batch)||' '||kind||' "
    "'||c.created_ns||' "
    "'||"
    "hex(document)||' '||hex(signature) FROM certificate c JOIN tenant t ON t.no = c.tenant_no ORDER BY "
    "c.uid",
    "SELECT 'shred_setting '||hex(t.uuid)||' '||window_seconds||' '||shred_closed FROM shred_setting s "
    "JOIN tenant t ON t.no = s.tenant_no ORDER BY t.uuid",
    "SELECT 'retention '||hex(customer)||' '||purpose||' '||hex(t.uuid)||' '||due_ns FROM retention r "
    "JOIN tenant t ON t.no = r.tenant_no ORDER BY customer, purpose",
    "SELECT 'shred_clock '||trusted_ns||' '||boot_ns||' '||boot_id FROM shred_clock",
    "SELECT 'batch '||hex(b.uuid)||' '||hex(t.uuid)||' '||kind||' '||reference||' '||old_epoch||' "
    "'||hex(old_master_id)"
    "||' '||hex(new_master_id)||' '||b.created_ns||' '||hex(document)||' '||hex(signature)||' '||b.state||' "
    "'||pages"
    "||' '||keys_rewrapped||' '||keys_shredded||' '||customers||' '||hex(pages_digest)||' '||committed_ns||' "
    "'||sealed_ns "
    "FROM rekey_batch b JOIN tenant t ON t.no = b.tenant_no ORDER BY b.uuid",
    "SELECT 'tombstone '||hex(t.uuid)||' '||hex(customer)||' '||purpose||' '||version||' '||hex(id_mac)||' "
    "'||s.epoch"
    "||' '||hex(batch)||' '||s.created_ns FROM tombstone s JOIN tenant t ON t.no = s.tenant_no "
    "ORDER BY customer, purpose, version",
    "SELECT 'free slot '||hex(t.uuid)||' '||slot FROM free_slot f JOIN tenant t ON t.no = f.tenant_no "
    "ORDER BY t.uuid, slot",
    "SELECT 'policy '||version||' '||hex(sha256)||' '||identity||' '||operation||' '||comment||' "
    "'||created_ns||' '||"
    "hex(document) FROM policy ORDER BY version",
    "SELECT 'freeze '||scope||' '||tenant||' '||name||' '||reason||' '||identity||' '||created_ns FROM "
    "freeze "
    "ORDER BY scope, tenant, name",
    "SELECT 'recovery_key '||epoch||' '||fingerprint||' '||state||' '||enrolled_ns||' '||enrolled_by||' "
    "'||hex(enroll_operation)||' '||hex(retire_operation)||' '||retired_ns||' '||retired_by||' "
    "'||statement||' "
    "'||object_left||' '||drill_ns||' '||drill_took_ns||' '||drill_by||' '||drill_customers FROM "
    "recovery_key "
    "ORDER BY epoch",
    "SELECT 'recovery_cover '||recovery_epoch||' '||hex(t.uuid)||' '||first_epoch FROM recovery_cover c "
    "JOIN tenant t ON t.no = c.tenant_no ORDER BY recovery_epoch, t.uuid",
};

/* Append the first column of all rows to `out`, one a line; returns the number of rows. */
static int append_rows(sqlite3 *db, const char *sql, struct kms_buf *out)
{
    sqlite3_stmt *stmt = NULL;
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    int rows = 0;
    int rc;
    for (; (rc = sqlite3_step(stmt)) == SQLITE_ROW; rows++)
        assert_ok(kms_buf_printf(out, "%s\n", (const char *)sqlite3_column_text(stmt, 0)));
    assert_int_equal(rc, SQLITE_DONE);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    return rows;
}

char *dump_tables(const char *path)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    struct kms_buf out = {0};
    assert_int_equal(append_rows(db, "PRAGMA integrity_check", &out), 1);
    assert_memory_equal(out.data, "ok\n", 3);
    out.len = 0;
    assert_int_equal(append_rows(db, "PRAGMA foreign_key_check", &out), 0);
    for (size_t i = 0; i < sizeof dumps / sizeof dumps[0]; i++)
        (void)append_rows(db, dumps[i], &out);
    assert_ok(kms_buf_append(&out, "", 1));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return (char *)out.data;
}

void assert_log_matches_tables(const char *path)
{
    struct fixture rebuilt = {0};
    (void)snprintf(rebuilt.path, sizeof rebuilt.path, "%s-rebuilt", path);
    fixture_open(&rebuilt);
    replay_log(path, rebuilt.store);
    fixture_close(&rebuilt);
    char *wanted = dump_tables(path);
    char *found = dump_tables(rebuilt.path);
    assert_string_equal(found, wanted);
    free(wanted);
    free(found);
    (void)unlink(rebuilt.path);
    (void)unlink(fixture_file(&rebuilt, ".lock"));
}
