/*
 * fuzz_lines.c: bytes -> lines, whatever the sizes of reads.
 *
 * The content is the input. The limit, where the content begins and the sizes of reads are derived from it, so an input
 * kept is a plain file. READ_BYTES and LINE_EVIDENCE_BYTES are small in this build, so that small inputs pass them.
 *
 * Asserted: each line is the one that a search for LF in the whole content gives; no byte is left over; the buffer stays
 * within its bound; a digest fed in the same pieces is the content's.
 */
#include "fuzz.h"

#include "digest.h"
#include "lines.h"

typedef struct Content
{
	const char *data;
	size_t		size;
	size_t		at;				/* bytes read so far */
	size_t		largest_read;
	uint64_t	random;
	RunningDigest *digest;
} Content;

static size_t
read_piece(void *source, char *target, size_t size)
{
	Content    *content = source;
	size_t		rest = content->size - content->at;
	size_t		piece = 1 + fuzz_next(&content->random) % content->largest_read;
	uint8_t		digest[DIGEST_BYTES];

	assert(size > 0);
	piece = piece > size ? size : piece;
	piece = piece > rest ? rest : piece;
	memcpy(target, content->data + content->at, piece);
	content->at += piece;
	assert(dwh_digest_add(content->digest, target, piece));
	/* a look in between changes nothing */
	assert(content->random % 16 != 0 || dwh_digest_peek(content->digest, digest));
	return piece;
}

/* What lines.h says about the line that begins at start, found in the whole content. */
static Line
expected_line(const Content *content, size_t start, uint64_t first_offset, size_t limit)
{
	const char *text = content->data + start;
	const char *end = memchr(text, '\n', content->size - start);
	bool		bom = first_offset + start == 0 && content->size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0;
	Line		line = {.text = text, .offset = first_offset + start, .terminated = end != NULL};

	line.full_length = end != NULL ? end - text : content->size - start;
	line.bytes = line.full_length + (end != NULL);
	if (bom)
	{
		line.text += 3;
		line.full_length -= 3;
	}
	if (line.terminated && line.full_length > 0 && line.text[line.full_length - 1] == '\r')
		line.full_length--;
	line.length = line.full_length;
	line.oversized = line.full_length > limit;
	if (line.oversized && line.length > LINE_EVIDENCE_BYTES - (bom ? 3 : 0))
		line.length = LINE_EVIDENCE_BYTES - (bom ? 3 : 0);
	return line;
}

static bool
is_blank(const Line *line)
{
	for (size_t i = 0; i < line->length; i++)
		if (line->text[i] != ' ' && line->text[i] != '\t')
			return false;
	return !line->oversized;
}

static void
check_lines(Content *content, uint64_t first_offset, size_t limit)
{
	LineReader	reader;
	Line		line;
	size_t		start = 0;
	uint8_t		piecewise[DIGEST_BYTES];
	uint8_t		whole[DIGEST_BYTES];

	content->at = 0;
	content->digest = dwh_digest_new();
	assert(content->digest != NULL);
	dwh_lines_init(&reader, read_piece, content, first_offset, limit, &fuzz_alc);
	while (dwh_lines_next(&reader, &line))
	{
		Line		expected = expected_line(content, start, first_offset, limit);

		assert(line.offset == expected.offset);
		assert(line.bytes == expected.bytes);
		assert(line.terminated == expected.terminated);
		assert(line.oversized == expected.oversized);
		assert(line.full_length == expected.full_length);
		assert(line.length == expected.length);
		assert(memcmp(line.text, expected.text, line.length) == 0);
		assert(dwh_line_is_blank(&line) == is_blank(&expected));
		assert(reader.buffer.length <= READ_BYTES + (limit + 5 > LINE_EVIDENCE_BYTES ? limit + 5 : LINE_EVIDENCE_BYTES));
		start += line.bytes;
	}
	assert(start == content->size && content->at == content->size);
	assert(!dwh_lines_next(&reader, &line));
	assert(dwh_digest_peek(content->digest, piecewise));
	assert(dwh_digest_of(content->data, content->size, whole));
	assert(memcmp(piecewise, whole, DIGEST_BYTES) == 0);
	dwh_digest_free(content->digest);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t limits[] = {0, 1, 5, LINE_EVIDENCE_BYTES - 6, LINE_EVIDENCE_BYTES, LINE_EVIDENCE_BYTES + 20};
	static const size_t reads[] = {1, 3, READ_BYTES, SIZE_MAX};
	static const uint64_t offsets[] = {0, 0, 0, 1, 3, UINT64_C(1) << 40};
	uint64_t	random = fuzz_hash(data, size);
	size_t		limit = limits[fuzz_next(&random) % 6];
	uint64_t	first_offset = offsets[fuzz_next(&random) % 6];
	Content		content = {.data = fuzz_copy(data, size), .size = size};

	for (int i = 0; i < 2; i++)
	{
		content.largest_read = reads[fuzz_next(&random) % 4];
		content.random = random;
		check_lines(&content, first_offset, limit);
	}
	fuzz_free_all();
	return 0;
}
