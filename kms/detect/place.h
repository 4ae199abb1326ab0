/*
 * Purpose:   where a call comes from: the network of the peer's address, or this host.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     looks at the port.
 */
#ifndef KMS_DETECT_PLACE_H
#define KMS_DETECT_PLACE_H

#include "core/bytes.h"

enum { KMS_PLACE_TEXT_SIZE = 64 };

enum kms_place_kind { KMS_PLACE_UNKNOWN, KMS_PLACE_UNIX, KMS_PLACE_IPV4, KMS_PLACE_IPV6 };

/** Bytes only, so that two of them can be compared as memory. */
struct kms_place {
    uint8_t kind; /* enum kms_place_kind */
    uint8_t bits; /* of the address that count */
    uint8_t address[16];
};

/**
 * The place of a transport address as the RPC layer names it: "ipv4:192.0.2.7:4711", "ipv6:[2001:db8::1]:4711" (also with
 * the brackets as %5B and %5D), "unix:..."; NULL and anything else is unknown. An IPv4 address within IPv6 is IPv4.
 */
struct kms_place kms_place_of_peer(const char *peer, unsigned ipv4_bits, unsigned ipv6_bits);
/** Length of the part of a peer that names the place: all but the port. */
size_t kms_place_peer_len(const char *peer);
/** "192.0.2.0/24", "2001:db8::/64", "unix" or "unknown". Returns `out`. */
const char *kms_place_format(const struct kms_place *place, char out[KMS_PLACE_TEXT_SIZE]);
/** Read that text back, strictly: bits beyond the prefix must be 0. False leaves `*ret_place` unchanged. */
bool kms_place_parse(const char *text, struct kms_place *ret_place);

static inline bool kms_place_equal(const struct kms_place *a, const struct kms_place *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

#endif
