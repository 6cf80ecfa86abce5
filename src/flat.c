/*
 * flat.c: flat object -> jsonb bytes.
 *
 *     file --source.c--> bytes --lines.c--> line --json.c--> object --[flat.c]--> jsonb --line_sink.c--> writer.c
 *
 * Events of one log repeat their keys in the same order again and again. What follows from the keys alone (their order in
 * jsonb, their entries, their bytes) is kept as a shape; of an object that has a known shape only the values are written.
 *
 * jsonb of an object (utils/jsonb.h): length header; count and type; an entry a key, then an entry a value, in the order
 * of the keys; the bytes of the keys; the bytes of the values, numbers aligned to 4. An entry holds type and length, every
 * 32nd the offset of its end instead.
 */
#include "flat.h"

#include <string.h>

#include "decimal.h"
#include "json.h"

/* utils/jsonb.h: JEntry and JsonbContainer */
#define ENTRY_STRING UINT32_C(0x00000000)
#define ENTRY_NUMERIC UINT32_C(0x10000000)
#define ENTRY_FALSE UINT32_C(0x20000000)
#define ENTRY_TRUE UINT32_C(0x30000000)
#define ENTRY_NULL UINT32_C(0x40000000)
#define ENTRY_HAS_OFFSET UINT32_C(0x80000000)
#define OFFSET_STRIDE 32
#define CONTAINER_OBJECT UINT32_C(0x20000000)

/* varatt.h: the header of a value with four bytes of length, at most 1 GB */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define LENGTH_HEADER(size) ((uint32_t) (size))
#else
#define LENGTH_HEADER(size) ((uint32_t) (size) << 2)
#endif

/* Where the bytes go. */
typedef struct FlatWriter
{
	uint32_t   *entry;			/* of the next value */
	uint32_t	index;			/* its number among all entries */
	char	   *data;			/* where the bytes of keys and values begin */
	size_t		length;			/* of those so far */
} FlatWriter;

static FlatShape *
slot_of(FlatShapes *shapes, yyjson_val *object)
{
	yyjson_obj_iter iter = yyjson_obj_iter_with(object);
	yyjson_val *key;
	uint32_t	hash = 0;

	while ((key = yyjson_obj_iter_next(&iter)) != NULL)
		hash = hash * 31 + (uint32_t) yyjson_get_len(key);
	return &shapes->shapes[(hash ^ hash >> 8) % FLAT_SHAPES];
}

static bool
has_shape(const FlatShape *shape, yyjson_val *object)
{
	yyjson_obj_iter iter = yyjson_obj_iter_with(object);
	const char *expected = shape->keys;

	if (shape->count == 0 || yyjson_obj_size(object) != (size_t) shape->count)
		return false;
	for (int i = 0; i < shape->count; i++)
	{
		yyjson_val *key = yyjson_obj_iter_next(&iter);

		if (yyjson_get_len(key) != shape->key_length[i] ||
			memcmp(yyjson_get_str(key), expected, shape->key_length[i]) != 0)
			return false;
		expected += shape->key_length[i];
	}
	return true;
}

static int
compare_keys(yyjson_val *left, yyjson_val *right)
{
	return dwh_json_compare_keys(yyjson_get_str(left), yyjson_get_len(left), yyjson_get_str(right), yyjson_get_len(right));
}

/* Sorts the keys by insertion; sorted[i] is a position in the text. False where a key comes twice. */
static bool
sort_keys(yyjson_val *const *keys, int count, int *sorted)
{
	for (int i = 0; i < count; i++)
	{
		int			at = i;
		int			order = 1;

		while (at > 0 && (order = compare_keys(keys[i], keys[sorted[at - 1]])) < 0)
		{
			sorted[at] = sorted[at - 1];
			at--;
		}
		if (order == 0)
			return false;
		sorted[at] = i;
	}
	return true;
}

/* Collects the keys in the order of the text; false where they are too many or too long. */
static bool
collect_keys(yyjson_val *object, yyjson_val **keys)
{
	yyjson_obj_iter iter = yyjson_obj_iter_with(object);
	size_t		bytes = 0;

	if (yyjson_obj_size(object) > FLAT_MEMBERS)
		return false;
	for (size_t i = 0; i < yyjson_obj_size(object); i++)
	{
		keys[i] = yyjson_obj_iter_next(&iter);
		bytes += yyjson_get_len(keys[i]);
		if (bytes > FLAT_KEY_BYTES)
			return false;
	}
	return true;
}

uint32_t
dwh_flat_entry(uint32_t type, uint32_t index, size_t length, size_t end)
{
	return index % OFFSET_STRIDE == 0 ? type | ENTRY_HAS_OFFSET | (uint32_t) end : type | (uint32_t) length;
}

/* Makes the shape of an object; false where it can have none. */
static bool
make_shape(FlatShape *shape, yyjson_val *object)
{
	yyjson_val *keys[FLAT_MEMBERS];
	int			sorted[FLAT_MEMBERS];
	int			count = (int) yyjson_obj_size(object);
	char	   *text = shape->keys;

	shape->count = 0;
	if (count == 0 || !collect_keys(object, keys) || !sort_keys(keys, count, sorted))
		return false;
	shape->key_bytes = 0;
	for (int i = 0; i < count; i++)
	{
		yyjson_val *key = keys[sorted[i]];
		size_t		length = yyjson_get_len(key);

		memcpy(shape->sorted_keys + shape->key_bytes, yyjson_get_str(key), length);
		shape->key_bytes += (uint32_t) length;
		shape->key_entries[i] = dwh_flat_entry(ENTRY_STRING, (uint32_t) i, length, shape->key_bytes);
		shape->rank[sorted[i]] = (uint8_t) i;
	}
	for (int i = 0; i < count; i++)
	{
		shape->key_length[i] = (uint16_t) yyjson_get_len(keys[i]);
		memcpy(text, yyjson_get_str(keys[i]), shape->key_length[i]);
		text += shape->key_length[i];
	}
	shape->count = count;
	return true;
}

/* The values in jsonb's order, and the bytes that they take at most; false where one is a container or a long number. */
static bool
collect_values(const FlatShape *shape, yyjson_val *object, yyjson_val **values, size_t *size)
{
	yyjson_obj_iter iter = yyjson_obj_iter_with(object);

	*size = 0;
	for (int i = 0; i < shape->count; i++)
	{
		yyjson_val *value = yyjson_obj_iter_get_val(yyjson_obj_iter_next(&iter));

		if (yyjson_is_ctn(value))
			return false;
		values[shape->rank[i]] = value;
		if (yyjson_is_str(value))
			*size += yyjson_get_len(value);
		else if (yyjson_is_raw(value))
			*size += sizeof(uint32_t) + sizeof(uint32_t) + DECIMAL_PACKED_BYTES;
	}
	return true;
}

/* Writes a number; false where it is beyond what is packed here. */
static bool
write_number(FlatWriter *writer, yyjson_val *value, size_t *length)
{
	size_t		padding = -writer->length % sizeof(uint32_t);
	char	   *target = writer->data + writer->length + padding;
	size_t		packed = dwh_decimal_pack(yyjson_get_raw(value), yyjson_get_len(value), target + sizeof(uint32_t));
	uint32_t	header = LENGTH_HEADER(sizeof(uint32_t) + packed);

	memset(writer->data + writer->length, 0, padding);
	memcpy(target, &header, sizeof(header));
	*length = padding + sizeof(header) + packed;
	return packed > 0;
}

static bool
write_value(FlatWriter *writer, yyjson_val *value)
{
	uint32_t	type = ENTRY_NULL;
	size_t		length = 0;

	if (yyjson_is_str(value))
	{
		type = ENTRY_STRING;
		length = yyjson_get_len(value);
		memcpy(writer->data + writer->length, yyjson_get_str(value), length);
	}
	else if (yyjson_is_raw(value))
	{
		type = ENTRY_NUMERIC;
		if (!write_number(writer, value, &length))
			return false;
	}
	else if (yyjson_is_bool(value))
		type = yyjson_get_bool(value) ? ENTRY_TRUE : ENTRY_FALSE;
	writer->length += length;
	*writer->entry++ = dwh_flat_entry(type, writer->index++, length, writer->length);
	return true;
}

void *
dwh_flat_jsonb(FlatShapes *shapes, yyjson_val *object, Arena *arena, size_t *size)
{
	FlatShape  *shape = slot_of(shapes, object);
	yyjson_val *values[FLAT_MEMBERS];
	size_t		value_bytes;
	uint32_t   *jsonb;
	FlatWriter	writer = {0};

	if ((!has_shape(shape, object) && !make_shape(shape, object)) ||
		!collect_values(shape, object, values, &value_bytes))
		return NULL;
	jsonb = dwh_arena_alloc(arena, (2 + 2 * (size_t) shape->count) * sizeof(uint32_t) + shape->key_bytes + value_bytes);
	jsonb[1] = (uint32_t) shape->count | CONTAINER_OBJECT;
	memcpy(jsonb + 2, shape->key_entries, (size_t) shape->count * sizeof(uint32_t));
	writer.entry = jsonb + 2 + shape->count;
	writer.index = (uint32_t) shape->count;
	writer.data = (char *) (jsonb + 2 + 2 * shape->count);
	writer.length = shape->key_bytes;
	memcpy(writer.data, shape->sorted_keys, shape->key_bytes);
	for (int i = 0; i < shape->count; i++)
		if (!write_value(&writer, values[i]))
			return NULL;
	*size = (size_t) (writer.data + writer.length - (char *) jsonb);
	jsonb[0] = LENGTH_HEADER(*size);
	return jsonb;
}
