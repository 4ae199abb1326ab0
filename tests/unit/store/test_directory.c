/* Goal: tenants, purposes, customers and request ids are kept, found, listed and refused as store.h says. */
#include "support.h"

#include "core/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct kms_error err;

static struct kms_store *store_of(void **state)
{
    return ((struct fixture *)*state)->store;
}

static void a_tenant_is_found_by_id_and_by_uuid(void **state)
{
    struct kms_store *store = store_of(state);
    const struct kms_tenant_record tenant = sample_tenant(1);
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->tenant_insert(txn.txn, &tenant, &err));
    commit(&txn);
    txn = begin_read(store);
    struct kms_tenant_record found;
    memset(&found, 0xee, sizeof found);
    assert_ok(store->ops->tenant_by_id(txn.txn, tenant.id, &found, &err));
    assert_same(tenant, &found, &tenant);
    memset(&found, 0xee, sizeof found);
    assert_ok(store->ops->tenant_by_uuid(txn.txn, &tenant.uuid, &found, &err));
    assert_same(tenant, &found, &tenant);
    const struct kms_uuid other = sample_uuid(1, 2);
    assert_status(KMS_NOT_FOUND, store->ops->tenant_by_id(txn.txn, "tenant-000", &found, &err));
    assert_status(KMS_NOT_FOUND, store->ops->tenant_by_id(txn.txn, "", &found, &err));
    assert_status(KMS_NOT_FOUND, store->ops->tenant_by_uuid(txn.txn, &other, &found, &err));
    assert_same(tenant, &found, &tenant); /* outputs are written only on success */
    kms_txn_clear(&txn);
}

static void a_taken_tenant_id_or_uuid_is_refused_and_the_transaction_goes_on(void **state)
{
    struct kms_store *store = store_of(state);
    struct kms_txn txn = begin_write(store);
    struct kms_tenant_record tenant = sample_tenant(1);
    assert_ok(store->ops->tenant_insert(txn.txn, &tenant, &err));
    tenant.uuid = sample_uuid(1, 50);
    assert_status(KMS_ALREADY_EXISTS, store->ops->tenant_insert(txn.txn, &tenant, &err));
    tenant = sample_tenant(1);
    (void)strcpy(tenant.id, "another");
    assert_status(KMS_ALREADY_EXISTS, store->ops->tenant_insert(txn.txn, &tenant, &err));
    tenant = sample_tenant(2);
    assert_ok(store->ops->tenant_insert(txn.txn, &tenant, &err));
    commit(&txn);
    txn = begin_read(store);
    assert_ok(store->ops->tenant_by_id(txn.txn, "tenant-0002", &tenant, &err));
    assert_status(KMS_NOT_FOUND, store->ops->tenant_by_id(txn.txn, "another", &tenant, &err));
    kms_txn_clear(&txn);
}

static void a_tenant_is_updated_by_uuid(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    struct kms_txn txn = begin_write(store);
    struct kms_tenant_record tenant = sample_tenant(1);
    tenant.next_slot = 4711;
    tenant.state = KMS_TENANT_CLOSED;
    memset(tenant.root_blob, 0x77, sizeof tenant.root_blob);
    assert_ok(store->ops->tenant_update(txn.txn, &tenant, &err));
    struct kms_tenant_record missing = sample_tenant(9);
    assert_status(KMS_NOT_FOUND, store->ops->tenant_update(txn.txn, &missing, &err));
    commit(&txn);
    txn = begin_read(store);
    struct kms_tenant_record found;
    assert_ok(store->ops->tenant_by_id(txn.txn, tenant.id, &found, &err));
    assert_same(tenant, &found, &tenant);
    kms_txn_clear(&txn);
}

static void tenants_out_of_limits_are_refused(void **state)
{
    struct kms_store *store = store_of(state);
    struct kms_txn txn = begin_write(store);
    struct kms_tenant_record tenant = sample_tenant(1);
    tenant.id[0] = '\0';
    assert_status(KMS_INVALID_ARGUMENT, store->ops->tenant_insert(txn.txn, &tenant, &err));
    tenant = sample_tenant(1);
    memset(tenant.id, 'x', sizeof tenant.id); /* not terminated */
    assert_status(KMS_INVALID_ARGUMENT, store->ops->tenant_insert(txn.txn, &tenant, &err));
    tenant = sample_tenant(1);
    tenant.epoch = UINT64_MAX;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->tenant_insert(txn.txn, &tenant, &err));
    tenant = sample_tenant(1);
    tenant.state = 9;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->tenant_insert(txn.txn, &tenant, &err));
    tenant = sample_tenant(1);
    tenant.height = 17;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->tenant_insert(txn.txn, &tenant, &err));
    tenant = sample_tenant(1);
    (void)strcpy(tenant.display_name, "\xff\xfe");
    assert_status(KMS_INVALID_ARGUMENT, store->ops->tenant_update(txn.txn, &tenant, &err));
    kms_txn_clear(&txn);
}

static void tenants_are_listed_in_order_page_by_page(void **state)
{
    struct kms_store *store = store_of(state);
    struct kms_txn txn = begin_write(store);
    for (unsigned i = 25; i > 0; i--) {
        const struct kms_tenant_record tenant = sample_tenant(i);
        assert_ok(store->ops->tenant_insert(txn.txn, &tenant, &err));
    }
    commit(&txn);
    txn = begin_read(store);
    char after[64] = "";
    unsigned seen = 0;
    for (size_t count = 1; count > 0;) {
        struct kms_tenant_record *list = NULL;
        assert_ok(store->ops->tenant_list(txn.txn, seen == 0 ? NULL : after, 10, &list, &count, &err));
        for (size_t i = 0; i < count; i++) {
            const struct kms_tenant_record wanted = sample_tenant(++seen);
            assert_same(tenant, &list[i], &wanted);
            (void)strcpy(after, list[i].id);
        }
        free(list);
    }
    assert_int_equal(seen, 25);
    struct kms_tenant_record *list = NULL;
    size_t count = 1;
    assert_ok(store->ops->tenant_list(txn.txn, NULL, 0, &list, &count, &err));
    assert_int_equal(count, 0);
    assert_null(list);
    assert_ok(store->ops->tenant_list(txn.txn, NULL, SIZE_MAX, &list, &count, &err));
    assert_int_equal(count, 25);
    free(list);
    kms_txn_clear(&txn);
}

static void purposes_belong_to_their_tenant(void **state)
{
    struct kms_store *store = store_of(state);
    struct kms_txn txn = begin_write(store);
    for (unsigned i = 1; i <= 2; i++) {
        const struct kms_tenant_record tenant = sample_tenant(i);
        assert_ok(store->ops->tenant_insert(txn.txn, &tenant, &err));
    }
    struct kms_purpose_record purpose = sample_purpose(1, "service");
    assert_ok(store->ops->purpose_insert(txn.txn, &purpose, &err));
    assert_status(KMS_ALREADY_EXISTS, store->ops->purpose_insert(txn.txn, &purpose, &err));
    const struct kms_purpose_record orphan = sample_purpose(3, "service");
    assert_status(KMS_NOT_FOUND, store->ops->purpose_insert(txn.txn, &orphan, &err));
    struct kms_purpose_record found;
    const struct kms_uuid other = sample_uuid(1, 2);
    const struct kms_uuid nobody = sample_uuid(1, 3);
    assert_status(KMS_NOT_FOUND, store->ops->purpose_get(txn.txn, &other, "service", &found, &err));
    assert_status(KMS_NOT_FOUND, store->ops->purpose_get(txn.txn, &nobody, "service", &found, &err));
    memset(&found, 0xee, sizeof found);
    assert_ok(store->ops->purpose_get(txn.txn, &purpose.tenant, "service", &found, &err));
    assert_same(purpose, &found, &purpose);
    commit(&txn);
}

static void a_purpose_is_updated_by_tenant_and_id(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 0);
    struct kms_txn txn = begin_write(store);
    struct kms_purpose_record purpose = sample_purpose(1, "service");
    purpose.required_by_law = false;
    purpose.state = KMS_PURPOSE_CLOSED;
    purpose.retention_seconds = 0;
    assert_ok(store->ops->purpose_update(txn.txn, &purpose, &err));
    struct kms_purpose_record found;
    assert_ok(store->ops->purpose_get(txn.txn, &purpose.tenant, "service", &found, &err));
    assert_same(purpose, &found, &purpose);
    purpose = sample_purpose(1, "kyc");
    assert_status(KMS_NOT_FOUND, store->ops->purpose_update(txn.txn, &purpose, &err));
    purpose = sample_purpose(1, "service");
    purpose.rotation_seconds = -1;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->purpose_update(txn.txn, &purpose, &err));
    commit(&txn);
}

static void purposes_are_listed_in_order(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 0);
    struct kms_txn txn = begin_write(store);
    for (const char *const *id = (const char *const[]){"zeta", "kyc", "marketing", NULL}; *id != NULL; id++) {
        const struct kms_purpose_record purpose = sample_purpose(1, *id);
        assert_ok(store->ops->purpose_insert(txn.txn, &purpose, &err));
    }
    const struct kms_uuid tenant = sample_uuid(1, 1);
    struct kms_purpose_record *list = NULL;
    size_t count = 0;
    assert_ok(store->ops->purpose_list(txn.txn, &tenant, "kyc", 2, &list, &count, &err));
    assert_int_equal(count, 2);
    assert_string_equal(list[0].id, "marketing");
    assert_string_equal(list[1].id, "service");
    free(list);
    const struct kms_uuid nobody = sample_uuid(1, 3);
    list = NULL;
    assert_status(KMS_NOT_FOUND, store->ops->purpose_list(txn.txn, &nobody, NULL, 2, &list, &count, &err));
    assert_null(list);
    commit(&txn);
}

static void assert_customer(const struct kms_customer_record *found, const struct kms_customer_record *wanted)
{
    assert_true(kms_uuid_equal(&found->uuid, &wanted->uuid));
    assert_true(kms_uuid_equal(&found->tenant, &wanted->tenant));
    assert_string_equal(found->id, wanted->id);
    assert_string_equal(found->labels, wanted->labels);
    assert_int_equal(found->state, wanted->state);
    assert_int_equal(found->revision, wanted->revision);
    assert_int_equal(found->created_ns, wanted->created_ns);
    assert_int_equal(found->updated_ns, wanted->updated_ns);
}

static void a_customer_is_found_by_id_and_by_uuid(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 3);
    const struct kms_customer_record wanted = sample_customer(1, 2);
    struct kms_txn txn = begin_read(store);
    struct kms_customer_record found;
    assert_ok(store->ops->customer_by_id(txn.txn, &wanted.tenant, wanted.id, &found, &err));
    assert_customer(&found, &wanted);
    kms_customer_record_clear(&found);
    assert_ok(store->ops->customer_by_uuid(txn.txn, &wanted.uuid, &found, &err));
    assert_customer(&found, &wanted);
    kms_customer_record_clear(&found);
    const struct kms_uuid nobody = sample_uuid(2, 77);
    assert_status(KMS_NOT_FOUND,
                  store->ops->customer_by_id(txn.txn, &wanted.tenant, "customer-00000", &found, &err));
    assert_status(KMS_NOT_FOUND, store->ops->customer_by_id(txn.txn, &nobody, wanted.id, &found, &err));
    assert_status(KMS_NOT_FOUND, store->ops->customer_by_uuid(txn.txn, &nobody, &found, &err));
    assert_null(strstr(err.cause, "customer-"));
    kms_txn_clear(&txn);
}

static void the_longest_ids_and_labels_are_kept(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 0);
    struct kms_customer_record customer = sample_customer(1, 1);
    memset(customer.id, 'i', KMS_CUSTOMER_ID_MAX);
    customer.id[KMS_CUSTOMER_ID_MAX] = '\0';
    char *labels = malloc((size_t)KMS_STORE_LABELS_TEXT_MAX + 2);
    assert_non_null(labels);
    memset(labels, 'v', KMS_STORE_LABELS_TEXT_MAX);
    memcpy(labels, "{\"k\":\"", 6);
    memcpy(labels + KMS_STORE_LABELS_TEXT_MAX - 2, "\"}", 3);
    customer.labels = labels;
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->customer_insert(txn.txn, &customer, &err));
    struct kms_customer_record found;
    assert_ok(store->ops->customer_by_id(txn.txn, &customer.tenant, customer.id, &found, &err));
    assert_customer(&found, &customer);
    kms_customer_record_clear(&found);
    memcpy(labels + KMS_STORE_LABELS_TEXT_MAX - 2, "v\"}", 4); /* one byte too many */
    assert_status(KMS_INVALID_ARGUMENT, store->ops->customer_update(txn.txn, &customer, &err));
    commit(&txn);
    free(labels);
}

static void bad_customers_are_refused(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 1);
    struct kms_txn txn = begin_write(store);
    struct kms_customer_record customer = sample_customer(1, 1);
    assert_status(KMS_ALREADY_EXISTS, store->ops->customer_insert(txn.txn, &customer, &err));
    customer.uuid = sample_uuid(2, 99);
    assert_status(KMS_ALREADY_EXISTS, store->ops->customer_insert(txn.txn, &customer, &err));
    customer = sample_customer(2, 1);
    assert_status(KMS_NOT_FOUND, store->ops->customer_insert(txn.txn, &customer, &err));
    customer = sample_customer(1, 9);
    assert_status(KMS_NOT_FOUND, store->ops->customer_update(txn.txn, &customer, &err));
    customer.labels = NULL;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->customer_insert(txn.txn, &customer, &err));
    char not_json[] = "{\"a\":}";
    customer.labels = not_json;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->customer_insert(txn.txn, &customer, &err));
    char array[] = "[1]";
    customer.labels = array;
    assert_status(KMS_INVALID_ARGUMENT, store->ops->customer_insert(txn.txn, &customer, &err));
    customer = sample_customer(1, 9);
    customer.id[2] = '\x07';
    assert_status(KMS_INVALID_ARGUMENT, store->ops->customer_insert(txn.txn, &customer, &err));
    commit(&txn); /* refusals leave the transaction as it was */
    assert_int_equal(sql_number(((struct fixture *)*state)->path, "SELECT count(*) FROM customer"), 1);
}

static void a_customer_is_updated_by_uuid(void **state)
{
    struct kms_store *store = store_of(state);
    fill(store, 2);
    struct kms_customer_record customer = sample_customer(1, 2);
    char labels[] = "{\"tier\":\"silver\"}";
    customer.labels = labels;
    customer.state = KMS_CUSTOMER_CLOSED;
    customer.revision = 2;
    struct kms_txn txn = begin_write(store);
    assert_ok(store->ops->customer_update(txn.txn, &customer, &err));
    commit(&txn);
    txn = begin_read(store);
    struct kms_customer_record found;
    assert_ok(store->ops->customer_by_uuid(txn.txn, &customer.uuid, &found, &err));
    assert_customer(&found, &customer);
    kms_customer_record_clear(&found);
    kms_txn_clear(&txn);
}

/* What a visitor sees: ids joined by spaces; stops with a status of its own when asked. */
struct visited {
    struct kms_buf ids;
    unsigned count;
    unsigned stop_at;
};

static enum kms_status note_id(void *context, const struct kms_customer_record *customer)
{
    struct visited *visited = context;
    if (++visited->count == visited->stop_at)
        return KMS_CANCELLED;
    return kms_buf_printf(&visited->ids, "%s ", customer->id);
}

/* List tenant 1's customers and compare the ids that came. */
static void assert_listed(struct kms_store *store, const struct kms_customer_filter *filter,
                          const char *after, size_t limit, const char *wanted)
{
    const struct kms_uuid tenant = sample_uuid(1, 1);
    struct visited visited = {0};
    struct kms_txn txn = begin_read(store);
    assert_ok(store->ops->customer_list(txn.txn, &tenant, filter, after, limit, note_id, &visited, &err));
    kms_txn_clear(&txn);
    assert_ok(kms_buf_append(&visited.ids, "", 1));
    assert_string_equal((const char *)visited.ids.data, wanted);
    kms_buf_clear(&visited.ids);
}

/* Customers a, b0, b1, b2 (closed), c of tenant 1, one of tenant 2. */
static void fill_for_lists(struct kms_store *store)
{
    static const char *const ids[] = {"c", "b1", "a", "b2", "b0"};
    static char gold[] = "{\"tier\":\"gold\"}";
    static char silver[] = "{\"tier\":\"silver\",\"x\":\"gold\"}";
    fill(store, 0);
    struct kms_txn txn = begin_write(store);
    const struct kms_tenant_record other = sample_tenant(2);
    assert_ok(store->ops->tenant_insert(txn.txn, &other, &err));
    for (unsigned i = 0; i < 5; i++) {
        struct kms_customer_record customer = sample_customer(1, i);
        (void)strcpy(customer.id, ids[i]);
        customer.labels = i % 2 == 0 ? gold : silver; /* gold: c a b0 */
        customer.created_ns = 1000 + (int64_t)i;
        if (i == 3)
            customer.state = KMS_CUSTOMER_CLOSED;
        assert_ok(store->ops->customer_insert(txn.txn, &customer, &err));
    }
    const struct kms_customer_record stranger = sample_customer(2, 1);
    assert_ok(store->ops->customer_insert(txn.txn, &stranger, &err));
    commit(&txn);
}

static void customers_are_listed_in_order_of_their_ids(void **state)
{
    struct kms_store *store = store_of(state);
    fill_for_lists(store);
    assert_listed(store, NULL, NULL, 100, "a b0 b1 b2 c ");
    assert_listed(store, NULL, NULL, 2, "a b0 ");
    assert_listed(store, NULL, "b0", 2, "b1 b2 ");
    assert_listed(store, NULL, "c", 2, "");
    assert_listed(store, NULL, NULL, 0, "");
}

static void customer_filters_narrow_the_list(void **state)
{
    struct kms_store *store = store_of(state);
    fill_for_lists(store);
    struct kms_customer_filter filter = {.id_prefix = "b"};
    assert_listed(store, &filter, NULL, 100, "b0 b1 b2 ");
    assert_listed(store, &filter, "b0", 100, "b1 b2 ");
    assert_listed(store, &filter, "a", 100, "b0 b1 b2 ");
    assert_listed(store, &filter, "c", 100, "");
    filter = (struct kms_customer_filter){.state = KMS_CUSTOMER_CLOSED};
    assert_listed(store, &filter, NULL, 100, "b2 ");
    filter = (struct kms_customer_filter){.label_key = "tier", .label_value = "gold"};
    assert_listed(store, &filter, NULL, 100, "a b0 c ");
    filter = (struct kms_customer_filter){.label_key = "tie", .label_value = "gold"};
    assert_listed(store, &filter, NULL, 100, "");
    filter = (struct kms_customer_filter){.created_from_ns = 1001, .created_until_ns = 1003};
    assert_listed(store, &filter, NULL, 100, "a b1 ");
    filter = (struct kms_customer_filter){.id_prefix = "b", .label_key = "tier", .label_value = "gold"};
    assert_listed(store, &filter, NULL, 100, "b0 ");
    filter = (struct kms_customer_filter){.id_prefix = "\xff"};
    assert_listed(store, &filter, NULL, 100, "");
}

static void a_visitor_ends_the_list_with_its_own_status(void **state)
{
    struct kms_store *store = store_of(state);
    fill_for_lists(store);
    const struct kms_uuid tenant = sample_uuid(1, 1);
    const struct kms_uuid nobody = sample_uuid(1, 8);
    struct visited visited = {.stop_at = 3};
    struct kms_txn txn = begin_read(store);
    assert_status(KMS_CANCELLED,
                  store->ops->customer_list(txn.txn, &tenant, NULL, NULL, 100, note_id, &visited, &err));
    assert_int_equal(visited.count, 3);
    assert_status(KMS_NOT_FOUND,
                  store->ops->customer_list(txn.txn, &nobody, NULL, NULL, 100, note_id, &visited, &err));
    const struct kms_customer_filter half = {.label_key = "tier"};
    assert_status(KMS_INVALID_ARGUMENT,
                  store->ops->customer_list(txn.txn, &tenant, &half, NULL, 100, note_id, &visited, &err));
    kms_buf_clear(&visited.ids);
    kms_txn_clear(&txn);
}

/* A clock that the test moves. */
static int64_t fake_now_ns;
static int64_t fake_wall(void)
{
    return fake_now_ns;
}
static int64_t real_mono(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * KMS_NS_PER_SECOND + now.tv_nsec;
}
static const struct kms_clock_source fake_clock = {fake_wall, real_mono};

static void a_request_id_is_remembered_for_a_day(void **state)
{
    struct kms_store *store = store_of(state);
    fake_now_ns = INT64_C(1700000000000000000);
    kms_clock_set_source(&fake_clock);
    const struct kms_request_record request = sample_request(1);
    struct kms_request_record found;
    struct kms_txn txn = begin_write(store);
    assert_status(KMS_NOT_FOUND,
                  store->ops->request_get(txn.txn, request.request_id, request.identity, &found, &err));
    assert_ok(store->ops->request_put(txn.txn, &request, &err));
    assert_status(KMS_ALREADY_EXISTS, store->ops->request_put(txn.txn, &request, &err));
    assert_ok(store->ops->request_get(txn.txn, request.request_id, request.identity, &found, &err));
    assert_same(request, &found, &request);
    assert_status(KMS_NOT_FOUND,
                  store->ops->request_get(txn.txn, request.request_id, "somebody else", &found, &err));
    commit(&txn);
    fake_now_ns += KMS_STORE_REQUEST_KEPT_NS;
    txn = begin_write(store);
    assert_ok(store->ops->request_get(txn.txn, request.request_id, request.identity, &found, &err));
    assert_status(KMS_ALREADY_EXISTS, store->ops->request_put(txn.txn, &request, &err));
    fake_now_ns += 1;
    assert_status(KMS_NOT_FOUND,
                  store->ops->request_get(txn.txn, request.request_id, request.identity, &found, &err));
    const struct kms_request_record again = sample_request(1);
    assert_ok(store->ops->request_put(txn.txn, &again, &err));
    commit(&txn);
}

static void old_request_ids_are_removed_in_passing(void **state)
{
    struct kms_store *store = store_of(state);
    fake_now_ns = INT64_C(1700000000000000000);
    kms_clock_set_source(&fake_clock);
    struct kms_txn txn = begin_write(store);
    for (unsigned i = 0; i < 20; i++) {
        const struct kms_request_record request = sample_request(i);
        assert_ok(store->ops->request_put(txn.txn, &request, &err));
    }
    commit(&txn);
    fake_now_ns += 2 * KMS_STORE_REQUEST_KEPT_NS;
    txn = begin_write(store);
    for (unsigned i = 100; i < 102; i++) {
        const struct kms_request_record request = sample_request(i);
        assert_ok(store->ops->request_put(txn.txn, &request, &err));
    }
    commit(&txn);
    assert_int_equal(sql_number(((struct fixture *)*state)->path, "SELECT count(*) FROM request"), 2);
}

static void bad_requests_are_refused(void **state)
{
    struct kms_store *store = store_of(state);
    struct kms_txn txn = begin_write(store);
    struct kms_request_record request = sample_request(1);
    request.identity[0] = '\0';
    assert_status(KMS_INVALID_ARGUMENT, store->ops->request_put(txn.txn, &request, &err));
    char long_id[300];
    memset(long_id, 'x', sizeof long_id);
    long_id[sizeof long_id - 1] = '\0';
    assert_status(KMS_NOT_FOUND, store->ops->request_get(txn.txn, long_id, "me", &request, &err));
    assert_status(KMS_NOT_FOUND, store->ops->request_get(txn.txn, "id", long_id, &request, &err));
    commit(&txn);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_tenant_is_found_by_id_and_by_uuid),
        TEST(a_taken_tenant_id_or_uuid_is_refused_and_the_transaction_goes_on),
        TEST(a_tenant_is_updated_by_uuid),
        TEST(tenants_out_of_limits_are_refused),
        TEST(tenants_are_listed_in_order_page_by_page),
        TEST(purposes_belong_to_their_tenant),
        TEST(a_purpose_is_updated_by_tenant_and_id),
        TEST(purposes_are_listed_in_order),
        TEST(a_customer_is_found_by_id_and_by_uuid),
        TEST(the_longest_ids_and_labels_are_kept),
        TEST(bad_customers_are_refused),
        TEST(a_customer_is_updated_by_uuid),
        TEST(customers_are_listed_in_order_of_their_ids),
        TEST(customer_filters_narrow_the_list),
        TEST(a_visitor_ends_the_list_with_its_own_status),
        TEST(a_request_id_is_remembered_for_a_day),
        TEST(old_request_ids_are_removed_in_passing),
        TEST(bad_requests_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
