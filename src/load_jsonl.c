/*
 * load_jsonl.c: SQL function dwh.load_jsonl.
 *
 * Turns arguments into LoadOptions, verdicts into rows. What is done with the files is load_set.c's and load.c's.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "compat.h"
#include "guc.h"
#include "line_sink.h"
#include "load.h"
#include "load_set.h"
#include "memory.h"
#include "typed_store.h"

PG_FUNCTION_INFO_V1(dwh_load_jsonl);
PG_FUNCTION_INFO_V1(dwh_load_for_run);
PG_FUNCTION_INFO_V1(dwh_load_jsonl_large_object);

static OnError
parse_on_error(const char *text)
{
	if (pg_strcasecmp(text, "continue") == 0)
		return ON_ERROR_CONTINUE;
	if (pg_strcasecmp(text, "abort") == 0)
		return ON_ERROR_ABORT;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("on_error must be \"continue\" or \"abort\""),
			 errdetail("It is \"%s\".", text),
			 errhint("\"continue\" keeps refused lines as rejects; \"abort\" loads nothing if there is one.")));
}

/* Reads "100" as a count or "1%" as a share. */
static void
parse_reject_limit(const char *text, LoadOptions *options)
{
	char	   *end;
	double		value = strtod(text, &end);
	bool		percent = *end == '%';

	if (end == text || strspn(text, "0123456789.") != (size_t) (end - text) || end[percent ? 1 : 0] != '\0' || !(value >= 0) || (percent && value > 100) ||
		(!percent && (value != rint(value) || value > 1e15)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reject_limit must be a number of lines or a percentage"),
				 errdetail("It is \"%s\".", text),
				 errhint("Examples: reject_limit => 100, reject_limit => '1%%'.")));
	if (percent)
		options->reject_share = value / 100;
	else
		options->reject_limit = (int64) value;
}

static int
check_workers(int32 workers)
{
	if (workers < 1 || workers > WORKERS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("workers must be 1 or 2"),
				 errdetail("It is %d.", workers),
				 errhint("With 2, a thread parses a file while the backend writes what was parsed.")));
	return workers;
}

/* The options from arguments 1 to 5; reject_limit is of any type, so that 100 and '1%' both work. */
static LoadOptions
options_of_call(FunctionCallInfo fcinfo)
{
	LoadOptions options = {.reject_limit = -1,.reject_share = -1};

	options.on_error = PG_ARGISNULL(1) ? ON_ERROR_CONTINUE : parse_on_error(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (!PG_ARGISNULL(2))
	{
		Oid			output;
		bool		is_varlena;

		getTypeOutputInfo(get_fn_expr_argtype(fcinfo->flinfo, 2), &output, &is_varlena);
		parse_reject_limit(OidOutputFunctionCall(output, PG_GETARG_DATUM(2)), &options);
	}
	options.force = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	options.validate_only = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	options.workers = PG_ARGISNULL(5) ? dwh_load_workers : check_workers(PG_GETARG_INT32(5));
	return options;
}

/* A dwh.line_reject. */
static Datum
reject_datum(TupleDesc descriptor, const KeptReject *reject)
{
	Datum		values[6];
	bool		nulls[6] = {false};

	values[0] = Int64GetDatum(reject->line_no);
	values[1] = Int64GetDatum(reject->byte_offset);
	values[2] = CStringGetTextDatum(dwh_reject_class_name(reject->verdict.class));
	values[3] = CStringGetTextDatum(reject->verdict.message);
	values[4] = dwh_memory_bytea(reject->raw, reject->length);
	values[5] = Int64GetDatum(reject->full_length);
	return HeapTupleGetDatum(heap_form_tuple(descriptor, values, nulls));
}

/* The rejects of a result as the array that its column holds. */
static Datum
rejects_datum(Oid array_type, List *rejects)
{
	Oid			type = get_element_type(array_type);
	TupleDesc	descriptor = lookup_rowtype_tupdesc(type, -1);
	Datum	   *elements = palloc((list_length(rejects) + 1) * sizeof(Datum));
	int			count = 0;
	ListCell   *cell;

	foreach(cell, rejects)
		elements[count++] = reject_datum(descriptor, lfirst(cell));
	ReleaseTupleDesc(descriptor);
	return PointerGetDatum(construct_array(elements, count, type, -1, false, TYPALIGN_DOUBLE));
}

static void
put_result(ReturnSetInfo *result_set, const LoadOptions *options, const LoadResult *result)
{
	Datum		values[11] = {0};
	bool		nulls[11] = {false};

	values[0] = Int64GetDatum(result->load_id);
	nulls[0] = result->load_id == 0;
	values[1] = CStringGetTextDatum(result->path);
	values[2] = CStringGetTextDatum(result->status);
	values[3] = Int64GetDatum(result->lines);
	values[4] = Int64GetDatum(result->loaded);
	values[5] = Int64GetDatum(result->rejected);
	values[6] = Int64GetDatum(result->blank);
	values[7] = Int64GetDatum(result->held_back_bytes);
	values[8] = Int64GetDatum(result->bytes);
	nulls[9] = result->message == NULL;
	if (!nulls[9])
		values[9] = CStringGetTextDatum(result->message);
	nulls[10] = !options->validate_only;
	if (options->validate_only)
		values[10] = rejects_datum(TupleDescAttr(result_set->setDesc, 10)->atttypid, result->rejects);
	tuplestore_putvalues(result_set->setResult, result_set->setDesc, values, nulls);
}

typedef struct ResultSet
{
	ReturnSetInfo *rows;
	const LoadOptions *options;
} ResultSet;

static void
take_result(void *argument, const LoadResult *result)
{
	const ResultSet *set = argument;

	put_result(set->rows, set->options, result);
}

/* Loads what the first argument names, one result row a file. */
static void
load_files(FunctionCallInfo fcinfo, LoadOptions *options)
{
	ResultSet	set = {(ReturnSetInfo *) fcinfo->resultinfo, options};
	bool		many;
	List	   *files = dwh_set_list(PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)), options, &many);

	InitMaterializedSRF(fcinfo, 0);
	dwh_set_load(files, many, options, take_result, &set);
}

/*
 * dwh.load_jsonl(
 *   path text,					-- file, directory or pattern on the server; relative to the landing directory
 *   on_error text,				-- 'continue' or 'abort'; NULL = 'continue'
 *   reject_limit "any",		-- more rejects raise WH002: a count, or a share such as '1%'; NULL = no limit
 *   force boolean,				-- load content again though it is known, or quarantined
 *   validate_only boolean,		-- read the lines as ever, return the rejects, write nothing
 *   workers integer			-- 1 or 2; NULL = dwh.load_workers
 * ) -> one row a file, in the order of their names
 */
Datum
dwh_load_jsonl(PG_FUNCTION_ARGS)
{
	LoadOptions options = options_of_call(fcinfo);

	load_files(fcinfo, &options);
	return (Datum) 0;
}

/*
 * dwh._load_for_run(path text) -> the same with no options set, for a transaction that goes on with stage_events(): the
 * events are read by the same parse and left for it.
 */
Datum
dwh_load_for_run(PG_FUNCTION_ARGS)
{
	LoadOptions options = {.reject_limit = -1,.reject_share = -1,.workers = dwh_load_workers};

	options.keep_events = dwh_typed_store_begin();
	load_files(fcinfo, &options);
	return (Datum) 0;
}

/*
 * dwh.load_jsonl(large_object oid, ...) -> one row: the same for the bytes of a large object, for clients that have no
 * files on the server.
 */
Datum
dwh_load_jsonl_large_object(PG_FUNCTION_ARGS)
{
	LoadOptions options = options_of_call(fcinfo);
	LoadResult	result;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("large_object must not be null"),
				 errdetail("It is the OID that \\lo_import printed."),
				 errhint("In psql: \\lo_import log.jsonl, then SELECT * FROM dwh.load_jsonl(large_object => :LASTOID).")));
	InitMaterializedSRF(fcinfo, 0);
	dwh_set_enter(&options);
	result = dwh_load_large_object(PG_GETARG_OID(0), &options);
	put_result((ReturnSetInfo *) fcinfo->resultinfo, &options, &result);
	return (Datum) 0;
}
