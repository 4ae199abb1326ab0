/* An operation on the screen, and waiting for its end. */
#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/fields.h"
#include "cli/json.h"
#include "cli/operation.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "core/cleanup.h"
#include "core/clock.h"

#include <string.h>
#include <time.h>

enum { POLL_FIRST_MS = 50, POLL_MAX_MS = 1000, AWAY_MAX_SECONDS = 120 };

static const struct kms_unary_method get_method = {"/kms.v1.OperationService/GetOperation",
                                                   &kms__v1__operation__descriptor, true};

/* The document, one member a line. Everything but ASCII is escaped: what an approver reads must not be able to dress up. */
static void print_document(FILE *out, const Kms__V1__Operation *operation)
{
    if (operation->document.len == 0)
        return;
    json_t *document = json_loadb((const char *)operation->document.data, operation->document.len,
                                  JSON_REJECT_DUPLICATES, NULL);
    (void)fputs("document\n", out);
    if (document != NULL)
        (void)json_dumpf(document, out, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_PRESERVE_ORDER);
    else
        (void)fputs("(is not JSON)", out);
    (void)fputc('\n', out);
    json_decref(document);
}

/* "spiffe://... at 2026-...", one for each approval, in the place of certificates and signatures. */
static json_t *approvals_of(const json_t *shown)
{
    json_t *list = json_object();
    size_t index;
    json_t *approval;
    json_array_foreach(json_object_get(shown, "approvals"), index, approval)
    {
        (void)json_object_set(list, json_string_value(json_object_get(approval, "identity")),
                              json_object_get(approval, "time"));
    }
    return list;
}

int kms_cli_operation_show(struct kms_cli *cli, const Kms__V1__Operation *operation)
{
    json_t *shown = kms_cli_json_of(&operation->base);
    if (cli->json || shown == NULL)
        return kms_cli_show(cli, shown);
    (void)json_object_del(shown, "document");
    (void)json_object_del(shown, "name");
    json_t *result = json_loads(operation->result, JSON_REJECT_DUPLICATES, NULL);
    if (result != NULL)
        (void)json_object_set_new(shown, "result", result);
    (void)json_object_set_new(shown, "approvals", approvals_of(shown));
    const int exit_code = kms_cli_show(cli, shown);
    print_document(cli->out, operation);
    return exit_code == KMS_CLI_EXIT_OK ? kms_cli_flush(cli) : exit_code;
}

/* Nothing comes after this state. */
static bool is_over(Kms__V1__Operation__State state)
{
    return state > KMS__V1__OPERATION__STATE__RUNNING;
}

static void pause_ms(unsigned milliseconds)
{
    const struct timespec pause = {.tv_sec = milliseconds / 1000,
                                   .tv_nsec = (long)(milliseconds % 1000) * KMS_NS_PER_MS};
    (void)nanosleep(&pause, NULL);
}

/* The bar's words for a state. */
static const char *phase_of(Kms__V1__Operation__State state)
{
    return state == KMS__V1__OPERATION__STATE__PENDING    ? "waiting for approvals"
           : state == KMS__V1__OPERATION__STATE__APPROVED ? "waiting for its turn"
                                                          : "running";
}

/* One look; true when the waiting is over, with the exit code. */
static bool poll(struct kms_cli *cli, struct kms_cli_call *call, const ProtobufCMessage *request,
                 struct kms_cli_progress *progress, int64_t *away_since_ns, int *ret_exit)
{
    const enum kms_client_status status = kms_cli_call_quiet(cli, call, &get_method, request);
    if (status == KMS_CLIENT_OK) {
        const Kms__V1__Operation *operation = (const Kms__V1__Operation *)call->reply;
        *away_since_ns = 0;
        progress->what = phase_of(operation->state);
        kms_cli_progress_show(progress, operation->done, operation->total);
        *ret_exit = KMS_CLI_EXIT_OK;
        return is_over(operation->state);
    }
    const int64_t now = kms_clock_mono_ns();
    if (*away_since_ns == 0)
        *away_since_ns = now;
    *ret_exit = kms_cli_exit_code(status);
    return *ret_exit != KMS_CLI_EXIT_UNAVAILABLE ||
           now - *away_since_ns > AWAY_MAX_SECONDS * KMS_NS_PER_SECOND;
}

int kms_cli_operation_wait(struct kms_cli *cli, const char *uid)
{
    Kms__V1__GetOperationRequest request = KMS__V1__GET_OPERATION_REQUEST__INIT;
    request.uid = kms_cli_field(uid);
    KMS_CLI_CALL call = {0};
    int exit_code = kms_cli_connect(cli);
    if (exit_code != KMS_CLI_EXIT_OK)
        return exit_code;
    struct kms_cli_progress progress;
    kms_cli_progress_begin(&progress, cli, "waiting", "steps");
    int64_t away_since_ns = 0;
    unsigned pause = POLL_FIRST_MS;
    while (!poll(cli, &call, &request.base, &progress, &away_since_ns, &exit_code)) {
        pause_ms(pause);
        pause = pause * 2 < POLL_MAX_MS ? pause * 2 : POLL_MAX_MS;
    }
    kms_cli_progress_end(&progress);
    if (exit_code != KMS_CLI_EXIT_OK)
        return kms_cli_fail_client(cli, &call.error);
    const Kms__V1__Operation *operation = (const Kms__V1__Operation *)call.reply;
    const bool succeeded = operation->state == KMS__V1__OPERATION__STATE__SUCCEEDED;
    exit_code = kms_cli_operation_show(cli, operation);
    return exit_code == KMS_CLI_EXIT_OK && !succeeded ? KMS_CLI_EXIT_FAILED : exit_code;
}

int kms_cli_operation_call(struct kms_cli *cli, const struct kms_unary_method *method,
                           const ProtobufCMessage *request)
{
    char uid[KMS_UUID_TEXT_SIZE];
    {
        KMS_CLI_CALL call = {0};
        const int exit_code = kms_cli_call(cli, &call, method, request);
        if (exit_code != KMS_CLI_EXIT_OK)
            return exit_code;
        const Kms__V1__Operation *operation = (const Kms__V1__Operation *)call.reply;
        if (!kms_cli_given(cli, KMS_CLI_WAIT))
            return kms_cli_operation_show(cli, operation);
        (void)snprintf(uid, sizeof uid, "%s", operation->uid);
    }
    return kms_cli_operation_wait(cli, uid);
}
