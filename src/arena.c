/*
 * arena.c: memory that is handed out byte after byte and taken back all at once.
 *
 * Invariant: nothing handed out moves or is handed out again before a reset.
 */
#include "arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Of an ordinary block; larger wishes get a block of their own size. */
#define BLOCK_BYTES (256 * 1024)
#define ALIGNMENT 8

struct ArenaBlock
{
	ArenaBlock *next;
	size_t		size;			/* of data */
	size_t		used;
	_Alignas(ALIGNMENT) char data[];
};

static size_t
aligned(size_t size)
{
	if (size > SIZE_MAX / 2)
		abort();				/* no input that passed max_line_bytes comes near */
	return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void
add_block(Arena *arena, size_t wanted)
{
	size_t		size = wanted > BLOCK_BYTES ? wanted : BLOCK_BYTES;
	ArenaBlock *block = arena->source->malloc(arena->source->ctx, sizeof(ArenaBlock) + size);

	*block = (ArenaBlock) {.next = arena->blocks,.size = size};
	arena->blocks = block;
}

void *
dwh_arena_alloc(Arena *arena, size_t size)
{
	ArenaBlock *block = arena->blocks;
	void	   *result;

	size = aligned(size);
	if (block == NULL || block->size - block->used < size)
	{
		add_block(arena, size);
		block = arena->blocks;
	}
	result = block->data + block->used;
	block->used += size;
	arena->used += size;
	return result;
}

char *
dwh_arena_copy(Arena *arena, const char *data, size_t length)
{
	char	   *copy = dwh_arena_alloc(arena, length);

	memcpy(copy, data, length);
	return copy;
}

static void *
arena_malloc(void *arena, size_t size)
{
	return dwh_arena_alloc(arena, size);
}

static void *
arena_realloc(void *arena, void *pointer, size_t old_size, size_t size)
{
	return memcpy(dwh_arena_alloc(arena, size), pointer, old_size < size ? old_size : size);
}

static void
arena_free(void *arena, void *pointer)
{
}

void
dwh_arena_init(Arena *arena, const yyjson_alc *source)
{
	*arena = (Arena) {.source = source,.alc = {arena_malloc, arena_realloc, arena_free, arena}};
}

void
dwh_arena_reset(Arena *arena)
{
	ArenaBlock *kept = NULL;

	arena->used = 0;
	for (ArenaBlock *block = arena->blocks, *next; block != NULL; block = next)
	{
		next = block->next;
		if (kept == NULL && block->size == BLOCK_BYTES)
			kept = block;
		else
			arena->source->free(arena->source->ctx, block);
	}
	if (kept != NULL)
	{
		kept->next = NULL;
		kept->used = 0;
	}
	arena->blocks = kept;
}

void
dwh_arena_release(Arena *arena)
{
	for (ArenaBlock *block = arena->blocks, *next; block != NULL; block = next)
	{
		next = block->next;
		arena->source->free(arena->source->ctx, block);
	}
	arena->blocks = NULL;
	arena->used = 0;
}
