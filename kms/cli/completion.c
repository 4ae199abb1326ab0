#include "cli/commands.h"
#include "cli/output.h"

#include <string.h>

/* The verbs of a noun, for a case of the script. */
static void print_verbs(FILE *out, const char *noun)
{
    size_t count;
    const struct kms_cli_command *commands = kms_cli_commands(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(commands[i].noun, noun) == 0 && commands[i].verb != NULL)
            (void)fprintf(out, " %s", commands[i].verb);
    }
}

/* The options of a set, as words. */
static void print_options(FILE *out, kms_cli_set set)
{
    for (int i = 0; i < KMS_CLI_OPTION_COUNT; i++) {
        if ((set & kms_cli_bit(i)) != 0)
            (void)fprintf(out, " --%s", kms_cli_option_row((enum kms_cli_option)i)->text);
    }
}

/* True for the first row of each noun. */
static bool begins_noun(const struct kms_cli_command *commands, size_t i)
{
    return i == 0 || strcmp(commands[i].noun, commands[i - 1].noun) != 0;
}

/* Words of each position: nouns, verbs of a noun, options of a command. */
static void print_tables(FILE *out, const struct kms_cli_command *commands, size_t count)
{
    (void)fprintf(out, "_kmsctl_nouns() { echo");
    for (size_t i = 0; i < count; i++) {
        if (begins_noun(commands, i))
            (void)fprintf(out, " %s", commands[i].noun);
    }
    (void)fprintf(out, "; }\n_kmsctl_verbs() {\n    case $1 in\n");
    for (size_t i = 0; i < count; i++) {
        if (!begins_noun(commands, i) || commands[i].verb == NULL)
            continue;
        (void)fprintf(out, "    %s) echo", commands[i].noun);
        print_verbs(out, commands[i].noun);
        (void)fprintf(out, " ;;\n");
    }
    (void)fprintf(out, "    esac\n}\n_kmsctl_options() {\n    case $1 in\n");
    for (size_t i = 0; i < count; i++) {
        (void)fprintf(out, "    %s%s%s) echo", commands[i].noun, commands[i].verb != NULL ? "/" : "",
                      commands[i].verb != NULL ? commands[i].verb : "");
        print_options(out, commands[i].options | KMS_CLI_ALWAYS);
        (void)fprintf(out, " ;;\n");
    }
    (void)fprintf(out, "    esac\n}\n");
}

int kms_cli_completion_bash(struct kms_cli *cli)
{
    static const char script[] =
        "_kmsctl() {\n"
        "    local word=${COMP_WORDS[COMP_CWORD]} noun= verb= i\n"
        "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
        "        case ${COMP_WORDS[i]} in\n"
        "        --json | --yes | --help | --force | --without-plaintext | --skip-existing | --live | "
        "--archived) ;;\n"
        "        --*=*) ;;\n"
        "        --*) i=$((i + 1)) ;;\n"
        "        *) if [ -z \"$noun\" ]; then noun=${COMP_WORDS[i]}; elif [ -z \"$verb\" ]; then "
        "verb=${COMP_WORDS[i]}; fi ;;\n"
        "        esac\n"
        "    done\n"
        "    local verbs\n"
        "    verbs=$(_kmsctl_verbs \"$noun\")\n"
        "    if [ -z \"$noun\" ]; then\n"
        "        COMPREPLY=($(compgen -W \"$(_kmsctl_nouns)\" -- \"$word\"))\n"
        "    elif [ -n \"$verbs\" ] && [ -z \"$verb\" ]; then\n"
        "        COMPREPLY=($(compgen -W \"$verbs\" -- \"$word\"))\n"
        "    elif [[ $word == -* ]]; then\n"
        "        COMPREPLY=($(compgen -W \"$(_kmsctl_options \"$noun${verbs:+/$verb}\")\" -- \"$word\"))\n"
        "    fi\n"
        "}\n"
        "complete -o default -F _kmsctl kmsctl\n";
    size_t count;
    const struct kms_cli_command *commands = kms_cli_commands(&count);
    print_tables(cli->out, commands, count);
    (void)fputs(script, cli->out);
    return kms_cli_flush(cli);
}
