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

/* What a fault must become, if the warehouse is right. */
typedef enum FaultOutcome
{
	OUTCOME_FACT,				/* accepted */
	OUTCOME_BLANK,				/* counted as a blank line */
	OUTCOME_HELD_BACK,			/* no line yet */
	OUTCOME_LOAD_REJECT,		/* refused when loading */
	OUTCOME_STAGE_REJECT,		/* refused when staging */
	OUTCOME_REPLAY,
	OUTCOME_CONFLICT,
	OUTCOME_NONE				/* changes no line */
} FaultOutcome;

typedef struct FaultKind
{
	const char *name;
	FaultOutcome outcome;
	const char *class;			/* of the reject, or NULL */
	bool		once;			/* at most once a stream, whatever the rate */
	bool		text;			/* false: not valid text, so a file can hold it and sample_events cannot */
	const char *meaning;
} FaultKind;

#define MAX_FAULT_KINDS 64

extern const FaultKind dwh_fault_kinds[];
extern const int dwh_fault_kind_count;

typedef struct StreamOptions
{
	int64_t		events;			/* clean events; lines of faults come on top */
	int64_t		users;
	int64_t		products;
	int64_t		days;
	int64_t		start_at;		/* microseconds since 2000-01-01 UTC, whole seconds */
	uint64_t	seed;
	int64_t		faults;			/* lines with a fault, in turn of the chosen kinds; those of kind once come on top */
	bool		chosen[MAX_FAULT_KINDS];
} StreamOptions;

typedef struct StreamTotals
{
	int64_t		events;
	int64_t		sessions;
	int64_t		purchases;
	int64_t		faults[MAX_FAULT_KINDS];
} StreamTotals;

/* Takes one line, its terminator included (the last one may have none). May not return (an error, a cancel). */
typedef void (*EmitLine) (void *sink, const char *text, size_t length);

/* Emits the whole stream in the order of event time (except for late events, which are a fault). */
extern void dwh_stream_run(const StreamOptions *options, EmitLine emit, void *sink, const yyjson_alc *alc,
						   StreamTotals *totals);

#endif
