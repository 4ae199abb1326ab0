#include "detect/place.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

enum { PEER_MAX = 128, IPV4_BITS = 32, IPV6_BITS = 128, MAPPED_AT = 12 };

/* Clear what is beyond the prefix. */
static void cut(struct kms_place *place, unsigned bits)
{
    place->bits = (uint8_t)bits;
    for (unsigned i = 0; i < sizeof place->address; i++) {
        const unsigned begun = i * 8;
        if (begun >= bits)
            place->address[i] = 0;
        else if (bits - begun < 8)
            place->address[i] &= (uint8_t)(0xff00U >> (bits - begun));
    }
}

/* The address in "[...]" or "%5B...%5D", without its zone, into `out`. */
static bool unwrap_brackets(const char *text, char out[INET6_ADDRSTRLEN])
{
    const char *begin = text;
    if (*begin == '[')
        begin += 1;
    else if (strncasecmp(begin, "%5B", 3) == 0)
        begin += 3;
    else
        return false;
    const size_t len = strspn(begin, "0123456789abcdefABCDEF:.");
    if (len == 0 || len >= INET6_ADDRSTRLEN)
        return false;
    memcpy(out, begin, len);
    out[len] = '\0';
    return true;
}

/* A IPv6 address that stands for a IPv4 one is that one: the same client by another listener. */
static struct kms_place of_ipv6(const char *text, unsigned ipv4_bits, unsigned ipv6_bits)
{
    static const uint8_t mapped[MAPPED_AT] = {[10] = 0xff, [11] = 0xff};
    struct kms_place place = {.kind = KMS_PLACE_IPV6};
    char address[INET6_ADDRSTRLEN];
    if (!unwrap_brackets(text, address) || inet_pton(AF_INET6, address, place.address) != 1)
        return (struct kms_place){0};
    if (memcmp(place.address, mapped, MAPPED_AT) == 0) {
        place.kind = KMS_PLACE_IPV4;
        memmove(place.address, place.address + MAPPED_AT, 4);
        cut(&place, ipv4_bits);
    } else {
        cut(&place, ipv6_bits);
    }
    return place;
}

size_t kms_place_peer_len(const char *peer)
{
    const char *port = strrchr(peer, ':');
    return port != NULL ? (size_t)(port - peer) : strlen(peer);
}

struct kms_place kms_place_of_peer(const char *peer, unsigned ipv4_bits, unsigned ipv6_bits)
{
    struct kms_place place = {0};
    if (peer == NULL)
        return place;
    if (strncmp(peer, "unix:", 5) == 0) {
        place.kind = KMS_PLACE_UNIX;
    } else if (strncmp(peer, "ipv4:", 5) == 0) {
        char address[INET_ADDRSTRLEN];
        const size_t len = kms_place_peer_len(peer);
        if (len < 5 || len - 5 >= sizeof address)
            return place;
        memcpy(address, peer + 5, len - 5);
        address[len - 5] = '\0';
        if (inet_pton(AF_INET, address, place.address) != 1)
            return place;
        place.kind = KMS_PLACE_IPV4;
        cut(&place, ipv4_bits);
    } else if (strncmp(peer, "ipv6:", 5) == 0) {
        place = of_ipv6(peer + 5, ipv4_bits, ipv6_bits);
    }
    return place;
}

const char *kms_place_format(const struct kms_place *place, char out[KMS_PLACE_TEXT_SIZE])
{
    char address[INET6_ADDRSTRLEN] = "";
    switch ((enum kms_place_kind)place->kind) {
    case KMS_PLACE_UNIX:
        (void)snprintf(out, KMS_PLACE_TEXT_SIZE, "unix");
        return out;
    case KMS_PLACE_IPV4:
    case KMS_PLACE_IPV6:
        (void)inet_ntop(place->kind == KMS_PLACE_IPV4 ? AF_INET : AF_INET6, place->address, address,
                        sizeof address);
        (void)snprintf(out, KMS_PLACE_TEXT_SIZE, "%s/%u", address, place->bits);
        return out;
    case KMS_PLACE_UNKNOWN:
        break;
    }
    (void)snprintf(out, KMS_PLACE_TEXT_SIZE, "unknown");
    return out;
}

/* "<address>/<bits>" of one family. */
static bool parse_network(const char *text, struct kms_place *ret_place)
{
    const char *slash = strchr(text, '/');
    char address[INET6_ADDRSTRLEN];
    if (slash == NULL || (size_t)(slash - text) >= sizeof address)
        return false;
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = '\0';
    struct kms_place place = {.kind = KMS_PLACE_IPV4};
    unsigned most = IPV4_BITS;
    if (inet_pton(AF_INET, address, place.address) != 1) {
        place.kind = KMS_PLACE_IPV6;
        most = IPV6_BITS;
        if (inet_pton(AF_INET6, address, place.address) != 1)
            return false;
    }
    const size_t digits = strspn(slash + 1, "0123456789");
    const unsigned long bits = digits > 0 && digits <= 3 ? strtoul(slash + 1, NULL, 10) : most + 1;
    struct kms_place masked = place;
    if (slash[1 + digits] != '\0' || bits > most)
        return false;
    cut(&masked, (unsigned)bits);
    if (memcmp(masked.address, place.address, sizeof place.address) != 0)
        return false;
    *ret_place = masked;
    return true;
}

bool kms_place_parse(const char *text, struct kms_place *ret_place)
{
    if (strcmp(text, "unknown") == 0)
        *ret_place = (struct kms_place){0};
    else if (strcmp(text, "unix") == 0)
        *ret_place = (struct kms_place){.kind = KMS_PLACE_UNIX};
    else
        return parse_network(text, ret_place);
    return true;
}
