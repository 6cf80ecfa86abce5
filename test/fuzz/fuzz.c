/*
 * fuzz.c: memory that one input owns, and numbers derived from it.
 */
#include "fuzz.h"

#include <stdlib.h>

static void **blocks;
static size_t count;
static size_t capacity;

static void *
take(void *context, size_t size)
{
	void	   *block = malloc(size);

	if (count == capacity)
	{
		capacity = capacity == 0 ? 256 : capacity * 2;
		blocks = realloc(blocks, capacity * sizeof(*blocks));
	}
	assert(block != NULL && blocks != NULL);
	return blocks[count++] = block;
}

/* Only blocks that were taken and not given back; the latest are looked at first. */
static void
give_back(void *context, void *block)
{
	size_t		i = count;

	while (i > 0 && blocks[i - 1] != block)
		i--;
	assert(i > 0);
	blocks[i - 1] = blocks[--count];
	free(block);
}

static void *
take_larger(void *context, void *block, size_t old_size, size_t size)
{
	void	   *larger = take(context, size);

	memcpy(larger, block, old_size < size ? old_size : size);
	give_back(context, block);
	return larger;
}

const yyjson_alc fuzz_alc = {take, take_larger, give_back, NULL};

void
fuzz_free_all(void)
{
	while (count > 0)
		free(blocks[--count]);
}

char *
fuzz_copy(const void *data, size_t size)
{
	char	   *copy = take(NULL, size);

	if (size > 0)
		memcpy(copy, data, size);
	return copy;
}

uint64_t
fuzz_hash(const void *data, size_t size)
{
	uint64_t	hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ ((const uint8_t *) data)[i]) * UINT64_C(0x100000001b3);
	return hash | 1;			/* never zero, where xorshift stays */
}

uint64_t
fuzz_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}
