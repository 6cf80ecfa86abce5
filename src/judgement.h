/*
 * judgement.h: sorted claims -> what would become of the events of each load. SPI is connected by the caller.
 */
#ifndef DWH_JUDGEMENT_H
#define DWH_JUDGEMENT_H

#include "claims.h"
#include "ledger.h"
#include "stage_chunk.h"

/* A day of UTC, and the events on it that would be staged. */
typedef struct DayCount
{
	int32		day;			/* days since 2000-01-01 */
	int64		events;
	int64		late;			/* older than the newest event that the facts have */
} DayCount;

/* A load that waits to be staged, or that a file would become. */
typedef struct ExaminedLoad
{
	int64		load_id;		/* of one that waits; 0 = none yet */
	const char *path;
	int64		lines;
	int64		loaded;
	int64		rejected;
	int64		blank;
	bool		is_forced;
	bool		is_complete;	/* false: its file could not be loaded, or holds nothing new */
	int64		refused;		/* lines that are no event of the model */
	int64		forgotten;		/* of erased users */

	bool		is_poisoned;	/* from here on the judgement's */
	StageCounts counts;			/* with refused and forgotten above in rejected and forgotten */
	int64		users;			/* that no load before it touches */
	int64		products;
	DayCount   *days;			/* in their order */
	int			day_count;
} ExaminedLoad;

/* What the warehouse holds. */
typedef struct Horizons
{
	TimestampTz staging_since;	/* DT_NOBEGIN: nothing was dropped */
	TimestampTz facts_since;
	TimestampTz newest_fact;	/* DT_NOBEGIN: there is none */
} Horizons;

/* Judges all claims and ends them; fills in the judgement of each load. Allocates in the current context. */
extern void dwh_judge(ClaimSort *claims, ExaminedLoad **loads, int count, const Horizons *horizons);

#endif
