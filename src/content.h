/*
 * content.h: is this content new, known, or the continuation of what was loaded before?
 */
#ifndef DWH_CONTENT_H
#define DWH_CONTENT_H

#include "ledger.h"

typedef enum ContentKind
{
	CONTENT_NEW,
	CONTENT_KNOWN,				/* the whole content is a load's */
	CONTENT_GROWN				/* it begins with a load's whole content and goes on */
} ContentKind;

typedef struct ContentMatch
{
	ContentKind kind;
	KnownLoad	load;			/* unless new */
	int64		resume_offset;	/* grown: where the part begins that no load has read as lines */
	int64		counted_from;	/* grown: bytes from here on belong to the new part */
	bool		digested;		/* sha256 is known: the content was read once */
	uint8		sha256[DIGEST_BYTES];
	uint8		head[DIGEST_BYTES];
	bool		is_empty;		/* not a single byte */
	bool		is_truncated;	/* and that because the archive ended before the first one */
} ContentMatch;

/*
 * Compares the content with every load whose beginning looks alike, under the lock of its head, and rewinds the source.
 * Content whose beginning is new is not read beyond it. compare: false where it is to be loaded whatever is known.
 * lock_head: false where the caller loads exclusively.
 */
extern void dwh_content_match(Source *source, bool compare, bool lock_head, ContentMatch *match);

/* The same without any lock, by the statement's snapshot, and with loads that are not in the ledger: a List of PendingLoad. */
extern void dwh_content_forecast(Source *source, List *pending, ContentMatch *match);

/* A digest that goes with the current memory context, on error too. */
extern RunningDigest *dwh_content_digest(void);

/* Raises the error of a libcrypto that fails. */
extern void dwh_content_digest_failed(void);

/* Adds to, or takes, a digest; an error where libcrypto fails. */
extern void dwh_content_digest_add(RunningDigest *digest, const char *data, size_t length);
extern void dwh_content_digest_peek(RunningDigest *digest, uint8 result[DIGEST_BYTES]);

#endif
