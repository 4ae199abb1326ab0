/* Goal: a server that runs out of descriptors turns new connections away, keeps the old ones, and recovers. */
#include "unit/rpc/forked.h"
#include "unit/rpc/site.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int setup(void **state)
{
    struct forked *forked = malloc(sizeof *forked);
    *forked = forked_start();
    *state = forked;
    return 0;
}

static int teardown(void **state)
{
    forked_stop(*state);
    free(*state);
    return 0;
}

static grpc_status_code call_once(struct client *client)
{
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    Kms__V1__GenerateDataKeyResponse *reply = site_generate(client, SITE_GENERATE, "acme", &result);
    if (reply != NULL)
        kms__v1__generate_data_key_response__free_unpacked(reply, NULL);
    const grpc_status_code code = result.code;
    client_result_clear(&result);
    return code;
}

/* Connect and wait until the other side closes: nothing is sent to a connection that is turned away. */
static void connect_and_be_turned_away(const struct forked *forked)
{
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const struct sockaddr_in name = {.sin_family = AF_INET,
                                     .sin_port =
                                         htons((uint16_t)strtoul(strchr(forked->address, ':') + 1, NULL, 10)),
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval patience = {.tv_sec = CLIENT_TIMEOUT_S};
    char byte;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)(const void *)&name, sizeof name), 0);
    assert_int_equal(read(fd, &byte, 1), 0);
    (void)close(fd);
}

static void the_listener_survives_the_end_of_descriptors(void **state)
{
    const struct forked *forked = *state;
    enum { ROUNDS = 3 };
    struct client
        accepted[ROUNDS]; /* stay open: a connection that the server closes late would free a descriptor */
    struct client old = forked_client(forked);
    assert_int_equal(call_once(&old), GRPC_STATUS_OK);
    for (int round = 0; round < ROUNDS; round++) {
        const long before = forked_tell(forked, 't');
        assert_true(forked_tell(forked, 'e') > 0);
        for (int i = 0; i < 20; i++)
            connect_and_be_turned_away(forked);
        assert_int_equal(call_once(&old), GRPC_STATUS_OK);
        struct client refused = forked_client(forked);
        assert_int_equal(call_once(&refused), GRPC_STATUS_UNAVAILABLE);
        client_clear(&refused);
        assert_true(forked_tell(forked, 't') >= before + 21);
        (void)forked_tell(forked, 'r');
        accepted[round] = forked_client(forked);
        assert_int_equal(call_once(&accepted[round]), GRPC_STATUS_OK);
    }
    for (int round = 0; round < ROUNDS; round++)
        client_clear(&accepted[round]);
    client_clear(&old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_listener_survives_the_end_of_descriptors)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
