/*
 * lines.h: bytes -> lines, each with its number and its place in the content.
 *
 * Bytes floor: no server header. The reader pulls bytes through a callback and holds one line at a time; a line over
 * the limit is streamed past, only its first bytes are kept, so memory is bounded by the limit for any input.
 */
#ifndef DWH_LINES_H
#define DWH_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

/* Bytes of an oversized line that are kept as evidence, a BOM among them. */
#ifndef LINE_EVIDENCE_BYTES		/* test/fuzz makes it small */
#define LINE_EVIDENCE_BYTES 4096
#endif

/* Puts up to size bytes (size > 0) at target; returns how many, 0 at the end. Raises its own errors. */
typedef size_t (*ReadBytes) (void *source, char *target, size_t size);

typedef struct Line
{
	const char *text;			/* valid until the next call; for an oversized line its first LINE_EVIDENCE_BYTES */
	size_t		length;			/* of text, without terminator, CR before it, and BOM */
	uint64_t	full_length;	/* the same before an oversized line was cut */
	uint64_t	offset;			/* of the line's first byte in the content (a BOM belongs to the line) */
	uint64_t	bytes;			/* in the content, BOM and terminator included */
	bool		terminated;		/* false for a last line without LF */
	bool		oversized;		/* full_length exceeds the limit */
} Line;

typedef struct LineReader
{
	ReadBytes	read;
	void	   *source;
	size_t		max_line_bytes;
	ByteBuffer		buffer;			/* bytes [begin, length) are unread */
	size_t		begin;
	uint64_t	offset;			/* of buffer.data[begin] in the content */
	bool		at_end;			/* the source has no more bytes */
} LineReader;

/* A reader whose first byte has that offset in the content (0 = a BOM is looked for). */
extern void dwh_lines_init(LineReader *reader, ReadBytes read, void *source, uint64_t offset, size_t max_line_bytes,
						   const yyjson_alc *alc);

/* The next line; false at the end of the content. */
extern bool dwh_lines_next(LineReader *reader, Line *line);

/*
 * Takes the buffer that holds the last line away from the reader, which goes on with a small one: the line stays valid
 * until its new owner frees the buffer.
 */
extern ByteBuffer dwh_lines_detach(LineReader *reader);

/* True for a line of blanks and tabs alone. */
extern bool dwh_line_is_blank(const Line *line);

#endif
