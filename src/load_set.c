/*
 * load_set.c: a source -> its files, loaded one after another, each with its verdict.
 *
 *     source --paths.c--> files --[load_set.c]--> load.c --> verdicts
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/resowner.h"

#include "errcodes.h"
#include "load_set.h"
#include "warehouse.h"

/* From so many files on, a set is loaded under one lock: the lock table holds a few thousand at its default size. */
#define EXCLUSIVE_FILES 500

/* True for errors that are the file's own: they must not keep the other files of a set from being loaded. */
static bool
is_error_of_file(int sqlerrcode)
{
	return ERRCODE_TO_CATEGORY(sqlerrcode) == ERRCODE_SYSTEM_ERROR ||
		sqlerrcode == ERRCODE_DWH_SOURCE_CHANGED ||
		sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE ||
		sqlerrcode == ERRCODE_INVALID_BINARY_REPRESENTATION ||
		sqlerrcode == ERRCODE_PROGRAM_LIMIT_EXCEEDED ||
		sqlerrcode == ERRCODE_WRONG_OBJECT_TYPE;
}

/* Loads one file of a set in a subtransaction; an error of the file becomes its verdict. */
static LoadResult
load_guarded(const PermittedPath *path, const LoadOptions *options)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile LoadResult result;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		result = dwh_load_file(path, options);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		if (!is_error_of_file(error->sqlerrcode))
			ReThrowError(error);
		result = (LoadResult)
		{
			.path = path->path,.status = "failed",
				.message = psprintf("%s: %s", unpack_sql_state(error->sqlerrcode), error->message)
		};
	}
	PG_END_TRY();
	return result;
}

void
dwh_set_enter(const LoadOptions *options)
{
	if (options->validate_only)
		return;
	dwh_warehouse_require();
	if (!dwh_sink_writes(options))
		return;
	dwh_sink_check_tables();
	dwh_ledger_enter(options->exclusive);
}

List *
dwh_set_list(const char *source, LoadOptions *options, bool *many)
{
	List	   *files;

	if (dwh_sink_writes(options))
		PreventCommandIfReadOnly("dwh.load_jsonl()");
	files = dwh_expand_source(source, options->examination == NULL, many);
	options->exclusive = list_length(files) >= EXCLUSIVE_FILES;
	dwh_set_enter(options);
	return files;
}

void
dwh_set_load(List *files, bool many, const LoadOptions *options, TakeLoadResult take, void *argument)
{
	ListCell   *cell;

	foreach(cell, files)
	{
		const PermittedPath *path = lfirst(cell);
		LoadResult	result;

		CHECK_FOR_INTERRUPTS();
		if (!dwh_load_is_known(path, options, &result))
			result = many ? load_guarded(path, options) : dwh_load_file(path, options);
		take(argument, &result);
	}
}
