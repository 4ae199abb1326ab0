/* Goal: killed between any two steps of an operation, the service does it as often as its kind allows, and never without approvals.
 *
 * Each case is two processes over one directory: the first kills itself at a test point, the second is the next start.
 */
#include "desk.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { EXIT_GOOD = 0, EXIT_BAD = 1, SECONDS_MAX = 30 };

struct crash {
    const char *point;
    const struct ops_operation_kind *kind;
    enum kms_operation_state end; /* after the next start */
    long runs;                    /* of both processes */
};

static const struct crash crashes[] = {
    {"operation.intent", &desk_now, KMS_OPERATION_SUCCEEDED, 1},
    {"operation.begun", &desk_now, KMS_OPERATION_FAILED, 0},
    {"operation.executed", &desk_now, KMS_OPERATION_FAILED, 1},
    {"operation.ended", &desk_now, KMS_OPERATION_SUCCEEDED, 1},
    {"operation.intent", &desk_again, KMS_OPERATION_SUCCEEDED, 1},
    {"operation.begun", &desk_again, KMS_OPERATION_SUCCEEDED, 1},
    {"operation.executed", &desk_again, KMS_OPERATION_SUCCEEDED, 2},
    {"operation.ended", &desk_again, KMS_OPERATION_SUCCEEDED, 1},
    {"operation.requested", &desk_now, KMS_OPERATION_SUCCEEDED, 1},
    {"operation.approved", &desk_one, KMS_OPERATION_SUCCEEDED, 1},
    {"operation.approved", &desk_two, KMS_OPERATION_PENDING, 0}, /* after the first of two */
};

static char directory[64];

static const char *file_of(const char *name)
{
    static char path[100];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void open_desk(struct desk **ret_desk)
{
    *ret_desk = desk_open(directory);
    desk_work.marks = strdup(file_of("marks"));
}

/* The first process: works until it is killed. */
static int live(const struct crash *crash)
{
    struct desk *desk = NULL;
    (void)setenv("KMS_CRASH_AT", crash->point, 1);
    open_desk(&desk);
    desk_start(desk);
    if (desk_request(desk, "carol", crash->kind, "acme") == KMS_OK && crash->kind->approvals > 0)
        (void)desk_approve(desk, "dave", "dave", desk->uid);
    (void)sleep(SECONDS_MAX); /* the runner's thread comes to the point */
    return EXIT_BAD;
}

static enum kms_status note_uid(void *context, const struct kms_operation_record *operation)
{
    (void)kms_uuid_format(&operation->uuid, context);
    return KMS_OK;
}

/* The second process: the operation comes to its end, or stays where it must. */
static int restart(const struct crash *crash)
{
    struct desk *desk = NULL;
    open_desk(&desk);
    char uid[KMS_UUID_TEXT_SIZE] = "";
    {
        struct kms_error err = {0};
        const struct kms_operation_filter all = {0};
        KMS_TXN txn = {0};
        if (kms_txn_begin(desk->database, false, &txn, &err) != KMS_OK ||
            txn.store->ops->operation.list(txn.txn, &all, NULL, 2, note_uid, uid, &err) != KMS_OK ||
            uid[0] == '\0')
            return EXIT_BAD;
    }
    desk_start(desk);
    desk_await(desk, uid, crash->end);
    desk_close(desk);
    struct stat marks = {0};
    (void)stat(file_of("marks"), &marks);
    if (marks.st_size != crash->runs)
        (void)fprintf(stderr, "%s, %s: %ld runs\n", crash->kind->name, crash->point, (long)marks.st_size);
    return marks.st_size == crash->runs ? EXIT_GOOD : EXIT_BAD;
}

/* Run one of the two in a process of its own; returns its wait status. */
static int in_child(int (*function)(const struct crash *crash), const struct crash *crash)
{
    (void)fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)alarm(SECONDS_MAX);
        _exit(function(crash));
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void a_kill_between_any_two_steps_is_survived(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof crashes / sizeof crashes[0]; i++) {
        (void)strcpy(directory, "/tmp/kms-desk-XXXXXX");
        assert_non_null(mkdtemp(directory));
        const int killed = in_child(live, &crashes[i]);
        const int ended = in_child(restart, &crashes[i]);
        desk_remove(directory);
        if (!WIFSIGNALED(killed) || WTERMSIG(killed) != SIGKILL)
            fail_msg("%s, %s: was not killed (%x)", crashes[i].kind->name, crashes[i].point,
                     (unsigned)killed);
        if (!WIFEXITED(ended) || WEXITSTATUS(ended) != EXIT_GOOD)
            fail_msg("%s, %s: is not as it must be afterwards (%x)", crashes[i].kind->name, crashes[i].point,
                     (unsigned)ended);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_kill_between_any_two_steps_is_survived)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
