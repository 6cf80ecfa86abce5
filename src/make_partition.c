/*
 * make_partition.c: SQL function dwh._make_partition_as_owner.
 *
 *     time without a partition --[make_partition.c]--> 07_partitions.sql, as the owner of the table
 *
 * Who may write events need not own the tables, but only their owner may attach a partition. So that one statement, and
 * nothing else, is done as the owner: as core looks up foreign keys.
 *
 * Invariants:
 *  (1) What is done as the owner is fixed here: the caller chooses one of two tables, a month or a day, and its start.
 *  (2) The caller may INSERT into the table, and gets no rights by the partition: it belongs to the owner.
 *  (3) Nothing of the caller's runs as the owner, and an error takes the owner's rights away with the transaction's.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "warehouse.h"

PG_FUNCTION_INFO_V1(dwh_make_partition_as_owner);

static void
require_one_of(const char *what, const char *value, const char *first, const char *second)
{
	if (strcmp(value, first) != 0 && strcmp(value, second) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of a partition is \"%s\"", what, value),
				 errdetail("It is %s or %s.", first, second),
				 errhint("load_facts() and stage_events() make the partitions that they need.")));
}

/* The table, into which the caller may write. */
static Oid
writable_parent(const char *parent)
{
	Oid			table;

	require_one_of("table", parent, "staging.user_events", "marts.fact_user_events");
	table = strncmp(parent, "staging.", 8) == 0 ? dwh_warehouse_table("staging", "user_events")
		: dwh_warehouse_table("marts", "fact_user_events");
	if (pg_class_aclcheck(table, GetUserId(), ACL_INSERT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, parent);
	return table;
}

static Oid
owner_of(Oid table)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", table);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

static void
make_partition(Datum *arguments)
{
	Oid			types[] = {TEXTOID, TEXTOID, TIMESTAMPTZOID};

	SPI_connect();
	SPI_execute_with_args("SELECT dwh._make_partition($1, $2, $3)", 3, types, arguments, NULL, false, 1);
	SPI_finish();
}

/*
 * dwh._make_partition_as_owner(parent text, unit text, since timestamptz) -> void: dwh._make_partition() as the owner of the
 * table, for a caller who may INSERT into it. parent: staging.user_events or marts.fact_user_events; unit: month or day.
 */
Datum
dwh_make_partition_as_owner(PG_FUNCTION_ARGS)
{
	Datum		arguments[] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), PG_GETARG_DATUM(2)};
	Oid			table = writable_parent(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	Oid			caller;
	int			context;

	require_one_of("unit", text_to_cstring(PG_GETARG_TEXT_PP(1)), "month", "day");
	GetUserIdAndSecContext(&caller, &context);
	SetUserIdAndSecContext(owner_of(table), context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	make_partition(arguments);
	SetUserIdAndSecContext(caller, context);
	PG_RETURN_VOID();
}
