/*
 * index_entries.c: rows that a table has got -> entries of its indexes, index by index, each in its own order.
 *
 *     row --writer.c--> table --[index_entries.c]--> its indexes
 *
 * Keys that come in at random cost a btree most of its time: each descent ends in another leaf, and few leaves stay in the
 * processor's caches. So the entries of many rows wait, and each btree gets them in its order. What is not an ordinary btree on
 * columns, as a user may add, is filled row by row in the way of the executor, and then all indexes of that table are.
 *
 * Invariant: nobody sees a row without its entries: they are inserted before the command ends, or it fails.
 *
 * Memory: "dwh index entries" holds the keys that wait, bounded by WAITING_ROWS and WAITING_BYTES.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "catalog/index.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_index.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/sortsupport.h"

#include "compat.h"
#include "index_entries.h"

#define WAITING_ROWS 32768
#define WAITING_BYTES (8 * 1024 * 1024)

/* One index, and the keys that wait for it: key_count values a row. */
typedef struct IndexQueue
{
	Relation	index;
	IndexInfo  *info;
	ExprState  *predicate;		/* NULL: every row has an entry */
	int			key_count;
	SortSupport sort;			/* key_count of them */
	Datum	   *values;
	bool	   *nulls;
	ItemPointerData *places;
	struct QueueOrder *order;
	int			count;
} IndexQueue;

/* Sorted instead of the keys. */
typedef struct QueueOrder
{
	Datum		abbreviated;	/* of the first key */
	int			entry;
} QueueOrder;

struct IndexEntries
{
	MemoryContext context;		/* of the object */
	MemoryContext key_context;	/* of the keys that wait */
	ResultRelInfo *target;
	EState	   *estate;
	bool		is_row_by_row;
	int			row_count;
	int			queue_count;
	IndexQueue *queues;
};

/* An ordinary btree: keys are columns, and uniqueness is checked at once. */
static bool
is_ordinary(Relation index, const IndexInfo *info)
{
	return index->rd_rel->relam == BTREE_AM_OID && info->ii_Expressions == NIL && info->ii_ExclusionOps == NULL &&
		(!index->rd_index->indisunique || index->rd_index->indimmediate);
}

static void
prepare_sort(IndexQueue *queue)
{
	queue->sort = palloc0(queue->key_count * sizeof(SortSupportData));
	for (int i = 0; i < queue->key_count; i++)
	{
		SortSupport sort = &queue->sort[i];
		int16		options = queue->index->rd_indoption[i];

		sort->ssup_cxt = CurrentMemoryContext;
		sort->ssup_collation = queue->index->rd_indcollation[i];
		sort->ssup_nulls_first = (options & INDOPTION_NULLS_FIRST) != 0;
		sort->ssup_attno = i + 1;
		sort->abbreviate = i == 0;
		dwh_prepare_index_sort(queue->index, (options & INDOPTION_DESC) != 0, sort);
	}
}

static void
open_queue(IndexEntries *entries, IndexQueue *queue, Relation index, IndexInfo *info)
{
	int			columns = IndexRelationGetNumberOfAttributes(index);

	queue->index = index;
	queue->info = info;
	queue->key_count = IndexRelationGetNumberOfKeyAttributes(index);
	if (info->ii_Predicate != NIL)
		queue->predicate = ExecPrepareQual(info->ii_Predicate, entries->estate);
	prepare_sort(queue);
	queue->values = palloc_array(Datum, WAITING_ROWS * columns);
	queue->nulls = palloc_array(bool, WAITING_ROWS * columns);
	queue->places = palloc_array(ItemPointerData, WAITING_ROWS);
	queue->order = palloc_array(QueueOrder, WAITING_ROWS);
}

IndexEntries *
dwh_index_entries_open(ResultRelInfo *target, EState *estate)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dwh index entries", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	IndexEntries *entries = palloc0(sizeof(IndexEntries));

	entries->context = context;
	entries->key_context = AllocSetContextCreate(context, "dwh index keys", ALLOCSET_DEFAULT_SIZES);
	entries->target = target;
	entries->estate = estate;
	for (int i = 0; i < target->ri_NumIndices; i++)
		if (target->ri_IndexRelationInfo[i]->ii_ReadyForInserts &&
			!is_ordinary(target->ri_IndexRelationDescs[i], target->ri_IndexRelationInfo[i]))
			entries->is_row_by_row = true;
	entries->queues = palloc0(Max(target->ri_NumIndices, 1) * sizeof(IndexQueue));
	for (int i = 0; i < target->ri_NumIndices && !entries->is_row_by_row; i++)
		if (target->ri_IndexRelationInfo[i]->ii_ReadyForInserts)
			open_queue(entries, &entries->queues[entries->queue_count++], target->ri_IndexRelationDescs[i],
					   target->ri_IndexRelationInfo[i]);
	MemoryContextSwitchTo(caller);
	return entries;
}

static void
put_in_queue(IndexEntries *entries, IndexQueue *queue, TupleTableSlot *slot)
{
	TupleDesc	descriptor = RelationGetDescr(queue->index);
	Datum	   *values = &queue->values[queue->count * descriptor->natts];
	bool	   *nulls = &queue->nulls[queue->count * descriptor->natts];

	if (queue->predicate != NULL)
	{
		GetPerTupleExprContext(entries->estate)->ecxt_scantuple = slot;
		if (!ExecQual(queue->predicate, GetPerTupleExprContext(entries->estate)))
			return;
	}
	FormIndexDatum(queue->info, slot, entries->estate, values, nulls);
	for (int i = 0; i < descriptor->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(descriptor, i);

		if (!nulls[i])
			values[i] = datumCopy(values[i], attribute->attbyval, attribute->attlen);
	}
	queue->places[queue->count++] = slot->tts_tid;
}

void
dwh_index_entries_put(IndexEntries *entries, TupleTableSlot *slot)
{
	MemoryContext caller;

	if (entries->target->ri_NumIndices == 0)
		return;
	if (entries->is_row_by_row)
	{
		list_free(dwh_insert_index_tuples(entries->target, slot, entries->estate));
		return;
	}
	caller = MemoryContextSwitchTo(entries->key_context);
	for (int i = 0; i < entries->queue_count; i++)
		put_in_queue(entries, &entries->queues[i], slot);
	MemoryContextSwitchTo(caller);
	if (++entries->row_count == WAITING_ROWS || MemoryContextMemAllocated(entries->key_context, false) > WAITING_BYTES)
		dwh_index_entries_flush(entries);
}

static int
compare_entries(const void *a, const void *b, void *argument)
{
	const QueueOrder *left = a;
	const QueueOrder *right = b;
	const IndexQueue *queue = argument;
	int			columns = IndexRelationGetNumberOfAttributes(queue->index);
	int			first_left = left->entry * columns;
	int			first_right = right->entry * columns;
	int			order = 0;

	if (queue->sort[0].abbrev_converter != NULL)
		order = ApplySortComparator(left->abbreviated, queue->nulls[first_left],
									right->abbreviated, queue->nulls[first_right], &queue->sort[0]);
	if (order == 0 && queue->sort[0].abbrev_converter != NULL)
		order = ApplySortAbbrevFullComparator(queue->values[first_left], queue->nulls[first_left],
											  queue->values[first_right], queue->nulls[first_right], &queue->sort[0]);
	for (int i = queue->sort[0].abbrev_converter != NULL; i < queue->key_count && order == 0; i++)
		order = ApplySortComparator(queue->values[first_left + i], queue->nulls[first_left + i],
									queue->values[first_right + i], queue->nulls[first_right + i], &queue->sort[i]);
	return order != 0 ? order : left->entry - right->entry; /* then in the order of the table */
}

static void
flush_queue(IndexQueue *queue, Relation table)
{
	int			columns = IndexRelationGetNumberOfAttributes(queue->index);
	IndexUniqueCheck check = queue->index->rd_index->indisunique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO;

	for (int i = 0; i < queue->count; i++)
	{
		queue->order[i].entry = i;
		queue->order[i].abbreviated = 0;
		if (queue->sort[0].abbrev_converter != NULL && !queue->nulls[i * columns])
			queue->order[i].abbreviated = queue->sort[0].abbrev_converter(queue->values[i * columns], &queue->sort[0]);
	}
	qsort_arg(queue->order, queue->count, sizeof(QueueOrder), compare_entries, queue);
	for (int i = 0; i < queue->count; i++)
	{
		int			entry = queue->order[i].entry;

		CHECK_FOR_INTERRUPTS();
		index_insert(queue->index, &queue->values[entry * columns], &queue->nulls[entry * columns], &queue->places[entry],
					 table, check, false, queue->info);
	}
	queue->count = 0;
}

void
dwh_index_entries_flush(IndexEntries *entries)
{
	MemoryContext caller = MemoryContextSwitchTo(entries->key_context);

	for (int i = 0; i < entries->queue_count; i++)
		flush_queue(&entries->queues[i], entries->target->ri_RelationDesc);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(entries->key_context);
	entries->row_count = 0;
}

void
dwh_index_entries_close(IndexEntries *entries)
{
	Assert(entries->row_count == 0);
	MemoryContextDelete(entries->context);
}
