/*
 * line_bytes.c: SQL function dwh._line_bytes.
 *
 *     load, byte offset --[line_bytes.c: paths.c, source.c, lines.c]--> the bytes of a line, as they stand in its file
 *
 * A plain file is read where the line begins, an archive up to there. Rights are those of load_jsonl(). What stands at the
 * offset may be another line by now: the caller compares.
 *
 * Memory: "dwh line bytes" for one call; it goes with an error at once and closes the file.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "guc.h"
#include "lines.h"
#include "memory.h"
#include "source.h"

#define LARGE_OBJECT_PREFIX "large_object:"

PG_FUNCTION_INFO_V1(dwh_line_bytes);

/* The source that a load's path names. */
static Source *
open_source(const char *path)
{
	size_t		prefix = strlen(LARGE_OBJECT_PREFIX);
	PermittedPath permitted;

	if (strncmp(path, LARGE_OBJECT_PREFIX, prefix) == 0)
		return dwh_source_open_large_object(DatumGetObjectId(DirectFunctionCall1(oidin, CStringGetDatum(path + prefix))));
	permitted = dwh_permit_path(path, false);
	return dwh_source_open_file(&permitted);
}

/* The line that begins at the offset, as a bytea in the context result; 0 where the content ends before. */
static Datum
read_line(Source *source, int64 offset, MemoryContext result)
{
	yyjson_alc	memory = dwh_memory_allocator(CurrentMemoryContext);
	MemoryContext work = CurrentMemoryContext;
	LineReader	reader;
	Line		line;
	Datum		bytes;

	if (!dwh_source_skip(source, offset))
		return (Datum) 0;
	dwh_lines_init(&reader, dwh_source_read, source, (uint64_t) offset, (size_t) dwh_max_line_bytes, &memory);
	if (!dwh_lines_next(&reader, &line))
		return (Datum) 0;
	if (line.oversized)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a line of \"%s\" is longer than allowed", dwh_source_name(source)),
				 errdetail("At byte %lld it has %llu bytes; dwh.max_line_bytes is %d.", (long long) offset,
						   (unsigned long long) line.full_length, dwh_max_line_bytes),
				 errhint("Raise dwh.max_line_bytes.")));
	MemoryContextSwitchTo(result);
	bytes = dwh_memory_bytea(line.text, line.length);
	MemoryContextSwitchTo(work);
	return bytes;
}

/*
 * dwh._line_bytes(
 *   path text,					-- of ops.loads: a server file, or large_object:<oid>
 *   byte_offset bigint			-- of the line's first byte in the decompressed content, from 0
 * ) -> bytea: the line without its terminator, CR before it, and BOM; NULL where the content ends before
 */
Datum
dwh_line_bytes(PG_FUNCTION_ARGS)
{
	char	   *path = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int64		offset = PG_GETARG_INT64(1);
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context;
	volatile Datum bytes = (Datum) 0;

	if (offset < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("byte_offset must not be negative"),
				 errdetail("It is %lld.", (long long) offset),
				 errhint("Take it from raw.user_events or ops.rejects.")));
	context = AllocSetContextCreate(caller, "dwh line bytes", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		Source	   *source = open_source(path);

		bytes = read_line(source, offset, caller);
		dwh_source_close(source);
	}
	PG_FINALLY();
	{
		/* a client may leave a failed transaction open */
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(context);
	}
	PG_END_TRY();
	if (bytes == (Datum) 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(bytes);
}
