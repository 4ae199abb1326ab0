/*
 * Purpose:   protobuf-c messages as JSON, for every kind of message, by their descriptors.
 * Owns:      nothing.
 * Threads:   no shared state.
 * Never:     meets a message with a secret: those are not printed this way.
 *
 * Names are those of the .proto files. Timestamps become RFC 3339 text (null when unset), bytes base64, enums
 * their names, maps objects, 64-bit integers numbers.
 */
#ifndef KMS_CLI_JSON_H
#define KMS_CLI_JSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

/** A new reference; NULL when memory is short. */
json_t *kms_cli_json_of(const ProtobufCMessage *message);
/** Base64 of bytes as a JSON string; NULL when memory is short. */
json_t *kms_cli_json_base64(const void *data, size_t len);

/** Text from outside as a JSON string: bytes that are not UTF-8 become '?'. NULL when memory is short. */
json_t *kms_cli_json_text(const char *text);

#endif
