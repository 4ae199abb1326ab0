/* Where a peer comes from: networks, not addresses or ports, and hostile texts are unknown. */
#include "detect/place.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void expect(const char *peer, unsigned ipv4_bits, unsigned ipv6_bits, const char *expected)
{
    const struct kms_place place = kms_place_of_peer(peer, ipv4_bits, ipv6_bits);
    char text[KMS_PLACE_TEXT_SIZE];
    assert_string_equal(kms_place_format(&place, text), expected);
    struct kms_place again = {.kind = 99};
    assert_true(kms_place_parse(text, &again));
    assert_true(kms_place_equal(&place, &again));
}

static void a_peer_belongs_to_a_network(void **state)
{
    (void)state;
    expect("ipv4:192.0.2.77:4711", 24, 64, "192.0.2.0/24");
    expect("ipv4:192.0.2.77:4711", 32, 64, "192.0.2.77/32");
    expect("ipv4:192.0.2.77:4711", 0, 64, "0.0.0.0/0");
    expect("ipv4:192.0.2.77:4711", 9, 64, "192.0.0.0/9");
    expect("ipv6:[2001:db8:1:2:3::4]:80", 24, 64, "2001:db8:1:2::/64");
    expect("ipv6:%5B2001:db8::1%5D:80", 24, 128, "2001:db8::1/128");
    expect("ipv6:[2001:db8:ffff::1]:80", 24, 33, "2001:db8:8000::/33");
    expect("ipv6:[fe80::1%25eth0]:80", 24, 64, "fe80::/64");
    expect("ipv6:[::1]:80", 24, 64, "::/64");
    expect("unix:", 24, 64, "unix");
    expect("unix:/run/kms/kms.sock", 24, 64, "unix");
}

static void ipv4_within_ipv6_is_ipv4(void **state)
{
    (void)state;
    expect("ipv6:[::ffff:192.0.2.77]:4711", 24, 64, "192.0.2.0/24");
    const struct kms_place mapped = kms_place_of_peer("ipv6:%5B::ffff:c000:24d%5D:1", 32, 64);
    const struct kms_place plain = kms_place_of_peer("ipv4:192.0.2.77:2", 32, 64);
    assert_true(kms_place_equal(&mapped, &plain));
}

static void anything_else_is_unknown(void **state)
{
    (void)state;
    static const char *const peers[] = {
        "",
        "ipv4:",
        "ipv4::",
        "ipv4:1.2.3:4",
        "ipv4:1.2.3.4.5:6",
        "ipv4:999.1.1.1:1",
        "ipv6:",
        "ipv6:[",
        "ipv6:[]:1",
        "ipv6:[g::]:1",
        "ipv6:::1",
        "vsock:3:4",
        "ipv4:1.2.3.4.........................................................:1",
        "ipv6:[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]:1",
    };
    for (size_t i = 0; i < sizeof peers / sizeof *peers; i++)
        expect(peers[i], 24, 64, "unknown");
    expect(NULL, 24, 64, "unknown");
}

static void the_port_is_no_part_of_a_place(void **state)
{
    (void)state;
    assert_int_equal(kms_place_peer_len("ipv4:192.0.2.7:4711"), strlen("ipv4:192.0.2.7"));
    assert_int_equal(kms_place_peer_len("ipv6:[::1]:4711"), strlen("ipv6:[::1]"));
    assert_int_equal(kms_place_peer_len("unix:"), strlen("unix"));
    assert_int_equal(kms_place_peer_len("nothing"), strlen("nothing"));
    assert_int_equal(kms_place_peer_len(""), 0);
}

static void texts_that_are_no_place_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",       "192.0.2.0",    "192.0.2.0/",    "192.0.2.0/33", "192.0.2.1/24",
        "::/129", "::1/64",       "192.0.2.0/24x", "unix ",        "192.0.2.0/+24",
        "/24",    "192.0.2.0/2 ", "192.0.2.0/0024"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct kms_place place = {.kind = 77};
        if (kms_place_parse(texts[i], &place))
            fail_msg("'%s' was taken", texts[i]);
        assert_int_equal(place.kind, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_peer_belongs_to_a_network),
        cmocka_unit_test(ipv4_within_ipv6_is_ipv4),
        cmocka_unit_test(anything_else_is_unknown),
        cmocka_unit_test(the_port_is_no_part_of_a_place),
        cmocka_unit_test(texts_that_are_no_place_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
