/*
 * typed_store.c: typed events that a run's loading leaves for the staging of the same transaction.
 *
 *     line --batch.c--> object --event.c--> event --line_sink.c--> [typed_store.c] --stage_load.c--> staging.user_events
 *
 * So a line is parsed once. Without the store staging would read the payload back, print it and parse it again.
 *
 * Invariant: only loads said to be complete are found; what a failed subtransaction left here belongs to none.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/tuplestore.h"

#include "typed_store.h"

/* At most that much memory, whatever work_mem allows a sort: private memory has a promise to keep. */
#define MEMORY_KB (16 * 1024)

typedef struct TypedStore
{
	MemoryContext context;
	TupleDesc	descriptor;
	Tuplestorestate *rows;
	TupleTableSlot *slot;		/* holds the row read last, if has_row */
	bool		has_row;
	List	   *complete;		/* of load_ids, rising; those that were found are gone */
} TypedStore;

static TypedStore *store;		/* of this transaction */

/* Closes the store's file before a commit would complain; an abort closes it itself, and both free the memory. */
static void
end_with_transaction(XactEvent event, void *argument)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
	{
		if (store != NULL)
			tuplestore_end(store->rows);
		store = NULL;
	}
	else if (event == XACT_EVENT_ABORT)
		store = NULL;
}

static Oid
type_of(int column)
{
	if (column == FIELD_EVENT_ID)
		return UUIDOID;
	if (column == TYPED_ATTRIBUTES)
		return JSONBOID;
	if (column == TYPED_FLAGS)
		return TEXTARRAYOID;
	if (column >= TYPED_COUNT)
		return INT8OID;
	switch (dwh_event_fields[column].kind)
	{
		case KIND_TIME:
			return TIMESTAMPTZOID;
		case KIND_MONEY:
			return NUMERICOID;
		case KIND_QUANTITY:
			return INT4OID;
		case KIND_TEXT:
			break;
	}
	return TEXTOID;
}

static TupleDesc
make_descriptor(void)
{
	TupleDesc	descriptor = CreateTemplateTupleDesc(STAGED_COUNT);

	for (int i = 0; i < STAGED_COUNT; i++)
		TupleDescInitEntry(descriptor, i + 1, NULL, type_of(i), -1, 0);
	return descriptor;
}

/* Makes the store in the current context; its file belongs to the transaction, not to the subtransaction at work. */
static TypedStore *
make_store(MemoryContext context)
{
	ResourceOwner owner = CurrentResourceOwner;
	TypedStore *result = palloc0(sizeof(TypedStore));

	result->context = context;
	result->descriptor = make_descriptor();
	CurrentResourceOwner = TopTransactionResourceOwner;
	result->rows = tuplestore_begin_heap(false, false, Min(work_mem, MEMORY_KB));
	CurrentResourceOwner = owner;
	result->slot = MakeTupleTableSlot(result->descriptor, &TTSOpsMinimalTuple);
	return result;
}

bool
dwh_typed_store_begin(void)
{
	static bool registered = false;
	MemoryContext context;
	MemoryContext caller;

	if (!registered)
		RegisterXactCallback(end_with_transaction, NULL);
	registered = true;
	if (store != NULL)
	{
		tuplestore_end(store->rows);
		MemoryContextDelete(store->context);
		store = NULL;
	}
	if (temp_file_limit >= 0)
		return false;
	context = AllocSetContextCreate(TopTransactionContext, "dwh typed store", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	store = make_store(context);
	MemoryContextSwitchTo(caller);
	return true;
}

void
dwh_typed_store_put(int64 load_id, int64 line_no, const Datum *values, const bool *nulls)
{
	Datum		place[STAGED_COUNT] = {0};
	bool		none[STAGED_COUNT];

	if (values == NULL)
	{
		memset(none, true, sizeof(none));
		none[STAGED_LOAD_ID] = none[STAGED_LINE_NO] = false;
		place[STAGED_LOAD_ID] = Int64GetDatum(load_id);
		place[STAGED_LINE_NO] = Int64GetDatum(line_no);
		values = place;
		nulls = none;
	}
	tuplestore_putvalues(store->rows, store->descriptor, (Datum *) values, (bool *) nulls);
}

void
dwh_typed_store_complete(int64 load_id)
{
	MemoryContext caller = MemoryContextSwitchTo(store->context);
	int64	   *entry = palloc(sizeof(int64));

	*entry = load_id;
	store->complete = lappend(store->complete, entry);
	MemoryContextSwitchTo(caller);
}

/* Reads a row unless one is waiting; false at the end. A row that comes from the file must outlive the call. */
static bool
fetch(void)
{
	MemoryContext caller = MemoryContextSwitchTo(store->context);

	if (!store->has_row)
		store->has_row = tuplestore_gettupleslot(store->rows, true, false, store->slot);
	MemoryContextSwitchTo(caller);
	if (store->has_row)
		slot_getallattrs(store->slot);
	return store->has_row;
}

static int64
load_of_row(void)
{
	return DatumGetInt64(store->slot->tts_values[STAGED_LOAD_ID]);
}

/* Takes the load off the list of complete ones; false where it is not there. */
static bool
take_complete(int64 load_id)
{
	while (store->complete != NIL && *(int64 *) linitial(store->complete) <= load_id)
	{
		bool		found = *(int64 *) linitial(store->complete) == load_id;

		store->complete = list_delete_first(store->complete);
		if (found)
			return true;
	}
	return false;
}

bool
dwh_typed_store_find(int64 load_id)
{
	if (store == NULL || !take_complete(load_id))
		return false;
	while (fetch() && load_of_row() < load_id)
	{
		CHECK_FOR_INTERRUPTS();
		store->has_row = false;
	}
	return true;
}

bool
dwh_typed_store_next(int64 load_id, const Datum **values, const bool **nulls)
{
	if (!fetch() || load_of_row() != load_id)
		return false;
	*values = store->slot->tts_values;
	*nulls = store->slot->tts_isnull;
	store->has_row = false;
	return true;
}
