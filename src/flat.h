/*
 * flat.h: flat JSON object -> the bytes of its jsonb.
 *
 * Bytes floor: no server header, so that a parser thread may use it. The layout is that of utils/jsonb.h and numeric.c,
 * the same in PostgreSQL 15 to 18; tests compare every byte with the server's own.
 */
#ifndef DWH_FLAT_H
#define DWH_FLAT_H

#include <stdbool.h>
#include <stdint.h>
#include <yyjson.h>

#include "arena.h"

/* Members and bytes of keys of an object that is written here; events have about a dozen. */
#define FLAT_MEMBERS 64
#define FLAT_KEY_BYTES 1024
#define FLAT_SHAPES 16

/* What all objects with the same keys in the same order share. */
typedef struct FlatShape
{
	int			count;			/* of members; 0 = no shape yet */
	uint16_t	key_length[FLAT_MEMBERS];	/* in the order of the text */
	uint8_t		rank[FLAT_MEMBERS]; /* of each in jsonb's order */
	char		keys[FLAT_KEY_BYTES];	/* in the order of the text */
	uint32_t	key_entries[FLAT_MEMBERS];	/* in jsonb's order, as are the next */
	char		sorted_keys[FLAT_KEY_BYTES];
	uint32_t	key_bytes;		/* of all keys */
} FlatShape;

/* The shapes met so far, found by a hash of the lengths of the keys; zeroed at first. */
typedef struct FlatShapes
{
	FlatShape	shapes[FLAT_SHAPES];
} FlatShapes;

/* The entry of a child (utils/jsonb.h, JEntry): its type and length, or every so often the offset of its end instead. */
extern uint32_t dwh_flat_entry(uint32_t type, uint32_t index, size_t length, size_t end);

/*
 * The jsonb of an object of dwh_json_read_object, its length header included, in memory of the arena; NULL where it is not
 * flat, has a key twice, or holds what is rare: many members, long keys, long numbers. Those are core's to construct.
 */
extern void *dwh_flat_jsonb(FlatShapes *shapes, yyjson_val *object, Arena *arena, size_t *size);

#endif
