/*
 * examination.c: loads that would be made, and their events -> what would become of them.
 *
 *     line_sink.c --> typed event --[examination.c]--> claims.c --> judgement.c
 *     raw.user_events --raw_rows.c--> ...
 *
 * Chunk by chunk an event becomes a claim: is its user erased, and is its id known from before? The rest, repeats among the
 * events at hand, is seen when all claims are sorted.
 *
 * Memory: "dwh examination" holds the loads, "dwh examined chunk" the events of a chunk with their payloads, bounded by
 * CHUNK_EVENTS and CHUNK_BYTES.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "event_filter.h"
#include "examination.h"
#include "raw_rows.h"
#include "typed.h"
#include "warehouse.h"

#define CHUNK_EVENTS 16384
#define CHUNK_BYTES (16 * 1024 * 1024)

/* An event, or a line that is none. */
typedef struct Entry
{
	bool		is_event;
	Claim		claim;
	Datum		user_id;		/* text; 0 = a line that is no event does not say */
	Jsonb	   *payload;		/* of an event */
} Entry;

struct Examination
{
	MemoryContext context;
	MemoryContext chunk_context;
	Horizons	horizons;
	bool		has_forgotten_users;
	EventFilter *filter;
	ClaimSort  *claims;
	List	   *loads;			/* of ExaminedLoad, in the order in which they would be staged */
	int			waiting;		/* how many of them wait */
	List	   *pending;		/* of PendingLoad */
	ExaminedLoad *load;			/* the one at hand */
	int			place;			/* its place in the list */
	Entry	   *entries;		/* CHUNK_EVENTS of them */
	int			count;
};

static const char *const horizons_query =
	"SELECT w.staging_since, w.facts_since, (SELECT pg_catalog.max(l.last_event) FROM ops.loads AS l WHERE l.facts > 0), "
	"EXISTS (SELECT FROM ops.forgotten_users) FROM ops.warehouse AS w";

static const char *const waiting_query =
	"SELECT l.load_id, l.path, l.lines, l.loaded, l.rejected, l.blank, l.forced FROM ops.loads AS l "
	"WHERE l.checked_at IS NULL AND l.staged_at IS NULL AND l.status NOT IN ('quarantined', 'stopped') ORDER BY l.load_id";

static Datum
field(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

static int64
count_field(uint64 row, int column)
{
	bool		isnull;

	return DatumGetInt64(field(row, column, &isnull));
}

static TimestampTz
time_field(int column)
{
	bool		isnull;
	Datum		value = field(0, column, &isnull);

	return isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
}

Examination *
dwh_examination_create(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dwh examination", ALLOCSET_DEFAULT_SIZES);
	Examination *examination = MemoryContextAllocZero(context, sizeof(Examination));

	examination->context = context;
	examination->chunk_context = AllocSetContextCreate(context, "dwh examined chunk", ALLOCSET_DEFAULT_SIZES);
	examination->entries = MemoryContextAllocHuge(context, CHUNK_EVENTS * sizeof(Entry));
	return examination;
}

/* ---- events that are known, or erased ---- */

/* Counts what is no event, and drops it and the events of erased users, whose places in the chunk are marked. */
static void
drop_entries(Examination *examination, const bool *is_forgotten)
{
	int			kept = 0;

	for (int i = 0; i < examination->count; i++)
	{
		if (is_forgotten[i])
			examination->load->forgotten++;
		else if (!examination->entries[i].is_event)
			examination->load->refused++;
		else
			examination->entries[kept++] = examination->entries[i];
	}
	examination->count = kept;
}

static void
drop_erased_users(Examination *examination)
{
	int			count = examination->count;
	Datum	   *users = palloc(count * sizeof(Datum));
	bool	   *nulls = palloc(count * sizeof(bool));
	bool	   *is_forgotten = palloc0(count * sizeof(bool));
	int			dimension = 1;
	Oid			types[] = {TEXTARRAYOID};
	Datum		values[1];

	for (int i = 0; i < count; i++)
	{
		users[i] = examination->entries[i].user_id;
		nulls[i] = users[i] == (Datum) 0;
	}
	values[0] = PointerGetDatum(construct_md_array(users, nulls, 1, &count, &dimension, TEXTOID, -1, false, TYPALIGN_INT));
	SPI_execute_with_args("SELECT f::bigint FROM pg_catalog.unnest(dwh._forgotten($1)) AS f", 1, types, values, NULL, true, 0);
	for (uint64 row = 0; row < SPI_processed; row++)
		is_forgotten[count_field(row, 1) - 1] = true;
	SPI_freetuptable(SPI_tuptable);
	drop_entries(examination, is_forgotten);
}

/* The events of the chunk that the filter perhaps knows; returns how many. */
static int
find_candidates(Examination *examination, int *candidates)
{
	const pg_uuid_t **ids = palloc(examination->count * sizeof(pg_uuid_t *));
	bool	   *perhaps = palloc(examination->count);
	int			count = 0;

	for (int i = 0; i < examination->count; i++)
		ids[i] = &examination->entries[i].claim.event_id;
	dwh_event_filter_probe(examination->filter, ids, examination->count, perhaps);
	for (int i = 0; i < examination->count; i++)
		if (perhaps[i])
			candidates[count++] = i;
	return count;
}

/* Tells replays of what was staged before, and conflicts with it, from new events. */
static void
judge_known(Examination *examination)
{
	int		   *candidates = palloc(examination->count * sizeof(int));
	int			count = find_candidates(examination, candidates);
	Datum	   *columns[3];
	Oid			types[] = {UUIDARRAYOID, TIMESTAMPTZARRAYOID, JSONBARRAYOID};
	Datum		values[3];

	if (count == 0)
		return;
	for (int i = 0; i < 3; i++)
		columns[i] = palloc(count * sizeof(Datum));
	for (int i = 0; i < count; i++)
	{
		Entry	   *entry = &examination->entries[candidates[i]];

		columns[0][i] = UUIDPGetDatum(&entry->claim.event_id);
		columns[1][i] = TimestampTzGetDatum(entry->claim.event_time);
		columns[2][i] = JsonbPGetDatum(entry->payload);
	}
	values[0] = PointerGetDatum(construct_array(columns[0], count, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	values[1] = PointerGetDatum(construct_array(columns[1], count, TIMESTAMPTZOID, sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[2] = PointerGetDatum(construct_array(columns[2], count, JSONBOID, -1, false, TYPALIGN_INT));
	SPI_execute_with_args("SELECT k.position, k.is_replay::int::bigint FROM dwh._known_repeats($1, $2, $3) AS k", 3, types, values,
						  NULL, true, 0);
	for (uint64 row = 0; row < SPI_processed; row++)
		examination->entries[candidates[count_field(row, 1) - 1]].claim.kind = count_field(row, 2) != 0 ? CLAIM_REPLAY : CLAIM_CONFLICT;
	SPI_freetuptable(SPI_tuptable);
}

static void
finish_chunk(Examination *examination)
{
	MemoryContext caller = CurrentMemoryContext;

	CHECK_FOR_INTERRUPTS();
	SPI_connect();
	MemoryContextSwitchTo(examination->chunk_context);
	if (examination->has_forgotten_users && examination->count > 0)
		drop_erased_users(examination);
	if (examination->count > 0)
		judge_known(examination);
	SPI_finish();
	for (int i = 0; i < examination->count; i++)
		dwh_claims_put(examination->claims, &examination->entries[i].claim);
	examination->count = 0;
	MemoryContextSwitchTo(caller);
	MemoryContextReset(examination->chunk_context);
}

/* ---- events ---- */

static uint64
hash_of_text(Datum value)
{
	text	   *string = DatumGetTextPP(value);

	return DatumGetUInt64(hash_any_extended((unsigned char *) VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string), 0));
}

/* What a payload that is no event says of its user, as ->> has it; 0 where that is neither a text nor a number. */
static Datum
user_of_payload(Jsonb *payload)
{
	JsonbValue	value;

	if (getKeyJsonValueFromContainer(&payload->root, "user_id", strlen("user_id"), &value) == NULL)
		return (Datum) 0;
	if (value.type == jbvString)
		return PointerGetDatum(cstring_to_text_with_len(value.val.string.val, value.val.string.len));
	if (value.type == jbvNumeric)
		return CStringGetTextDatum(DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric))));
	return (Datum) 0;
}

static Jsonb *
copy_payload(const Jsonb *payload)
{
	Jsonb	   *copy = palloc(VARSIZE(payload));

	memcpy(copy, payload, VARSIZE(payload));
	return copy;
}

/* Unlike jsonb's own hash it sees where a nesting ends: {"a":{"b":1},"c":2} is not {"a":{"b":1,"c":2}}. */
static uint64
hash_of_payload(Jsonb *payload)
{
	JsonbIterator *iterator = JsonbIteratorInit(&payload->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	uint64		hash = 0;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		hash = hash_combine64(hash, (uint64) token);
		if (token == WJB_KEY || token == WJB_VALUE || token == WJB_ELEM)
			JsonbHashScalarValueExtended(&value, &hash, 1);
	}
	return hash;
}

static void
fill_event(Entry *entry, Jsonb *payload, const Datum *values, const bool *nulls)
{
	Claim	   *claim = &entry->claim;

	entry->is_event = true;
	entry->payload = copy_payload(payload);
	entry->user_id = PointerGetDatum(DatumGetTextPCopy(values[FIELD_USER_ID]));
	claim->event_id = *DatumGetUUIDP(values[FIELD_EVENT_ID]);
	claim->event_time = DatumGetTimestampTz(values[FIELD_EVENT_TIME]);
	claim->kind = CLAIM_NEW;
	claim->payload = hash_of_payload(payload);
	claim->user = hash_of_text(entry->user_id);
	claim->product = nulls[FIELD_PRODUCT_ID] ? 0 : Max(hash_of_text(values[FIELD_PRODUCT_ID]), 1);
}

void
dwh_examination_put(Examination *examination, int64 line_no, Jsonb *payload, const Datum *values, const bool *nulls)
{
	MemoryContext caller;
	Entry	   *entry;

	if (values == NULL && !examination->has_forgotten_users)
	{
		examination->load->refused++;
		return;
	}
	caller = MemoryContextSwitchTo(examination->chunk_context);
	entry = &examination->entries[examination->count++];
	memset(entry, 0, sizeof(Entry));
	entry->claim.load = examination->place;
	entry->claim.line_no = line_no;
	if (values != NULL)
		fill_event(entry, payload, values, nulls);
	else
		entry->user_id = user_of_payload(payload);
	MemoryContextSwitchTo(caller);
	if (examination->count == CHUNK_EVENTS || MemoryContextMemAllocated(examination->chunk_context, false) > CHUNK_BYTES)
		finish_chunk(examination);
}

/* ---- loads ---- */

/* A load after all others; it outlives the subtransaction that may end with its file. */
static ExaminedLoad *
add_load(Examination *examination)
{
	MemoryContext caller = MemoryContextSwitchTo(examination->context);
	ExaminedLoad *load = palloc0(sizeof(ExaminedLoad));

	examination->loads = lappend(examination->loads, load);
	MemoryContextSwitchTo(caller);
	return load;
}

/* What is put from now on is of the load at that place. */
static void
turn_to(Examination *examination, int place)
{
	examination->place = place;
	examination->load = list_nth(examination->loads, place);
	/* of a file that failed, and went no further */
	examination->count = 0;
	MemoryContextReset(examination->chunk_context);
}

int64
dwh_examination_begin_load(Examination *examination)
{
	add_load(examination);
	turn_to(examination, list_length(examination->loads) - 1);
	return -list_length(examination->loads);
}

static void
add_pending(Examination *examination, const LoadRow *row)
{
	PendingLoad *pending = palloc0(sizeof(PendingLoad));

	pending->known = (KnownLoad)
	{
		.load_id = row->load_id,.content_bytes = row->content_bytes,.last_line = row->first_line + row->lines - 1,
			.held_back_bytes = row->held_back_bytes,.ends_open = row->ends_open
	};
	memcpy(pending->known.sha256, row->sha256, DIGEST_BYTES);
	memcpy(pending->head, row->head, DIGEST_BYTES);
	examination->pending = lappend(examination->pending, pending);
}

void
dwh_examination_complete(Examination *examination, const LoadRow *row)
{
	MemoryContext caller;
	ExaminedLoad *load = examination->load;

	finish_chunk(examination);
	caller = MemoryContextSwitchTo(examination->context);
	load->path = pstrdup(row->path);
	load->lines = row->lines;
	load->loaded = row->loaded;
	load->rejected = row->rejected;
	load->blank = row->blank;
	load->is_complete = true;
	add_pending(examination, row);
	MemoryContextSwitchTo(caller);
}

List *
dwh_examination_pending(const Examination *examination)
{
	return examination->pending;
}

/* ---- loads that wait ---- */

static void
take_waiting_row(void *examination, const RawRow *row)
{
	Datum		values[TYPED_COUNT];
	bool		nulls[TYPED_COUNT];
	Verdict		verdict;
	bool		is_event = dwh_typed_event(row->payload, row->loaded_at, values, nulls, &verdict);

	dwh_examination_put(examination, row->line_no, row->payload, is_event ? values : NULL, nulls);
}

static void
list_waiting(Examination *examination)
{
	SPI_execute(waiting_query, true, 0);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		ExaminedLoad *load = add_load(examination);
		bool		isnull;
		char	   *path = TextDatumGetCString(field(row, 2, &isnull));

		load->load_id = count_field(row, 1);
		load->path = MemoryContextStrdup(examination->context, path);
		load->lines = count_field(row, 3);
		load->loaded = count_field(row, 4);
		load->rejected = count_field(row, 5);
		load->blank = count_field(row, 6);
		load->is_forced = DatumGetBool(field(row, 7, &isnull));
		load->is_complete = true;
	}
	examination->waiting = list_length(examination->loads);
	SPI_freetuptable(SPI_tuptable);
}

static void
read_horizons(Examination *examination)
{
	bool		isnull;

	SPI_execute(horizons_query, true, 0);
	examination->horizons = (Horizons)
	{
		time_field(1), time_field(2), time_field(3)
	};
	examination->has_forgotten_users = DatumGetBool(field(0, 4, &isnull));
	SPI_freetuptable(SPI_tuptable);
}

void
dwh_examination_begin(Examination *examination)
{
	MemoryContext caller = CurrentMemoryContext;

	dwh_warehouse_require();	/* so there is a row to read */
	SPI_connect();
	read_horizons(examination);
	MemoryContextSwitchTo(examination->context);
	examination->claims = dwh_claims_begin();
	examination->filter = dwh_event_filter_open();
	list_waiting(examination);
	MemoryContextSwitchTo(caller);
	for (int place = 0; place < examination->waiting; place++)
	{
		turn_to(examination, place);
		dwh_raw_rows(examination->load->load_id, NULL, true, take_waiting_row, examination);
		finish_chunk(examination);
	}
	SPI_finish();
	MemoryContextSwitchTo(caller);
}

/* ---- what comes of it ---- */

void
dwh_examination_judge(Examination *examination)
{
	MemoryContext caller;
	int			count = list_length(examination->loads);
	ExaminedLoad **loads;

	SPI_connect();
	caller = MemoryContextSwitchTo(examination->context);
	loads = palloc_extended((count + 1) * sizeof(ExaminedLoad *), MCXT_ALLOC_HUGE);
	for (int i = 0; i < count; i++)
		loads[i] = list_nth(examination->loads, i);
	dwh_judge(examination->claims, loads, count, &examination->horizons);
	MemoryContextSwitchTo(caller);
	SPI_finish();
}

const ExaminedLoad *
dwh_examination_load_at(const Examination *examination, int place)
{
	return list_nth(examination->loads, place);
}

const ExaminedLoad *
dwh_examination_load(const Examination *examination, int64 id)
{
	return dwh_examination_load_at(examination, (int) (-id - 1));
}

int
dwh_examination_waiting(const Examination *examination)
{
	return examination->waiting;
}
