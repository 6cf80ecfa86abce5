/*
 * claims.c: what events claim, sorted, by core's external sort.
 *
 *     examination.c --> [claims.c] --> judgement.c
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/tuplesort.h"
#include "utils/typcache.h"

#include "claims.h"

/* At most that much memory for each, whatever work_mem allows a sort. */
#define MEMORY_KB (16 * 1024)

/* Columns of a claim; the first three are its place in the order. */
enum
{
	CLAIM_EVENT_ID,
	CLAIM_LOAD,
	CLAIM_LINE_NO,
	CLAIM_EVENT_TIME,
	CLAIM_KIND,
	CLAIM_PAYLOAD,
	CLAIM_USER,
	CLAIM_PRODUCT,
	CLAIM_COLUMNS
};

static const Oid claim_types[CLAIM_COLUMNS] = {
	UUIDOID, INT4OID, INT8OID, TIMESTAMPTZOID, INT4OID, INT8OID, INT8OID, INT8OID
};

static const Oid touch_types[] = {INT8OID, INT4OID};

#define KEYS_MAX 3

/* A sort of rows with columns of fixed types. */
typedef struct RowSort
{
	TupleTableSlot *in;
	TupleTableSlot *out;
	Tuplesortstate *rows;
	ResourceOwner owner;
	bool		is_sorted;
} RowSort;

struct ClaimSort
{
	RowSort		sort;
};

struct TouchSort
{
	RowSort		sort;
	bool		is_first;		/* nothing was read yet */
	uint64		last;			/* the hash read last */
};

static void
begin_sort(RowSort *sort, const Oid *types, int columns, int keys)
{
	TupleDesc	descriptor = CreateTemplateTupleDesc(columns);
	AttrNumber	numbers[KEYS_MAX];
	Oid			operators[KEYS_MAX];
	Oid			collations[KEYS_MAX] = {InvalidOid};
	bool		nulls_first[KEYS_MAX] = {false};

	for (int i = 0; i < columns; i++)
		TupleDescInitEntry(descriptor, i + 1, NULL, types[i], -1, 0);
	for (int i = 0; i < keys; i++)
	{
		numbers[i] = i + 1;
		operators[i] = lookup_type_cache(types[i], TYPECACHE_LT_OPR)->lt_opr;
	}
	sort->in = MakeSingleTupleTableSlot(descriptor, &TTSOpsVirtual);
	sort->out = MakeSingleTupleTableSlot(descriptor, &TTSOpsMinimalTuple);
	sort->rows = tuplesort_begin_heap(descriptor, keys, numbers, operators, collations, nulls_first, Min(work_mem, MEMORY_KB),
									  NULL, TUPLESORT_RANDOMACCESS);
	sort->owner = CurrentResourceOwner;
	sort->is_sorted = false;
}

/* Puts the row of sort->in; files that are opened meanwhile are the sort's owner's. */
static void
put_row(RowSort *sort)
{
	ResourceOwner caller = CurrentResourceOwner;

	CurrentResourceOwner = sort->owner;
	ExecStoreVirtualTuple(sort->in);
	tuplesort_puttupleslot(sort->rows, sort->in);
	ExecClearTuple(sort->in);
	CurrentResourceOwner = caller;
}

static void
rewind_rows(RowSort *sort)
{
	if (sort->is_sorted)
		tuplesort_rescan(sort->rows);
	else
		tuplesort_performsort(sort->rows);
	sort->is_sorted = true;
}

static bool
next_row(RowSort *sort)
{
	CHECK_FOR_INTERRUPTS();
	if (!tuplesort_gettupleslot(sort->rows, true, false, sort->out, NULL))
		return false;
	slot_getallattrs(sort->out);
	return true;
}

static void
end_sort(RowSort *sort)
{
	ExecClearTuple(sort->out);
	tuplesort_end(sort->rows);
	ExecDropSingleTupleTableSlot(sort->in);
	ExecDropSingleTupleTableSlot(sort->out);
}

ClaimSort *
dwh_claims_begin(void)
{
	ClaimSort  *claims = palloc(sizeof(ClaimSort));

	begin_sort(&claims->sort, claim_types, CLAIM_COLUMNS, 3);
	return claims;
}

void
dwh_claims_put(ClaimSort *claims, const Claim *claim)
{
	Datum	   *values = claims->sort.in->tts_values;

	memset(claims->sort.in->tts_isnull, false, CLAIM_COLUMNS * sizeof(bool));
	values[CLAIM_EVENT_ID] = UUIDPGetDatum(&claim->event_id);
	values[CLAIM_LOAD] = Int32GetDatum(claim->load);
	values[CLAIM_LINE_NO] = Int64GetDatum(claim->line_no);
	values[CLAIM_EVENT_TIME] = TimestampTzGetDatum(claim->event_time);
	values[CLAIM_KIND] = Int32GetDatum(claim->kind);
	values[CLAIM_PAYLOAD] = UInt64GetDatum(claim->payload);
	values[CLAIM_USER] = UInt64GetDatum(claim->user);
	values[CLAIM_PRODUCT] = UInt64GetDatum(claim->product);
	put_row(&claims->sort);
}

void
dwh_claims_rewind(ClaimSort *claims)
{
	rewind_rows(&claims->sort);
}

bool
dwh_claims_next(ClaimSort *claims, Claim *claim)
{
	const Datum *values = claims->sort.out->tts_values;

	if (!next_row(&claims->sort))
		return false;
	claim->event_id = *DatumGetUUIDP(values[CLAIM_EVENT_ID]);
	claim->load = DatumGetInt32(values[CLAIM_LOAD]);
	claim->line_no = DatumGetInt64(values[CLAIM_LINE_NO]);
	claim->event_time = DatumGetTimestampTz(values[CLAIM_EVENT_TIME]);
	claim->kind = DatumGetInt32(values[CLAIM_KIND]);
	claim->payload = DatumGetUInt64(values[CLAIM_PAYLOAD]);
	claim->user = DatumGetUInt64(values[CLAIM_USER]);
	claim->product = DatumGetUInt64(values[CLAIM_PRODUCT]);
	return true;
}

void
dwh_claims_end(ClaimSort *claims)
{
	end_sort(&claims->sort);
}

TouchSort *
dwh_touches_begin(void)
{
	TouchSort  *touches = palloc(sizeof(TouchSort));

	begin_sort(&touches->sort, touch_types, lengthof(touch_types), lengthof(touch_types));
	touches->is_first = true;
	return touches;
}

void
dwh_touches_put(TouchSort *touches, uint64 hash, int32 load)
{
	memset(touches->sort.in->tts_isnull, false, lengthof(touch_types) * sizeof(bool));
	touches->sort.in->tts_values[0] = UInt64GetDatum(hash);
	touches->sort.in->tts_values[1] = Int32GetDatum(load);
	put_row(&touches->sort);
}

int32
dwh_touches_next(TouchSort *touches)
{
	if (!touches->sort.is_sorted)
		rewind_rows(&touches->sort);
	while (next_row(&touches->sort))
	{
		uint64		hash = DatumGetUInt64(touches->sort.out->tts_values[0]);
		bool		is_same = !touches->is_first && hash == touches->last;

		touches->is_first = false;
		touches->last = hash;
		if (!is_same)
			return DatumGetInt32(touches->sort.out->tts_values[1]);
	}
	end_sort(&touches->sort);
	return -1;
}
