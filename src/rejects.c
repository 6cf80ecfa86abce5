/*
 * rejects.c: a refused line or event -> a row of ops.rejects.
 *
 *     line --json.c--> verdict --[rejects.c]--> ops.rejects <--[rejects.c]-- verdict <--typed.c-- payload
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "memory.h"
#include "rejects.h"

static const char *const columns[] = {
	"load_id", "line_no", "byte_offset", "stage", "class", "message", "raw", "raw_bytes", "rejected_at", NULL
};

TableWriter *
dwh_rejects_open(void)
{
	return dwh_writer_open("ops", "rejects", columns);
}

void
dwh_rejects_put(TableWriter *writer, const RejectPlace *place, const Verdict *verdict, const char *raw, size_t length,
				uint64 full_length)
{
	MemoryContext caller = MemoryContextSwitchTo(dwh_writer_batch_context(writer));
	Datum		values[9];
	bool		nulls[9] = {false};

	values[0] = Int64GetDatum(place->load_id);
	values[1] = Int64GetDatum(place->line_no);
	values[2] = Int64GetDatum(place->byte_offset);
	values[3] = CStringGetTextDatum(place->stage);
	values[4] = CStringGetTextDatum(dwh_reject_class_name(verdict->class));
	values[5] = CStringGetTextDatum(verdict->message);
	values[6] = dwh_memory_bytea(raw, Min(length, REJECT_RAW_BYTES));
	values[7] = Int64GetDatum((int64) full_length);
	values[8] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	MemoryContextSwitchTo(caller);
	dwh_writer_put(writer, values, nulls);
}
