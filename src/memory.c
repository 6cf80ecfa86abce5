/*
 * memory.c: a memory context lent to the bytes floor as a yyjson_alc, and bytes of it as a value.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "compat.h"
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

Datum
dwh_memory_bytea(const void *data, size_t length)
{
	bytea	   *result = palloc(VARHDRSZ + length);

	SET_VARSIZE(result, VARHDRSZ + length);
	memcpy(VARDATA(result), data, length);
	return PointerGetDatum(result);
}
