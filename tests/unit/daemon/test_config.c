/* kmsd.yaml: what it says arrives, and what is wrong is refused with its line. */
#include "config_text.h"

#include <stdio.h>

static void everything_said_arrives(void **state)
{
    (void)state;
    KMS_CONFIG config = {0};
    struct kms_error err = {0};
    static const char text[] = "listen: ['[::1]:7443', 'unix:/run/kms/kms.sock', 'localhost:0']\n"
                               "tls: {certificate: a, private_key: b, client_ca: c, crl: d}\n"
                               "policy: e\n"
                               "hsm: {module: ./m.so, init_args: 'x y', token: 'pkcs11:token=t', profile: f, "
                               "pin_env: PIN, sessions: 7,\n"
                               "      startup_lock: g, create_service_keys: true}\n"
                               "store: {path: h}\n"
                               "audit: {directory: i, segment_mib: 8, write_deadline_ms: 100}\n"
                               "cache: {keks: 1, pages: 2, idle_seconds: 3, absolute_seconds: 4}\n"
                               "limits: {threads: 5, max_message_bytes: 65536, max_live_calls: 6, group: 7, "
                               "connection_age_seconds: 10,\n"
                               "         drain_seconds: 9}\n"
                               "log: {level: error}\n";
    if (kms_config_parse("/x/kmsd.yaml", kms_slice_str(text), &config, &err) != KMS_OK)
        fail_msg("%s", err.public_text);
    assert_int_equal(config.listen_count, 3);
    assert_string_equal(config.listen[0], "[::1]:7443");
    assert_string_equal(config.listen[1], "unix:/run/kms/kms.sock");
    assert_string_equal(config.tls.crl, "/x/d");
    assert_string_equal(config.hsm.module, "/x/./m.so");
    assert_string_equal(config.hsm.init_args, "x y");
    assert_string_equal(config.hsm.token, "pkcs11:token=t");
    assert_string_equal(config.hsm.pin_env, "PIN");
    assert_null(config.hsm.pin_file);
    assert_int_equal(config.hsm.sessions, 7);
    assert_string_equal(config.hsm.startup_lock, "/x/g");
    assert_true(config.hsm.create_service_keys);
    assert_string_equal(config.store.path, "/x/h");
    assert_string_equal(config.audit.directory, "/x/i");
    assert_int_equal(config.audit.segment_mib, 8);
    assert_int_equal(config.audit.write_deadline_ms, 100);
    assert_int_equal(config.cache.keks, 1);
    assert_int_equal(config.cache.pages, 2);
    assert_int_equal(config.cache.idle_seconds, 3);
    assert_int_equal(config.cache.absolute_seconds, 4);
    assert_int_equal(config.limits.threads, 5);
    assert_int_equal(config.limits.max_message_bytes, 65536);
    assert_int_equal(config.limits.max_live_calls, 6);
    assert_int_equal(config.limits.group, 7);
    assert_int_equal(config.limits.connection_age_seconds, 10);
    assert_int_equal(config.limits.drain_seconds, 9);
    assert_int_equal(config.log.level, KMS_LOG_ERROR);
}

static void what_is_left_out_gets_its_default(void **state)
{
    (void)state;
    KMS_CONFIG config = {0};
    parse_good(17, "# no log", &config);
    assert_string_equal(config.listen[1], "unix:/etc/kms/kms.sock");
    assert_string_equal(config.tls.certificate, "/etc/kms/pki/server.pem");
    assert_string_equal(config.tls.private_key, "/abs/server.key");
    assert_null(config.tls.crl);
    assert_string_equal(config.policy, "/etc/kms/policy.yaml");
    assert_string_equal(config.hsm.module, "libsofthsm2.so");
    assert_string_equal(config.hsm.pin_file, "/etc/kms/user.pin");
    assert_null(config.hsm.startup_lock);
    assert_false(config.hsm.create_service_keys);
    assert_int_equal(config.hsm.sessions, 0);
    assert_int_equal(config.audit.segment_mib, 256);
    assert_int_equal(config.audit.write_deadline_ms, 2000);
    assert_int_equal(config.cache.keks, 20000);
    assert_int_equal(config.cache.pages, 4000);
    assert_int_equal(config.cache.idle_seconds, 600);
    assert_int_equal(config.cache.absolute_seconds, 3600);
    assert_int_equal(config.limits.threads, 1);
    assert_int_equal(config.limits.max_message_bytes, 4194304);
    assert_int_equal(config.limits.max_live_calls, 4096);
    assert_int_equal(config.limits.group, 128);
    assert_int_equal(config.limits.connection_age_seconds, 3600);
    assert_int_equal(config.limits.drain_seconds, 10);
    assert_int_equal(config.log.level, KMS_LOG_INFO);
}

static void wraps_and_operations_have_bounds(void **state)
{
    (void)state;
    KMS_CONFIG config = {0};
    parse_good(0, NULL, &config);
    assert_int_equal(config.keys.wrap_limit, UINT32_C(1) << 31);
    assert_int_equal(config.keys.wrap_block, 65536);
    assert_int_equal(config.operations.unfinished, 1000);
    assert_int_equal(config.operations.unfinished_of_one, 250);
    assert_int_equal(config.operations.kept_days, 3650);
    kms_config_clear(&config);
    parse_good(17, "keys: {wrap_limit: 2147483648, wrap_block: 1}", &config);
    assert_int_equal(config.keys.wrap_block, 1);
    kms_config_clear(&config);
    parse_good(17, "operations: {unfinished: 10, unfinished_of_one: 10, kept_days: 1}", &config);
    assert_int_equal(config.operations.unfinished_of_one, 10);
    expect_refusal(17, "keys: {wrap_limit: 2147483649}", "keys.wrap_limit: 2147483649 is out of range");
    expect_refusal(17, "keys: {wrap_limit: -1}", "wrap_limit");
    expect_refusal(17, "keys: {wrap_block: 16777217}", "out of range");
    expect_refusal(17, "keys: {wraps: 1}", "wraps");
    expect_refusal(17, "operations: {unfinished: 9}", "out of range");
    expect_refusal(17, "operations: {unfinished: 100}", "unfinished_of_one: must not be greater");
    expect_refusal(17, "operations: {kept_days: 36501}", "out of range");
}

static void sections_with_defaults_only_may_be_left_out(void **state)
{
    (void)state;
    KMS_CONFIG first = {0};
    KMS_CONFIG second = {0};
    parse_good(15, "# no cache", &first);
    assert_int_equal(first.cache.keks, 20000);
    parse_good(16, "# no limits", &second);
    assert_int_equal(second.limits.threads, 1);
}

static void unknown_missing_and_repeated_keys_are_refused(void **state)
{
    (void)state;
    expect_refusal(12, "  session: 2", "unknown key 'session'; did you mean 'sessions'?");
    expect_refusal(12, "  pin: 1234", "unknown key 'pin'; known here: module, init_args");
    expect_refusal(17, "logs: {level: info}", "did you mean 'log'?");
    expect_refusal_at(9, "", 8, "hsm: key 'token' is missing");
    expect_refusal_at(13, "", 1, "key 'store' is missing");
    expect_refusal(12, "  token: 'pkcs11:x'", "key 'token' stands here twice");
    expect_refusal(17, "log: {}", "log: key 'level' is missing");
}

static void the_first_policy_is_a_file_or_an_administrator(void **state)
{
    (void)state;
    KMS_CONFIG config = {0};
    parse_good(6, "bootstrap_admin: spiffe://td/admin", &config);
    assert_null(config.policy);
    assert_string_equal(config.bootstrap_admin, "spiffe://td/admin");
    kms_config_clear(&config);
    parse_good(6, "", &config); /* the store has one */
    assert_null(config.policy);
    assert_null(config.bootstrap_admin);
    expect_refusal(6, "bootstrap_admin: a\npolicy: p.yaml", "leave it or policy out");
}

static void numbers_must_be_whole_and_in_range(void **state)
{
    (void)state;
    expect_refusal(12, "  sessions: 1025", "hsm.sessions: 1025 is out of range: 1 to 1024");
    expect_refusal(12, "  sessions: 4294967297", "Invalid UINT value");
    static const char *const bad[] = {"2x", "-1", "0x",  "1e3", "two", "1.5",
                                      "''", "+1", "007", "0xg", "[1]", " 1 2"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char line[64];
        (void)snprintf(line, sizeof line, "  sessions: %s", bad[i]);
        expect_refusal(12, line, "hsm.sessions");
    }
    expect_refusal(14, "audit: {directory: audit, segment_mib: 65537}", "out of range");
    expect_refusal(14, "audit: {directory: audit, write_deadline_ms: 9}", "out of range");
    expect_refusal(15, "cache: {keks: 10000001}", "out of range");
    expect_refusal(15, "cache: {idle_seconds: 86401, absolute_seconds: 604800}", "out of range");
    expect_refusal(15, "cache: {idle_seconds: 100, absolute_seconds: 99}", "must not be smaller");
    expect_refusal(15, "cache: {absolute_seconds: 60}", "must not be smaller than idle_seconds (600)");
    expect_refusal(16, "limits: {threads: 65}", "out of range");
    expect_refusal(16, "limits: {max_message_bytes: 65535}", "out of range");
    expect_refusal(16, "limits: {connection_age_seconds: 43201}", "out of range");
}

static void truth_values_and_levels_must_be_exact(void **state)
{
    (void)state;
    expect_refusal(12, "  create_service_keys: yes", "must be true or false");
    expect_refusal(12, "  create_service_keys: flase", "must be true or false");
    expect_refusal(17, "log: {level: loud}", "must be one of: error, warning, info, debug");
    expect_refusal(17, "log: {level: 1}", "must be one of");
}

static void addresses_are_checked(void **state)
{
    (void)state;
    static const char *const bad[] = {"127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x", ":7443",
                                      "[::1]",     "[]:1",       "::1:7443",        "http://a:1",  "a b:1",
                                      "a:1:2",     "[::1:7443",  "a:000001"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char line[64];
        (void)snprintf(line, sizeof line, "listen: ['%s']", bad[i]);
        expect_refusal(1, line, "listen[0]: '");
    }
    expect_refusal(1, "listen: []", "at least 1 entries");
    expect_refusal(1, "listen: ['unix:']", "path of the socket is missing");
    expect_refusal(1, "listen: ['a:1', 'a:1']", "listen[1]: 'a:1' stands here twice");
    expect_refusal(1, "listen: ['unix:a', 'unix:/etc/kms/a']", "stands here twice");
    char line[160];
    (void)snprintf(line, sizeof line, "listen: ['unix:/%0106d']", 0);
    KMS_CONFIG config = {0};
    parse_good(1, line, &config);
    (void)snprintf(line, sizeof line, "listen: ['unix:/%0107d']", 0);
    expect_refusal(1, line, "too long for a Unix socket (107 bytes at most)");
}

#define UID "d4400adb-1819-4a3a-bdb6-882cab864993"

static void detection_has_defaults_and_takes_what_is_said(void **state)
{
    (void)state;
    KMS_CONFIG config = {0};
    parse_good(0, "", &config);
    assert_string_equal(config.detection.places_file, "/etc/kms/kms.db.places");
    assert_string_equal(config.detection.syslog_socket, "/dev/log");
    assert_int_equal(config.detection.repeat_seconds, 300);
    assert_int_equal(config.detection.denied_burst.limit, 50);
    assert_int_equal(config.detection.denied_burst.window_seconds, 60);
    assert_int_equal(config.detection.customer_sweep.limit, 1000);
    assert_int_equal(config.detection.customer_sweep.window_seconds, 600);
    assert_int_equal(config.detection.canary.customers_count, 0);
    assert_int_equal(config.detection.new_place.ipv4_prefix, 24);
    assert_int_equal(config.detection.new_place.ipv6_prefix, 64);
    assert_int_equal(config.detection.clock_backwards.limit, 1000);
    assert_false(config.detection.denied_burst.off || config.detection.denied_burst.freeze);

    KMS_CONFIG said = {0};
    parse_good(17,
               "detection: {places_file: p, syslog_socket: log.sock, repeat_seconds: 1,\n"
               " denied_burst: {off: true, freeze: true, calls: 2, window_seconds: 3},\n"
               " customer_sweep: {freeze: true, customers: 4, window_seconds: 5},\n"
               " canary: {freeze: true, customers: ['" UID "']}, shred_scheduled: {off: true},\n"
               " new_place: {ipv4_prefix: 32, ipv6_prefix: 128}, clock_backwards: {tolerance_ms: 6}}",
               &said);
    assert_string_equal(said.detection.places_file, "/etc/kms/p");
    assert_string_equal(said.detection.syslog_socket, "/etc/kms/log.sock");
    assert_int_equal(said.detection.repeat_seconds, 1);
    assert_true(said.detection.denied_burst.off && said.detection.denied_burst.freeze);
    assert_int_equal(said.detection.denied_burst.limit, 2);
    assert_int_equal(said.detection.denied_burst.window_seconds, 3);
    assert_true(said.detection.customer_sweep.freeze && !said.detection.customer_sweep.off);
    assert_int_equal(said.detection.customer_sweep.limit, 4);
    assert_int_equal(said.detection.customer_sweep.window_seconds, 5);
    assert_true(said.detection.canary.freeze);
    assert_int_equal(said.detection.canary.customers_count, 1);
    assert_string_equal(said.detection.canary.customers[0], UID);
    assert_true(said.detection.shred_scheduled.off);
    assert_int_equal(said.detection.new_place.ipv4_prefix, 32);
    assert_int_equal(said.detection.new_place.ipv6_prefix, 128);
    assert_int_equal(said.detection.clock_backwards.limit, 6);

    KMS_CONFIG silent = {0};
    parse_good(17, "detection: {syslog_socket: '', canary: {customers: []}}", &silent);
    assert_string_equal(silent.detection.syslog_socket, "");
    assert_int_equal(silent.detection.canary.customers_count, 0);
}

static void metrics_are_served_only_where_they_are_asked_for(void **state)
{
    (void)state;
    KMS_CONFIG none = {0};
    parse_good(0, "", &none);
    assert_null(none.metrics.listen);
    KMS_CONFIG tcp = {0};
    parse_good(17, "metrics: {listen: '127.0.0.1:9464'}", &tcp);
    assert_string_equal(tcp.metrics.listen, "127.0.0.1:9464");
    assert_false(tcp.metrics.allow_remote);
    KMS_CONFIG path = {0};
    parse_good(17, "metrics: {listen: 'unix:m.sock', allow_remote: true}", &path);
    assert_string_equal(path.metrics.listen, "unix:/etc/kms/m.sock");
    assert_true(path.metrics.allow_remote);
    expect_refusal(17, "metrics: {allow_remote: true}", "key 'listen' is missing");
    expect_refusal(17, "metrics: {listen: ''}", "metrics.listen");
}

static void senseless_detection_is_refused(void **state)
{
    (void)state;
    expect_refusal(17, "detection: {denied_burst: {calls: 1}}",
                   "detection.denied_burst.calls: 1 is out of range");
    expect_refusal(17, "detection: {denied_burst: {window_seconds: 86401}}", "out of range");
    expect_refusal(17, "detection: {denied_burst: {customers: 5}}", "unknown key 'customers'");
    expect_refusal(17, "detection: {customer_sweep: {customers: 100000001}}", "out of range");
    expect_refusal(17, "detection: {new_place: {ipv4_prefix: 33}}", "out of range");
    expect_refusal(17, "detection: {new_place: {ipv6_prefix: 129}}", "out of range");
    expect_refusal(17, "detection: {clock_backwards: {freeze: true}}", "unknown key 'freeze'");
    expect_refusal(17, "detection: {clock_backwards: {tolerance_ms: 3600001}}", "out of range");
    expect_refusal(17, "detection: {repeat_seconds: 86401}", "out of range");
    expect_refusal(17, "detection: {canary: {customers: ['" UID "', 'customer 4711']}}",
                   "'customer 4711' is not the uid of a customer");
    expect_refusal(17, "detection: {canary: {customers: ['00000000-0000-0000-0000-000000000000']}}", "uid");
    expect_refusal(17, "detection: {rules: []}", "unknown key 'rules'");
    char line[300];
    (void)snprintf(line, sizeof line, "detection: {syslog_socket: /%0*d}", 150, 1);
    expect_refusal(17, line, "too long for a Unix socket");
}

static void values_that_yaml_or_c_would_bend_are_refused(void **state)
{
    (void)state;
    expect_refusal(10, "  profile: \"a\\0b\"", "control characters");
    expect_refusal(10, "  profile: ''", "at least 1 characters");
    expect_refusal(10, "  profile: &a x", "anchors and aliases");
    expect_refusal(10, "  profile: !x y", "tags");
    expect_refusal(10, "  profile: [a]", "single value");
    expect_refusal(13, "store: kms.db", "must be a mapping");
    expect_refusal(17, "---", "second document");
    expect_refusal_at(17, "log: {level: info", 18, "did not find expected");
    struct kms_config config;
    assert_int_equal(kms_config_parse("c", kms_slice_of(NULL, 0), &config, NULL), KMS_CONFIG_INVALID);
}

static void the_commented_example_is_good(void **state)
{
    (void)state;
    KMS_CONFIG config = {0};
    struct kms_error err = {0};
    if (kms_config_load(EXAMPLES "/kmsd.yaml", &config, &err) != KMS_OK)
        fail_msg("%s", err.public_text);
    /* the numbers it tells as defaults are the defaults */
    KMS_CONFIG defaults = {0};
    parse_good(0, NULL, &defaults);
    assert_memory_equal(&config.cache, &defaults.cache, sizeof config.cache);
    assert_memory_equal(&config.limits, &defaults.limits, sizeof config.limits);
    assert_int_equal(config.audit.segment_mib, defaults.audit.segment_mib);
    assert_int_equal(config.audit.write_deadline_ms, defaults.audit.write_deadline_ms);
    assert_int_equal(config.log.level, defaults.log.level);
}

static void backups_are_off_unless_configured_and_safe_by_default(void **state)
{
    (void)state;
    KMS_CONFIG config = {0};
    parse_good(0, NULL, &config);
    assert_int_equal(config.backup.targets_count, 0);
    kms_config_clear(&config);
    parse_good(15, "backup: {targets: [one, /two]}", &config);
    assert_int_equal(config.backup.targets_count, 2);
    assert_string_equal(config.backup.targets[0], "/etc/kms/one");
    assert_string_equal(config.backup.targets[1], "/two");
    assert_false(config.backup.async);
    assert_int_equal(config.backup.log_mib, 64);
    assert_int_equal(config.backup.wait_ms, 5000);
    assert_int_equal(config.backup.keep_bases, 7);
    assert_int_equal(config.backup.base_hours, 24);
    assert_int_equal(config.backup.keep_changes, 2000000);
    kms_config_clear(&config);
    expect_refusal(15, "backup: {targets: [one], keep_changes: 999}",
                   "backup.keep_changes: 999 is out of range");
    parse_good(15, "backup: {targets: [one], durability: async, keep_bases: 2}", &config);
    assert_true(config.backup.async);
    assert_int_equal(config.backup.keep_bases, 2);
}

static void keys_of_lost_hsms_are_files(void **state)
{
    (void)state;
    KMS_CONFIG config = {0};
    parse_good(12, "  attestation_predecessors: [lost.pem, /old/one.pem]", &config);
    assert_int_equal(config.hsm.attestation_predecessors_count, 2);
    assert_string_equal(config.hsm.attestation_predecessors[0], "/etc/kms/lost.pem");
    assert_string_equal(config.hsm.attestation_predecessors[1], "/old/one.pem");
    expect_refusal(12, "  attestation_predecessors: lost.pem", "attestation_predecessors");
    expect_refusal(12, "  attestation_predecessors: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q]", "");
}

static void a_backup_section_in_doubt_is_refused(void **state)
{
    (void)state;
    struct kms_config config = {0};
    expect_refusal(15, "recovery: {enabled: true}", "needs backup.targets");
    expect_refusal(15, "recovery: {}", "enabled");
    parse_good(15, "recovery: {enabled: false}", &config);
    assert_false(config.recovery.enabled);
    kms_config_clear(&config);
    parse_good(15, "backup: {targets: [one]}\nrecovery: {enabled: true}", &config);
    assert_true(config.recovery.enabled);
    kms_config_clear(&config);
    expect_refusal(15, "backup: {}", "targets");
    expect_refusal(15, "backup: {targets: []}", "");
    expect_refusal(15, "backup: {targets: [one, /etc/kms/one]}", "twice");
    expect_refusal(15, "backup: {targets: [one], durability: often}", "");
    expect_refusal(15, "backup: {targets: [one], log_mib: 5000}", "out of range");
    expect_refusal(15, "backup: {targets: [a, b, c, d, e, f, g, h, i]}", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_said_arrives),
        cmocka_unit_test(what_is_left_out_gets_its_default),
        cmocka_unit_test(wraps_and_operations_have_bounds),
        cmocka_unit_test(sections_with_defaults_only_may_be_left_out),
        cmocka_unit_test(unknown_missing_and_repeated_keys_are_refused),
        cmocka_unit_test(the_first_policy_is_a_file_or_an_administrator),
        cmocka_unit_test(numbers_must_be_whole_and_in_range),
        cmocka_unit_test(truth_values_and_levels_must_be_exact),
        cmocka_unit_test(addresses_are_checked),
        cmocka_unit_test(detection_has_defaults_and_takes_what_is_said),
        cmocka_unit_test(senseless_detection_is_refused),
        cmocka_unit_test(metrics_are_served_only_where_they_are_asked_for),
        cmocka_unit_test(backups_are_off_unless_configured_and_safe_by_default),
        cmocka_unit_test(keys_of_lost_hsms_are_files),
        cmocka_unit_test(a_backup_section_in_doubt_is_refused),
        cmocka_unit_test(values_that_yaml_or_c_would_bend_are_refused),
        cmocka_unit_test(the_commented_example_is_good),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
