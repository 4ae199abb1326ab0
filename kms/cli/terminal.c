#include "cli/terminal.h"

#include "cli/output.h"
#include "core/clock.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

enum { BAR_WIDTH = 30, DRAW_EVERY_MS = 100, ANSWER_MAX = 16 };

int kms_cli_confirm(struct kms_cli *cli, const char *fmt, ...)
{
    if (kms_cli_given(cli, KMS_CLI_YES))
        return KMS_CLI_EXIT_OK;
    char text[1024];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return kms_cli_usage(cli, "%s Nobody can be asked without a terminal: repeat the command with --yes",
                             text);
    kms_cli_print_text(cli->err, text);
    (void)fprintf(cli->err, "\nType \"yes\" to go on: ");
    (void)fflush(cli->err);
    char answer[ANSWER_MAX];
    if (fgets(answer, sizeof answer, stdin) != NULL && strcmp(answer, "yes\n") == 0)
        return KMS_CLI_EXIT_OK;
    return kms_cli_fail(cli, "nothing was done");
}

void kms_cli_progress_begin(struct kms_cli_progress *progress, const struct kms_cli *cli, const char *what,
                            const char *unit)
{
    const bool visible = !cli->json && cli->err == stderr && isatty(STDERR_FILENO);
    *progress = (struct kms_cli_progress){
        .file = visible ? stderr : NULL, .what = what, .unit = unit, .started_ns = kms_clock_mono_ns()};
}

/* "3.4 MiB", or "3400 customers". */
static void format_amount(char out[48], double amount, const char *unit)
{
    static const char *const prefixes[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    if (strcmp(unit, "B") != 0) {
        (void)snprintf(out, 48, "%.0f %s", amount, unit);
        return;
    }
    size_t i = 0;
    while (amount >= 1024 && i + 1 < sizeof prefixes / sizeof *prefixes) {
        amount /= 1024;
        i++;
    }
    (void)snprintf(out, 48, "%.*f %s", i == 0 ? 0 : 1, amount, prefixes[i]);
}

void kms_cli_progress_show(struct kms_cli_progress *progress, uint64_t done, uint64_t all)
{
    if (progress->file == NULL)
        return;
    const int64_t now_ns = kms_clock_mono_ns();
    if (now_ns - progress->drawn_ns < DRAW_EVERY_MS * KMS_NS_PER_MS)
        return;
    progress->drawn_ns = now_ns;
    progress->drawn = true;
    char amount[48];
    char rate[48];
    const double seconds = (double)(now_ns - progress->started_ns) / (double)KMS_NS_PER_SECOND;
    format_amount(amount, (double)done, progress->unit);
    format_amount(rate, seconds > 0 ? (double)done / seconds : 0, progress->unit);
    (void)fprintf(progress->file, "\r%s ", progress->what);
    if (all > 0) {
        const uint64_t part = done < all ? done : all;
        const int filled = (int)((double)part / (double)all * BAR_WIDTH);
        (void)fputc('[', progress->file);
        for (int i = 0; i < BAR_WIDTH; i++)
            (void)fputc(i < filled ? '#' : '.', progress->file);
        (void)fprintf(progress->file, "] %3.0f%% ", (double)part / (double)all * 100);
    }
    (void)fprintf(progress->file, "%s, %s/s\033[K", amount, rate);
    (void)fflush(progress->file);
}

void kms_cli_progress_end(struct kms_cli_progress *progress)
{
    if (progress->file == NULL || !progress->drawn)
        return;
    (void)fprintf(progress->file, "\r\033[K");
    (void)fflush(progress->file);
}
