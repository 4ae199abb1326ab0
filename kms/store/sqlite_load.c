/* Customers and KEKs by the thousand: out as a snapshot, and in with one statement for each table. */
#include "store/changelog_rekey.h"
#include "store/query.h"
#include "store/record.h"
#include "store/snapshot.h"
#include "store/sqlite_error.h"
#include "store/sqlite_load.h"
#include "store/sqlite_rekey.h"

/*
 * A statement for each row costs about as much as the row. So the rows are shown to SQLite as a virtual table each, and one
 * INSERT ... SELECT takes them all.
 */
struct kms_sqlite_rows {
    const struct kms_change *list; /* of the load under way */
    size_t count;
    struct {
        int64_t tenant_no, customer_no;
    } numbers[KMS_STORE_LOAD_MAX]; /* of each of them */
};

typedef void (*show_column)(sqlite3_context *out, const struct kms_sqlite_rows *rows, size_t at, int column);

/* One of the two virtual tables. */
struct source {
    const char *name, *declaration;
    enum kms_change_kind kind;
    show_column show;
    struct kms_sqlite_rows *rows;
};

struct table {
    sqlite3_vtab base; /* first, as SQLite wants it */
    const struct source *source;
};

struct cursor {
    sqlite3_vtab_cursor base; /* first */
    const struct source *source;
    size_t at;
};

static const struct cursor *cursor_of(const sqlite3_vtab_cursor *base)
{
    return (const struct cursor *)(const void *)base;
}

static int table_connect(sqlite3 *db, void *context, int count, const char *const *arguments,
                         sqlite3_vtab **ret_table, char **ret_error)
{
    (void)count, (void)arguments, (void)ret_error;
    const struct source *source = context;
    struct table *table = sqlite3_malloc(sizeof *table);
    if (table == NULL)
        return SQLITE_NOMEM;
    *table = (struct table){.source = source};
    const int rc = sqlite3_declare_vtab(db, source->declaration);
    if (rc != SQLITE_OK) {
        sqlite3_free(table);
        return rc;
    }
    *ret_table = &table->base;
    return SQLITE_OK;
}

static int table_disconnect(sqlite3_vtab *table)
{
    sqlite3_free(table);
    return SQLITE_OK;
}

/* There is one way through it. */
static int table_plan(sqlite3_vtab *table, sqlite3_index_info *info)
{
    (void)table;
    info->estimatedRows = KMS_STORE_LOAD_MAX;
    return SQLITE_OK;
}

static int cursor_open(sqlite3_vtab *base, sqlite3_vtab_cursor **ret_cursor)
{
    struct cursor *cursor = sqlite3_malloc(sizeof *cursor);
    if (cursor == NULL)
        return SQLITE_NOMEM;
    *cursor = (struct cursor){.source = ((struct table *)(void *)base)->source};
    *ret_cursor = &cursor->base;
    return SQLITE_OK;
}

static int cursor_close(sqlite3_vtab_cursor *cursor)
{
    sqlite3_free(cursor);
    return SQLITE_OK;
}

/* Pass over what belongs to the other table. */
static int settle_on_row(struct cursor *cursor)
{
    const struct kms_sqlite_rows *rows = cursor->source->rows;
    while (cursor->at < rows->count && rows->list[cursor->at].kind != cursor->source->kind)
        cursor->at++;
    return SQLITE_OK;
}

static int cursor_rewind(sqlite3_vtab_cursor *base, int plan, const char *text, int count,
                         sqlite3_value **values)
{
    (void)plan, (void)text, (void)count, (void)values;
    struct cursor *cursor = (struct cursor *)(void *)base;
    cursor->at = 0;
    return settle_on_row(cursor);
}

static int cursor_next(sqlite3_vtab_cursor *base)
{
    struct cursor *cursor = (struct cursor *)(void *)base;
    cursor->at++;
    return settle_on_row(cursor);
}

static int cursor_at_end(sqlite3_vtab_cursor *base)
{
    const struct cursor *cursor = cursor_of(base);
    return cursor->at >= cursor->source->rows->count;
}

static int cursor_column(sqlite3_vtab_cursor *base, sqlite3_context *out, int column)
{
    const struct cursor *cursor = cursor_of(base);
    cursor->source->show(out, cursor->source->rows, cursor->at, column);
    return SQLITE_OK;
}

static int cursor_row_id(sqlite3_vtab_cursor *base, sqlite3_int64 *ret_id)
{
    *ret_id = (sqlite3_int64)cursor_of(base)->at;
    return SQLITE_OK;
}

static void show_text(sqlite3_context *out, const char *text)
{
    sqlite3_result_text(out, text, -1, SQLITE_STATIC);
}

/* Columns as `customer_source` declares them. */
static void show_customer(sqlite3_context *out, const struct kms_sqlite_rows *rows, size_t at, int column)
{
    const struct kms_customer_record *customer = &rows->list[at].customer;
    switch (column) {
    case 0:
        sqlite3_result_int64(out, rows->numbers[at].customer_no);
        return;
    case 1:
        sqlite3_result_blob(out, customer->uuid.bytes, KMS_UUID_SIZE, SQLITE_STATIC);
        return;
    case 2:
        sqlite3_result_int64(out, rows->numbers[at].tenant_no);
        return;
    case 3:
        show_text(out, customer->id);
        return;
    case 4:
        show_text(out, customer->labels);
        return;
    case 5:
        sqlite3_result_int64(out, customer->state);
        return;
    case 6:
        sqlite3_result_int64(out, (sqlite3_int64)customer->revision);
        return;
    case 7:
        sqlite3_result_int64(out, customer->created_ns);
        return;
    default:
        sqlite3_result_int64(out, customer->updated_ns);
    }
}

/* Columns as `kek_source` declares them. */
static void show_kek(sqlite3_context *out, const struct kms_sqlite_rows *rows, size_t at, int column)
{
    const struct kms_kek_record *kek = &rows->list[at].kek;
    switch (column) {
    case 0:
        sqlite3_result_int64(out, rows->numbers[at].customer_no);
        return;
    case 1:
        show_text(out, kek->purpose);
        return;
    case 2:
        sqlite3_result_int64(out, kek->version);
        return;
    case 3:
        sqlite3_result_blob(out, kek->kek_id, KMS_KEK_ID_SIZE, SQLITE_STATIC);
        return;
    case 4:
        sqlite3_result_int64(out, rows->numbers[at].tenant_no);
        return;
    case 5:
        sqlite3_result_int64(out, (sqlite3_int64)kek->slot);
        return;
    case 6:
        sqlite3_result_int64(out, kek->state);
        return;
    case 7:
        sqlite3_result_int64(out, (sqlite3_int64)kek->wraps_reserved);
        return;
    case 8:
        sqlite3_result_int64(out, kek->created_ns);
        return;
    default:
        sqlite3_result_int64(out, (sqlite3_int64)kek->rewrapped);
    }
}

static const sqlite3_module module = {
    .xConnect = table_connect,
    .xDisconnect = table_disconnect,
    .xBestIndex = table_plan,
    .xOpen = cursor_open,
    .xClose = cursor_close,
    .xFilter = cursor_rewind,
    .xNext = cursor_next,
    .xEof = cursor_at_end,
    .xColumn = cursor_column,
    .xRowid = cursor_row_id,
};

static const struct source customer_source = {
    .name = "loaded_customer",
    .declaration =
        "CREATE TABLE x (no, uuid, tenant_no, id, labels, state, revision, created_ns, updated_ns)",
    .kind = KMS_CHANGE_CUSTOMER,
    .show = show_customer,
};
static const char customer_insert[] = "INSERT OR ROLLBACK INTO customer (no, uuid, tenant_no, id, labels, "
                                      "state, revision, created_ns, updated_ns) "
                                      "SELECT no, uuid, tenant_no, id, labels, state, revision, created_ns, "
                                      "updated_ns FROM loaded_customer";

static const struct source kek_source = {
    .name = "loaded_kek",
    .declaration = "CREATE TABLE x (customer_no, purpose, version, kek_id, tenant_no, slot, state, wraps, "
                   "created_ns, rewrapped)",
    .kind = KMS_CHANGE_KEK,
    .show = show_kek,
};
static const char kek_insert[] =
    "INSERT OR ROLLBACK INTO kek (customer_no, purpose, version, kek_id, tenant_no, slot, state, "
    "wraps_reserved, created_ns, "
    "rewrapped) SELECT customer_no, purpose, version, kek_id, tenant_no, slot, state, wraps + " KMS_WRAPS_BIAS
    ", created_ns, rewrapped FROM loaded_kek";

/* SQLite frees the source with the connection. */
static enum kms_status make_table(sqlite3 *db, const struct source *model, struct kms_sqlite_rows *rows,
                                  struct kms_error *err)
{
    struct source *source = sqlite3_malloc(sizeof *source);
    if (source == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to load records");
    *source = *model;
    source->rows = rows;
    const int rc = sqlite3_create_module_v2(db, source->name, &module, source, sqlite3_free);
    return rc == SQLITE_OK ? KMS_OK : kms_sqlite_error(db, rc, "preparing to load records", err);
}

enum kms_status kms_sqlite_rows_new(sqlite3 *db, struct kms_sqlite_rows **ret_rows, struct kms_error *err)
{
    struct kms_sqlite_rows *rows = calloc(1, sizeof *rows);
    if (rows == NULL)
        return kms_fail(err, KMS_NO_MEMORY, "no memory to load records");
    enum kms_status status = make_table(db, &customer_source, rows, err);
    if (status == KMS_OK)
        status = make_table(db, &kek_source, rows, err);
    if (status != KMS_OK) {
        free(rows);
        return status;
    }
    *ret_rows = rows;
    return KMS_OK;
}

/* The number that the next customer gets. */
static enum kms_status next_customer_no(struct kms_store_txn *txn, int64_t *ret_no, struct kms_error *err)
{
    KMS_QUERY query = kms_query_of(txn, KMS_STATEMENT_CUSTOMER_NEXT_NO);
    KMS_TRY(kms_query_row(&query, err));
    *ret_no = kms_query_take_i64(&query);
    return kms_query_row_ok(&query, NULL, err);
}

/* Whose the rows are; customers are numbered on from the last one. */
static enum kms_status number_customers(struct kms_store_txn *txn, struct kms_sqlite_rows *rows,
                                        struct kms_error *err)
{
    int64_t next = 0;
    KMS_TRY(next_customer_no(txn, &next, err));
    for (size_t i = 0; i < rows->count; i++) {
        const struct kms_change *change = &rows->list[i];
        const bool is_kek = change->kind == KMS_CHANGE_KEK;
        KMS_ASSERT(is_kek || change->kind == KMS_CHANGE_CUSTOMER);
        const char *problem =
            is_kek ? kms_record_kek_problem(&change->kek) : kms_record_customer_problem(&change->customer);
        if (problem != NULL)
            return kms_fail(err, KMS_INVALID_ARGUMENT, "%s", problem);
        KMS_TRY(kms_sqlite_tenant_no(txn, is_kek ? &change->kek.tenant : &change->customer.tenant,
                                     &rows->numbers[i].tenant_no, err));
        rows->numbers[i].customer_no = is_kek ? 0 : next++;
    }
    return KMS_OK;
}

/* With the customers in their table. In the order of a snapshot a KEK's customer stands just before it and is not looked up. */
static enum kms_status number_keks(struct kms_store_txn *txn, struct kms_sqlite_rows *rows,
                                   struct kms_error *err)
{
    for (size_t i = 0; i < rows->count; i++) {
        const struct kms_change *change = &rows->list[i];
        int64_t *no = &rows->numbers[i].customer_no;
        if (change->kind == KMS_CHANGE_CUSTOMER)
            txn->customer = (struct kms_sqlite_memo){true, change->customer.uuid, *no};
        else
            KMS_TRY(kms_sqlite_customer_no(txn, &change->kek.customer, no, err));
    }
    return KMS_OK;
}

/*
 * Every row of a virtual table. A statement that may fail in its middle keeps a copy of every page that it touches, which costs
 * more than the rows: these end the transaction instead, and what refers to nothing is looked for at the commit.
 */
static enum kms_status insert_all(struct kms_store_txn *txn, const char *sql, struct kms_error *err)
{
    sqlite3 *db = txn->conn->db;
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    enum kms_status status = KMS_OK;
    if (rc != SQLITE_DONE) {
        status = kms_sqlite_constraint(rc);
        status = status != KMS_OK ? kms_fail(err, status, "loading: %s", sqlite3_errmsg(db))
                                  : kms_sqlite_error(db, rc, "loading records", err);
        txn->failed = status;
    }
    (void)sqlite3_finalize(stmt);
    return status;
}

enum kms_status kms_sqlite_changes_load(struct kms_store_txn *txn, const struct kms_change *list,
                                        size_t count, struct kms_error *err)
{
    struct kms_sqlite_rows *rows = txn->store->rows;
    KMS_ASSERT(rows != NULL && txn->silent && count <= KMS_STORE_LOAD_MAX);
    rows->list = list;
    rows->count = count;
    enum kms_status status = number_customers(txn, rows, err);
    if (status == KMS_OK)
        status = insert_all(txn, customer_insert, err);
    if (status == KMS_OK)
        status = number_keks(txn, rows, err);
    if (status == KMS_OK)
        status = insert_all(txn, kek_insert, err);
    rows->list = NULL;
    rows->count = 0;
    return status;
}

/* STORE_CORRUPT with the text of the first column when the query finds anything. */
static enum kms_status find_nothing(struct kms_store_txn *txn, const char *sql, const char *what,
                                    struct kms_error *err)
{
    sqlite3 *db = txn->conn->db;
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    enum kms_status status = KMS_OK;
    if (rc == SQLITE_ROW)
        status = kms_fail(err, KMS_STORE_CORRUPT, "%s %s", (const char *)sqlite3_column_text(stmt, 0), what);
    else if (rc != SQLITE_DONE)
        status = kms_sqlite_error(db, rc, "checking a draft", err);
    (void)sqlite3_finalize(stmt);
    return status;
}

enum kms_status kms_sqlite_draft_check(struct kms_store_txn *txn, struct kms_error *err)
{
    KMS_TRY(find_nothing(txn, "PRAGMA foreign_key_check", "has a row that refers to nothing", err));
    return find_nothing(txn, "SELECT id FROM customer WHERE NOT json_valid(labels) LIMIT 1",
                        "has labels that are not JSON", err);
}

/* The next row of a statement over KEKs; `*ret_more` is false behind the last one. */
static enum kms_status next_kek(struct kms_query *keks, struct kms_kek_record *kek, bool *ret_more,
                                struct kms_error *err)
{
    const enum kms_status status = kms_query_row(keks, err);
    *ret_more = status == KMS_OK;
    if (status == KMS_NOT_FOUND)
        return KMS_OK;
    return status == KMS_OK ? kms_sqlite_kek_take(keks, kek, err) : status;
}

/* A KEK, and its counter of rewraps when it counts anything: a KEK's own record has none. */
static enum kms_status give_kek(struct kms_snapshot *snapshot, const struct kms_kek_record *kek,
                                struct kms_error *err)
{
    KMS_TRY(kms_snapshot_give(snapshot, kms_changelog_kek(kek, kms_snapshot_payload(snapshot)), err));
    if (kek->rewrapped == 0)
        return KMS_OK;
    struct kms_change_rewrapped change = {.rewrapped = kek->rewrapped};
    memcpy(change.kek_id, kek->kek_id, sizeof change.kek_id);
    return kms_snapshot_give(snapshot, kms_changelog_rewrapped(&change, kms_snapshot_payload(snapshot)), err);
}

enum kms_status kms_sqlite_customer_snapshot(struct kms_store_txn *txn, struct kms_snapshot *snapshot,
                                             struct kms_error *err)
{
    KMS_QUERY customers = kms_query_of(txn, KMS_STATEMENT_CUSTOMER_ALL);
    KMS_QUERY keks = kms_query_of(txn, KMS_STATEMENT_KEK_ALL);
    struct kms_kek_record kek;
    bool more = false;
    KMS_TRY(next_kek(&keks, &kek, &more, err));
    for (;;) {
        const enum kms_status status = kms_query_row(&customers, err);
        if (status == KMS_NOT_FOUND)
            break;
        KMS_TRY(status);
        KMS_CLEANUP(kms_customer_record_clear) struct kms_customer_record customer = {0};
        KMS_TRY(kms_sqlite_customer_take(&customers, &customer, err));
        KMS_TRY(kms_snapshot_give(snapshot, kms_changelog_customer(&customer, kms_snapshot_payload(snapshot)),
                                  err));
        while (more && kms_uuid_equal(&kek.customer, &customer.uuid)) {
            KMS_TRY(give_kek(snapshot, &kek, err));
            KMS_TRY(next_kek(&keks, &kek, &more, err));
        }
    }
    return more ? kms_query_row_ok(&keks, "customer: not there", err) : KMS_OK;
}
