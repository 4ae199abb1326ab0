#define _GNU_SOURCE /* getline */
#include "cli/commands.h"
#include "cli/connection.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/rewrap_file.h"
#include "cli/terminal.h"
#include "core/cleanup.h"

#include <kms/datakey.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* Lines that are sent ahead of their answers, and after how many answers the state is kept. */
enum { WINDOW = 512, KEEP_EVERY = 5000, BLOB_TEXT_MAX = 8192, PAIRS_MAX = 64 };

/* One line that waits for its answer. */
struct pending {
    char *line; /* as it was, without its end */
    uint64_t number;
    char *problem; /* why it was not sent; NULL: it was */
};

struct rewrap {
    struct kms_cli *cli;
    struct kms_cli_rewrap_file file;
    struct kms_datakey_stream *stream;
    struct pending pending[WINDOW];
    size_t head, count;
    uint64_t since_kept;
    struct kms_cli_progress progress;
};

/* Base64 of a blob; false when it is none. */
static bool decode_blob(const char *text, size_t len, uint8_t *blob, size_t *ret_len)
{
    if (len == 0 || len % 4 != 0 || len > BLOB_TEXT_MAX)
        return false;
    const size_t padding = text[len - 1] != '=' ? 0 : text[len - 2] != '=' ? 1 : 2;
    if (memchr(text, '=', len - padding) != NULL) /* OpenSSL takes it for a digit */
        return false;
    const int got = EVP_DecodeBlock(blob, (const unsigned char *)text, (int)len);
    if (got < 0 || (size_t)got < padding)
        return false;
    *ret_len = (size_t)got - padding;
    return *ret_len > 0 && *ret_len <= KMS_DATAKEY_WRAPPED_MAX;
}

/* The columns behind the blob, split in place: KEY=VALUE, between tabs. NULL, or what is wrong. */
static const char *split_context(char *text, struct kms_datakey_context pairs[PAIRS_MAX], size_t *ret_count)
{
    size_t count = 0;
    for (char *save = NULL, *column = strtok_r(text, "\t", &save); column != NULL;
         column = strtok_r(NULL, "\t", &save)) {
        char *equals = strchr(column, '=');
        if (equals == NULL || equals == column)
            return "a context column is not KEY=VALUE";
        if (count == PAIRS_MAX)
            return "has more than 64 context columns";
        *equals = '\0';
        pairs[count++] = (struct kms_datakey_context){column, equals + 1};
    }
    *ret_count = count;
    return NULL;
}

/* Send one line, or say why not. */
static const char *send_line(struct rewrap *run, const char *line, struct kms_client_error *error)
{
    uint8_t blob[BLOB_TEXT_MAX];
    struct kms_datakey_context pairs[PAIRS_MAX];
    struct kms_datakey_request request = {.tenant = kms_cli_value(run->cli, KMS_CLI_TENANT),
                                          .customer = kms_cli_value(run->cli, KMS_CLI_CUSTOMER),
                                          .purpose = kms_cli_value(run->cli, KMS_CLI_PURPOSE),
                                          .context = pairs,
                                          .input = blob};
    const size_t len = strcspn(line, "\t");
    if (!decode_blob(line, len, blob, &request.input_len))
        return "does not begin with a wrapped data key in base64";
    KMS_FREE char *columns = strdup(line[len] == '\t' ? line + len + 1 : "");
    if (columns == NULL)
        return "out of memory";
    const char *problem = split_context(columns, pairs, &request.context_count);
    if (problem != NULL)
        return problem;
    const enum kms_client_status status = kms_datakey_stream_send(run->stream, &request, error);
    return status == KMS_CLIENT_OK || status != KMS_CLIENT_INVALID ? NULL : error->message;
}

/* One line of output: the new blob and the columns, or the line as it was. */
static bool write_result(struct rewrap *run, const struct pending *pending,
                         const struct kms_datakey_result *result)
{
    FILE *out = run->file.out;
    if (result == NULL || result->error.status != KMS_CLIENT_OK)
        return fprintf(out, "%s\n", pending->line) >= 0;
    char text[BLOB_TEXT_MAX];
    (void)EVP_EncodeBlock((unsigned char *)text, result->key.wrapped, (int)result->key.wrapped_len);
    return fprintf(out, "%s%s\n", text, pending->line + strcspn(pending->line, "\t")) >= 0;
}

/* The answer to the oldest line. */
static int take_answer(struct rewrap *run)
{
    struct kms_cli *cli = run->cli;
    struct pending *pending = &run->pending[run->head];
    struct kms_datakey_result result = {0};
    struct kms_client_error error;
    bool written;
    if (pending->problem == NULL) {
        if (kms_datakey_stream_receive(run->stream, &result, &error) != KMS_CLIENT_OK)
            return kms_cli_fail_client(cli, &error);
        if (result.error.status != KMS_CLIENT_OK && result.error.status != KMS_CLIENT_REFUSED &&
            result.error.status != KMS_CLIENT_PRECONDITION && result.error.status != KMS_CLIENT_NOT_FOUND &&
            result.error.status != KMS_CLIENT_INVALID && result.error.status != KMS_CLIENT_DENIED)
            return kms_cli_fail_client(
                cli, &result.error); /* not this line's fault: it is done again by the next run */
    }
    const char *problem = pending->problem != NULL               ? pending->problem
                          : result.error.status != KMS_CLIENT_OK ? result.error.message
                                                                 : NULL;
    written = write_result(run, pending, problem == NULL ? &result : NULL);
    kms_datakey_clear(&result.key);
    if (problem != NULL) {
        run->file.state.failed++;
        kms_cli_progress_end(&run->progress);
        (void)fprintf(cli->err, "line %llu: %s\n", (unsigned long long)pending->number, problem);
    }
    run->file.state.lines++;
    run->file.state.in_offset += strlen(pending->line) + 1;
    free(pending->line);
    free(pending->problem);
    run->head = (run->head + 1) % WINDOW;
    run->count--;
    if (!written)
        return kms_cli_fail(cli, "cannot write the output");
    if (++run->since_kept < KEEP_EVERY)
        return KMS_CLI_EXIT_OK;
    run->since_kept = 0;
    kms_cli_progress_show(&run->progress, run->file.state.in_offset, run->file.in_size);
    return kms_cli_rewrap_keep(cli, &run->file);
}

/* Take one line in; answers are taken when the window is full. */
static int add_line(struct rewrap *run, char *line)
{
    struct kms_client_error error = {0};
    int result = KMS_CLI_EXIT_OK;
    while (run->count == WINDOW && result == KMS_CLI_EXIT_OK)
        result = take_answer(run);
    if (result != KMS_CLI_EXIT_OK) {
        free(line);
        return result;
    }
    const char *problem = send_line(run, line, &error);
    struct pending *pending = &run->pending[(run->head + run->count++) % WINDOW];
    *pending =
        (struct pending){line, run->file.state.lines + run->count, problem != NULL ? strdup(problem) : NULL};
    if (problem == NULL && error.status != KMS_CLIENT_OK)
        return kms_cli_fail_client(run->cli, &error);
    return KMS_CLI_EXIT_OK;
}

/* Every line from where the state says. */
static int read_lines(struct rewrap *run)
{
    char *text = NULL;
    size_t capacity = 0;
    ssize_t len;
    int result = KMS_CLI_EXIT_OK;
    while (result == KMS_CLI_EXIT_OK && (len = getline(&text, &capacity, run->file.in)) >= 0) {
        if (len > 0 && text[len - 1] == '\n')
            text[--len] = '\0';
        if (strlen(text) != (size_t)len) {
            const unsigned long long line = 1ULL + run->file.state.lines + run->count;
            result =
                kms_cli_fail(run->cli, "line %llu holds a NUL byte: this is no list of wrapped keys", line);
            break;
        }
        char *copy = strdup(text);
        result = copy != NULL ? add_line(run, copy) : kms_cli_fail(run->cli, "out of memory");
    }
    if (result == KMS_CLI_EXIT_OK && ferror(run->file.in))
        result = kms_cli_fail(run->cli, "cannot read %s", run->cli->words[0]);
    free(text);
    while (result == KMS_CLI_EXIT_OK && run->count > 0)
        result = take_answer(run);
    return result;
}

/* What is left of a run that ended early. */
static void clear(struct rewrap *run)
{
    for (; run->count > 0; run->count--) {
        free(run->pending[run->head].line);
        free(run->pending[run->head].problem);
        run->head = (run->head + 1) % WINDOW;
    }
    kms_datakey_stream_close(run->stream);
    kms_cli_rewrap_close(&run->file);
}

/* With input and output open. */
static int rewrap_all(struct rewrap *run)
{
    struct kms_cli *cli = run->cli;
    struct kms_client_error error;
    int result = kms_cli_connect(cli);
    if (result == KMS_CLI_EXIT_OK &&
        kms_datakey_stream_open(cli->client, KMS_DATAKEY_REWRAP, &run->stream, &error) != KMS_CLIENT_OK)
        return kms_cli_fail_client(cli, &error);
    if (result != KMS_CLI_EXIT_OK)
        return result;
    kms_cli_progress_begin(&run->progress, cli, "rewrapping", "B");
    result = read_lines(run);
    kms_cli_progress_end(&run->progress);
    const int kept = result == KMS_CLI_EXIT_OK ? kms_cli_rewrap_finish(cli, &run->file)
                                               : kms_cli_rewrap_keep(cli, &run->file);
    return result != KMS_CLI_EXIT_OK ? result : kept;
}

int kms_cli_rewrap(struct kms_cli *cli)
{
    struct rewrap *run = calloc(1, sizeof *run);
    if (run == NULL)
        return kms_cli_fail(cli, "out of memory");
    run->cli = cli;
    int result = kms_cli_rewrap_open(cli, cli->words[0], kms_cli_value(cli, KMS_CLI_OUT), &run->file);
    if (result == KMS_CLI_EXIT_OK) {
        const uint64_t before = run->file.state.lines;
        if (before > 0)
            (void)fprintf(cli->err, "going on behind line %llu\n", (unsigned long long)before);
        result = rewrap_all(run);
    }
    const uint64_t failed = run->file.state.failed;
    json_t *summary = json_pack("{s:I, s:I}", "rewrapped", (json_int_t)(run->file.state.lines - failed),
                                "failed", (json_int_t)failed);
    clear(run);
    free(run);
    if (result != KMS_CLI_EXIT_OK) {
        json_decref(summary);
        return result;
    }
    const int shown = kms_cli_show(cli, summary);
    return shown == KMS_CLI_EXIT_OK && failed > 0 ? KMS_CLI_EXIT_FAILED : shown;
}
