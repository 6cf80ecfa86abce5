/*
 * memory.h: a memory context lent to the bytes floor as a yyjson_alc, and bytes of it as a value.
 */
#ifndef DWH_MEMORY_H
#define DWH_MEMORY_H

#include <yyjson.h>

/* An allocator on that context; what it hands out goes when the context is reset. Errors are raised, never returned. */
extern yyjson_alc dwh_memory_allocator(MemoryContext context);

/* A bytea of these bytes, palloc'd in the current context. */
extern Datum dwh_memory_bytea(const void *data, size_t length);

#endif
