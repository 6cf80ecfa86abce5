/*
 * digest.c: SHA-256 of content and name-based UUIDs, by libcrypto's EVP interface.
 */
#include "digest.h"

#include <openssl/evp.h>
#include <string.h>

#define SHA1_BYTES 20

/* uuid5(URL namespace, "urn:dwh_ext:event_id"); changing it changes every derived event_id */
static const uint8_t event_namespace[UUID_BYTES] = {
	0x49, 0xed, 0x8e, 0x02, 0x15, 0xdd, 0x5f, 0x18,
	0xbf, 0xd9, 0x42, 0xbd, 0x0f, 0x56, 0x59, 0x28
};

struct RunningDigest
{
	EVP_MD_CTX *context;
	EVP_MD_CTX *copy;			/* scratch of dwh_digest_peek */
};

RunningDigest *
dwh_digest_new(void)
{
	RunningDigest *digest = OPENSSL_zalloc(sizeof(RunningDigest));

	if (digest == NULL)
		return NULL;
	digest->context = EVP_MD_CTX_new();
	digest->copy = EVP_MD_CTX_new();
	if (digest->context != NULL && digest->copy != NULL && EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL))
		return digest;
	dwh_digest_free(digest);
	return NULL;
}

bool
dwh_digest_add(RunningDigest *digest, const void *data, size_t length)
{
	return EVP_DigestUpdate(digest->context, data, length) == 1;
}

bool
dwh_digest_peek(const RunningDigest *digest, uint8_t result[DIGEST_BYTES])
{
	return EVP_MD_CTX_copy_ex(digest->copy, digest->context) == 1 &&
		EVP_DigestFinal_ex(digest->copy, result, NULL) == 1;
}

void
dwh_digest_free(RunningDigest *digest)
{
	EVP_MD_CTX_free(digest->context);
	EVP_MD_CTX_free(digest->copy);
	OPENSSL_free(digest);
}

bool
dwh_digest_of(const void *data, size_t length, uint8_t result[DIGEST_BYTES])
{
	return EVP_Digest(data, length, result, NULL, EVP_sha256(), NULL) == 1;
}

bool
dwh_uuid_of_name(const char *name, size_t length, uint8_t result[UUID_BYTES])
{
	uint8_t		hash[SHA1_BYTES];
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool		ok = context != NULL &&
		EVP_DigestInit_ex(context, EVP_sha1(), NULL) &&
		EVP_DigestUpdate(context, event_namespace, UUID_BYTES) &&
		EVP_DigestUpdate(context, name, length) &&
		EVP_DigestFinal_ex(context, hash, NULL);

	EVP_MD_CTX_free(context);
	if (!ok)
		return false;
	memcpy(result, hash, UUID_BYTES);
	result[6] = (uint8_t) ((result[6] & 0x0F) | 0x50);	/* version 5 */
	result[8] = (uint8_t) ((result[8] & 0x3F) | 0x80);	/* variant of RFC 9562 */
	return true;
}

static int
hex_value(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -1;
}

bool
dwh_uuid_read(const char *text, size_t length, uint8_t result[UUID_BYTES])
{
	if (length != 36)
		return false;
	for (size_t in = 0, out = 0; in < 36;)
	{
		int			high,
					low;

		if (in == 8 || in == 13 || in == 18 || in == 23)
		{
			if (text[in++] != '-')
				return false;
			continue;
		}
		high = hex_value(text[in]);
		low = hex_value(text[in + 1]);
		if (high < 0 || low < 0)
			return false;
		result[out++] = (uint8_t) (high << 4 | low);
		in += 2;
	}
	return true;
}
