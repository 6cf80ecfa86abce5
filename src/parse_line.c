/*
 * parse_line.c: SQL function dwh._parse_line.
 *
 *     ops.rejects --[parse_line.c, json.c, payload.c]--> jsonb --35_retry_rejects.sql--> raw.user_events
 *
 * A kept line is read as load.c reads one: the same limit, the same parser, the same jsonb.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "guc.h"
#include "json.h"
#include "memory.h"
#include "payload.h"

PG_FUNCTION_INFO_V1(dwh_parse_line);

/* The object in a line; NULL with the verdict filled where it is refused. */
static yyjson_val *
parse_line(const char *text, size_t length, Verdict *verdict)
{
	yyjson_alc	memory = dwh_memory_allocator(CurrentMemoryContext);

	if (length <= (size_t) dwh_max_line_bytes)
		return dwh_json_read_object(text, length, &memory, verdict);
	dwh_reject(verdict, REJECT_TOO_LONG, "the line has %llu bytes, dwh.max_line_bytes allows %d",
			   (unsigned long long) length, dwh_max_line_bytes);
	return NULL;
}

/*
 * dwh._parse_line(line bytea) -> (payload jsonb, reject_class text, reject_message text): the object in a line without
 * its terminator, or why it is refused.
 */
Datum
dwh_parse_line(PG_FUNCTION_ARGS)
{
	bytea	   *line = PG_GETARG_BYTEA_PP(0);
	TupleDesc	descriptor;
	yyjson_val *object;
	Verdict		verdict;
	Datum		values[3] = {0};
	bool		nulls[3];

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	object = parse_line(VARDATA_ANY(line), VARSIZE_ANY_EXHDR(line), &verdict);
	nulls[0] = object == NULL;
	nulls[1] = nulls[2] = object != NULL;
	if (object != NULL)
		values[0] = JsonbPGetDatum(dwh_payload_from_json(object));
	else
	{
		values[1] = CStringGetTextDatum(dwh_reject_class_name(verdict.class));
		values[2] = CStringGetTextDatum(verdict.message);
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}
