/*
 * digest.h: names of content: SHA-256 of a file's bytes, name-based UUIDs of texts.
 *
 * Bytes floor: no server header; libcrypto does the hashing. A RunningDigest is a foreign handle: its owner frees it,
 * on error too.
 */
#ifndef DWH_DIGEST_H
#define DWH_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIGEST_BYTES 32
#define UUID_BYTES 16

typedef struct RunningDigest RunningDigest;

/* NULL when libcrypto cannot deliver; so return the next three false. */
extern RunningDigest *dwh_digest_new(void);
extern bool dwh_digest_add(RunningDigest *digest, const void *data, size_t length);

/* The SHA-256 (FIPS 180-4) of all bytes so far, as sha256sum prints it; more may be added afterwards. */
extern bool dwh_digest_peek(const RunningDigest *digest, uint8_t result[DIGEST_BYTES]);
extern void dwh_digest_free(RunningDigest *digest);

/* SHA-256 of these bytes at once. */
extern bool dwh_digest_of(const void *data, size_t length, uint8_t result[DIGEST_BYTES]);

/* The version 5 UUID (RFC 9562 section 5.5) of a text in the namespace of event ids: 49ed8e02-15dd-5f18-bfd9-42bd0f565928,
 * itself the version 5 UUID of "urn:dwh_ext:event_id" in RFC 9562's URL namespace. */
extern bool dwh_uuid_of_name(const char *name, size_t length, uint8_t result[UUID_BYTES]);

/* Reads a UUID in its usual form, 8-4-4-4-12 hexadecimal digits in either case. */
extern bool dwh_uuid_read(const char *text, size_t length, uint8_t result[UUID_BYTES]);

#endif
