/*
 * stage_chunk.h: typed events of a load -> staging.user_events, each event once, chunk by chunk. SPI is connected by the caller.
 */
#ifndef DWH_STAGE_CHUNK_H
#define DWH_STAGE_CHUNK_H

#include "datatype/timestamp.h"

#include "typed.h"

typedef struct StageChunk StageChunk;

/* What became of the events. */
typedef struct StageCounts
{
	int64		staged;
	int64		replayed;
	int64		conflicting;
	int64		rejected;		/* too late for staging: before what drop_before() left */
	int64		forgotten;		/* of users whom forget_user() erased, and too late for the facts */
	TimestampTz first_event;	/* of the staged ones; DT_NOEND where there is none */
	TimestampTz last_event;		/* DT_NOBEGIN where there is none */
} StageCounts;

/*
 * For the events of one load. with_staging false: nothing is staged; those of forgotten users are taken out of raw, and those
 * that are too late are refused.
 * Needs the pipeline's lock.
 */
extern StageChunk *dwh_chunk_open(int64 load_id, bool with_staging);

/* Adds an event, of which all is copied; the chunk is staged when it is full. */
extern void dwh_chunk_put(StageChunk *chunk, int64 line_no, const Datum *values, const bool *nulls);

/* Stages what is left, frees the memory and returns the counts. */
extern StageCounts dwh_chunk_close(StageChunk *chunk);

#endif
