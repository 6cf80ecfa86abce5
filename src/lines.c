/*
 * lines.c: bytes -> lines.
 *
 *     file --source.c--> bytes --[lines.c]--> line --json.c--> object --event.c--> event
 *
 * Invariants:
 *  (1) Every byte of the content belongs to exactly one line: the sum of line.bytes is the number of bytes read.
 *  (2) Only LF ends a line; a CR right before it and a BOM at offset 0 are dropped from the text, never from the count.
 *  (3) The buffer never grows past max_line_bytes plus one read; a longer line is discarded as it streams by.
 */
#include "lines.h"

#include <string.h>

/* One read of the source; small enough that the callback's interrupt check is reached often. */
#ifndef READ_BYTES				/* test/fuzz makes it small */
#define READ_BYTES (256 * 1024)
#endif

void
dwh_lines_init(LineReader *reader, ReadBytes read, void *source, uint64_t offset, size_t max_line_bytes,
			   const yyjson_alc *alc)
{
	memset(reader, 0, sizeof(*reader));
	reader->read = read;
	reader->source = source;
	reader->offset = offset;
	reader->max_line_bytes = max_line_bytes;
	dwh_buffer_init(&reader->buffer, alc);
	dwh_buffer_reserve(&reader->buffer, READ_BYTES);	/* so that there is an address to reckon with */
}

/* Reads once more behind what is unread; false at the end of the source. */
static bool
fill(LineReader *reader)
{
	ByteBuffer	   *buffer = &reader->buffer;
	size_t		unread = buffer->length - reader->begin;
	size_t		got;

	if (reader->at_end)
		return false;
	if (reader->begin > 0)
	{
		memmove(buffer->data, buffer->data + reader->begin, unread);
		buffer->length = unread;
		reader->begin = 0;
	}
	got = reader->read(reader->source, dwh_buffer_reserve(buffer, READ_BYTES), READ_BYTES);
	buffer->length += got;
	reader->at_end = got == 0;
	return got > 0;
}

/* Takes BOM and CR off the text; the byte count stays. */
static void
trim(Line *line)
{
	if (line->offset == 0 && line->length >= 3 && memcmp(line->text, "\xEF\xBB\xBF", 3) == 0)
	{
		line->text += 3;
		line->length -= 3;
		line->full_length -= 3;
	}
	if (line->terminated && !line->oversized && line->length > 0 && line->text[line->length - 1] == '\r')
	{
		line->length--;
		line->full_length--;
	}
}

/* Hands out the first size unread bytes as a line, its LF included if it has one. */
static void
take(LineReader *reader, size_t size, bool terminated, Line *line)
{
	const char *start = reader->buffer.data + reader->begin;

	memset(line, 0, sizeof(*line));
	line->text = start;
	line->length = line->full_length = size - (terminated ? 1 : 0);
	line->offset = reader->offset;
	line->bytes = size;
	line->terminated = terminated;
	reader->begin += size;
	reader->offset += size;
	trim(line);
	if (line->full_length > reader->max_line_bytes)
	{
		/* a BOM is part of the evidence, as in take_oversized: the sizes of reads make no difference */
		size_t		evidence = LINE_EVIDENCE_BYTES - (line->text - start);

		line->oversized = true;
		if (line->length > evidence)
			line->length = evidence;
	}
}

/*
 * Streams past the rest of a line whose unread beginning already exceeds the limit. Its first LINE_EVIDENCE_BYTES
 * stay at the front of the buffer, what follows them is overwritten read by read.
 */
static void
take_oversized(LineReader *reader, Line *line)
{
	ByteBuffer	   *buffer = &reader->buffer;
	uint64_t	size = 0;
	char	   *end = NULL;
	char		last = 0;

	memmove(buffer->data, buffer->data + reader->begin, buffer->length - reader->begin);
	buffer->length -= reader->begin;
	reader->begin = 0;

	memset(line, 0, sizeof(*line));
	line->offset = reader->offset;
	line->oversized = true;
	for (;;)
	{
		size_t		scanned = size == 0 ? 0 : LINE_EVIDENCE_BYTES;

		end = memchr(buffer->data + scanned, '\n', buffer->length - scanned);
		if (end != NULL)
			break;
		size += buffer->length - scanned;
		last = buffer->data[buffer->length - 1];
		buffer->length = LINE_EVIDENCE_BYTES;
		if (!fill(reader))
			break;
	}
	if (end != NULL)
	{
		size_t		scanned = size == 0 ? 0 : LINE_EVIDENCE_BYTES;

		if (end > buffer->data + scanned)
			last = end[-1];
		size += end + 1 - (buffer->data + scanned);
		reader->begin = end + 1 - buffer->data;
	}
	else
		reader->begin = buffer->length;
	line->terminated = end != NULL;
	line->text = buffer->data;
	line->length = LINE_EVIDENCE_BYTES;
	line->bytes = size;
	line->full_length = size - (line->terminated ? 1 : 0) - (line->terminated && last == '\r' ? 1 : 0);
	reader->offset += size;
	trim(line);
}

bool
dwh_lines_next(LineReader *reader, Line *line)
{
	ByteBuffer	   *buffer = &reader->buffer;
	size_t		searched = 0;	/* unread bytes known to hold no LF */

	for (;;)
	{
		size_t		unread = buffer->length - reader->begin;
		char	   *start = buffer->data + reader->begin;
		char	   *end = unread > searched ? memchr(start + searched, '\n', unread - searched) : NULL;

		if (end != NULL)
		{
			take(reader, end - start + 1, true, line);
			return true;
		}
		/* BOM, CR and LF may come on top of the limit */
		if (unread > reader->max_line_bytes + 5 && unread > LINE_EVIDENCE_BYTES)
		{
			take_oversized(reader, line);
			return true;
		}
		searched = unread;
		if (!fill(reader))
			break;
	}
	if (buffer->length == reader->begin)
		return false;
	take(reader, buffer->length - reader->begin, false, line);
	return true;
}

ByteBuffer
dwh_lines_detach(LineReader *reader)
{
	ByteBuffer	taken = reader->buffer;
	ByteBuffer	rest;

	/* nothing changes hands before the allocator has delivered */
	dwh_buffer_init(&rest, taken.alc);
	dwh_buffer_reserve(&rest, READ_BYTES + taken.length - reader->begin);
	dwh_buffer_add(&rest, taken.data + reader->begin, taken.length - reader->begin);
	reader->buffer = rest;
	reader->begin = 0;
	return taken;
}

bool
dwh_line_is_blank(const Line *line)
{
	if (line->oversized)
		return false;
	for (size_t i = 0; i < line->length; i++)
		if (line->text[i] != ' ' && line->text[i] != '\t')
			return false;
	return true;
}
