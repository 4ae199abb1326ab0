/* Goal: only callers with a good certificate get in, on TCP and on the Unix socket, and the files can be replaced while it runs. */
#include "unit/rpc/site.h"

#include "auth/auth.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <grpc/grpc_security.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int setup(void **state)
{
    struct site *site = malloc(sizeof *site);
    const struct site_options options = {.unix_socket = true};
    site_start(site, &options);
    *state = site;
    return 0;
}

static int teardown(void **state)
{
    site_stop(*state);
    free(*state);
    return 0;
}

/* One call; its code. */
static grpc_status_code code_of_call(struct client *client)
{
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    Kms__V1__GenerateDataKeyResponse *reply = site_generate(client, SITE_GENERATE, "acme", &result);
    if (reply != NULL)
        kms__v1__generate_data_key_response__free_unpacked(reply, NULL);
    const grpc_status_code code = result.code;
    client_result_clear(&result);
    return code;
}

/* Connect with NAME.pem, call once. */
static grpc_status_code code_for(struct site *site, const char *name)
{
    struct client client = site_client(site, name);
    const grpc_status_code code = code_of_call(&client);
    client_clear(&client);
    return code;
}

/* A certificate of the site's CA. */
static long issue(struct site *site, const char *name, const char *uri, long seconds)
{
    char certificate[64];
    char key[64];
    (void)snprintf(certificate, sizeof certificate, "%s.pem", name);
    (void)snprintf(key, sizeof key, "%s.key", name);
    return certs_issue(&site->ca, name, uri, false, seconds, site_path(site, certificate),
                       site_path(site, key));
}

static void a_good_certificate_gets_in(void **state)
{
    assert_int_equal(code_for(*state, "app"), GRPC_STATUS_OK);
}

static void no_certificate_does_not(void **state)
{
    struct site *site = *state;
    const size_t handled = site_count(site, 'h');
    struct client client =
        client_new(kms_rpc_server_address(site->server, 0), site_path(site, "trust.pem"), NULL, NULL);
    assert_int_equal(code_of_call(&client), GRPC_STATUS_UNAVAILABLE);
    client_clear(&client);
    assert_int_equal(site_count(site, 'h'), handled);
}

static void an_expired_certificate_does_not(void **state)
{
    (void)issue(*state, "expired", "spiffe://kms.example/app/demo", -60);
    assert_int_equal(code_for(*state, "expired"), GRPC_STATUS_UNAVAILABLE);
}

static void a_certificate_of_another_ca_does_not(void **state)
{
    struct site *site = *state;
    struct certs_ca other = certs_ca_new("other ca", site_path(site, "other-ca.pem"));
    (void)certs_issue(&other, "stranger", "spiffe://kms.example/app/demo", false, 3600,
                      site_path(site, "stranger.pem"), site_path(site, "stranger.key"));
    assert_int_equal(code_for(site, "stranger"), GRPC_STATUS_UNAVAILABLE);
    certs_ca_clear(&other);
}

static void a_revoked_certificate_is_refused_on_a_connection_that_is_open(void **state)
{
    struct site *site = *state;
    const long serial = issue(site, "leaver", "spiffe://kms.example/app/leaver", 3600);
    struct client client = site_client(site, "leaver");
    assert_int_equal(code_of_call(&client), GRPC_STATUS_OK);
    certs_write_crl(&site->ca, serial, site_path(site, "ca.crl"));
    struct kms_error err = {.status = KMS_OK};
    assert_int_equal(kms_auth_reload(site->auth, &err), KMS_OK);
    struct client_result result = {.code = GRPC_STATUS_UNKNOWN};
    assert_null(site_generate(&client, SITE_GENERATE, "acme", &result));
    assert_int_equal(result.code, GRPC_STATUS_UNAUTHENTICATED);
    assert_string_equal(result.message, kms_status_public_text(KMS_UNAUTHENTICATED)); /* not why */
    assert_int_equal(SITE_GET(site, last_refused_status), KMS_UNAUTHENTICATED);
    client_result_clear(&result);
    client_clear(&client);
    assert_int_equal(code_for(site, "leaver"), GRPC_STATUS_UNAUTHENTICATED);
    assert_int_equal(code_for(site, "app"), GRPC_STATUS_OK);
    certs_write_crl(&site->ca, 0, site_path(site, "ca.crl"));
    assert_int_equal(kms_auth_reload(site->auth, &err), KMS_OK);
}

static void the_unix_socket_wants_a_certificate_too(void **state)
{
    struct site *site = *state;
    const char *address = kms_rpc_server_address(site->server, 1);
    struct client client = client_new(address, site_path(site, "ca.pem"), site_path(site, "app.pem"),
                                      site_path(site, "app.key"));
    assert_int_equal(code_of_call(&client), GRPC_STATUS_OK);
    client_clear(&client);
    client = client_new(address, site_path(site, "ca.pem"), NULL, NULL);
    assert_int_equal(code_of_call(&client), GRPC_STATUS_UNAVAILABLE);
    client_clear(&client);
    struct stat mode;
    assert_int_equal(stat(address + 5, &mode), 0);
    assert_int_equal(mode.st_mode & 0777, 0660);
}

/* Another server for the same socket. */
static enum kms_status start_second(struct site *site, const char *address, struct kms_error *err)
{
    struct kms_rpc_config config = {.addresses = &address,
                                    .address_count = 1,
                                    .certificate_path = site_path(site, "server.pem"),
                                    .private_key_path = site_path(site, "server.key"),
                                    .client_ca_path = site_path(site, "ca.pem"),
                                    .auth = site->auth};
    struct kms_rpc_server *second = NULL;
    enum kms_status status = kms_rpc_server_new(&config, NULL, 0, &second, err);
    if (status == KMS_OK)
        status = kms_rpc_server_start(second, err);
    kms_rpc_server_free(second);
    return status;
}

static void the_socket_of_a_running_instance_is_not_taken(void **state)
{
    struct site *site = *state;
    struct kms_error err = {.status = KMS_OK};
    assert_int_equal(start_second(site, kms_rpc_server_address(site->server, 1), &err), KMS_CONFIG_INVALID);
    assert_non_null(strstr(err.cause, "another instance"));
    the_unix_socket_wants_a_certificate_too(state);
}

static void a_file_in_the_sockets_place_is_not_removed(void **state)
{
    struct site *site = *state;
    struct kms_error err = {.status = KMS_OK};
    char address[128];
    (void)snprintf(address, sizeof address, "unix:%s", site_path(site, "precious.txt"));
    certs_write(address + 5, "precious");
    assert_int_equal(start_second(site, address, &err), KMS_CONFIG_INVALID);
    assert_int_equal(access(address + 5, F_OK), 0);
}

static void a_socket_that_a_dead_instance_left_is_replaced(void **state)
{
    struct site *site = *state;
    struct kms_error err = {.status = KMS_OK};
    char address[128];
    (void)snprintf(address, sizeof address, "unix:%s", site_path(site, "stale.sock"));
    struct sockaddr_un {
        sa_family_t family;
        char path[108];
    } name = {.family = AF_UNIX};
    assert_true(strlen(address + 5) < sizeof name.path);
    memcpy(name.path, address + 5, strlen(address + 5) + 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)(const void *)&name, sizeof name), 0);
    (void)close(fd);
    assert_int_equal(start_second(site, address, &err), KMS_OK);
}

static void bad_addresses_and_files_are_named(void **state)
{
    struct site *site = *state;
    static const char *const bad[] = {"",           "localhost",       "127.0.0.1",
                                      "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:12x",
                                      "::1:443",    "unix:",           "203.0.113.7:7443"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct kms_error err = {.status = KMS_OK};
        assert_int_equal(start_second(site, bad[i], &err), KMS_CONFIG_INVALID);
        assert_non_null(strstr(err.cause, bad[i]));
    }
}

/* The serial number of the certificate that a new connection sees, and the TLS version. */
static long connect_plain(const struct site *site, int max_version, int *ret_version, bool *ret_ticket)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    assert_int_equal(SSL_CTX_use_certificate_file(context, site_path(site, "app.pem"), SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(context, site_path(site, "app.key"), SSL_FILETYPE_PEM), 1);
    static const unsigned char alpn[] = {2, 'h', '2'};
    assert_int_equal(SSL_CTX_set_alpn_protos(context, alpn, sizeof alpn), 0);
    SSL *ssl = SSL_new(context); /* ours: it sets the minimum, which is lifted again for this client */
    assert_int_equal(SSL_set_min_proto_version(ssl, TLS1_2_VERSION), 1);
    assert_int_equal(SSL_set_max_proto_version(ssl, max_version), 1);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const char *address = kms_rpc_server_address(site->server, 0);
    const struct sockaddr_in name = {.sin_family = AF_INET,
                                     .sin_port = htons((uint16_t)strtoul(strchr(address, ':') + 1, NULL, 10)),
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (const struct sockaddr *)(const void *)&name, sizeof name), 0);
    assert_int_equal(SSL_set_fd(ssl, fd), 1);
    long serial = -1;
    if (SSL_connect(ssl) == 1) {
        char byte;
        (void)SSL_read(ssl, &byte, 1); /* the server's SETTINGS; a ticket would come before it */
        X509 *certificate = SSL_get1_peer_certificate(ssl);
        serial = ASN1_INTEGER_get(X509_get0_serialNumber(certificate));
        X509_free(certificate);
        *ret_version = SSL_version(ssl);
        *ret_ticket = SSL_SESSION_is_resumable(SSL_get0_session(ssl)) != 0;
    }
    ERR_clear_error();
    SSL_free(ssl);
    SSL_CTX_free(context);
    (void)close(fd);
    return serial;
}

static void only_tls_1_3_and_no_session_to_resume(void **state)
{
    int version = 0;
    bool ticket = true;
    assert_true(connect_plain(*state, TLS1_3_VERSION, &version, &ticket) > 0);
    assert_int_equal(version, TLS1_3_VERSION);
    assert_false(ticket);
    assert_int_equal(connect_plain(*state, TLS1_2_VERSION, &version, &ticket), -1);
}

static void a_new_certificate_is_used_by_new_connections(void **state)
{
    struct site *site = *state;
    int version = 0;
    bool ticket = false;
    const long old = connect_plain(site, TLS1_3_VERSION, &version, &ticket);
    const long new = certs_issue(&site->ca, "server", NULL, true, 3600, site_path(site, "server.pem"),
                                 site_path(site, "server.key"));
    assert_int_equal(connect_plain(site, TLS1_3_VERSION, &version, &ticket), old); /* not before it is told */
    struct kms_error err = {.status = KMS_OK};
    assert_int_equal(kms_rpc_server_reload(site->server, &err), KMS_OK);
    assert_int_equal(connect_plain(site, TLS1_3_VERSION, &version, &ticket), new);
    assert_int_not_equal(old, new);
    assert_int_equal(code_of_call(&site->client), GRPC_STATUS_OK); /* the old connection lives on */
    assert_int_equal(code_for(site, "app"), GRPC_STATUS_OK);
}

/* Put `text` into a file, expect the reload to fail, put the old content back. */
static void assert_reload_refused(struct site *site, const char *name, const char *text,
                                  const char *complaint)
{
    char *old = certs_read(site_path(site, name));
    struct kms_error err = {.status = KMS_OK};
    certs_write(site_path(site, name), text);
    assert_int_equal(kms_rpc_server_reload(site->server, &err), KMS_CONFIG_INVALID);
    if (strstr(err.cause, complaint) == NULL)
        fail_msg("'%s' does not say '%s'", err.cause, complaint);
    assert_int_equal(code_for(site, "app"), GRPC_STATUS_OK); /* with the old files */
    certs_write(site_path(site, name), old);
    free(old);
}

static void bad_files_change_nothing(void **state)
{
    struct site *site = *state;
    struct kms_error err = {.status = KMS_OK};
    char *wrong_key = certs_read(site_path(site, "app.key"));
    char *ca = certs_read(site_path(site, "ca.pem"));
    (void)certs_issue(&site->ca, "late", NULL, true, -10, site_path(site, "late.pem"),
                      site_path(site, "late.key"));
    char *late = certs_read(site_path(site, "late.pem"));
    char *cut = strdup(ca);
    cut[strlen(cut) / 2] = '\0';
    assert_reload_refused(site, "server.pem", "garbage\n", "server.pem");
    assert_reload_refused(site, "server.pem", late, "expired");
    assert_reload_refused(site, "server.key", wrong_key, "does not belong");
    assert_reload_refused(site, "server.key", "garbage\n", "server.key");
    assert_reload_refused(site, "ca.pem", "garbage\n", "ca.pem");
    assert_reload_refused(site, "ca.pem", cut, "ca.pem");
    assert_int_equal(chmod(site_path(site, "server.key"), 0644), 0);
    assert_int_equal(kms_rpc_server_reload(site->server, &err), KMS_CONFIG_INVALID);
    assert_int_equal(chmod(site_path(site, "server.key"), 0600), 0);
    assert_int_equal(kms_rpc_server_reload(site->server, &err), KMS_OK);
    free(wrong_key);
    free(ca);
    free(late);
    free(cut);
}

static void a_new_client_ca_lets_its_clients_in_and_the_old_ones_out(void **state)
{
    struct site *site = *state;
    struct kms_error err = {.status = KMS_OK};
    char *old = certs_read(site_path(site, "ca.pem"));
    struct certs_ca next = certs_ca_new("next ca", site_path(site, "next-ca.pem"));
    (void)certs_issue(&next, "newcomer", "spiffe://kms.example/app/newcomer", false, 3600,
                      site_path(site, "newcomer.pem"), site_path(site, "newcomer.key"));
    char *text = certs_read(site_path(site, "next-ca.pem"));
    certs_write(site_path(site, "ca.pem"), text);
    assert_int_equal(kms_rpc_server_reload(site->server, &err), KMS_OK);
    assert_int_equal(code_for(site, "app"), GRPC_STATUS_UNAVAILABLE);
    /* TLS lets it in; the revocation list of the old CA does not speak for it, so auth refuses it */
    assert_int_equal(code_for(site, "newcomer"), GRPC_STATUS_UNAUTHENTICATED);
    certs_write(site_path(site, "ca.pem"), old);
    assert_int_equal(kms_rpc_server_reload(site->server, &err), KMS_OK);
    assert_int_equal(code_for(site, "app"), GRPC_STATUS_OK);
    certs_ca_clear(&next);
    free(text);
    free(old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_certificate_gets_in),
        cmocka_unit_test(no_certificate_does_not),
        cmocka_unit_test(an_expired_certificate_does_not),
        cmocka_unit_test(a_certificate_of_another_ca_does_not),
        cmocka_unit_test(a_revoked_certificate_is_refused_on_a_connection_that_is_open),
        cmocka_unit_test(the_unix_socket_wants_a_certificate_too),
        cmocka_unit_test(the_socket_of_a_running_instance_is_not_taken),
        cmocka_unit_test(a_file_in_the_sockets_place_is_not_removed),
        cmocka_unit_test(a_socket_that_a_dead_instance_left_is_replaced),
        cmocka_unit_test(bad_addresses_and_files_are_named),
        cmocka_unit_test(only_tls_1_3_and_no_session_to_resume),
        cmocka_unit_test(a_new_certificate_is_used_by_new_connections),
        cmocka_unit_test(bad_files_change_nothing),
        cmocka_unit_test(a_new_client_ca_lets_its_clients_in_and_the_old_ones_out),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
