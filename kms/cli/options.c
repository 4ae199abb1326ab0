#define _GNU_SOURCE /* timegm, strptime */
#include "cli/options.h"

#include "core/clock.h"

#include <popt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct kms_cli_option_row rows[KMS_CLI_OPTION_COUNT] = {
#define KMS_CLI_OPTIONS_ROW(name, text, argument, repeat, help) {text, argument, repeat, help},
    KMS_CLI_OPTIONS_TABLE(KMS_CLI_OPTIONS_ROW)
#undef KMS_CLI_OPTIONS_ROW
};

_Static_assert(KMS_CLI_OPTION_COUNT <= 128, "a set of options has 128 bits");

const struct kms_cli_option_row *kms_cli_option_row(enum kms_cli_option option)
{
    return &rows[option];
}

/* Append an owned item; false when memory is short (then the item is freed). */
static bool append(struct kms_cli_values *values, char *item)
{
    char **items = realloc(values->items, (values->count + 1) * sizeof *items);
    if (items == NULL) {
        free(item);
        return false;
    }
    items[values->count] = item;
    values->items = items;
    values->count++;
    return true;
}

/* popt's form of the table; `val` is the option's number plus one, because 0 means "do not return". */
static void fill_popt(struct poptOption table[KMS_CLI_OPTION_COUNT + 1])
{
    for (int i = 0; i < KMS_CLI_OPTION_COUNT; i++)
        table[i] = (struct poptOption){.longName = rows[i].text,
                                       .shortName = i == KMS_CLI_HELP ? 'h' : '\0',
                                       .argInfo = rows[i].argument != NULL ? POPT_ARG_STRING : POPT_ARG_NONE,
                                       .val = i + 1};
    table[KMS_CLI_OPTION_COUNT] = (struct poptOption)POPT_TABLEEND;
}

/* Take one option that popt has found. */
static bool take_option(struct kms_cli_options *options, poptContext context, int option, char message[256])
{
    struct kms_cli_values *given = &options->given[option];
    char *value = rows[option].argument != NULL ? poptGetOptArg(context) : NULL;
    if (given->count > 0 && !rows[option].repeat && rows[option].argument != NULL) {
        free(value);
        (void)snprintf(message, 256, "--%s is given twice", rows[option].text);
        return false;
    }
    if (!append(given, value)) {
        (void)snprintf(message, 256, "out of memory");
        return false;
    }
    return true;
}

/* Everything that popt finds in the command line. */
static bool parse_all(poptContext context, struct kms_cli_options *options, char message[256])
{
    int found;
    while ((found = poptGetNextOpt(context)) > 0) {
        if (!take_option(options, context, found - 1, message))
            return false;
    }
    if (found < -1) {
        (void)snprintf(message, 256, "%s: %s", poptBadOption(context, 0), poptStrerror(found));
        return false;
    }
    for (const char *word; (word = poptGetArg(context)) != NULL;) {
        char *copy = strdup(word);
        if (copy == NULL || !append(&options->words, copy)) {
            (void)snprintf(message, 256, "out of memory");
            return false;
        }
    }
    return true;
}

bool kms_cli_options_parse(int argc, char **argv, struct kms_cli_options *options, char message[256])
{
    struct poptOption table[KMS_CLI_OPTION_COUNT + 1];
    fill_popt(table);
    if (argc < 2)
        return true;
    const char **words;
    memcpy(&words, &argv, sizeof words); /* popt only reads them */
    poptContext context = poptGetContext(NULL, argc, words, table, 0);
    if (context == NULL) {
        (void)snprintf(message, 256, "out of memory");
        return false;
    }
    const bool parsed = parse_all(context, options, message);
    poptFreeContext(context);
    return parsed;
}

/* Free the items and the list. */
static void clear_values(struct kms_cli_values *values)
{
    for (size_t i = 0; i < values->count; i++)
        free(values->items[i]);
    free(values->items);
    *values = (struct kms_cli_values){0};
}

void kms_cli_options_clear(struct kms_cli_options *options)
{
    for (int i = 0; i < KMS_CLI_OPTION_COUNT; i++)
        clear_values(&options->given[i]);
    clear_values(&options->words);
}

const char *kms_cli_option_value(const struct kms_cli_options *options, enum kms_cli_option option)
{
    return options->given[option].count > 0 ? options->given[option].items[0] : NULL;
}

bool kms_cli_option_given(const struct kms_cli_options *options, enum kms_cli_option option)
{
    return options->given[option].count > 0;
}

kms_cli_set kms_cli_options_set(const struct kms_cli_options *options)
{
    kms_cli_set set = 0;
    for (int i = 0; i < KMS_CLI_OPTION_COUNT; i++)
        set |= options->given[i].count > 0 ? kms_cli_bit(i) : 0;
    return set;
}

/* Digits at the beginning of a text; false when there are none or the number is over `max`. */
static bool leading_number(const char *text, uint64_t max, uint64_t *ret_number, const char **ret_rest)
{
    uint64_t number = 0;
    const char *c = text;
    for (; *c >= '0' && *c <= '9'; c++) {
        const uint64_t digit = (uint64_t)(*c - '0');
        if (number > (max - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    *ret_number = number;
    *ret_rest = c;
    return c != text;
}

bool kms_cli_parse_number(const char *text, uint64_t max, uint64_t *ret_number)
{
    const char *rest;
    uint64_t number;
    if (!leading_number(text, max, &number, &rest) || *rest != '\0')
        return false;
    *ret_number = number;
    return true;
}

bool kms_cli_parse_duration(const char *text, int64_t *ret_seconds)
{
    return kms_clock_parse_duration(text, ret_seconds);
}

bool kms_cli_parse_time(const char *text, int64_t *ret_seconds)
{
    static const char *const forms[] = {"%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct tm parts = {0};
        const char *end = strptime(text, forms[i], &parts);
        if (end != NULL && *end == '\0') {
            *ret_seconds = (int64_t)timegm(&parts);
            return true;
        }
    }
    return false;
}
