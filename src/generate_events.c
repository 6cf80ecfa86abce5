/*
 * generate_events.c: SQL functions dwh.generate_events, dwh.sample_events and dwh.dirty_kinds.
 *
 *     options --stream.c--> lines --[generate_events.c]--> file in the landing directory, or rows
 *
 * A file appears under its name only when it is whole: it is written as .<name>.part in the same directory, which no
 * source ever matches, and renamed.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "memory.h"
#include "paths.h"
#include "stream.h"

PG_FUNCTION_INFO_V1(dwh_generate_events);
PG_FUNCTION_INFO_V1(dwh_sample_events);
PG_FUNCTION_INFO_V1(dwh_dirty_kinds);

#define MAX_EVENTS INT64CONST(1000000000)
#define MAX_KEYS INT64CONST(100000000)
#define MAX_DAYS 36500
#define WRITE_BYTES (1024 * 1024)

/* ---- arguments ---- */

static void
check_range(const char *name, int64 value, int64 low, int64 high)
{
	if (value < low || value > high)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between %lld and %lld", name, (long long) low, (long long) high),
				 errdetail("It is %lld.", (long long) value),
				 errhint("Call it once for each part of a larger log, with another seed and start_at.")));
}

static int
find_kind(const char *name)
{
	for (int i = 0; i < FAULT_COUNT; i++)
		if (strcmp(dwh_fault_kinds[i].name, name) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no fault of kind \"%s\"", name),
			 errdetail("dirty_kinds names what is mixed into the log."),
			 errhint("SELECT * FROM dwh.dirty_kinds() lists the kinds.")));
}

/* Chooses the kinds in the array; NULL = all. Rows of text cannot hold every kind. */
static void
choose_kinds(ArrayType *kinds, bool as_text, StreamOptions *options)
{
	Datum	   *names;
	bool	   *nulls;
	int			count;

	if (kinds == NULL)
	{
		for (int i = 0; i < FAULT_COUNT; i++)
			options->chosen[i] = !as_text || dwh_fault_kinds[i].text;
		return;
	}
	deconstruct_array(kinds, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		int			kind = find_kind(nulls[i] ? "" : TextDatumGetCString(names[i]));

		if (as_text && !dwh_fault_kinds[kind].text)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("rows of text cannot hold faults of kind \"%s\"", dwh_fault_kinds[kind].name),
					 errdetail("The server would refuse the row itself."),
					 errhint("Use dwh.generate_events(), which writes a file.")));
		options->chosen[kind] = true;
	}
}

/* The options from seven arguments that start at first: events, users, products, days, start_at, seed, dirty_rate, dirty_kinds. */
static StreamOptions
options_of_call(FunctionCallInfo fcinfo, int first, bool as_text)
{
	StreamOptions options = {0};
	TimestampTz start_at;
	double		rate;

	for (int i = first; i < first + 7; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("only path and dirty_kinds may be null"),
					 errdetail("Argument %d is null.", i + 1),
					 errhint("Leave the argument out to use its default.")));
	options.events = PG_GETARG_INT64(first);
	options.users = PG_GETARG_INT64(first + 1);
	options.products = PG_GETARG_INT64(first + 2);
	options.days = PG_GETARG_INT64(first + 3);
	start_at = PG_GETARG_TIMESTAMPTZ(first + 4);
	options.seed = (uint64_t) PG_GETARG_INT64(first + 5);
	rate = PG_GETARG_FLOAT8(first + 6);
	check_range("events", options.events, 0, MAX_EVENTS);
	check_range("users", options.users, 1, MAX_KEYS);
	check_range("products", options.products, 1, MAX_KEYS);
	check_range("days", options.days, 1, MAX_DAYS);
	if (!(rate >= 0 && rate <= 1) || TIMESTAMP_NOT_FINITE(start_at) ||
		start_at < INT64CONST(-63113904000000000) || start_at > INT64CONST(252455615999000000))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("dirty_rate must be between 0 and 1, start_at between the years 1 and 9999"),
				 errdetail("dirty_rate is %g.", rate),
				 errhint("dirty_rate => 0.01 adds one line with a fault for every hundred clean ones.")));
	/* whole seconds, as the log writes them */
	options.start_at = start_at - ((start_at % USECS_PER_SEC) + USECS_PER_SEC) % USECS_PER_SEC;
	options.faults = (int64) (rate * (double) options.events + 0.5);
	choose_kinds(PG_ARGISNULL(first + 7) ? NULL : PG_GETARG_ARRAYTYPE_P(first + 7), as_text, &options);
	return options;
}

/* ---- a file that is being written ---- */

typedef struct LogFile
{
	PermittedPath target;
	const char *name;			/* of the file in its directory */
	char	   *part;			/* its name while it is written */
	int			directory;
	int			fd;
	char	   *buffer;
	size_t		used;
	int64		bytes;
} LogFile;

/* Closes what is open, and removes the unfinished file. */
static void
close_log(LogFile *file, bool discard)
{
	if (discard && file->fd >= 0)
		unlinkat(file->directory, file->part, 0);
	if (file->fd >= 0)
		close(file->fd);
	if (file->directory >= 0)
		close(file->directory);
	file->fd = file->directory = -1;
}

static void
file_error(LogFile *file, const char *doing)
{
	int			saved_errno = errno;

	close_log(file, true);
	errno = saved_errno;
	ereport(ERROR,
			(dwh_errcode_for_path(),
			 errmsg("could not %s file \"%s\": %m", doing, file->target.path),
			 errdetail("The path is written on the server, by the operating system user that runs it."),
			 errhint("Leave path out to write into the landing directory.")));
}

static void
write_out(LogFile *file)
{
	size_t		done = 0;

	CHECK_FOR_INTERRUPTS();
	while (done < file->used)
	{
		ssize_t		written = write(file->fd, file->buffer + done, file->used - done);

		if (written < 0 && errno != EINTR)
			file_error(file, "write");
		if (written > 0)
			done += written;
	}
	file->used = 0;
}

/* The EmitLine of a file. */
static void
write_line(void *sink, const char *text, size_t length)
{
	LogFile    *file = sink;

	file->bytes += length;
	while (length > 0)
	{
		size_t		fits = Min(length, WRITE_BYTES - file->used);

		memcpy(file->buffer + file->used, text, fits);
		file->used += fits;
		text += fits;
		length -= fits;
		if (file->used == WRITE_BYTES)
			write_out(file);
	}
}

static void
open_log(LogFile *file, const char *path, const char *default_name)
{
	PermittedPath parent;

	file->directory = file->fd = -1;
	file->target = dwh_permit_path(path != NULL ? path : default_name, true);
	parent = file->target;
	parent.path = pstrdup(file->target.path);
	get_parent_directory(parent.path);
	file->name = last_dir_separator(file->target.path) + 1;
	file->part = psprintf(".%s.%d.part", file->name, MyProcPid);
	file->buffer = palloc(WRITE_BYTES);
	file->directory = dwh_open_permitted(&parent, O_RDONLY | O_DIRECTORY, 0);
	if (file->directory < 0)
		file_error(file, "open the directory of");
	file->fd = openat(file->directory, file->part, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (file->fd < 0)
		file_error(file, "create");
}

/* Gives a file without a chosen name the first free one: name.jsonl, name-2.jsonl, ... */
static void
link_under_free_name(LogFile *file)
{
	char	   *stem = pnstrdup(file->name, strlen(file->name) - strlen(".jsonl"));
	char	   *directory = pnstrdup(file->target.path, file->name - file->target.path);

	for (int n = 2; linkat(file->directory, file->part, file->directory, file->name, 0) < 0; n++)
	{
		CHECK_FOR_INTERRUPTS();
		if (errno != EEXIST)
			file_error(file, "name");
		file->name = psprintf("%s-%d.jsonl", stem, n);
		file->target.path = psprintf("%s%s", directory, file->name);
	}
	unlinkat(file->directory, file->part, 0);
}

static void
publish_log(LogFile *file, bool chosen_name)
{
	write_out(file);
	if (!chosen_name)
		link_under_free_name(file);
	else if (renameat(file->directory, file->part, file->directory, file->name) < 0)
		file_error(file, "rename");
}

/* ---- SQL functions ---- */

static Jsonb *
faults_as_jsonb(const StreamTotals *totals)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < FAULT_COUNT; i++)
	{
		JsonbValue	key = {.type = jbvString};
		JsonbValue	count = {.type = jbvNumeric};

		if (totals->faults[i] == 0)
			continue;
		key.val.string.val = (char *) dwh_fault_kinds[i].name;
		key.val.string.len = (int) strlen(dwh_fault_kinds[i].name);
		count.val.numeric = int64_to_numeric(totals->faults[i]);
		pushJsonbValue(&state, WJB_KEY, &key);
		pushJsonbValue(&state, WJB_VALUE, &count);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static Datum
totals_as_row(FunctionCallInfo fcinfo, const LogFile *file, const StreamTotals *totals)
{
	TupleDesc	descriptor;
	Datum		values[6];
	bool		nulls[6] = {false};

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = CStringGetTextDatum(file->target.path);
	values[1] = Int64GetDatum(totals->events);
	values[2] = Int64GetDatum(totals->sessions);
	values[3] = Int64GetDatum(totals->purchases);
	values[4] = Int64GetDatum(file->bytes);
	values[5] = JsonbPGetDatum(faults_as_jsonb(totals));
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls));
}

/*
 * dwh.generate_events(
 *   path text,					-- file to write (replaced if it exists); NULL = a new one in the landing directory
 *   events bigint, users bigint, products bigint, days bigint, start_at timestamptz, seed bigint,
 *   dirty_rate float8,			-- lines with a fault, as a share of events
 *   dirty_kinds text[]			-- which faults; NULL = all of dwh.dirty_kinds()
 * ) -> (path text, events bigint, sessions bigint, purchases bigint, bytes bigint, faults jsonb)
 */
Datum
dwh_generate_events(PG_FUNCTION_ARGS)
{
	StreamOptions options = options_of_call(fcinfo, 1, false);
	yyjson_alc	memory = dwh_memory_allocator(CurrentMemoryContext);
	LogFile		file = {0};
	StreamTotals totals;
	char	   *default_name = psprintf("%s/events-%lld-seed-%lld.jsonl", dwh_landing_path(true),
										(long long) options.events, (long long) options.seed);

	open_log(&file, PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)), default_name);
	PG_TRY();
	{
		dwh_stream_run(&options, write_line, &file, &memory, &totals);
		publish_log(&file, !PG_ARGISNULL(0));
		close_log(&file, false);
	}
	PG_CATCH();
	{
		close_log(&file, true);
		PG_RE_THROW();
	}
	PG_END_TRY();
	PG_RETURN_DATUM(totals_as_row(fcinfo, &file, &totals));
}

/* The EmitLine of rows: a line without its LF. */
static void
put_line(void *sink, const char *text, size_t length)
{
	ReturnSetInfo *result_set = sink;
	Datum		value;
	bool		null = false;

	CHECK_FOR_INTERRUPTS();
	if (length > 0 && text[length - 1] == '\n')
		length--;
	value = PointerGetDatum(cstring_to_text_with_len(text, (int) length));
	tuplestore_putvalues(result_set->setResult, result_set->setDesc, &value, &null);
	pfree(DatumGetPointer(value));
}

/*
 * dwh.sample_events(events, users, products, days, start_at, seed, dirty_rate, dirty_kinds) -> setof text: the lines
 * that dwh.generate_events writes for the same arguments, without the kinds that text cannot hold.
 */
Datum
dwh_sample_events(PG_FUNCTION_ARGS)
{
	StreamOptions options = options_of_call(fcinfo, 0, true);
	yyjson_alc	memory = dwh_memory_allocator(CurrentMemoryContext);
	StreamTotals totals;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	dwh_stream_run(&options, put_line, fcinfo->resultinfo, &memory, &totals);
	return (Datum) 0;
}

static const char *
outcome_name(FaultOutcome outcome)
{
	static const char *const names[] = {
		[OUTCOME_FACT] = "fact",
		[OUTCOME_BLANK] = "blank",
		[OUTCOME_HELD_BACK] = "held_back",
		[OUTCOME_LOAD_REJECT] = "load_reject",
		[OUTCOME_STAGE_REJECT] = "stage_reject",
		[OUTCOME_REPLAY] = "replay",
		[OUTCOME_CONFLICT] = "conflict",
		[OUTCOME_NONE] = "none"
	};

	return names[outcome];
}

/* dwh.dirty_kinds() -> setof (kind text, outcome text, class text, meaning text): the faults that can be mixed in. */
Datum
dwh_dirty_kinds(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result_set = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < FAULT_COUNT; i++)
	{
		const FaultKind *kind = &dwh_fault_kinds[i];
		Datum		values[4] = {0};
		bool		nulls[4] = {false};

		values[0] = CStringGetTextDatum(kind->name);
		values[1] = CStringGetTextDatum(outcome_name(kind->outcome));
		nulls[2] = kind->class == NULL;
		if (!nulls[2])
			values[2] = CStringGetTextDatum(kind->class);
		values[3] = CStringGetTextDatum(kind->meaning);
		tuplestore_putvalues(result_set->setResult, result_set->setDesc, values, nulls);
	}
	return (Datum) 0;
}
