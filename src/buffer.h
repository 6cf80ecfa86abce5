/*
 * buffer.h: a growing run of bytes in memory that the caller lends.
 *
 * Bytes floor: no server header. Memory comes from a yyjson_alc, so the server lends a memory context and a fuzz
 * driver malloc; the buffer never frees, the owner of the allocator does. An allocator that cannot deliver must not
 * return (the server's raises an error, a driver's aborts).
 */
#ifndef DWH_BUFFER_H
#define DWH_BUFFER_H

#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

typedef struct ByteBuffer
{
	char	   *data;			/* not NUL-terminated; NULL while capacity is 0 */
	size_t		length;
	size_t		capacity;
	const yyjson_alc *alc;
} ByteBuffer;

/* An empty buffer on that allocator. */
extern void dwh_buffer_init(ByteBuffer *buffer, const yyjson_alc *alc);

/* Room for that many more bytes after length; returns where they go. Length is unchanged. */
extern char *dwh_buffer_reserve(ByteBuffer *buffer, size_t more);

extern void dwh_buffer_add(ByteBuffer *buffer, const char *data, size_t length);
extern void dwh_buffer_add_char(ByteBuffer *buffer, char byte);
extern void dwh_buffer_add_text(ByteBuffer *buffer, const char *text);

/* An integer in decimal, left-padded with zeros to width. */
extern void dwh_buffer_add_integer(ByteBuffer *buffer, int64_t value, int width);

/* A JSON string with the escapes that jsonb prints: quote, backslash, \b \f \n \r \t, other bytes below 0x20 as \u00XX. */
extern void dwh_buffer_add_json_string(ByteBuffer *buffer, const char *data, size_t length);

#endif
