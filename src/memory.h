/*
 * memory.h: a memory context lent to the bytes floor as a yyjson_alc.
 */
#ifndef DWH_MEMORY_H
#define DWH_MEMORY_H

#include <yyjson.h>

/* An allocator on that context; what it hands out goes when the context is reset. Errors are raised, never returned. */
extern yyjson_alc dwh_memory_allocator(MemoryContext context);

#endif
