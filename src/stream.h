/*
 * stream.h: a realistic stream of events as JSON lines, the same bytes for the same options on any machine.
 *
 * Bytes floor: no server header, no libc random numbers, no floating point, no locale, no clock. Faults can be mixed in
 * at known counts, so that tests know the truth.
 */
#ifndef DWH_STREAM_H
#define DWH_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"
#include "faults.h"

typedef struct StreamOptions
{
	int64_t		events;			/* clean events; lines of faults come on top */
	int64_t		users;
	int64_t		products;
	int64_t		days;
	int64_t		start_at;		/* microseconds since 2000-01-01 UTC, whole seconds */
	uint64_t	seed;
	int64_t		faults;			/* lines with a fault, in turn of the chosen kinds; those of kind once come on top */
	bool		chosen[FAULT_COUNT];
} StreamOptions;

typedef struct StreamTotals
{
	int64_t		events;
	int64_t		sessions;
	int64_t		purchases;
	int64_t		faults[FAULT_COUNT];
} StreamTotals;

/* Takes one line, its terminator included (the last one may have none). May not return (an error, a cancel). */
typedef void (*EmitLine) (void *sink, const char *text, size_t length);

/* Emits the whole stream in the order of event time (except for late events, which are a fault). */
extern void dwh_stream_run(const StreamOptions *options, EmitLine emit, void *sink, const yyjson_alc *alc,
						   StreamTotals *totals);

#endif
