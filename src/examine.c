/*
 * examine.c: SQL function dwh._examine.
 *
 *     source --load_set.c--> files --load.c--> verdicts, examination.c --> judgement.c --[examine.c]--> rows
 *
 * What run_pipeline() would make of a source, up to staging. Nothing is written, and no lock is taken that a run asks for:
 * it works in a read-only transaction, on a standby, and beside a run.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "examination.h"
#include "guc.h"
#include "load_set.h"

PG_FUNCTION_INFO_V1(dwh_examine);

/* Columns of dwh.examined_file. */
enum
{
	OUT_PATH,
	OUT_STATUS,
	OUT_LOAD_ID,
	OUT_CONTINUES_LOAD_ID,
	OUT_LINES,
	OUT_LOADED,
	OUT_REJECTED,
	OUT_BLANK,
	OUT_HELD_BACK_BYTES,
	OUT_BYTES,
	OUT_STAGED,
	OUT_REPLAYED,
	OUT_CONFLICTING,
	OUT_STAGE_REJECTED,
	OUT_FORGOTTEN,
	OUT_FIRST_EVENT,
	OUT_LAST_EVENT,
	OUT_USERS,
	OUT_PRODUCTS,
	OUT_DAYS,
	OUT_DAY_EVENTS,
	OUT_DAY_LATE,
	OUT_IS_POISONED,
	OUT_MESSAGE,
	OUT_COUNT
};

static void
put_id(int64 id, int column, Datum *values, bool *nulls)
{
	values[column] = Int64GetDatum(id);
	nulls[column] = id <= 0;	/* none, or of a load that there is not yet */
}

static void
put_text(const char *text, int column, Datum *values, bool *nulls)
{
	nulls[column] = text == NULL;
	if (text != NULL)
		values[column] = CStringGetTextDatum(text);
}

static Datum
int8_array(const Datum *elements, int count)
{
	return PointerGetDatum(construct_array((Datum *) elements, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static void
put_days(const ExaminedLoad *load, Datum *values)
{
	Datum	   *days = palloc((load->day_count + 1) * sizeof(Datum));
	Datum	   *events = palloc((load->day_count + 1) * sizeof(Datum));
	Datum	   *late = palloc((load->day_count + 1) * sizeof(Datum));

	for (int i = 0; i < load->day_count; i++)
	{
		days[i] = Int32GetDatum(load->days[i].day);
		events[i] = Int64GetDatum(load->days[i].events);
		late[i] = Int64GetDatum(load->days[i].late);
	}
	values[OUT_DAYS] = PointerGetDatum(construct_array(days, load->day_count, DATEOID, sizeof(int32), true, TYPALIGN_INT));
	values[OUT_DAY_EVENTS] = int8_array(events, load->day_count);
	values[OUT_DAY_LATE] = int8_array(late, load->day_count);
}

/* What would become of the events of a load. */
static void
put_events(const ExaminedLoad *load, Datum *values, bool *nulls)
{
	values[OUT_STAGED] = Int64GetDatum(load->counts.staged);
	values[OUT_REPLAYED] = Int64GetDatum(load->counts.replayed);
	values[OUT_CONFLICTING] = Int64GetDatum(load->counts.conflicting);
	values[OUT_STAGE_REJECTED] = Int64GetDatum(load->counts.rejected);
	values[OUT_FORGOTTEN] = Int64GetDatum(load->counts.forgotten);
	values[OUT_FIRST_EVENT] = TimestampTzGetDatum(load->counts.first_event);
	values[OUT_LAST_EVENT] = TimestampTzGetDatum(load->counts.last_event);
	nulls[OUT_FIRST_EVENT] = nulls[OUT_LAST_EVENT] = load->counts.staged == 0;
	values[OUT_USERS] = Int64GetDatum(load->users);
	values[OUT_PRODUCTS] = Int64GetDatum(load->products);
	put_days(load, values);
	values[OUT_IS_POISONED] = BoolGetDatum(load->is_poisoned);
}

/* What the other columns do not say. */
static const char *
message_of(const Examination *examination, const LoadResult *result, const ExaminedLoad *load)
{
	if (load != NULL && load->is_poisoned)
		return psprintf("would be quarantined: %lld of %lld lines that are not blank are refused",
						(long long) (load->rejected + load->counts.rejected), (long long) (load->lines - load->blank));
	if (result->message != NULL)
		return result->message;
	if (result->is_new && result->continues_load_id < 0)
		return psprintf("goes on after %s, which is not loaded yet",
						dwh_examination_load(examination, result->continues_load_id)->path);
	if (result->load_id < 0 && !result->is_new)
		return psprintf("holds nothing but the content of %s",
						dwh_examination_load(examination, result->load_id)->path);
	return NULL;
}

static void
put_row(ReturnSetInfo *set, const Examination *examination, const LoadResult *result, const ExaminedLoad *load)
{
	static const ExaminedLoad none = {0};
	Datum		values[OUT_COUNT];
	bool		nulls[OUT_COUNT] = {false};

	put_text(result->path, OUT_PATH, values, nulls);
	put_text(result->status, OUT_STATUS, values, nulls);
	put_id(result->load_id, OUT_LOAD_ID, values, nulls);
	put_id(result->is_new ? result->continues_load_id : 0, OUT_CONTINUES_LOAD_ID, values, nulls);
	values[OUT_LINES] = Int64GetDatum(result->lines);
	values[OUT_LOADED] = Int64GetDatum(result->loaded);
	values[OUT_REJECTED] = Int64GetDatum(result->rejected);
	values[OUT_BLANK] = Int64GetDatum(result->blank);
	values[OUT_HELD_BACK_BYTES] = Int64GetDatum(result->held_back_bytes);
	values[OUT_BYTES] = Int64GetDatum(result->bytes);
	put_events(load != NULL ? load : &none, values, nulls);
	put_text(message_of(examination, result, load), OUT_MESSAGE, values, nulls);
	tuplestore_putvalues(set->setResult, set->setDesc, values, nulls);
}

/* A load that waits to be staged, as the verdict on a file. */
static void
put_waiting(ReturnSetInfo *set, const Examination *examination, const ExaminedLoad *load)
{
	LoadResult	result = {
		.load_id = load->load_id,.path = load->path,.status = "waiting",.lines = load->lines,.loaded = load->loaded,
		.rejected = load->rejected,.blank = load->blank
	};

	put_row(set, examination, &result, load);
}

static void
put_rows(ReturnSetInfo *set, const Examination *examination, List *results)
{
	ListCell   *cell;

	for (int place = 0; place < dwh_examination_waiting(examination); place++)
		put_waiting(set, examination, dwh_examination_load_at(examination, place));
	foreach(cell, results)
	{
		const LoadResult *result = lfirst(cell);

		put_row(set, examination, result, result->is_new ? dwh_examination_load(examination, result->load_id) : NULL);
	}
}

static void
keep_result(void *results, const LoadResult *result)
{
	List	  **list = results;
	LoadResult *copy = palloc(sizeof(LoadResult));

	*copy = *result;
	*list = lappend(*list, copy);
}

/*
 * dwh._examine(
 *   source text				-- as the path of dwh.load_jsonl
 * ) -> dwh.examined_file: one row for each load that waits to be staged, then one a file, in the order of their names
 */
Datum
dwh_examine(PG_FUNCTION_ARGS)
{
	LoadOptions options = {.reject_limit = -1,.reject_share = -1,.workers = dwh_load_workers};
	bool		many;
	List	   *files;
	List	   *results = NIL;

	options.examination = dwh_examination_create();
	files = dwh_set_list(PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)), &options, &many);
	InitMaterializedSRF(fcinfo, 0);
	dwh_examination_begin(options.examination);
	dwh_set_load(files, many, &options, keep_result, &results);
	dwh_examination_judge(options.examination);
	put_rows((ReturnSetInfo *) fcinfo->resultinfo, options.examination, results);
	return (Datum) 0;
}
