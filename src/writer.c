/*
 * writer.c: rows -> a table, in batches.
 *
 *     object --payload.c--> jsonb --line_sink.c--> row --[writer.c]--> raw.user_events, ops.rejects
 *     event or fact --partition_writer.c--> row --[writer.c]--> a partition of staging.user_events, marts.fact_user_events
 *
 * The table belongs to the user, who may have added columns, indexes, constraints or triggers: a plain table gets
 * multi-inserts, one with triggers or generated columns gets its rows one by one through the executor.
 *
 * Memory: "dwh writer" lives as long as the writer, "dwh batch" as long as the rows of a batch.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/toast_compression.h"
#include "access/toast_internals.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"

#include "compat.h"
#include "index_entries.h"
#include "warehouse.h"
#include "writer.h"

/* As COPY: more rows gain nothing, as a batch is many pages by then (copyfrom.c, MAX_BUFFERED_TUPLES). */
#define BATCH_ROWS 1000
/* Bounds the memory of a batch of large rows. */
#define BATCH_BYTES (4 * 1024 * 1024)

struct TableWriter
{
	MemoryContext writer_context;
	MemoryContext batch_context;
	Relation	relation;
	EState	   *estate;
	ResultRelInfo *target;
	IndexEntries *entries;		/* of the rows that are in the table; NULL: one_by_one */
	BulkInsertState bulk;
	bool		one_by_one;
	int			column_count;
	AttrNumber *columns;		/* attribute of each column of the list */
	ExprState **defaults;		/* by attribute - 1; NULL = null */
	TupleTableSlot *slots[BATCH_ROWS];
	int			waiting;
};

static void
check_permissions(Oid table, const char *schema, const char *name)
{
	AclResult	acl = dwh_schema_aclcheck(get_namespace_oid(schema, false), GetUserId(), ACL_USAGE);

	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_SCHEMA, schema);
	acl = pg_class_aclcheck(table, GetUserId(), ACL_INSERT);
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_TABLE, name);
	if (check_enable_rls(table, InvalidOid, false) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("loading is not supported with row-level security"),
				 errdetail("A policy of %s.%s applies to role \"%s\".", schema, name, GetUserNameFromId(GetUserId(), false)),
				 errhint("Load as the owner of the warehouse.")));
}

static void
check_kind(Relation relation)
{
	if (relation->rd_rel->relkind == RELKIND_RELATION)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("\"%s\" is not a plain table", RelationGetRelationName(relation)),
			 errdetail("The warehouse was altered: this table must not be partitioned, a view or foreign."),
			 errhint("Restore the table as create_warehouse() made it.")));
}

static void
map_columns(TableWriter *writer, const char *const *columns)
{
	Oid			table = RelationGetRelid(writer->relation);

	while (columns[writer->column_count] != NULL)
		writer->column_count++;
	writer->columns = palloc(writer->column_count * sizeof(AttrNumber));
	for (int i = 0; i < writer->column_count; i++)
	{
		writer->columns[i] = get_attnum(table, columns[i]);
		if (writer->columns[i] <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("table \"%s\" has no column \"%s\"", RelationGetRelationName(writer->relation), columns[i]),
					 errdetail("The warehouse was altered: columns may be added, never renamed or dropped."),
					 errhint("Restore the column, then call SELECT dwh.create_warehouse().")));
	}
}

/* Prepares the defaults of the columns that the list does not name. */
static void
prepare_defaults(TableWriter *writer)
{
	TupleDesc	descriptor = RelationGetDescr(writer->relation);

	writer->defaults = palloc0(descriptor->natts * sizeof(ExprState *));
	for (int i = 0; i < descriptor->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(descriptor, i);
		Node	   *expression;

		if (attribute->attisdropped || attribute->attgenerated)
			continue;
		expression = build_column_default(writer->relation, i + 1);
		if (expression != NULL)
			writer->defaults[i] = ExecPrepareExpr((Expr *) expression, writer->estate);
	}
	for (int i = 0; i < writer->column_count; i++)
		writer->defaults[writer->columns[i] - 1] = NULL;
}

void
dwh_writer_check(const char *schema, const char *table)
{
	PreventCommandIfReadOnly(psprintf("INSERT INTO %s.%s", schema, table));
	check_permissions(dwh_warehouse_table(schema, table), schema, table);
}

TableWriter *
dwh_writer_open(const char *schema, const char *table, const char *const *columns)
{
	return dwh_writer_open_partition(schema, table, InvalidOid, columns);
}

TableWriter *
dwh_writer_open_partition(const char *schema, const char *table, Oid partition, const char *const *columns)
{
	Oid			table_oid = dwh_warehouse_table(schema, table);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dwh writer", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	TableWriter *writer = palloc0(sizeof(TableWriter));
	TupleConstr *constraints;

	PreventCommandIfReadOnly(psprintf("INSERT INTO %s.%s", schema, table));
	check_permissions(table_oid, schema, table);
	writer->writer_context = context;
	writer->batch_context = AllocSetContextCreate(context, "dwh batch", ALLOCSET_DEFAULT_SIZES);
	writer->relation = table_open(OidIsValid(partition) ? partition : table_oid, RowExclusiveLock);
	check_kind(writer->relation);
	writer->estate = CreateExecutorState();
	writer->target = makeNode(ResultRelInfo);
	InitResultRelInfo(writer->target, writer->relation, 0, NULL, 0);
	ExecOpenIndices(writer->target, false);
	constraints = RelationGetDescr(writer->relation)->constr;
	writer->one_by_one = writer->relation->trigdesc != NULL || (constraints != NULL && constraints->has_generated_stored);
	if (writer->one_by_one)
		AfterTriggerBeginQuery();
	else
	{
		writer->bulk = GetBulkInsertState();
		writer->entries = dwh_index_entries_open(writer->target, writer->estate);
	}
	map_columns(writer, columns);
	prepare_defaults(writer);
	MemoryContextSwitchTo(caller);
	return writer;
}

Datum
dwh_writer_compress(TableWriter *writer, int column, void *value)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(writer->relation), writer->columns[column] - 1);
	char		method = attribute->attcompression;
	Datum		compressed;

	if (attribute->attstorage != TYPSTORAGE_EXTENDED && attribute->attstorage != TYPSTORAGE_MAIN)
		return PointerGetDatum(value);
	compressed = toast_compress_datum(PointerGetDatum(value),
									  CompressionMethodIsValid(method) ? method : (char) default_toast_compression);
	if (DatumGetPointer(compressed) == NULL)
		return PointerGetDatum(value);
	pfree(value);
	return compressed;
}

bool
dwh_writer_is_plain(const TableWriter *writer)
{
	return !writer->one_by_one;
}

MemoryContext
dwh_writer_batch_context(TableWriter *writer)
{
	return writer->batch_context;
}

static void
insert_batch(TableWriter *writer)
{
	table_multi_insert(writer->relation, writer->slots, writer->waiting, GetCurrentCommandId(true), 0, writer->bulk);
	for (int i = 0; i < writer->waiting; i++)
	{
		dwh_index_entries_put(writer->entries, writer->slots[i]);
		ExecClearTuple(writer->slots[i]);
	}
}

/* The rows of the batch go into the table; their index entries may wait for those of others. */
static void
end_batch(TableWriter *writer)
{
	CHECK_FOR_INTERRUPTS();
	if (writer->waiting > 0 && !writer->one_by_one)
		insert_batch(writer);
	writer->waiting = 0;
	ResetPerTupleExprContext(writer->estate);
	MemoryContextReset(writer->batch_context);
}

void
dwh_writer_flush(TableWriter *writer)
{
	end_batch(writer);
	if (writer->entries != NULL)
		dwh_index_entries_flush(writer->entries);
}

static void
fill_slot(TableWriter *writer, TupleTableSlot *slot, const Datum *values, const bool *nulls)
{
	ExprContext *expressions = GetPerTupleExprContext(writer->estate);
	TupleDesc	descriptor = RelationGetDescr(writer->relation);

	ExecClearTuple(slot);
	for (int i = 0; i < descriptor->natts; i++)
	{
		slot->tts_isnull[i] = true;
		if (writer->defaults[i] != NULL)
			slot->tts_values[i] = ExecEvalExprSwitchContext(writer->defaults[i], expressions, &slot->tts_isnull[i]);
	}
	for (int i = 0; i < writer->column_count; i++)
	{
		slot->tts_values[writer->columns[i] - 1] = values[i];
		slot->tts_isnull[writer->columns[i] - 1] = nulls[i];
	}
	ExecStoreVirtualTuple(slot);
}

void
dwh_writer_put(TableWriter *writer, const Datum *values, const bool *nulls)
{
	TupleTableSlot *slot = writer->slots[writer->waiting];

	if (slot == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(writer->writer_context);

		slot = writer->slots[writer->waiting] = table_slot_create(writer->relation, NULL);
		MemoryContextSwitchTo(caller);
	}
	fill_slot(writer, slot, values, nulls);
	if (writer->one_by_one)
		ExecSimpleRelationInsert(writer->target, writer->estate, slot);
	else
	{
		if (RelationGetDescr(writer->relation)->constr != NULL)
			ExecConstraints(writer->target, slot, writer->estate);
		if (writer->relation->rd_rel->relispartition)
			ExecPartitionCheck(writer->target, slot, writer->estate, true);
		writer->waiting++;
	}
	if (writer->waiting == BATCH_ROWS || MemoryContextMemAllocated(writer->batch_context, false) > BATCH_BYTES)
		end_batch(writer);
}

void
dwh_writer_close(TableWriter *writer)
{
	dwh_writer_flush(writer);
	if (writer->one_by_one)
	{
		AfterTriggerEndQuery(writer->estate);
		/* what the triggers opened */
		ExecCloseResultRelations(writer->estate);
		ExecResetTupleTable(writer->estate->es_tupleTable, false);
	}
	else
	{
		FreeBulkInsertState(writer->bulk);
		dwh_index_entries_close(writer->entries);
	}
	for (int i = 0; i < BATCH_ROWS && writer->slots[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	ExecCloseIndices(writer->target);
	table_close(writer->relation, NoLock);
	FreeExecutorState(writer->estate);
	MemoryContextDelete(writer->writer_context);
}
