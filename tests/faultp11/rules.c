#include "faultp11.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { RULES_MAX = 64, LINE_MAX_LEN = 256, WORD_MAX = 64, HANG_POLL_MS = 2 };

enum action { FAIL, DELAY, HANG, VANISH, DROP_SESSIONS, LOGOUT, FLAGS };

struct rule {
    char function[WORD_MAX]; /* "*": any */
    enum action action;
    unsigned long value; /* CKR, milliseconds or flags */
    long skip;
    long times; /* left; -1: for ever */
};

static struct {
    pthread_mutex_t lock;
    struct rule rules[RULES_MAX];
    size_t count;
    bool misspelt;
    struct stat seen;
    bool was_vanished;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const struct {
    const char *name;
    CK_RV value;
} codes[] = {
#define CODE(name)                                                                                           \
    {                                                                                                        \
#name, name                                                                                          \
    }
    CODE(CKR_HOST_MEMORY),
    CODE(CKR_GENERAL_ERROR),
    CODE(CKR_FUNCTION_FAILED),
    CODE(CKR_FUNCTION_NOT_SUPPORTED),
    CODE(CKR_DEVICE_ERROR),
    CODE(CKR_DEVICE_MEMORY),
    CODE(CKR_DEVICE_REMOVED),
    CODE(CKR_ENCRYPTED_DATA_INVALID),
    CODE(CKR_KEY_HANDLE_INVALID),
    CODE(CKR_OBJECT_HANDLE_INVALID),
    CODE(CKR_MECHANISM_INVALID),
    CODE(CKR_OPERATION_ACTIVE),
    CODE(CKR_OPERATION_NOT_INITIALIZED),
    CODE(CKR_PIN_INCORRECT),
    CODE(CKR_PIN_LOCKED),
    CODE(CKR_PIN_EXPIRED),
    CODE(CKR_SESSION_CLOSED),
    CODE(CKR_SESSION_COUNT),
    CODE(CKR_SESSION_HANDLE_INVALID),
    CODE(CKR_SESSION_READ_ONLY),
    CODE(CKR_TOKEN_NOT_PRESENT),
    CODE(CKR_TOKEN_WRITE_PROTECTED),
    CODE(CKR_USER_NOT_LOGGED_IN),
    CODE(CKR_WRAPPED_KEY_INVALID),
    CODE(CKR_CRYPTOKI_NOT_INITIALIZED),
#undef CODE
};

/* A number, decimal or 0x; false for anything else. */
static bool parse_number(const char *text, unsigned long *ret_value)
{
    char *end = NULL;
    const unsigned long value = strtoul(text, &end, 0);
    if (text[0] < '0' || text[0] > '9' || *end != '\0')
        return false;
    *ret_value = value;
    return true;
}

/* A CKR by name or number. */
static bool parse_code(const char *text, unsigned long *ret_value)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (strcmp(text, codes[i].name) == 0) {
            *ret_value = codes[i].value;
            return true;
        }
    }
    return parse_number(text, ret_value);
}

/* The action by its name, and its value if it takes one. */
static bool parse_action(const char *action, const char *value, struct rule *rule)
{
    const bool token = strcmp(rule->function, "token") == 0;
    if (strcmp(action, "fail") == 0) {
        rule->action = FAIL;
        return value != NULL && parse_code(value, &rule->value);
    }
    if (strcmp(action, "delay") == 0) {
        rule->action = DELAY;
        return value != NULL && parse_number(value, &rule->value);
    }
    if (token && strcmp(action, "flags") == 0) {
        rule->action = FLAGS;
        return value != NULL && parse_number(value, &rule->value);
    }
    rule->action = HANG;
    if (strcmp(action, "hang") == 0)
        return value == NULL;
    rule->action = VANISH;
    if (token && strcmp(action, "vanish") == 0)
        return value == NULL;
    rule->times = 1;
    rule->action = DROP_SESSIONS;
    if (strcmp(rule->function, "sessions") == 0 && strcmp(action, "drop") == 0)
        return value == NULL;
    rule->action = LOGOUT;
    return strcmp(rule->function, "user") == 0 && strcmp(action, "logout") == 0 && value == NULL;
}

/* One line of the control file. */
static bool parse_line(char *line, struct rule *ret_rule)
{
    struct rule rule = {.times = -1};
    char *rest = line;
    const char *function = strsep(&rest, " ");
    const char *action = strsep(&rest, " ");
    const char *value = NULL;
    if (action == NULL || strlen(function) >= WORD_MAX)
        return false;
    memcpy(rule.function, function, strlen(function) + 1);
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        unsigned long number = 0;
        if (strncmp(word, "skip=", 5) == 0 && parse_number(word + 5, &number))
            rule.skip = (long)number;
        else if (strncmp(word, "times=", 6) == 0 && parse_number(word + 6, &number))
            rule.times = (long)number;
        else if (value == NULL)
            value = word;
        else
            return false;
    }
    if (!parse_action(action, value, &rule))
        return false;
    *ret_rule = rule;
    return true;
}

/* Read the control file again when it is another one than last time. */
static void reload_locked(const char *control)
{
    struct stat now = {0};
    if (stat(control, &now) != 0)
        memset(&now, 0, sizeof now);
    if (now.st_ino == state.seen.st_ino && now.st_size == state.seen.st_size &&
        now.st_mtim.tv_sec == state.seen.st_mtim.tv_sec && now.st_mtim.tv_nsec == state.seen.st_mtim.tv_nsec)
        return;
    state.seen = now;
    state.count = 0;
    state.misspelt = false;
    FILE *file = fopen(control, "re");
    if (file == NULL)
        return;
    char line[LINE_MAX_LEN];
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '\0' || line[0] == '#')
            continue;
        if (state.count == RULES_MAX || !parse_line(line, &state.rules[state.count++]))
            state.misspelt = true;
    }
    (void)fclose(file);
}

/* Say in the log that a rule fired; appending one short line is atomic. */
static void report(const char *control, const char *function, const char *action)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s.log", control);
    FILE *file = fopen(path, "ae");
    if (file == NULL)
        return;
    (void)fprintf(file, "%s %s\n", function, action);
    (void)fclose(file);
}

/* Whether a rule is about this function. */
static bool concerns(const struct rule *rule, const char *function)
{
    if (strcmp(rule->function, "*") != 0)
        return strcmp(rule->function, function) == 0;
    return strcmp(function, "C_Initialize") != 0 && strcmp(function, "C_Finalize") != 0 &&
           strcmp(function, "C_GetInfo") != 0;
}

/* Count a call against a rule; true when the rule fires. */
static bool fires(struct rule *rule)
{
    if (rule->skip > 0) {
        rule->skip--;
        return false;
    }
    if (rule->times == 0)
        return false;
    if (rule->times > 0)
        rule->times--;
    return true;
}

static void nap(unsigned long ms)
{
    const struct timespec time = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&time, NULL);
}

/* Stay until the control file has changed and has no such rule any more. The lock is free meanwhile. */
static void hang(const char *control, const char *function)
{
    for (bool hanging = true; hanging;) {
        (void)pthread_mutex_unlock(&state.lock);
        nap(HANG_POLL_MS);
        (void)pthread_mutex_lock(&state.lock);
        reload_locked(control);
        hanging = false;
        for (size_t i = 0; i < state.count; i++)
            hanging |= state.rules[i].action == HANG && concerns(&state.rules[i], function);
    }
}

/* Rules about the token as a whole. */
static void decide_token(const char *control, struct fault_verdict *verdict)
{
    for (size_t i = 0; i < state.count; i++) {
        struct rule *rule = &state.rules[i];
        verdict->vanished |= rule->action == VANISH;
        if (rule->action == FLAGS)
            verdict->flags |= rule->value;
        if (rule->action == DROP_SESSIONS && fires(rule)) {
            report(control, "sessions", "drop");
            verdict->drop_sessions = true;
        }
        if (rule->action == LOGOUT && fires(rule)) {
            report(control, "user", "logout");
            verdict->logout = true;
        }
    }
    if (verdict->vanished && !state.was_vanished) {
        report(control, "token", "vanish");
        verdict->drop_sessions = true;
    }
    state.was_vanished = verdict->vanished;
}

struct fault_verdict fault_decide(const char *control, const char *function)
{
    struct fault_verdict verdict = {.rv = CKR_OK};
    unsigned long delay = 0;
    (void)pthread_mutex_lock(&state.lock);
    reload_locked(control);
    for (size_t i = 0; i < state.count && verdict.rv == CKR_OK; i++) {
        struct rule *rule = &state.rules[i];
        if (rule->action > HANG || !concerns(rule, function) || !fires(rule))
            continue;
        report(control, function, rule->action == FAIL ? "fail" : rule->action == DELAY ? "delay" : "hang");
        if (rule->action == FAIL)
            verdict.rv = rule->value;
        else if (rule->action == DELAY)
            delay += rule->value;
        else
            hang(control, function);
    }
    decide_token(control, &verdict);
    if (state.misspelt)
        verdict.rv = CKR_FUNCTION_REJECTED;
    (void)pthread_mutex_unlock(&state.lock);
    if (delay > 0)
        nap(delay);
    return verdict;
}
