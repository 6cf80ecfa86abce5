/*
 * memory.c: a memory context lent to the bytes floor as a yyjson_alc.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "memory.h"

static void *
allocate(void *context, size_t size)
{
	return MemoryContextAllocHuge(context, size);
}

static void *
reallocate(void *context, void *pointer, size_t old_size, size_t size)
{
	return repalloc_huge(pointer, size);
}

static void
release(void *context, void *pointer)
{
	pfree(pointer);
}

yyjson_alc
dwh_memory_allocator(MemoryContext context)
{
	return (yyjson_alc)
	{
		allocate, reallocate, release, context
	};
}
