#define _GNU_SOURCE
#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/json.h"
#include "cli/operation.h"
#include "cli/output.h"
#include "cli/paging.h"
#include "cli/shred_list.h"
#include "cli/terminal.h"
#include "core/cleanup.h"

#include <kms/v1/shred.pb-c.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define METHOD(name, reply, idempotent)                                                                      \
    {                                                                                                        \
        "/kms.v1.ShredService/" name, &kms__v1__##reply##__descriptor, idempotent                            \
    }
static const struct kms_unary_method create_method = METHOD("CreateShredJob", shred_job, true);
static const struct kms_unary_method request_method = METHOD("RequestShred", operation, true);
static const struct kms_unary_method cancel_method = METHOD("CancelShred", shred_job, false);
static const struct kms_unary_method get_method = METHOD("GetShredJob", shred_job, true);
static const struct kms_unary_method status_method = METHOD("GetShredStatus", shred_status, true);
static const struct kms_unary_method clock_method = METHOD("GetShredClock", shred_clock, true);
static const struct kms_unary_method confirm_method = METHOD("ConfirmShredClock", shred_clock, false);

static const struct kms_cli_column job_columns[] = {
    {"UID", "uid"},       {"STATE", "state"},     {"PURPOSE", "purpose"},
    {"TOTAL", "total"},   {"PENDING", "pending"}, {"SHREDDED", "shredded"},
    {"FAILED", "failed"}, {"DUE", "due_time"},    {"REQUESTER", "requester"}};
static const struct kms_cli_paged job_list = {METHOD("ListShredJobs", list_shred_jobs_response, true), "jobs",
                                              job_columns, sizeof job_columns / sizeof *job_columns};
static const struct kms_cli_column target_columns[] = {
    {"CUSTOMER (UID)", "customer_uid"}, {"STATE", "state"},         {"PURPOSE", "purpose"},
    {"CERTIFICATE", "certificate"},     {"CHANGED", "change_time"}, {"REASON", "reason"}};
static const struct kms_cli_paged target_list = {
    METHOD("ListShredTargets", list_shred_targets_response, true), "targets", target_columns,
    sizeof target_columns / sizeof *target_columns};

/* The draft will not be requested: nobody needs to wonder about it. Its failure changes nothing. */
static void drop_draft(struct kms_cli *cli, const char *job)
{
    Kms__V1__CancelShredRequest request = KMS__V1__CANCEL_SHRED_REQUEST__INIT;
    KMS_CLI_CALL call = {0};
    request.job = kms_cli_field(job);
    (void)kms_cli_call_quiet(cli, &call, &cancel_method, &request.base);
}

/* What is about to be lost, by name. */
static int confirm(struct kms_cli *cli, const Kms__V1__ShredJob *job, const struct kms_cli_shred_list *list)
{
    char wait[96] = "at once after the approvals";
    if (job->window_seconds > 0)
        (void)snprintf(wait, sizeof wait, "%lld seconds (%lld days) after the approvals",
                       (long long)job->window_seconds, (long long)job->window_seconds / 86400);
    return kms_cli_confirm(cli,
                           "Shredding %llu customer%s of tenant %s (%s%s%s%s%s%s), %s%s: %s, everything that "
                           "their data keys encrypted "
                           "is lost for ever, in every backup too. Until then it can be cancelled.",
                           (unsigned long long)list->added, list->added == 1 ? "" : "s", job->tenant,
                           list->first[0], list->added > 1 ? ", " : "", list->first[1],
                           list->added > 2 ? ", " : "", list->first[2], list->added > 3 ? ", ..." : "",
                           job->purpose[0] != '\0' ? "purpose " : "everything that no law keeps",
                           job->purpose, wait);
}

/* Requested under an id of the job's own: repeated, it answers with the same operation. */
static int request_operation(struct kms_cli *cli, const Kms__V1__ShredJob *job)
{
    Kms__V1__RequestShredRequest request = KMS__V1__REQUEST_SHRED_REQUEST__INIT;
    request.job = job->uid;
    request.request_id = job->uid;
    return kms_cli_operation_call(cli, &request_method, &request.base);
}

/* The list is told; request it unless something was refused that must not be. */
static int request_job(struct kms_cli *cli, const Kms__V1__ShredJob *job,
                       const struct kms_cli_shred_list *list)
{
    if (list->refused > 0 && !kms_cli_given(cli, KMS_CLI_SKIP_REFUSED))
        return kms_cli_fail(
            cli,
            "%llu of %llu customers are refused, so nothing is requested; --skip-refused requests the "
            "others",
            (unsigned long long)list->refused, (unsigned long long)list->added + list->refused);
    if (list->added == 0)
        return kms_cli_fail(cli, "no customer is left to be shredded");
    const int result = confirm(cli, job, list);
    return result == KMS_CLI_EXIT_OK ? request_operation(cli, job) : result;
}

/* Tell the list of a new draft and request it, or leave no draft behind. */
static int fill_and_request(struct kms_cli *cli, const Kms__V1__ShredJob *job)
{
    struct kms_cli_shred_list list;
    int result = kms_cli_shred_send(cli, job->uid, &list);
    if (cli->json && list.refused > 0) {
        json_t *report = json_pack("{s:O, s:I}", "refused", list.errors, "added", (json_int_t)list.added);
        kms_cli_print_json(cli->err, report);
        json_decref(report);
    }
    if (result == KMS_CLI_EXIT_OK)
        result = request_job(cli, job, &list);
    if (result != KMS_CLI_EXIT_OK)
        drop_draft(cli, job->uid);
    json_decref(list.errors);
    return result != KMS_CLI_EXIT_OK ? result : list.refused > 0 ? KMS_CLI_EXIT_FAILED : KMS_CLI_EXIT_OK;
}

int kms_cli_shred_request(struct kms_cli *cli)
{
    if (kms_cli_given(cli, KMS_CLI_CUSTOMER) == kms_cli_given(cli, KMS_CLI_FILE))
        return kms_cli_usage(cli, "either --customer CUSTOMER or --file LIST must be given");
    char made[KMS_UUID_TEXT_SIZE];
    Kms__V1__CreateShredJobRequest create = KMS__V1__CREATE_SHRED_JOB_REQUEST__INIT;
    create.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    create.purpose = kms_cli_option_field(cli, KMS_CLI_PURPOSE);
    create.reason = kms_cli_option_field(cli, KMS_CLI_REASON);
    create.no_window = kms_cli_given(cli, KMS_CLI_NO_WINDOW);
    create.request_id = kms_cli_request_id(cli, made);
    KMS_CLI_CALL call = {0};
    const int result = kms_cli_call(cli, &call, &create_method, &create.base);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const Kms__V1__ShredJob *job = (const void *)call.reply;
    if (job->state != KMS__V1__SHRED_JOB__STATE__DRAFT) /* the same command has come so far before */
        return request_operation(cli, job);
    if (job->total == 0)
        return fill_and_request(cli, job);
    drop_draft(cli, job->uid);
    return kms_cli_fail(cli,
                        "an earlier attempt under this request id was broken off while the list was told: "
                        "nothing is requested, repeat it under another --request-id");
}

int kms_cli_shred_cancel(struct kms_cli *cli)
{
    Kms__V1__CancelShredRequest request = KMS__V1__CANCEL_SHRED_REQUEST__INIT;
    if ((cli->word_count == 1) ==
        (kms_cli_given(cli, KMS_CLI_TENANT) || kms_cli_given(cli, KMS_CLI_CUSTOMER)))
        return kms_cli_usage(cli, "either the job is given, or --tenant and --customer");
    if (cli->word_count == 1)
        request.job = kms_cli_field(cli->words[0]);
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.customer = kms_cli_option_field(cli, KMS_CLI_CUSTOMER);
    return kms_cli_call_show(cli, &cancel_method, &request.base);
}

/* Until the job is over, with a bar. Its own failures are in its counts. */
static int wait_for(struct kms_cli *cli, struct kms_cli_call *call,
                    const Kms__V1__GetShredJobRequest *request)
{
    const struct timespec pause = {.tv_nsec = 300 * 1000 * 1000};
    struct kms_cli_progress progress;
    kms_cli_progress_begin(&progress, cli, "shredding", "customers");
    int result;
    for (;;) {
        result = kms_cli_call(cli, call, &get_method, &request->base);
        if (result != KMS_CLI_EXIT_OK)
            break;
        const Kms__V1__ShredJob *job = (const void *)call->reply;
        kms_cli_progress_show(&progress, job->total - job->pending, job->total);
        if (job->state == KMS__V1__SHRED_JOB__STATE__DONE ||
            job->state == KMS__V1__SHRED_JOB__STATE__CANCELLED)
            break;
        (void)nanosleep(&pause, NULL);
    }
    kms_cli_progress_end(&progress);
    return result;
}

/* One job: its counts. */
static int show_job(struct kms_cli *cli)
{
    Kms__V1__GetShredJobRequest request = KMS__V1__GET_SHRED_JOB_REQUEST__INIT;
    KMS_CLI_CALL call = {0};
    request.job = kms_cli_field(cli->words[0]);
    int result = kms_cli_given(cli, KMS_CLI_WAIT) ? wait_for(cli, &call, &request)
                                                  : kms_cli_call(cli, &call, &get_method, &request.base);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    const Kms__V1__ShredJob *job = (const void *)call.reply;
    const bool bad = kms_cli_given(cli, KMS_CLI_WAIT) &&
                     (job->failed > 0 || job->state == KMS__V1__SHRED_JOB__STATE__CANCELLED);
    result = kms_cli_show(cli, kms_cli_json_of(call.reply));
    return result == KMS_CLI_EXIT_OK && bad ? KMS_CLI_EXIT_FAILED : result;
}

/* One customer for people: every job it was in, and what still stands in the way. */
static void print_status(struct kms_cli *cli, const Kms__V1__ShredStatus *status)
{
    (void)fprintf(cli->out, "customer %s of tenant %s\n", status->customer_uid, status->tenant);
    if (status->hold[0] != '\0') {
        kms_cli_print_text(cli->out, status->hold);
        (void)fputc('\n', cli->out);
    }
    for (size_t i = 0; i < status->n_targets; i++) {
        const Kms__V1__ShredTarget *target = status->targets[i];
        const ProtobufCEnumValue *state = protobuf_c_enum_descriptor_get_value(
            &kms__v1__shred_target__state__descriptor, (int)target->state);
        (void)fprintf(cli->out, "%s%s in job %s\n", state != NULL ? state->name : "?",
                      target->purpose[0] != '\0' ? " (one purpose)" : "", target->job);
        if (target->certificate[0] != '\0')
            (void)fprintf(cli->out, "  certificate %s\n", target->certificate);
        if (target->reason[0] != '\0') {
            (void)fputs("  ", cli->out);
            kms_cli_print_text(cli->out, target->reason);
            (void)fputc('\n', cli->out);
        }
        for (size_t k = 0; k < target->n_remaining; k++) {
            (void)fputs(k == 0 ? "  between SEALED and ERASED: " : "                             ", cli->out);
            kms_cli_print_text(cli->out, target->remaining[k]);
            (void)fputc('\n', cli->out);
        }
    }
    if (status->n_targets == 0)
        (void)fputs("was never requested to be shredded\n", cli->out);
    for (size_t i = 0; i < status->n_retentions; i++)
        (void)fprintf(cli->out, "purpose %s is kept by law\n", status->retentions[i]->purpose);
}

/* One customer. */
static int show_customer(struct kms_cli *cli)
{
    Kms__V1__GetShredStatusRequest request = KMS__V1__GET_SHRED_STATUS_REQUEST__INIT;
    KMS_CLI_CALL call = {0};
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    request.customer = kms_cli_option_field(cli, KMS_CLI_CUSTOMER);
    const int result = kms_cli_call(cli, &call, &status_method, &request.base);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    if (cli->json)
        return kms_cli_show(cli, kms_cli_json_of(call.reply));
    print_status(cli, (const void *)call.reply);
    return kms_cli_flush(cli);
}

int kms_cli_shred_status(struct kms_cli *cli)
{
    const bool named = kms_cli_given(cli, KMS_CLI_TENANT) && kms_cli_given(cli, KMS_CLI_CUSTOMER);
    if ((cli->word_count == 1) == named)
        return kms_cli_usage(cli, "either the job is given, or --tenant and --customer");
    return named ? show_customer(cli) : show_job(cli);
}

/* --state by the names of an enum of the API. */
static int take_state(struct kms_cli *cli, const ProtobufCEnumDescriptor *states, int *ret_state)
{
    const char *text = kms_cli_value(cli, KMS_CLI_STATE);
    if (text == NULL)
        return KMS_CLI_EXIT_OK;
    for (unsigned i = 1; i < states->n_values; i++) {
        if (strcasecmp(states->values[i].name, text) == 0) {
            *ret_state = states->values[i].value;
            return KMS_CLI_EXIT_OK;
        }
    }
    return kms_cli_usage(cli, "--state does not take \"%s\"", text);
}

int kms_cli_shred_list(struct kms_cli *cli)
{
    Kms__V1__ListShredJobsRequest request = KMS__V1__LIST_SHRED_JOBS_REQUEST__INIT;
    int state = 0;
    const int result = take_state(cli, &kms__v1__shred_job__state__descriptor, &state);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    request.state = (Kms__V1__ShredJob__State)state;
    request.tenant = kms_cli_option_field(cli, KMS_CLI_TENANT);
    return kms_cli_page(cli, &job_list, &request.base);
}

int kms_cli_shred_customers(struct kms_cli *cli)
{
    Kms__V1__ListShredTargetsRequest request = KMS__V1__LIST_SHRED_TARGETS_REQUEST__INIT;
    int state = 0;
    const int result = take_state(cli, &kms__v1__shred_target__state__descriptor, &state);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    request.state = (Kms__V1__ShredTarget__State)state;
    request.job = kms_cli_field(cli->words[0]);
    return kms_cli_page(cli, &target_list, &request.base);
}

int kms_cli_shred_clock(struct kms_cli *cli)
{
    const Kms__V1__GetShredClockRequest request = KMS__V1__GET_SHRED_CLOCK_REQUEST__INIT;
    return kms_cli_call_show(cli, &clock_method, &request.base);
}

int kms_cli_shred_confirm_clock(struct kms_cli *cli)
{
    const Kms__V1__ConfirmShredClockRequest request = KMS__V1__CONFIRM_SHRED_CLOCK_REQUEST__INIT;
    const int result =
        kms_cli_confirm(cli, "Confirming the wall clock of the service: waiting windows are measured "
                             "with it from now on, and those that it says are over end at once.");
    return result == KMS_CLI_EXIT_OK ? kms_cli_call_show(cli, &confirm_method, &request.base) : result;
}
