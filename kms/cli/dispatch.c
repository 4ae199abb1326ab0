#include "cli/dispatch.h"

#include "cli/commands.h"

#include <stdlib.h>
#include <string.h>

enum { OPTION_COLUMN = 28 };

/* "tenant create", or "encrypt". */
static const char *command_name(const struct kms_cli_command *command, char out[64])
{
    (void)snprintf(out, 64, "%s%s%s", command->noun, command->verb != NULL ? " " : "",
                   command->verb != NULL ? command->verb : "");
    return out;
}

/* One line an option of a set. */
static void print_options(FILE *file, kms_cli_set set)
{
    for (int i = 0; i < KMS_CLI_OPTION_COUNT; i++) {
        if ((set & kms_cli_bit(i)) == 0)
            continue;
        const struct kms_cli_option_row *row = kms_cli_option_row((enum kms_cli_option)i);
        char text[80];
        (void)snprintf(text, sizeof text, "--%s%s%s", row->text, row->argument != NULL ? " " : "",
                       row->argument != NULL ? row->argument : "");
        (void)fprintf(file, "  %-*s %s\n", OPTION_COLUMN, text, row->help);
    }
}

/* Help of one command. */
static void print_command_help(FILE *file, const struct kms_cli_command *command)
{
    char name[64];
    (void)fprintf(file, "kmsctl %s: %s\n\nUsage: kmsctl %s", command_name(command, name), command->summary,
                  name);
    for (int i = 0; i < KMS_CLI_OPTION_COUNT; i++) {
        const struct kms_cli_option_row *row = kms_cli_option_row((enum kms_cli_option)i);
        if ((command->required & kms_cli_bit(i)) != 0)
            (void)fprintf(file, " --%s %s", row->text, row->argument);
    }
    (void)fprintf(file, " [OPTIONS]%s%s\n", command->arguments[0] != '\0' ? " " : "", command->arguments);
    if (command->details != NULL)
        (void)fprintf(file, "\n%s\n", command->details);
    const kms_cli_set own = command->options & ~KMS_CLI_ONLINE;
    if (own != 0) {
        (void)fprintf(file, "\nOptions:\n");
        print_options(file, own);
    }
    (void)fprintf(file, "\nOptions of %s commands:\n",
                  (command->options & KMS_CLI_ONLINE) != 0 ? "all" : "these");
    print_options(file, KMS_CLI_ALWAYS | (command->options & KMS_CLI_ONLINE));
}

/* Help of the whole program, or of one noun. */
static void print_help(FILE *file, const char *noun)
{
    size_t count;
    const struct kms_cli_command *commands = kms_cli_commands(&count);
    (void)fprintf(file, "kmsctl: the command line of the key service\n\n"
                        "Usage: kmsctl COMMAND [OPTIONS] [ARGUMENTS]\n\nCommands:\n");
    for (size_t i = 0; i < count; i++) {
        char name[64];
        char text[96];
        if (noun != NULL && strcmp(noun, commands[i].noun) != 0)
            continue;
        (void)snprintf(text, sizeof text, "%s %s", command_name(&commands[i], name), commands[i].arguments);
        (void)fprintf(file, "  %-*s %s\n", OPTION_COLUMN, text, commands[i].summary);
    }
    (void)fprintf(
        file,
        "\nkmsctl COMMAND --help shows a command's options.\n\n"
        "Exit codes: 0 done, 1 the call failed, 2 wrong usage, 3 no connection or service unavailable,\n"
        "            4 denied, 5 refused: not authentic, or not for this customer and context.\n");
}

/* The command that the first words name; NULL when there is none. `*ret_used` words belong to its name. */
static const struct kms_cli_command *find_command(const struct kms_cli_values *words, size_t *ret_used)
{
    size_t count;
    const struct kms_cli_command *commands = kms_cli_commands(&count);
    for (size_t i = 0; i < count && words->count > 0; i++) {
        if (strcmp(words->items[0], commands[i].noun) != 0)
            continue;
        if (commands[i].verb != NULL && (words->count < 2 || strcmp(words->items[1], commands[i].verb) != 0))
            continue;
        *ret_used = commands[i].verb != NULL ? 2 : 1;
        return &commands[i];
    }
    return NULL;
}

/* Words that name no command: say which verbs the noun has, when it is one. */
static int unknown_command(struct kms_cli *cli)
{
    const struct kms_cli_values *words = &cli->options.words;
    if (words->count == 0)
        return kms_cli_usage(cli, "no command given; see kmsctl --help");
    size_t count;
    const struct kms_cli_command *commands = kms_cli_commands(&count);
    char verbs[128] = "";
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(commands[i].noun, words->items[0]) == 0 && commands[i].verb != NULL && len < sizeof verbs)
            len += (size_t)snprintf(verbs + len, sizeof verbs - len, " %s", commands[i].verb);
    }
    if (len > 0)
        return kms_cli_usage(cli, "\"%s\" takes one of:%s; see kmsctl %s --help", words->items[0], verbs,
                             words->items[0]);
    return kms_cli_usage(cli, "there is no command \"%s\"; see kmsctl --help", words->items[0]);
}

/* Options that the command does not know or needs, and the number of words. OK or USAGE. */
static int check_command(struct kms_cli *cli)
{
    const struct kms_cli_command *command = cli->command;
    const kms_cli_set given = kms_cli_options_set(&cli->options);
    const kms_cli_set unknown = given & ~(command->options | KMS_CLI_ALWAYS);
    const kms_cli_set missing = command->required & ~given;
    char name[64];
    command_name(command, name);
    if (unknown != 0)
        return kms_cli_usage(cli, "kmsctl %s has no option --%s", name,
                             kms_cli_option_row(kms_cli_set_first(unknown))->text);
    if (missing != 0)
        return kms_cli_usage(cli, "kmsctl %s needs --%s", name,
                             kms_cli_option_row(kms_cli_set_first(missing))->text);
    if (cli->word_count < command->words_min || cli->word_count > command->words_max)
        return kms_cli_usage(cli, "kmsctl %s takes %s, not %zu argument%s; see kmsctl %s --help", name,
                             command->arguments[0] != '\0' ? command->arguments : "no argument",
                             cli->word_count, cli->word_count == 1 ? "" : "s", name);
    return KMS_CLI_EXIT_OK;
}

/* Find the command, answer --help and --version, run. */
static int run(struct kms_cli *cli)
{
    size_t used = 0;
    cli->command = find_command(&cli->options.words, &used);
    if (kms_cli_given(cli, KMS_CLI_VERSION) && cli->command == NULL) {
        (void)fprintf(cli->out, "kmsctl %s\n", kms_client_version());
        return KMS_CLI_EXIT_OK;
    }
    if (kms_cli_given(cli, KMS_CLI_HELP)) {
        const struct kms_cli_values *words = &cli->options.words;
        if (cli->command != NULL)
            print_command_help(cli->out, cli->command);
        else
            print_help(cli->out, words->count > 0 ? words->items[0] : NULL);
        return KMS_CLI_EXIT_OK;
    }
    if (cli->command == NULL)
        return unknown_command(cli);
    cli->words = (const char *const *)cli->options.words.items + used;
    cli->word_count = cli->options.words.count - used;
    const int checked = check_command(cli);
    return checked == KMS_CLI_EXIT_OK ? cli->command->run(cli) : checked;
}

int kms_cli_dispatch(int argc, char **argv, FILE *out, FILE *err)
{
    struct kms_cli cli = {.out = out, .err = err};
    char message[256];
    const bool parsed = kms_cli_options_parse(argc, argv, &cli.options, message);
    cli.json = kms_cli_given(&cli, KMS_CLI_JSON);
    const int result = parsed ? run(&cli) : kms_cli_usage(&cli, "%s; see kmsctl --help", message);
    kms_client_free(cli.client);
    kms_cli_options_clear(&cli.options);
    return result;
}
