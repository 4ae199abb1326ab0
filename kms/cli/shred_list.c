#define _GNU_SOURCE /* getline */
#include "cli/shred_list.h"

#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "core/cleanup.h"

#include <kms/v1/shred.pb-c.h>

#include <errno.h>
#include <string.h>

enum { BATCH_MAX = 1000, ID_MAX = 256 };

static const struct kms_unary_method method = {"/kms.v1.ShredService/AddShredTargets",
                                               &kms__v1__add_shred_targets_response__descriptor, false};

/* One run over the input. */
struct sending {
    struct kms_cli *cli;
    const char *job;
    struct kms_cli_shred_list *list;
    char *ids[BATCH_MAX];
    uint64_t lines[BATCH_MAX]; /* where each stands; 0: not in a file */
    size_t count;
    struct kms_cli_progress progress;
};

static void clear_ids(struct sending *sending)
{
    for (size_t i = 0; i < sending->count; i++)
        free(sending->ids[i]);
    sending->count = 0;
}

/* Report one customer that is not taken. */
static void refuse(struct sending *sending, uint64_t line, const char *id, const char *why)
{
    struct kms_cli *cli = sending->cli;
    sending->list->refused++;
    if (cli->json) {
        (void)json_array_append_new(sending->list->errors,
                                    json_pack("{s:I, s:o, s:s}", "line", (json_int_t)line, "customer",
                                              kms_cli_json_text(id), "message", why));
        return;
    }
    kms_cli_progress_end(&sending->progress);
    if (line > 0)
        (void)fprintf(cli->err, "line %llu: ", (unsigned long long)line);
    kms_cli_print_text(cli->err, id);
    (void)fputs(": ", cli->err);
    kms_cli_print_text(cli->err, why);
    (void)fputc('\n', cli->err);
}

/* Spread the reply over the counters. */
static int take_reply(struct sending *sending, const Kms__V1__AddShredTargetsResponse *reply)
{
    struct kms_cli_shred_list *list = sending->list;
    if (reply->n_results != sending->count)
        return kms_cli_fail(sending->cli, "the service answered for %zu of %zu customers", reply->n_results,
                            sending->count);
    for (size_t i = 0; i < reply->n_results; i++) {
        const Kms__V1__ShredTargetResult *result = reply->results[i];
        if (result->result_case == KMS__V1__SHRED_TARGET_RESULT__RESULT_CUSTOMER_UID) {
            if (list->added < sizeof list->first / sizeof *list->first)
                (void)snprintf(list->first[list->added], sizeof list->first[0], "%s", sending->ids[i]);
            list->added++;
            continue;
        }
        refuse(sending, sending->lines[i], sending->ids[i],
               result->result_case == KMS__V1__SHRED_TARGET_RESULT__RESULT_ERROR ? result->error->message
                                                                                 : "the answer is empty");
    }
    return KMS_CLI_EXIT_OK;
}

/* Send what has been collected. */
static int send_batch(struct sending *sending)
{
    if (sending->count == 0)
        return KMS_CLI_EXIT_OK;
    Kms__V1__AddShredTargetsRequest request = KMS__V1__ADD_SHRED_TARGETS_REQUEST__INIT;
    request.job = kms_cli_field(sending->job);
    request.customers = sending->ids;
    request.n_customers = sending->count;
    KMS_CLI_CALL call = {0};
    int result = kms_cli_call(sending->cli, &call, &method, &request.base);
    if (result == KMS_CLI_EXIT_OK)
        result = take_reply(sending, (const void *)call.reply);
    clear_ids(sending);
    kms_cli_progress_show(&sending->progress, sending->list->added + sending->list->refused, 0);
    return result;
}

/* Add one id; sends when 1,000 are there. What no customer can be called is refused here, for the service reads whole messages. */
static int add_id(struct sending *sending, uint64_t line, const char *id)
{
    const size_t len = strlen(id);
    if (len == 0 || len > ID_MAX || !kms_utf8_printable(id, len)) {
        refuse(sending, line, id,
               len == 0 ? "the line is empty" : "is no customer id: 1 to 256 bytes of printable UTF-8");
        return KMS_CLI_EXIT_OK;
    }
    char *copy = strdup(id);
    if (copy == NULL)
        return kms_cli_fail(sending->cli, "out of memory");
    sending->ids[sending->count] = copy;
    sending->lines[sending->count++] = line;
    return sending->count == BATCH_MAX ? send_batch(sending) : KMS_CLI_EXIT_OK;
}

/* Every line of the input. */
static int read_ids(struct sending *sending, FILE *input, const char *name)
{
    KMS_FREE char *text = NULL;
    size_t capacity = 0;
    ssize_t len;
    for (uint64_t line = 1; (len = getline(&text, &capacity, input)) >= 0; line++) {
        while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
            text[--len] = '\0';
        int result = KMS_CLI_EXIT_OK;
        if (strlen(text) != (size_t)len)
            refuse(sending, line, text, "holds a NUL byte");
        else
            result = add_id(sending, line, text);
        if (result != KMS_CLI_EXIT_OK)
            return result;
    }
    if (ferror(input))
        return kms_cli_fail(sending->cli, "cannot read %s: %s", name, strerror(errno));
    return send_batch(sending);
}

/* --file LIST, "-" being standard input. */
static int send_file(struct sending *sending, const char *path)
{
    const bool standard = strcmp(path, "-") == 0;
    KMS_FCLOSE FILE *file = standard ? NULL : fopen(path, "re");
    if (!standard && file == NULL)
        return kms_cli_fail(sending->cli, "cannot open %s: %s", path, strerror(errno));
    return read_ids(sending, standard ? stdin : file, standard ? "standard input" : path);
}

int kms_cli_shred_send(struct kms_cli *cli, const char *job, struct kms_cli_shred_list *ret_list)
{
    const char *path = kms_cli_value(cli, KMS_CLI_FILE);
    struct sending *sending = calloc(1, sizeof *sending);
    *ret_list = (struct kms_cli_shred_list){.errors = json_array()};
    if (sending == NULL || ret_list->errors == NULL) {
        free(sending);
        return kms_cli_fail(cli, "out of memory");
    }
    sending->cli = cli;
    sending->job = job;
    sending->list = ret_list;
    kms_cli_progress_begin(&sending->progress, cli, "sending", "customers");
    int result;
    if (path != NULL) {
        result = send_file(sending, path);
    } else {
        result = add_id(sending, 0, kms_cli_value(cli, KMS_CLI_CUSTOMER));
        if (result == KMS_CLI_EXIT_OK)
            result = send_batch(sending);
    }
    kms_cli_progress_end(&sending->progress);
    clear_ids(sending);
    free(sending);
    return result;
}
