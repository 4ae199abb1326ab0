#define _GNU_SOURCE /* getline */
#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/json.h"
#include "cli/labels.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "client/fault.h"
#include "core/cleanup.h"

#include <errno.h>
#include <string.h>

enum { BATCH_MAX = 1000, ERRORS_KEPT = 1000 };

static const struct kms_unary_method method = {"/kms.v1.DirectoryService/BatchCreateCustomers",
                                               &kms__v1__batch_create_customers_response__descriptor, false};

/* One run over the input. */
struct batch {
    struct kms_cli *cli;
    struct kms_cli_labels labels;
    Kms__V1__Customer items[BATCH_MAX];
    Kms__V1__Customer *list[BATCH_MAX];
    char *ids[BATCH_MAX];
    size_t count;
    uint64_t created, existing, failed;
    json_t *errors; /* the first ERRORS_KEPT of them */
    struct kms_cli_progress progress;
};

static void batch_clear(struct batch **batch)
{
    if (*batch == NULL)
        return;
    kms_cli_labels_clear(&(*batch)->labels);
    for (size_t i = 0; i < (*batch)->count; i++)
        free((*batch)->ids[i]);
    json_decref((*batch)->errors);
    free(*batch);
}

/* Count one customer that could not be created. */
static void note_failure(struct batch *batch, const char *id, const struct kms_client_error *error)
{
    if (error->status == KMS_CLIENT_EXISTS && kms_cli_given(batch->cli, KMS_CLI_SKIP_EXISTING)) {
        batch->existing++;
        return;
    }
    batch->failed++;
    if (json_array_size(batch->errors) < ERRORS_KEPT)
        (void)json_array_append_new(batch->errors,
                                    json_pack("{s:o, s:s, s:s, s:s}", "customer", kms_cli_json_text(id),
                                              "code", kms_client_status_name(error->status), "reason",
                                              error->reason, "message", error->message));
}

/* Spread the reply over the counters. */
static int take_reply(struct batch *batch, const Kms__V1__BatchCreateCustomersResponse *reply)
{
    if (reply->n_results != batch->count)
        return kms_cli_fail(batch->cli, "the service answered for %zu of %zu customers", reply->n_results,
                            batch->count);
    for (size_t i = 0; i < reply->n_results; i++) {
        const Kms__V1__CustomerResult *result = reply->results[i];
        if (result->result_case == KMS__V1__CUSTOMER_RESULT__RESULT_CUSTOMER) {
            batch->created++;
            continue;
        }
        struct kms_client_error error = {.status = KMS_CLIENT_INTERNAL};
        if (result->result_case == KMS__V1__CUSTOMER_RESULT__RESULT_ERROR && result->error->code != 0)
            (void)kms_fault_from_service(&error, result->error->code, kms_slice_str(result->error->message),
                                         result->error);
        note_failure(batch, batch->ids[i], &error);
    }
    return KMS_CLI_EXIT_OK;
}

/* Send what has been collected. */
static int send_batch(struct batch *batch)
{
    if (batch->count == 0)
        return KMS_CLI_EXIT_OK;
    struct kms_cli *cli = batch->cli;
    Kms__V1__BatchCreateCustomersRequest request = KMS__V1__BATCH_CREATE_CUSTOMERS_REQUEST__INIT;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.customers = batch->list;
    request.n_customers = batch->count;
    request.purposes = cli->options.given[KMS_CLI_WARM].items;
    request.recreate_shredded = kms_cli_given(cli, KMS_CLI_RECREATE_SHREDDED);
    request.n_purposes = cli->options.given[KMS_CLI_WARM].count;
    KMS_CLI_CALL call = {0};
    int result = kms_cli_call(cli, &call, &method, &request.base);
    if (result == KMS_CLI_EXIT_OK)
        result = take_reply(batch, (const Kms__V1__BatchCreateCustomersResponse *)call.reply);
    for (size_t i = 0; i < batch->count; i++)
        free(batch->ids[i]);
    batch->count = 0;
    kms_cli_progress_show(&batch->progress, batch->created + batch->existing + batch->failed, 0);
    return result;
}

/* Add one id; sends when 1,000 are there. */
static int add_id(struct batch *batch, const char *id)
{
    if (!kms_utf8_valid(id, strlen(id))) { /* the service could not even read the other 999 */
        struct kms_client_error error;
        (void)kms_fault_set(&error, KMS_CLIENT_INVALID, "the id is not UTF-8");
        note_failure(batch, id, &error);
        return KMS_CLI_EXIT_OK;
    }
    char *copy = strdup(id);
    if (copy == NULL)
        return kms_cli_fail(batch->cli, "out of memory");
    Kms__V1__Customer *customer = &batch->items[batch->count];
    kms__v1__customer__init(customer);
    customer->customer = copy;
    customer->labels = batch->labels.list;
    customer->n_labels = batch->labels.count;
    batch->ids[batch->count] = copy;
    batch->list[batch->count] = customer;
    batch->count++;
    return batch->count == BATCH_MAX ? send_batch(batch) : KMS_CLI_EXIT_OK;
}

/* Every line of the input; empty ones are passed over. */
static int read_ids(struct batch *batch, FILE *input, const char *name)
{
    KMS_FREE char *line = NULL;
    size_t capacity = 0;
    ssize_t len;
    while ((len = getline(&line, &capacity, input)) >= 0) {
        while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
            line[--len] = '\0';
        if (strlen(line) != (size_t)len)
            return kms_cli_fail(batch->cli, "%s holds a NUL byte: it is no list of ids", name);
        const int result = len > 0 ? add_id(batch, line) : KMS_CLI_EXIT_OK;
        if (result != KMS_CLI_EXIT_OK)
            return result;
    }
    if (ferror(input))
        return kms_cli_fail(batch->cli, "cannot read %s: %s", name, strerror(errno));
    return send_batch(batch);
}

/* What was done, even when it has ended early. */
static int show_summary(struct batch *batch)
{
    struct kms_cli *cli = batch->cli;
    size_t index;
    json_t *error;
    if (!cli->json) {
        json_array_foreach(batch->errors, index, error)
        {
            kms_cli_print_text(cli->err, json_string_value(json_object_get(error, "customer")));
            (void)fputs(": ", cli->err);
            kms_cli_print_text(cli->err, json_string_value(json_object_get(error, "message")));
            (void)fputc('\n', cli->err);
        }
    }
    json_t *summary = json_pack("{s:I, s:I, s:I}", "created", (json_int_t)batch->created, "existing",
                                (json_int_t)batch->existing, "failed", (json_int_t)batch->failed);
    if (cli->json && summary != NULL)
        (void)json_object_set(summary, "errors", batch->errors);
    const int shown = kms_cli_show(cli, summary);
    return shown == KMS_CLI_EXIT_OK && batch->failed > 0 ? KMS_CLI_EXIT_FAILED : shown;
}

int kms_cli_customer_batch_create(struct kms_cli *cli)
{
    const char *path = cli->word_count > 0 ? cli->words[0] : "-";
    const bool standard = strcmp(path, "-") == 0;
    KMS_CLEANUP(batch_clear) struct batch *batch = calloc(1, sizeof *batch);
    if (batch == NULL)
        return kms_cli_fail(cli, "out of memory");
    batch->cli = cli;
    batch->errors = json_array();
    int result = kms_cli_labels_take(cli, &batch->labels);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    KMS_FCLOSE FILE *file = standard ? NULL : fopen(path, "re");
    if (!standard && file == NULL)
        return kms_cli_fail(cli, "cannot open %s: %s", path, strerror(errno));
    kms_cli_progress_begin(&batch->progress, cli, "creating", "customers");
    result = read_ids(batch, standard ? stdin : file, standard ? "standard input" : path);
    kms_cli_progress_end(&batch->progress);
    const int shown = show_summary(batch);
    return result != KMS_CLI_EXIT_OK ? result : shown;
}
