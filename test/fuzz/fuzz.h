/*
 * fuzz.h: what the fuzz targets share: memory that one input owns, numbers derived from it, a second opinion on JSON.
 */
#ifndef DWH_FUZZ_H
#define DWH_FUZZ_H

#undef NDEBUG					/* the invariants are asserted */
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <yyjson.h>

/*
 * Malloc as a yyjson_alc, every block one of its own, so that the sanitizer sees each byte out of bounds. What is still
 * held goes with the input, as a memory context would take it. Never returns without memory.
 */
extern const yyjson_alc fuzz_alc;
extern void fuzz_free_all(void);

/* A copy that ends where the sanitizer notices. */
extern char *fuzz_copy(const void *data, size_t size);

/* A number that depends on the input alone (FNV-1a), and the next of a sequence that begins with it (xorshift64). */
extern uint64_t fuzz_hash(const void *data, size_t size);
extern uint64_t fuzz_next(uint64_t *state);

/* True for the texts that dwh_json_read_object must accept, and no others. */
extern bool fuzz_is_storable_object(const char *text, size_t length);

#endif
