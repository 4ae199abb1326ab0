/* Telling of alerts: audit record, syslog line and freeze, in the right order, and a memory that outlives the thread. */
#define _GNU_SOURCE
#include "core/cleanup.h"
#include "core/clock.h"
#include "detect/delivery.h"
#include "unit/audit/logdir.h"

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { WAIT_MS = 20000 };

/* A site of its own for each test: log, rules, reader of syslog. */
struct site {
    struct logdir dir;
    struct kms_audit *audit;
    struct kms_detect *detect;
    char socket_path[100];
    int syslog; /* the reader's end */
    struct kms_detect_delivery_config config;
    struct kms_detect_delivery *delivery;
    atomic_int frozen;
    char frozen_identity[64], frozen_reason[64];
    enum kms_status freeze_result;
};

static int open_reader(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    const struct timeval patience = {.tv_sec = WAIT_MS / 1000};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    return fd;
}

static enum kms_status freeze(void *context, const char *identity, const char *reason, struct kms_error *err)
{
    struct site *site = context;
    (void)snprintf(site->frozen_identity, sizeof site->frozen_identity, "%s", identity);
    (void)snprintf(site->frozen_reason, sizeof site->frozen_reason, "%s", reason);
    atomic_fetch_add(&site->frozen, 1);
    return site->freeze_result == KMS_OK ? KMS_OK : kms_fail(err, site->freeze_result, "the store is gone");
}

static struct site *site_new(const struct kms_detect_config *rules)
{
    struct site *site = calloc(1, sizeof *site);
    assert_non_null(site);
    logdir_new(&site->dir);
    site->audit = open_log(&site->dir, 0);
    assert_int_equal(kms_detect_new(rules, &site->detect), KMS_OK);
    (void)snprintf(site->socket_path, sizeof site->socket_path, "%s/log", site->dir.root);
    site->syslog = open_reader(site->socket_path);
    site->config = (struct kms_detect_delivery_config){.detect = site->detect,
                                                       .audit = site->audit,
                                                       .syslog_socket = site->socket_path,
                                                       .freeze = freeze,
                                                       .freeze_context = site};
    return site;
}

static void site_start(struct site *site)
{
    struct kms_error err = {0};
    assert_int_equal(kms_detect_delivery_start(&site->config, &site->delivery, &err), KMS_OK);
}

static void site_free(struct site *site)
{
    kms_detect_delivery_stop(site->delivery);
    kms_detect_free(site->detect);
    kms_audit_free(site->audit);
    (void)close(site->syslog);
    logdir_clear(&site->dir);
    free(site);
}

static struct kms_detect_config rules(void)
{
    struct kms_detect_config config;
    kms_detect_defaults(&config);
    config.denied_count = 3;
    return config;
}

static void attack(struct kms_detect *detect, const char *identity)
{
    const struct kms_detect_event event = {.identity = identity,
                                           .peer = "ipv4:192.0.2.7:4711",
                                           .tenant = "acme",
                                           .action = "datakey.unwrap",
                                           .status = KMS_PERMISSION_DENIED};
    for (int i = 0; i < 3; i++)
        kms_detect_observe(detect, &event);
}

/* The JSON object at the end of the next syslog line. */
static json_t *next_line(struct site *site)
{
    char line[8192];
    const ssize_t len = recv(site->syslog, line, sizeof line - 1, 0);
    if (len <= 0)
        fail_msg("no syslog line came");
    line[len] = '\0';
    assert_int_equal(strncmp(line, "<81>", 4), 0);
    assert_non_null(strstr(line, " kmsd["));
    const char *object = strchr(line, '{');
    assert_non_null(object);
    json_t *json = json_loads(object, 0, NULL);
    assert_non_null(json);
    return json;
}

static const char *text_of(const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));
    return text != NULL ? text : "";
}

/* The last line of the log that has this text in it, as JSON. */
static json_t *record_with(struct site *site, const char *text)
{
    char path[160];
    size_t len = 0;
    segment_path(&site->dir, 0, path);
    char *all = read_file(path, &len);
    json_t *found = NULL;
    for (char *line = strtok(all, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (strstr(line, text) != NULL) {
            json_decref(found);
            found = json_loads(line, 0, NULL);
        }
    }
    free(all);
    if (found == NULL)
        fail_msg("no record with %s", text);
    return found;
}

static void an_alert_reaches_audit_log_and_syslog(void **state)
{
    (void)state;
    const struct kms_detect_config config = rules();
    struct site *site = site_new(&config);
    site_start(site);
    attack(site->detect, "mallory \" Ω");
    json_t *line = next_line(site);
    assert_string_equal(text_of(line, "rule"), "denied_burst");
    assert_string_equal(text_of(line, "identity"), "mallory \" Ω");
    assert_int_equal(json_integer_value(json_object_get(line, "count")), 3);
    assert_string_equal(text_of(line, "frozen"), "");
    json_t *record = record_with(site, "detection.denied_burst"); /* durable before syslog was told */
    assert_string_equal(text_of(record, "type"), "alert");
    assert_string_equal(text_of(record, "identity"), "mallory \" Ω");
    assert_string_equal(text_of(record, "tenant"), "acme");
    const json_t *detail = json_object_get(record, "detail");
    assert_string_equal(text_of(detail, "rule"), "denied_burst");
    assert_string_equal(text_of(detail, "place"), "192.0.2.0/24");
    assert_int_equal(json_integer_value(json_object_get(detail, "threshold")), 3);
    assert_int_equal(atomic_load(&site->frozen), 0);
    json_decref(line);
    json_decref(record);
    site_free(site);
}

static void a_rule_that_freezes_freezes(void **state)
{
    (void)state;
    struct kms_detect_config config = rules();
    config.rules[KMS_DETECT_DENIED_BURST].freeze = true;
    struct site *site = site_new(&config);
    site_start(site);
    attack(site->detect, "mallory");
    json_t *line = next_line(site);
    assert_string_equal(text_of(line, "frozen"), "yes");
    assert_int_equal(atomic_load(&site->frozen), 1);
    assert_string_equal(site->frozen_identity, "mallory");
    assert_string_equal(site->frozen_reason, "detection: denied_burst");
    json_decref(line);
    site_free(site);
}

static void a_freeze_that_fails_is_told(void **state)
{
    (void)state;
    struct kms_detect_config config = rules();
    config.rules[KMS_DETECT_DENIED_BURST].freeze = true;
    struct site *site = site_new(&config);
    site->freeze_result = KMS_STORE_UNAVAILABLE;
    site_start(site);
    attack(site->detect, "mallory");
    json_t *line = next_line(site);
    assert_string_equal(text_of(line, "frozen"), "the store is gone");
    struct kms_detect_delivery_stats stats;
    kms_detect_delivery_stats(site->delivery, &stats);
    assert_int_equal(stats.freezes, 0);
    assert_int_equal(stats.freezes_failed, 1);
    json_decref(line);
    site_free(site);
}

static void syslog_that_nobody_reads_holds_nothing_up(void **state)
{
    (void)state;
    const struct kms_detect_config config = rules();
    struct site *site = site_new(&config);
    (void)close(site->syslog);
    assert_int_equal(unlink(site->socket_path), 0);
    site_start(site);
    attack(site->detect, "first");
    struct kms_detect_delivery_stats stats = {0};
    const int64_t until = kms_clock_mono_ns() + WAIT_MS * KMS_NS_PER_MS;
    while (stats.syslog_failed == 0 && kms_clock_mono_ns() < until) {
        (void)usleep(1000);
        kms_detect_delivery_stats(site->delivery, &stats);
    }
    assert_int_equal(stats.syslog_failed, 1);
    json_decref(record_with(site, "\"first\""));
    site->syslog = open_reader(site->socket_path); /* it comes up, and the next line arrives */
    attack(site->detect, "second");
    json_t *line = next_line(site);
    assert_string_equal(text_of(line, "identity"), "second");
    json_decref(line);
    site_free(site);
}

static void what_waits_at_the_end_is_still_told(void **state)
{
    (void)state;
    const struct kms_detect_config config = rules();
    struct site *site = site_new(&config);
    char name[32];
    for (int i = 0; i < 50; i++) {
        (void)snprintf(name, sizeof name, "mallory-%d", i);
        attack(site->detect, name);
    }
    site_start(site);
    kms_detect_delivery_stop(KMS_TAKE(site->delivery));
    for (int i = 0; i < 50; i++) {
        (void)snprintf(name, sizeof name, "\"mallory-%d\"", i);
        json_decref(record_with(site, name));
    }
    site_free(site);
}

static void places_are_remembered_by_the_next_run(void **state)
{
    (void)state;
    const struct kms_detect_config config = rules();
    struct site *site = site_new(&config);
    char path[100];
    (void)snprintf(path, sizeof path, "%s/places", site->dir.root);
    site->config.memory_path = path;
    site_start(site);
    attack(site->detect, "app");
    json_decref(next_line(site));
    kms_detect_delivery_stop(KMS_TAKE(site->delivery));
    size_t len = 0;
    char *text = read_file(path, &len);
    assert_int_equal(len, strlen("kms-places 1\n192.0.2.0/24 app\nend 1\n"));
    free(text);

    kms_detect_free(site->detect); /* a new run knows only what it reads */
    assert_int_equal(kms_detect_new(&config, &site->detect), KMS_OK);
    site->config.detect = site->detect;
    site_start(site);
    const struct kms_detect_event event = {.identity = "app", .peer = "unix:", .status = KMS_OK};
    kms_detect_observe(site->detect, &event);
    json_t *line = next_line(site);
    assert_string_equal(text_of(line, "rule"), "new_place");
    assert_string_equal(text_of(line, "place"), "unix");
    json_decref(line);
    site_free(site);
}

static void a_damaged_memory_is_moved_aside_and_told(void **state)
{
    (void)state;
    const struct kms_detect_config config = rules();
    struct site *site = site_new(&config);
    char path[100];
    char aside[120];
    (void)snprintf(path, sizeof path, "%s/places", site->dir.root);
    (void)snprintf(aside, sizeof aside, "%s.damaged", path);
    write_file(path, "kms-places 1\nunix a\n", 20);
    site->config.memory_path = path;
    site_start(site);
    json_t *line = next_line(site);
    assert_string_equal(text_of(line, "rule"), "memory_lost");
    assert_int_equal(access(aside, F_OK), 0);
    assert_int_not_equal(access(path, F_OK), 0);
    json_decref(line);
    site_free(site);
}

static void a_socket_path_that_is_too_long_is_refused(void **state)
{
    (void)state;
    const struct kms_detect_config config = rules();
    struct site *site = site_new(&config);
    static char path[300];
    memset(path, 'x', sizeof path - 1);
    site->config.syslog_socket = path;
    struct kms_error err = {0};
    assert_int_equal(kms_detect_delivery_start(&site->config, &site->delivery, &err), KMS_CONFIG_INVALID);
    assert_null(site->delivery);
    site_free(site);
}

/* Threads that observe while another delivers: for the thread sanitizer. */
static void *observe_much(void *argument)
{
    struct site *site = argument;
    char name[32];
    for (int i = 0; i < 2000; i++) {
        (void)snprintf(name, sizeof name, "app-%d", i % 50);
        const struct kms_detect_event event = {.identity = name,
                                               .peer = i % 3 == 0 ? "unix:" : "ipv4:192.0.2.1:1",
                                               .customer = {.bytes = {1, (uint8_t)i, (uint8_t)(i >> 8)}},
                                               .unwraps = true,
                                               .status = i % 7 == 0 ? KMS_PERMISSION_DENIED : KMS_OK};
        kms_detect_observe(site->detect, &event);
    }
    return NULL;
}

static void many_threads_observe_while_alerts_are_told(void **state)
{
    (void)state;
    const struct kms_detect_config config = rules();
    struct site *site = site_new(&config);
    char path[100];
    (void)snprintf(path, sizeof path, "%s/places", site->dir.root);
    site->config.memory_path = path;
    (void)close(site->syslog); /* nobody reads */
    site_start(site);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, observe_much, site), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    struct kms_detect_stats stats;
    kms_detect_stats(site->detect, &stats);
    assert_int_equal(stats.raised[KMS_DETECT_DENIED_BURST], 50);
    assert_int_equal(stats.raised[KMS_DETECT_NEW_PLACE], 50);
    assert_int_equal(stats.subjects, 50);
    site->syslog = -1;
    site_free(site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_alert_reaches_audit_log_and_syslog),
        cmocka_unit_test(a_rule_that_freezes_freezes),
        cmocka_unit_test(a_freeze_that_fails_is_told),
        cmocka_unit_test(syslog_that_nobody_reads_holds_nothing_up),
        cmocka_unit_test(what_waits_at_the_end_is_still_told),
        cmocka_unit_test(places_are_remembered_by_the_next_run),
        cmocka_unit_test(a_damaged_memory_is_moved_aside_and_told),
        cmocka_unit_test(a_socket_path_that_is_too_long_is_refused),
        cmocka_unit_test(many_threads_observe_while_alerts_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
