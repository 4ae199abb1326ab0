#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/input.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/terminal.h"

#include <kms/envelope.h>

/* Progress of one run; also remembers how much was read, for the summary. */
struct run {
    struct kms_cli_progress progress;
    uint64_t input_bytes;
};

static int show_progress(void *context, uint64_t done, uint64_t all)
{
    struct run *run = context;
    run->input_bytes = done;
    kms_cli_progress_show(&run->progress, done, all);
    return 0;
}

typedef enum kms_client_status (*file_function)(struct kms_datakey_source, const struct kms_envelope_scope *,
                                                const char *, const char *,
                                                const struct kms_envelope_file_options *,
                                                struct kms_client_error *);

/* Say what was done, unless the output itself went to standard output. */
static int show_summary(struct kms_cli *cli, const struct run *run, const char *in, const char *out,
                        const char *done)
{
    if (strcmp(out, "-") == 0)
        return KMS_CLI_EXIT_OK;
    if (cli->json)
        return kms_cli_show(cli,
                            json_pack("{s:o, s:o, s:I}", "input", kms_cli_json_text(in), "output",
                                      kms_cli_json_text(out), "input_bytes", (json_int_t)run->input_bytes));
    kms_cli_print_text(cli->out, done);
    (void)fputc(' ', cli->out);
    kms_cli_print_text(cli->out, strcmp(in, "-") == 0 ? "standard input" : in);
    (void)fputs(" to ", cli->out);
    kms_cli_print_text(cli->out, out);
    (void)fprintf(cli->out, " (%llu bytes read)\n", (unsigned long long)run->input_bytes);
    return kms_cli_flush(cli);
}

/* Both directions. */
static int run_crypt(struct kms_cli *cli, file_function function, const char *doing, const char *done)
{
    const char *in = cli->word_count > 0 ? cli->words[0] : "-";
    const char *out = cli->word_count > 1 ? cli->words[1] : "-";
    struct kms_envelope_scope scope = {.tenant = kms_cli_value(cli, KMS_CLI_TENANT),
                                       .customer = kms_cli_value(cli, KMS_CLI_CUSTOMER),
                                       .purpose = kms_cli_value(cli, KMS_CLI_PURPOSE)};
    KMS_CLEANUP(kms_cli_free_pairs) struct kms_datakey_context *context = NULL;
    int result = kms_cli_read_pairs(cli, KMS_CLI_CONTEXT, &context, &scope.context_count);
    if (result == KMS_CLI_EXIT_OK)
        result = kms_cli_connect(cli);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    scope.context = context;
    struct run run = {0};
    const struct kms_envelope_file_options options = {.progress = show_progress,
                                                      .progress_context = &run,
                                                      .keep_existing = !kms_cli_given(cli, KMS_CLI_FORCE)};
    struct kms_client_error error;
    kms_cli_progress_begin(&run.progress, cli, doing, "B");
    const enum kms_client_status status =
        function(kms_datakey_source_of(cli->client), &scope, in, out, &options, &error);
    kms_cli_progress_end(&run.progress);
    if (status != KMS_CLIENT_OK)
        return kms_cli_fail_client(cli, &error);
    return show_summary(cli, &run, in, out, done);
}

int kms_cli_encrypt(struct kms_cli *cli)
{
    if (cli->word_count < 2 && isatty(STDOUT_FILENO))
        return kms_cli_usage(cli,
                             "encrypted content is not for a terminal: name an output file, or use a pipe");
    return run_crypt(cli, kms_envelope_encrypt_file, "encrypting", "encrypted");
}

int kms_cli_decrypt(struct kms_cli *cli)
{
    return run_crypt(cli, kms_envelope_decrypt_file, "decrypting", "decrypted");
}
