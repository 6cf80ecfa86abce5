/*
 * judgement.c: sorted claims -> what would become of the events of each load.
 *
 *     claims.c --> [judgement.c] --> examine.c
 *
 * As stage_chunk.c does it, load after load, but in one pass over all of them: claims to one id follow one another.
 * Whether a load would be quarantined must be known first, as its events claim nothing then. Only events from before what
 * drop_before() left make that depend on what other loads hold; then it is found load by load, a pass for each that is.
 *
 * Two events of one id in one load, one of them from before that time, are judged as if they came in one chunk: the old one
 * is refused, as it is in a load of up to 32,768 events.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "judgement.h"

typedef struct Judgement
{
	ClaimSort  *claims;
	ExaminedLoad **loads;
	int			count;
	const Horizons *horizons;
	bool		has_kept;		/* an event of the id at hand would be staged: */
	Claim		kept;
	bool		is_last;		/* the pass that also counts what is touched: */
	HTAB	   *days;			/* of DayOfLoad */
	TouchSort  *users;
	TouchSort  *products;
} Judgement;

typedef struct DayKey
{
	int32		load;
	int32		day;
} DayKey;

typedef struct DayOfLoad
{
	DayKey		key;
	DayCount	count;
} DayOfLoad;

static const char *const poisoned_query = "SELECT dwh._is_poisoned($1, $2)";

static bool
is_poisoned(int64 refused, int64 counted)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(refused), Int64GetDatum(counted)};
	MemoryContext caller = CurrentMemoryContext;
	bool		isnull;
	bool		result;

	SPI_execute_with_args(poisoned_query, 2, types, values, NULL, true, 0);
	result = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(caller);
	return result;
}

/* Marks loads with too many refused lines: all of them, or the first one that was not marked; true if it found one. */
static bool
mark_poisoned(Judgement *judgement, bool only_first)
{
	bool		found = false;

	for (int i = 0; i < judgement->count && !(found && only_first); i++)
	{
		ExaminedLoad *load = judgement->loads[i];

		if (!load->is_complete || load->is_forced || load->is_poisoned ||
			!is_poisoned(load->rejected + load->counts.rejected, load->lines - load->blank))
			continue;
		load->is_poisoned = found = true;
	}
	return found;
}

/* The day in UTC. */
static int32
day_of(TimestampTz time)
{
	return (int32) (time / USECS_PER_DAY - (time % USECS_PER_DAY < 0));
}

static void
count_day(Judgement *judgement, const Claim *claim)
{
	DayKey		key = {claim->load, day_of(claim->event_time)};
	bool		found;
	DayOfLoad  *entry = hash_search(judgement->days, &key, HASH_ENTER, &found);

	if (!found)
	{
		entry->count = (DayCount)
		{
			.day = key.day
		};
		judgement->loads[claim->load]->day_count++;
	}
	entry->count.events++;
	entry->count.late += claim->event_time < judgement->horizons->newest_fact;
}

static void
stage(Judgement *judgement, const Claim *claim)
{
	StageCounts *counts = &judgement->loads[claim->load]->counts;

	judgement->kept = *claim;
	judgement->has_kept = true;
	counts->staged++;
	counts->first_event = Min(counts->first_event, claim->event_time);
	counts->last_event = Max(counts->last_event, claim->event_time);
	if (!judgement->is_last)
		return;
	count_day(judgement, claim);
	dwh_touches_put(judgement->users, claim->user, claim->load);
	if (claim->product != 0)
		dwh_touches_put(judgement->products, claim->product, claim->load);
}

/* True, and counted, for an event that staging refuses because its time was dropped. */
static bool
refuse_late(const Judgement *judgement, const Claim *claim, StageCounts *counts)
{
	bool		is_known = claim->kind != CLAIM_NEW || (judgement->has_kept && judgement->kept.load != claim->load);

	if (is_known || TIMESTAMP_IS_NOBEGIN(judgement->horizons->staging_since))
		return false;
	if (claim->event_time < judgement->horizons->facts_since)
		counts->forgotten++;
	else if (claim->event_time < judgement->horizons->staging_since)
		counts->rejected++;
	else
		return false;
	return true;
}

static void
judge_claim(Judgement *judgement, const Claim *claim)
{
	ExaminedLoad *load = judgement->loads[claim->load];
	ClaimKind	kind = claim->kind;

	if (judgement->has_kept && memcmp(&judgement->kept.event_id, &claim->event_id, UUID_LEN) != 0)
		judgement->has_kept = false;
	if (!load->is_complete || refuse_late(judgement, claim, &load->counts) || load->is_poisoned)
		return;
	if (kind == CLAIM_NEW && judgement->has_kept)
		kind = judgement->kept.payload == claim->payload ? CLAIM_REPLAY : CLAIM_CONFLICT;
	switch (kind)
	{
		case CLAIM_NEW:
			stage(judgement, claim);
			break;
		case CLAIM_REPLAY:
			load->counts.replayed++;
			break;
		case CLAIM_CONFLICT:
			load->counts.conflicting++;
			break;
	}
}

static void
reset_counts(ExaminedLoad *load)
{
	load->counts = (StageCounts)
	{
		.rejected = load->refused,.forgotten = load->forgotten,.first_event = DT_NOEND,.last_event = DT_NOBEGIN
	};
}

/* One pass over all claims. */
static void
judge_all(Judgement *judgement)
{
	Claim		claim;

	for (int i = 0; i < judgement->count; i++)
		reset_counts(judgement->loads[i]);
	judgement->has_kept = false;
	dwh_claims_rewind(judgement->claims);
	while (dwh_claims_next(judgement->claims, &claim))
		judge_claim(judgement, &claim);
}

static int
compare_days(const void *a, const void *b)
{
	const DayCount *left = a;
	const DayCount *right = b;

	return left->day < right->day ? -1 : left->day > right->day;
}

/* Hands the days out to their loads. */
static void
hand_out_days(Judgement *judgement)
{
	HASH_SEQ_STATUS scan;
	DayOfLoad  *entry;

	for (int i = 0; i < judgement->count; i++)
	{
		judgement->loads[i]->days = palloc_extended((judgement->loads[i]->day_count + 1) * sizeof(DayCount), MCXT_ALLOC_HUGE);
		judgement->loads[i]->day_count = 0;
	}
	hash_seq_init(&scan, judgement->days);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		ExaminedLoad *load = judgement->loads[entry->key.load];

		load->days[load->day_count++] = entry->count;
	}
	for (int i = 0; i < judgement->count; i++)
		qsort(judgement->loads[i]->days, judgement->loads[i]->day_count, sizeof(DayCount), compare_days);
	hash_destroy(judgement->days);
}

static void
begin_last_pass(Judgement *judgement)
{
	HASHCTL		control = {.keysize = sizeof(DayKey),.entrysize = sizeof(DayOfLoad),.hcxt = CurrentMemoryContext};

	judgement->is_last = true;
	judgement->days = hash_create("dwh days", 256, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	judgement->users = dwh_touches_begin();
	judgement->products = dwh_touches_begin();
}

void
dwh_judge(ClaimSort *claims, ExaminedLoad **loads, int count, const Horizons *horizons)
{
	Judgement	judgement = {.claims = claims,.loads = loads,.count = count,.horizons = horizons};
	int32		load;

	for (int i = 0; i < count; i++)
		reset_counts(loads[i]);
	mark_poisoned(&judgement, false);
	if (!TIMESTAMP_IS_NOBEGIN(horizons->staging_since))
	{
		do
			judge_all(&judgement);
		while (mark_poisoned(&judgement, true));
	}
	begin_last_pass(&judgement);
	judge_all(&judgement);
	dwh_claims_end(claims);
	hand_out_days(&judgement);
	while ((load = dwh_touches_next(judgement.users)) >= 0)
		loads[load]->users++;
	while ((load = dwh_touches_next(judgement.products)) >= 0)
		loads[load]->products++;
}
