/* kmsctl audit query and export: records of an audit log, off-line. */
#include "audit/query.h"

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "core/clock.h"
#include "core/ids.h"

#include <string.h>

enum { PROBLEMS_SHOWN = 100, ROWS_A_PAGE = 64, DEFAULT_LIMIT = 1000 };

/* What the callbacks need. */
struct query {
    struct kms_cli *cli;
    struct kms_cli_progress progress;
    struct kms_cli_list list; /* for people; JSON goes out line by line */
    json_t *rows;             /* of the list, not printed yet */
    const char *customer;     /* of an export; NULL: whole records */
    const char *tenant;
    uint64_t shown, limit; /* limit 0: none */
    uint64_t problems;
    bool short_of_memory;
};

static const struct kms_cli_column query_columns[] = {
    {"TIME", "time"},       {"SEQ", "seq"},       {"TYPE", "type"},         {"IDENTITY", "identity"},
    {"ACTION", "action"},   {"TENANT", "tenant"}, {"CUSTOMER", "customer"}, {"PURPOSE", "purpose"},
    {"OUTCOME", "outcome"}, {"REASON", "reason"},
};
static const struct kms_cli_column export_columns[] = {
    {"TIME", "time"},       {"IDENTITY", "identity"}, {"ACTION", "action"},      {"PURPOSE", "purpose"},
    {"VERSION", "version"}, {"OUTCOME", "outcome"},   {"REQUEST", "request_id"},
};

static bool show_progress(void *context, const struct kms_audit_progress *progress)
{
    struct query *query = context;
    kms_cli_progress_show(&query->progress, progress->bytes_done, progress->bytes_all);
    return true;
}

/* What in the directory is no record, on standard error. */
static void take_problem(void *context, const struct kms_audit_problem *problem)
{
    struct query *query = context;
    if (++query->problems > PROBLEMS_SHOWN)
        return;
    kms_cli_progress_end(&query->progress);
    kms_cli_print_text(query->cli->err, problem->file);
    (void)fprintf(query->cli->err, ": at byte %llu: ", (unsigned long long)problem->offset);
    kms_cli_print_text(query->cli->err, problem->text);
    (void)fputc('\n', query->cli->err);
}

/* The rows that were collected, as a part of the table. */
static void print_rows(struct query *query)
{
    if (json_array_size(query->rows) == 0)
        return;
    kms_cli_progress_end(&query->progress);
    kms_cli_list_add(&query->list, query->rows);
    query->rows = json_array();
}

/* One object of the output; takes it over. False when the limit is reached or the output is gone. */
static bool put(struct query *query, json_t *object)
{
    if (object == NULL) {
        query->short_of_memory = true;
        return false;
    }
    query->shown++;
    if (query->cli->json) {
        (void)json_dumpf(object, query->cli->out, JSON_COMPACT | JSON_PRESERVE_ORDER);
        (void)fputc('\n', query->cli->out);
        json_decref(object);
    } else {
        (void)json_array_append_new(query->rows, object);
        if (json_array_size(query->rows) >= ROWS_A_PAGE)
            print_rows(query);
    }
    return query->shown != query->limit && ferror(query->cli->out) == 0;
}

/* A record as JSON; a line that only looks like one is told of. */
static json_t *parse_record(struct query *query, const struct kms_audit_found *found)
{
    json_t *record =
        json_loadb((const char *)found->text.data, found->text.len, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(record))
        return record;
    json_decref(record);
    struct kms_audit_problem problem = {.offset = found->offset, .text = "the record is no JSON"};
    (void)snprintf(problem.file, sizeof problem.file, "%s", found->file);
    take_problem(query, &problem);
    return NULL;
}

static bool take_record(void *context, const struct kms_audit_found *found)
{
    struct query *query = context;
    json_t *record = parse_record(query, found);
    return record == NULL || put(query, record);
}

/* One use of the customer's keys: what the whole record says, and what the item says, if it is of a batch. */
static bool put_use(struct query *query, const json_t *record, const struct kms_audit_found *found,
                    const json_t *item)
{
    static const struct {
        const char *to, *from;
        bool of_item; /* may be said by the item */
    } members[] = {
        {"time", "time", false},      {"identity", "identity", false}, {"action", "action", false},
        {"type", "type", false},      {"tenant", "tenant", true},      {"customer", "customer", true},
        {"purpose", "purpose", true}, {"version", "version", true},    {"outcome", "outcome", true},
        {"reason", "reason", true},   {"peer", "peer", false},         {"request_id", "request_id", false},
    };
    json_t *use = json_object();
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        json_t *value = item != NULL && members[i].of_item ? json_object_get(item, members[i].from) : NULL;
        if (value == NULL && (item == NULL || !members[i].of_item || strcmp(members[i].to, "tenant") == 0))
            value = json_object_get(record, strcmp(members[i].from, "version") == 0 ? "kek_version"
                                                                                    : members[i].from);
        if (value != NULL)
            (void)json_object_set(use, members[i].to, value);
    }
    /* the text of a batch's reason stands once in the record */
    const json_t *reasons = json_object_get(json_object_get(record, "detail"), "reasons");
    const json_t *number = json_object_get(item, "reason");
    if (json_is_integer(number))
        (void)json_object_set(use, "reason", json_array_get(reasons, (size_t)json_integer_value(number)));
    if (json_object_get(use, "customer") == NULL) /* one of many in a list of names */
        (void)json_object_set_new(use, "customer", json_string(query->customer));
    (void)json_object_set_new(use, "file", json_string(found->file));
    (void)json_object_set_new(use, "seq", json_integer((json_int_t)found->seq));
    return put(query, use);
}

/* Is an item of a batch about the customer, and in the tenant if it names one? */
static bool is_about(const struct query *query, const json_t *record, const json_t *item)
{
    const char *customer = json_string_value(json_object_get(item, "customer"));
    const char *tenant = json_string_value(json_object_get(item, "tenant"));
    if (tenant == NULL)
        tenant = json_string_value(json_object_get(record, "tenant"));
    return customer != NULL && strcmp(customer, query->customer) == 0 && tenant != NULL &&
           strcmp(tenant, query->tenant) == 0;
}

/* A record about the customer, one line for each of his keys' uses. */
static bool take_use(void *context, const struct kms_audit_found *found)
{
    struct query *query = context;
    json_t *record = parse_record(query, found);
    if (record == NULL)
        return true;
    const json_t *items = json_object_get(json_object_get(record, "detail"), "items");
    bool go_on = true;
    if (json_is_array(items)) {
        size_t i;
        const json_t *item;
        json_array_foreach(items, i, item)
        {
            if (go_on && is_about(query, record, item))
                go_on = put_use(query, record, found, item);
        }
    } else {
        go_on = put_use(query, record, found, NULL);
    }
    json_decref(record);
    return go_on;
}

/* An option that holds a time. */
static int take_time(struct kms_cli *cli, enum kms_cli_option option, const char *name, int64_t *ret_ns)
{
    const char *text = kms_cli_value(cli, option);
    int64_t seconds = 0;
    if (text != NULL && (!kms_cli_parse_time(text, &seconds) || seconds < 0))
        return kms_cli_usage(cli, "--%s takes a time like 2026-01-31T12:00:00Z or a date, not \"%s\"", name,
                             text);
    *ret_ns = seconds * KMS_NS_PER_SECOND;
    return KMS_CLI_EXIT_OK;
}

/* Options into a filter. UUIDs are compared in the one spelling that the log has. */
static int take_filter(struct kms_cli *cli, struct kms_audit_filter *filter,
                       char uuid_text[KMS_UUID_TEXT_SIZE])
{
    *filter = (struct kms_audit_filter){.identity = kms_cli_value(cli, KMS_CLI_IDENTITY),
                                        .action = kms_cli_value(cli, KMS_CLI_ACTION),
                                        .outcome = kms_cli_value(cli, KMS_CLI_OUTCOME),
                                        .tenant = kms_cli_value(cli, KMS_CLI_TENANT),
                                        .purpose = kms_cli_value(cli, KMS_CLI_PURPOSE)};
    const char *customer = kms_cli_value(cli, KMS_CLI_CUSTOMER);
    struct kms_uuid uuid;
    if (customer != NULL && kms_uuid_parse(customer, &uuid) != KMS_OK)
        return kms_cli_usage(
            cli, "--customer takes a customer's uid here, for the log knows no other name; \"kmsctl customer "
                 "get\" shows it");
    if (customer != NULL)
        filter->customer = kms_uuid_format(&uuid, uuid_text);
    const int from = take_time(cli, KMS_CLI_FROM, "from", &filter->from_ns);
    return from != KMS_CLI_EXIT_OK ? from : take_time(cli, KMS_CLI_UNTIL, "until", &filter->until_ns);
}

/* How much was looked at: for people only, since scripts read standard output. */
static void tell_summary(const struct query *query, const struct kms_audit_query_result *result)
{
    FILE *err = query->cli->err;
    (void)fprintf(
        err,
        "%llu shown; read %llu of %llu segments, %llu records, %llu bytes; made %llu indexes, kept %llu\n",
        (unsigned long long)query->shown, (unsigned long long)result->segments_read,
        (unsigned long long)result->segments, (unsigned long long)result->records_read,
        (unsigned long long)result->bytes_read, (unsigned long long)result->indexes_made,
        (unsigned long long)result->indexes_kept);
    if (query->limit != 0 && query->shown == query->limit)
        (void)fprintf(err, "there may be more: --limit 0 shows all\n");
    if (result->index_failure[0] != '\0') {
        (void)fprintf(err, "indexes are not kept, so the next query reads everything again: ");
        kms_cli_print_text(err, result->index_failure);
        (void)fprintf(err, "; see --index-dir\n");
    }
    if (query->problems > PROBLEMS_SHOWN)
        (void)fprintf(err, "%llu problems, of which %d are shown\n", (unsigned long long)query->problems,
                      (int)PROBLEMS_SHOWN);
}

/* Both commands. */
static int run_query(struct query *query, bool (*found)(void *context, const struct kms_audit_found *found),
                     const struct kms_cli_column *columns, size_t column_count)
{
    struct kms_cli *cli = query->cli;
    struct kms_audit_query_options options = {.index_directory = kms_cli_value(cli, KMS_CLI_INDEX_DIR),
                                              .found = found,
                                              .problem = take_problem,
                                              .progress = show_progress,
                                              .context = query};
    char uuid_text[KMS_UUID_TEXT_SIZE];
    const char *limit = kms_cli_value(cli, KMS_CLI_LIMIT);
    const int taken = take_filter(cli, &options.filter, uuid_text);
    if (taken != KMS_CLI_EXIT_OK)
        return taken;
    if (limit != NULL && !kms_cli_parse_number(limit, INT64_MAX, &query->limit))
        return kms_cli_usage(cli, "--limit takes a number, not \"%s\"", limit);
    query->customer = options.filter.customer;
    query->tenant = options.filter.tenant;
    query->rows = json_array();
    if (!cli->json)
        kms_cli_list_begin(&query->list, cli, "records", columns, column_count);
    kms_cli_progress_begin(&query->progress, cli, "searching", "B");
    struct kms_audit_query_result result;
    struct kms_error err = {0};
    const enum kms_status status = kms_audit_query(cli->words[0], &options, &result, &err);
    if (!cli->json)
        print_rows(query);
    kms_cli_progress_end(&query->progress);
    json_decref(query->rows);
    if (query->short_of_memory || (status != KMS_OK && status != KMS_CANCELLED))
        return kms_cli_fail(cli, "%s: %s", cli->words[0],
                            query->short_of_memory ? "out of memory" : kms_error_cause(&err, status));
    const int ended = cli->json ? kms_cli_flush(cli) : kms_cli_list_end(&query->list, "");
    tell_summary(query, &result);
    return ended;
}

int kms_cli_audit_query(struct kms_cli *cli)
{
    struct query query = {.cli = cli, .limit = DEFAULT_LIMIT};
    return run_query(&query, take_record, query_columns, sizeof query_columns / sizeof query_columns[0]);
}

int kms_cli_audit_export(struct kms_cli *cli)
{
    struct query query = {.cli = cli};
    return run_query(&query, take_use, export_columns, sizeof export_columns / sizeof export_columns[0]);
}
