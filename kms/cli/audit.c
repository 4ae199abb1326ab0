#include "audit/verify.h"

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "core/cleanup.h"
#include "core/file.h"
#include "evidence/signature.h"

#include <string.h>

enum { FINDINGS_SHOWN = 100, KEYS_MAX = 16 };

/* What the callbacks need. */
struct verification {
    struct kms_cli *cli;
    struct kms_cli_progress progress;
    json_t *findings; /* the first FINDINGS_SHOWN */
};

static bool show_progress(void *context, const struct kms_audit_progress *progress)
{
    struct verification *verification = context;
    kms_cli_progress_show(&verification->progress, progress->bytes_done, progress->bytes_all);
    return true;
}

/* For people each finding is a line at once; for JSON it goes into the document. */
static void take_finding(void *context, const struct kms_audit_finding *finding)
{
    struct verification *verification = context;
    if (json_array_size(verification->findings) >= FINDINGS_SHOWN)
        return;
    (void)json_array_append_new(verification->findings,
                                json_pack("{s:s, s:s, s:I, s:I, s:s}", "kind",
                                          kms_audit_finding_name(finding->kind), "file", finding->file,
                                          "line", (json_int_t)finding->line, "seq", (json_int_t)finding->seq,
                                          "reason", finding->reason));
    if (verification->cli->json)
        return;
    kms_cli_progress_end(&verification->progress);
    kms_cli_print_text(verification->cli->err, finding->file);
    (void)fprintf(verification->cli->err, ":%llu: %s: ", (unsigned long long)finding->line,
                  kms_audit_finding_name(finding->kind));
    kms_cli_print_text(verification->cli->err, finding->reason);
    (void)fputc('\n', verification->cli->err);
}

/* The result as one object. */
static json_t *summary_of(const struct kms_audit_verify_result *result, bool intact, json_t *findings,
                          bool json)
{
    json_t *object = json_pack(
        "{s:b, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:I}", "intact",
        intact, "segments", (json_int_t)result->segments, "records", (json_int_t)result->records, "findings",
        (json_int_t)result->findings, "first_seq", (json_int_t)result->first_seq, "last_seq",
        (json_int_t)result->last_seq, "first_time", result->first_time, "last_time", result->last_time,
        "head_hash", result->head_hash, "recoveries", (json_int_t)result->recoveries, "losses",
        (json_int_t)result->losses, "tail_bytes", (json_int_t)result->tail_bytes, "checkpoints",
        (json_int_t)result->checkpoints, "covered_seq", (json_int_t)result->covered_seq, "covered_time",
        result->covered_time, "not_covered", (json_int_t)(result->last_seq - result->covered_seq), "brought",
        (json_int_t)result->brought);
    if (json && object != NULL)
        (void)json_object_set(object, "details", findings);
    return object;
}

/* The PEM files of --key. */
struct key_files {
    struct kms_buf texts[KEYS_MAX];
    struct kms_slice slices[KEYS_MAX];
    size_t count;
};

static void clear_key_files(struct key_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        kms_buf_clear(&files->texts[i]);
}

static int read_key_files(struct kms_cli *cli, struct key_files *files)
{
    const struct kms_cli_values *given = &cli->options.given[KMS_CLI_KEY];
    if (given->count > KEYS_MAX)
        return kms_cli_usage(cli, "--key may be given %d times", KEYS_MAX);
    for (size_t i = 0; i < given->count; i++) {
        struct kms_error err = {0};
        const enum kms_status status =
            kms_file_read(given->items[i], KMS_EVIDENCE_PEM_MAX, &files->texts[i], &err);
        if (status != KMS_OK)
            return kms_cli_fail(cli, "%s", kms_error_public(&err, status));
        files->slices[files->count++] = kms_buf_slice(&files->texts[i]);
    }
    return KMS_CLI_EXIT_OK;
}

/* Options of the command into those of the check. */
static int take_options(struct kms_cli *cli, struct kms_audit_verify_options *options)
{
    const char *seq = kms_cli_value(cli, KMS_CLI_KNOWN_SEQ);
    const char *hash = kms_cli_value(cli, KMS_CLI_KNOWN_HASH);
    if (seq != NULL && !kms_cli_parse_number(seq, INT64_MAX, &options->known_seq))
        return kms_cli_usage(cli, "--known-seq takes the number of a record, not \"%s\"", seq);
    if (hash != NULL && (seq == NULL || strlen(hash) != sizeof options->known_hash - 1))
        return kms_cli_usage(cli, "--known-hash takes 64 hex digits, together with --known-seq");
    if (hash != NULL)
        memcpy(options->known_hash, hash, sizeof options->known_hash);
    options->live = kms_cli_given(cli, KMS_CLI_LIVE);
    options->archived = kms_cli_given(cli, KMS_CLI_ARCHIVED);
    const struct kms_cli_values *brought = &cli->options.given[KMS_CLI_CHECKPOINT];
    options->brought = (const char *const *)brought->items;
    options->brought_count = brought->count;
    if (brought->count > 0 && !kms_cli_given(cli, KMS_CLI_KEY))
        return kms_cli_usage(
            cli, "--checkpoint needs --key: a checkpoint proves nothing without the key that signed it");
    return KMS_CLI_EXIT_OK;
}

int kms_cli_audit_verify(struct kms_cli *cli)
{
    struct verification verification = {.cli = cli, .findings = json_array()};
    struct kms_audit_verify_options options = {
        .progress = show_progress, .finding = take_finding, .context = &verification};
    KMS_CLEANUP(clear_key_files) struct key_files keys = {0};
    int exit_code = take_options(cli, &options);
    if (exit_code == KMS_CLI_EXIT_OK)
        exit_code = read_key_files(cli, &keys);
    options.keys = keys.slices;
    options.key_count = keys.count;
    if (exit_code == KMS_CLI_EXIT_OK) {
        struct kms_audit_verify_result result;
        struct kms_error err = {0};
        kms_cli_progress_begin(&verification.progress, cli, "verifying", "B");
        const enum kms_status status = kms_audit_verify(cli->words[0], &options, &result, &err);
        kms_cli_progress_end(&verification.progress);
        if (status != KMS_OK && status != KMS_TAMPERED)
            exit_code = kms_cli_fail(cli, "%s: %s", cli->words[0], kms_error_cause(&err, status));
        else
            exit_code =
                kms_cli_show(cli, summary_of(&result, status == KMS_OK, verification.findings, cli->json));
        if (status == KMS_TAMPERED && exit_code == KMS_CLI_EXIT_OK)
            exit_code = KMS_CLI_EXIT_REFUSED;
    }
    json_decref(verification.findings);
    return exit_code;
}
