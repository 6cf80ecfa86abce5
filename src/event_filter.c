/*
 * event_filter.c: is this event_id new for certain?
 *
 *     typed event --[event_filter.c]--> new, or perhaps known --stage_chunk.c--> staging.user_events
 *
 * A blocked Bloom filter (F. Putze, P. Sanders, J. Singler, Cache-, hash- and space-efficient Bloom filters, 2007): an id
 * chooses one segment and ten bits in it. A tier is a thousand segments and takes 800,000 ids with twenty bits each, which
 * calls about one new id in ten thousand known, a tier. A full tier is followed by another one and never written again, so what
 * a batch writes does not grow with the history; what it reads does, by 2.5 bytes for each event, in one pass for each chunk.
 *
 * Invariants:
 *  (1) Every event_id in staging.user_events, or that was there, is in the filter.
 *  (2) The bits of an id depend on the id alone, on every machine: a dump can be restored anywhere.
 *
 * Memory: "dwh event filter" holds the last tier, at most 2 MB; "dwh event filter rows" as much again while it is written.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "event_filter.h"
#include "warehouse.h"

#define SEGMENTS 1024			/* a power of two: the first ten bits of the hash choose */
#define SEGMENT_BYTES 1984		/* four rows a page, two where there is room to update them */
#define SEGMENT_BITS (SEGMENT_BYTES * 8)
#define BITS_OF_ID 10
#define TIER_IDS 800000

/* Columns of ops.event_filter */
enum
{
	COLUMN_TIER = 1,
	COLUMN_SEGMENT,
	COLUMN_IDS,
	COLUMN_BITS
};

typedef struct Segment
{
	uint8	   *bits;			/* NULL: no id chose it yet */
	int32		ids;
	bool		is_changed;
} Segment;

struct EventFilter
{
	MemoryContext context;
	int32		tier;			/* the one that takes ids */
	int64		ids;			/* how many it took */
	Segment		segments[SEGMENTS];
};

/* Where an id has its bits: the i-th one is the high half of (first + i * step) * SEGMENT_BITS, all in 32 bits. */
typedef struct Place
{
	uint32		segment;
	uint32		first;
	uint32		step;
} Place;

/* Of dwh_event_filter_begin; NULL: none. */
static EventFilter *shared = NULL;

static const char *const read_query =
	"SELECT f.tier, f.segment, f.ids, f.bits FROM ops.event_filter AS f "
	"WHERE f.tier = (SELECT pg_catalog.max(l.tier) FROM ops.event_filter AS l)";

static const char *const write_query =
	"INSERT INTO ops.event_filter AS f (tier, segment, ids, bits) "
	"SELECT $1, u.segment, u.ids, u.bits FROM unnest($2, $3, $4) AS u (segment, ids, bits) "
	"ON CONFLICT (tier, segment) DO UPDATE SET ids = excluded.ids, bits = excluded.bits";

/* The finalizer of MurmurHash3 (A. Appleby, public domain): each bit of the input changes half of the output's. */
static uint64
mix(uint64 value)
{
	value ^= value >> 33;
	value *= UINT64CONST(0xff51afd7ed558ccd);
	value ^= value >> 33;
	value *= UINT64CONST(0xc4ceb9fe1a85ec53);
	value ^= value >> 33;
	return value;
}

static Place
place_of(const pg_uuid_t *id)
{
	uint64		halves[2];
	uint64		hash;
	Place		place;

	memcpy(halves, id->data, sizeof(halves));
	hash = mix(pg_ntoh64(halves[1]) ^ mix(pg_ntoh64(halves[0]) + 1));
	place.segment = hash >> 54;
	place.first = (uint32) hash;
	place.step = (uint32) mix(hash + 1) | 1;
	return place;
}

static inline uint32
bit_of(const Place *place, uint32 i)
{
	return ((uint64) (place->first + i * place->step) * SEGMENT_BITS) >> 32;
}

static bool
has_bits(const uint8 *bits, const Place *place)
{
	for (uint32 i = 0; i < BITS_OF_ID; i++)
	{
		uint32		bit = bit_of(place, i);

		if ((bits[bit / 8] & (1 << bit % 8)) == 0)
			return false;
	}
	return true;
}

/* The bits in a row; raises XX001 where somebody changed their number. */
static const uint8 *
bits_of_row(Datum bits)
{
	bytea	   *value = DatumGetByteaPP(bits);

	if (VARSIZE_ANY_EXHDR(value) != SEGMENT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("ops.event_filter holds a segment of a wrong size"),
				 errdetail("It has %zu bytes, not %d.", VARSIZE_ANY_EXHDR(value), SEGMENT_BYTES),
				 errhint("SELECT dwh._rebuild_event_filter() makes it anew from staging and facts.")));
	return (const uint8 *) VARDATA_ANY(value);
}

/* Raises XX001 for a number that chooses no segment. */
static int32
segment_of_row(Datum segment)
{
	int32		number = DatumGetInt32(segment);

	if (number < 0 || number >= SEGMENTS)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("ops.event_filter holds a segment with a wrong number"),
				 errdetail("It is %d, not one of 0 to %d.", number, SEGMENTS - 1),
				 errhint("SELECT dwh._rebuild_event_filter() makes it anew from staging and facts.")));
	return number;
}

static EventFilter *
read_filter(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dwh event filter", ALLOCSET_DEFAULT_SIZES);
	EventFilter *filter = MemoryContextAllocZero(context, sizeof(EventFilter));

	filter->context = context;
	filter->tier = 1;
	SPI_execute(read_query, false, 0);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[row];
		TupleDesc	descriptor = SPI_tuptable->tupdesc;
		bool		isnull;
		Segment    *segment = &filter->segments[segment_of_row(SPI_getbinval(tuple, descriptor, COLUMN_SEGMENT, &isnull))];

		filter->tier = DatumGetInt32(SPI_getbinval(tuple, descriptor, COLUMN_TIER, &isnull));
		segment->ids = DatumGetInt32(SPI_getbinval(tuple, descriptor, COLUMN_IDS, &isnull));
		segment->bits = MemoryContextAlloc(context, SEGMENT_BYTES);
		memcpy(segment->bits, bits_of_row(SPI_getbinval(tuple, descriptor, COLUMN_BITS, &isnull)), SEGMENT_BYTES);
		filter->ids += segment->ids;
	}
	SPI_freetuptable(SPI_tuptable);
	return filter;
}

EventFilter *
dwh_event_filter_open(void)
{
	return shared != NULL ? shared : read_filter();
}

/* The ids of a probe as lists, one for each segment: first[segment], then next[id], -1 at the end. */
typedef struct Probe
{
	Place	   *places;
	bool	   *perhaps;
	int32		first[SEGMENTS];
	int32	   *next;
} Probe;

static void
probe_segment(Probe *probe, int32 segment, const uint8 *bits)
{
	for (int32 i = probe->first[segment]; i >= 0; i = probe->next[i])
		if (!probe->perhaps[i] && has_bits(bits, &probe->places[i]))
			probe->perhaps[i] = true;
}

/* Probes the tiers that are full, in the order of the table. */
static void
probe_full_tiers(const EventFilter *filter, Probe *probe)
{
	Oid			oid = dwh_warehouse_table("ops", "event_filter");
	Relation	relation;
	TableScanDesc scan;
	TupleTableSlot *slot;

	if (pg_class_aclcheck(oid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, "event_filter");
	/* what this transaction wrote a moment ago is among them */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	relation = table_open(oid, AccessShareLock);
	slot = table_slot_create(relation, NULL);
	scan = table_beginscan(relation, GetActiveSnapshot(), 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (DatumGetInt32(slot_getattr(slot, COLUMN_TIER, &isnull)) != filter->tier)
			probe_segment(probe, segment_of_row(slot_getattr(slot, COLUMN_SEGMENT, &isnull)),
						  bits_of_row(slot_getattr(slot, COLUMN_BITS, &isnull)));
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, AccessShareLock);
	PopActiveSnapshot();
}

void
dwh_event_filter_probe(EventFilter *filter, const pg_uuid_t *const *ids, int count, bool *perhaps)
{
	Probe		probe;

	memset(perhaps, 0, count);
	memset(probe.first, -1, sizeof(probe.first));
	probe.perhaps = perhaps;
	probe.places = palloc(count * sizeof(Place));
	probe.next = palloc(count * sizeof(int32));
	for (int i = 0; i < count; i++)
	{
		probe.places[i] = place_of(ids[i]);
		probe.next[i] = probe.first[probe.places[i].segment];
		probe.first[probe.places[i].segment] = i;
	}
	for (int segment = 0; segment < SEGMENTS; segment++)
		if (filter->segments[segment].bits != NULL)
			probe_segment(&probe, segment, filter->segments[segment].bits);
	if (filter->tier > 1)
		probe_full_tiers(filter, &probe);
	pfree(probe.places);
	pfree(probe.next);
}

static void
write_changed(EventFilter *filter)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dwh event filter rows", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Datum		columns[3][SEGMENTS];
	Oid			types[] = {INT4OID, INT4ARRAYOID, INT4ARRAYOID, BYTEAARRAYOID};
	Datum		values[4];
	int			count = 0;

	for (int i = 0; i < SEGMENTS; i++)
	{
		Segment    *segment = &filter->segments[i];

		if (!segment->is_changed)
			continue;
		columns[0][count] = Int32GetDatum(i);
		columns[1][count] = Int32GetDatum(segment->ids);
		columns[2][count++] = PointerGetDatum(cstring_to_text_with_len((char *) segment->bits, SEGMENT_BYTES));
		segment->is_changed = false;
	}
	if (count > 0)
	{
		values[0] = Int32GetDatum(filter->tier);
		for (int i = 0; i < 2; i++)
			values[i + 1] = PointerGetDatum(construct_array(columns[i], count, INT4OID, sizeof(int32), true, TYPALIGN_INT));
		values[3] = PointerGetDatum(construct_array(columns[2], count, BYTEAOID, -1, false, TYPALIGN_INT));
		SPI_execute_with_args(write_query, 4, types, values, NULL, false, 0);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

/* Leaves the full tier to the table and begins the next one. */
static void
begin_tier(EventFilter *filter)
{
	write_changed(filter);
	for (int i = 0; i < SEGMENTS; i++)
	{
		if (filter->segments[i].bits != NULL)
			pfree(filter->segments[i].bits);
		memset(&filter->segments[i], 0, sizeof(Segment));
	}
	filter->tier++;
	filter->ids = 0;
}

void
dwh_event_filter_add(EventFilter *filter, const pg_uuid_t *id)
{
	Place		place = place_of(id);
	Segment    *segment;

	if (filter->ids >= TIER_IDS)
		begin_tier(filter);
	segment = &filter->segments[place.segment];
	if (segment->bits == NULL)
		segment->bits = MemoryContextAllocZero(filter->context, SEGMENT_BYTES);
	for (uint32 i = 0; i < BITS_OF_ID; i++)
	{
		uint32		bit = bit_of(&place, i);

		segment->bits[bit / 8] |= 1 << bit % 8;
	}
	segment->is_changed = true;
	segment->ids++;
	filter->ids++;
}

void
dwh_event_filter_close(EventFilter *filter)
{
	if (filter == shared)
		return;
	write_changed(filter);
	MemoryContextDelete(filter->context);
}

static void
forget_shared(void *unused)
{
	shared = NULL;
}

void
dwh_event_filter_begin(void)
{
	MemoryContext caller = MemoryContextSwitchTo(TopTransactionContext);
	MemoryContextCallback *callback;

	if (shared != NULL)
		MemoryContextDelete(shared->context);
	shared = read_filter();
	callback = MemoryContextAlloc(shared->context, sizeof(MemoryContextCallback));
	callback->func = forget_shared;
	callback->arg = NULL;
	MemoryContextRegisterResetCallback(shared->context, callback);
	MemoryContextSwitchTo(caller);
}

void
dwh_event_filter_end(void)
{
	EventFilter *filter = shared;

	if (filter == NULL)
		return;
	write_changed(filter);
	MemoryContextDelete(filter->context);
}
