/*
 * arena.h: memory that is handed out byte after byte and taken back all at once.
 *
 * Bytes floor: no server header. Blocks come from a yyjson_alc that must deliver or not return (buffer.h). What is handed
 * out is aligned to 8 bytes and stays where it is until the arena is reset.
 */
#ifndef DWH_ARENA_H
#define DWH_ARENA_H

#include <stddef.h>
#include <yyjson.h>

typedef struct ArenaBlock ArenaBlock;

typedef struct Arena
{
	const yyjson_alc *source;	/* of blocks */
	ArenaBlock *blocks;			/* the one in use first */
	size_t		used;			/* bytes handed out since the last reset, padding included */
	yyjson_alc	alc;			/* hands out from this arena; its free() does nothing */
} Arena;

/* An empty arena, in place: it must not be moved, alc points to it. */
extern void dwh_arena_init(Arena *arena, const yyjson_alc *source);

extern void *dwh_arena_alloc(Arena *arena, size_t size);

/* A copy of these bytes. */
extern char *dwh_arena_copy(Arena *arena, const char *data, size_t length);

/* Takes everything back; one block of ordinary size is kept for what comes next. */
extern void dwh_arena_reset(Arena *arena);

/* Gives all blocks back to the source. */
extern void dwh_arena_release(Arena *arena);

#endif
