/*
 * buffer.c: a growing run of bytes in borrowed memory.
 */
#include "buffer.h"

#include <stdlib.h>
#include <string.h>

#define INITIAL_CAPACITY 1024

void
dwh_buffer_init(ByteBuffer *buffer, const yyjson_alc *alc)
{
	memset(buffer, 0, sizeof(*buffer));
	buffer->alc = alc;
}

char *
dwh_buffer_reserve(ByteBuffer *buffer, size_t more)
{
	size_t		needed;
	size_t		capacity = buffer->capacity ? buffer->capacity : INITIAL_CAPACITY;

	if (__builtin_add_overflow(buffer->length, more, &needed) || needed > SIZE_MAX / 2)
		abort();				/* no input that passed max_line_bytes comes near */
	if (needed <= buffer->capacity)
		return buffer->data + buffer->length;
	while (capacity < needed)
		capacity *= 2;
	buffer->data = buffer->data == NULL
		? buffer->alc->malloc(buffer->alc->ctx, capacity)
		: buffer->alc->realloc(buffer->alc->ctx, buffer->data, buffer->capacity, capacity);
	buffer->capacity = capacity;
	return buffer->data + buffer->length;
}

void
dwh_buffer_add(ByteBuffer *buffer, const char *data, size_t length)
{
	if (length == 0)
		return;
	memcpy(dwh_buffer_reserve(buffer, length), data, length);
	buffer->length += length;
}

void
dwh_buffer_add_char(ByteBuffer *buffer, char byte)
{
	*dwh_buffer_reserve(buffer, 1) = byte;
	buffer->length++;
}

void
dwh_buffer_add_text(ByteBuffer *buffer, const char *text)
{
	dwh_buffer_add(buffer, text, strlen(text));
}

void
dwh_buffer_add_integer(ByteBuffer *buffer, int64_t value, int width)
{
	char		digits[24];
	char	   *end = digits + sizeof(digits);
	char	   *at = end;
	uint64_t	rest = value < 0 ? 0 - (uint64_t) value : (uint64_t) value;

	do
		*--at = (char) ('0' + rest % 10);
	while ((rest /= 10) != 0);
	while (end - at < width && at > digits + 1)
		*--at = '0';
	if (value < 0)
		*--at = '-';
	dwh_buffer_add(buffer, at, end - at);
}

/* The letter of a two-character escape, or 0 where there is none. */
static char
short_escape(unsigned char byte)
{
	switch (byte)
	{
		case '"':
		case '\\':
			return (char) byte;
		case '\b':
			return 'b';
		case '\f':
			return 'f';
		case '\n':
			return 'n';
		case '\r':
			return 'r';
		case '\t':
			return 't';
		default:
			return 0;
	}
}

void
dwh_buffer_add_json_string(ByteBuffer *buffer, const char *data, size_t length)
{
	static const char hex[] = "0123456789abcdef";

	dwh_buffer_add_char(buffer, '"');
	for (size_t i = 0; i < length; i++)
	{
		unsigned char byte = (unsigned char) data[i];
		char		letter = short_escape(byte);

		if (letter != 0)
		{
			dwh_buffer_add_char(buffer, '\\');
			dwh_buffer_add_char(buffer, letter);
		}
		else if (byte < 0x20)
		{
			dwh_buffer_add_text(buffer, "\\u00");
			dwh_buffer_add_char(buffer, hex[byte >> 4]);
			dwh_buffer_add_char(buffer, hex[byte & 15]);
		}
		else
			dwh_buffer_add_char(buffer, (char) byte);
	}
	dwh_buffer_add_char(buffer, '"');
}
