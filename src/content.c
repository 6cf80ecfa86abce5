/*
 * content.c: is this content new, known, or grown?
 *
 * Identity is content. Every load stores the SHA-256 of its whole content and of its head, the first power of two of
 * bytes. Few files share a head, so new content is recognised by one look-up and read once; where heads are equal the
 * content is read to its end first, the running digest compared at the length of each candidate.
 *
 * Invariants:
 *  (1) A match is a match of SHA-256 over the same number of bytes, never of names or times.
 *  (2) Between the look-up and the end of the transaction nobody else loads content with that head.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "content.h"

#define READ_BYTES (256 * 1024)
#define HEADS_MAX 16

static void
free_digest(void *digest)
{
	dwh_digest_free(digest);
}

void
dwh_content_digest_failed(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
			 errmsg("libcrypto could not compute a SHA-256 digest"),
			 errdetail("Files are identified by it."),
			 errhint("Check the OpenSSL configuration of the server.")));
}

RunningDigest *
dwh_content_digest(void)
{
	MemoryContextCallback *callback = palloc0(sizeof(*callback));
	RunningDigest *digest = dwh_digest_new();

	if (digest == NULL)
		dwh_content_digest_failed();
	callback->func = free_digest;
	callback->arg = digest;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	return digest;
}

void
dwh_content_digest_add(RunningDigest *digest, const char *data, size_t length)
{
	if (!dwh_digest_add(digest, data, length))
		dwh_content_digest_failed();
}

void
dwh_content_digest_peek(RunningDigest *digest, uint8 result[DIGEST_BYTES])
{
	if (!dwh_digest_peek(digest, result))
		dwh_content_digest_failed();
}

/* Fills the buffer as far as the content goes. */
static size_t
read_fully(Source *source, char *target, size_t size)
{
	size_t		length = 0;
	size_t		got;

	while (length < size && (got = dwh_source_read(source, target + length, size - length)) > 0)
		length += got;
	return length;
}

/* The heads of all powers of two up to the length; the last one is the content's own. */
static int
heads_of(const char *data, size_t length, uint8 heads[][DIGEST_BYTES])
{
	int			count = 0;

	for (size_t size = 1; size <= length && size <= HEAD_MAX_BYTES; size *= 2)
		if (!dwh_digest_of(data, size, heads[count++]))
			dwh_content_digest_failed();
	return count;
}

/*
 * What the digest says at the length of a candidate. after: up to two bytes that follow. A load whose last line was
 * open is continued only by that line's end.
 */
static void
judge(const KnownLoad *candidate, const uint8 sha256[DIGEST_BYTES], const char *after, size_t after_length,
	  ContentMatch *match)
{
	int64		terminator = 0;

	if (memcmp(candidate->sha256, sha256, DIGEST_BYTES) != 0)
		return;
	if (after_length > 0)
	{
		if (candidate->quarantined)
			return;
		if (candidate->ends_open)
		{
			terminator = after[0] == '\n' ? 1 : after_length > 1 && after[0] == '\r' && after[1] == '\n' ? 2 : 0;
			if (terminator == 0)
				return;
		}
	}
	match->kind = after_length > 0 ? CONTENT_GROWN : CONTENT_KNOWN;
	match->load = *candidate;
	match->counted_from = candidate->content_bytes - candidate->held_back_bytes;
	match->resume_offset = match->counted_from + terminator;
}

/*
 * Reads all of the content and judges each candidate at its length. Two bytes are kept back from the digest so that
 * what follows a candidate's end is always at hand.
 */
static void
compare_with(Source *source, const KnownLoad *candidates, int count, ContentMatch *match)
{
	RunningDigest *digest = dwh_content_digest();
	char	   *window = palloc(READ_BYTES + 2);
	size_t		held = 0;
	int64		position = 0;	/* bytes digested */
	int			next = 0;
	size_t		got;

	do
	{
		size_t		done = 0;
		size_t		ready;

		got = read_fully(source, window + held, READ_BYTES);
		held += got;
		ready = got == READ_BYTES ? held - 2 : held;
		while (next < count && candidates[next].content_bytes <= position + (int64) ready)
		{
			size_t		upto = (size_t) (candidates[next].content_bytes - position);

			dwh_content_digest_add(digest, window + done, upto);
			done += upto;
			position += upto;
			ready -= upto;
			dwh_content_digest_peek(digest, match->sha256);
			judge(&candidates[next++], match->sha256, window + done, held - done, match);
		}
		dwh_content_digest_add(digest, window + done, ready);
		position += ready;
		done += ready;
		memmove(window, window + done, held - done);
		held -= done;
	} while (got == READ_BYTES);
	dwh_content_digest_peek(digest, match->sha256);
	match->digested = true;
	dwh_source_rewind(source);
}

/* The heads of the content, and what can be said without comparing; rewinds the source. */
static int
read_heads(Source *source, uint8 heads[HEADS_MAX][DIGEST_BYTES], ContentMatch *match)
{
	char		beginning[HEAD_MAX_BYTES];
	size_t		length = read_fully(source, beginning, sizeof(beginning));
	int			count;

	memset(match, 0, sizeof(*match));
	match->is_empty = length == 0;
	match->is_truncated = match->is_empty && dwh_source_is_truncated(source);
	dwh_source_rewind(source);
	if (match->is_empty)
		return 0;
	count = heads_of(beginning, length, heads);
	memcpy(match->head, heads[count - 1], DIGEST_BYTES);
	return count;
}

void
dwh_content_match(Source *source, bool compare, bool lock_head, ContentMatch *match)
{
	uint8		heads[HEADS_MAX][DIGEST_BYTES];
	int			head_count = read_heads(source, heads, match);
	KnownLoad  *candidates;
	int			count;

	if (match->is_empty)
		return;
	if (lock_head)
		dwh_ledger_lock_head(match->head);
	if (!compare)
		return;
	candidates = dwh_ledger_find_heads(heads, head_count, false, &count);
	if (count > 0)
		compare_with(source, candidates, count, match);
}

static bool
has_head(const PendingLoad *load, uint8 heads[][DIGEST_BYTES], int head_count)
{
	for (int i = 0; i < head_count; i++)
		if (memcmp(load->head, heads[i], DIGEST_BYTES) == 0)
			return true;
	return false;
}

/*
 * Puts a load that is not in the ledger where the ledger would list it: by length; it is the youngest of its length, and not
 * quarantined.
 */
static void
insert_candidate(KnownLoad *candidates, int count, const KnownLoad *load)
{
	int			at = 0;

	while (at < count && (candidates[at].content_bytes < load->content_bytes ||
						  (candidates[at].content_bytes == load->content_bytes && candidates[at].quarantined)))
		at++;
	memmove(&candidates[at + 1], &candidates[at], (count - at) * sizeof(KnownLoad));
	candidates[at] = *load;
}

void
dwh_content_forecast(Source *source, List *pending, ContentMatch *match)
{
	uint8		heads[HEADS_MAX][DIGEST_BYTES];
	int			head_count = read_heads(source, heads, match);
	KnownLoad  *candidates;
	int			count;
	ListCell   *cell;

	if (match->is_empty)
		return;
	candidates = dwh_ledger_find_heads(heads, head_count, true, &count);
	candidates = repalloc(candidates, (count + list_length(pending) + 1) * sizeof(KnownLoad));
	foreach(cell, pending)
	{
		const PendingLoad *load = lfirst(cell);

		if (has_head(load, heads, head_count))
			insert_candidate(candidates, count++, &load->known);
	}
	if (count > 0)
		compare_with(source, candidates, count, match);
}
