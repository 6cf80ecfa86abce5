/*
 * ledger.c: ops.loads and ops.files, by static SQL through SPI.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "ledger.h"
#include "memory.h"
#include "warehouse.h"

/* A load is known as quarantined while nothing released it: force, a larger dwh.max_reject_share, a change of its check. */
#define IS_QUARANTINED "(l.status = 'quarantined' AND dwh._is_quarantined(l.quarantined_by, l.quarantine_rule, " \
	"l.rejected + l.stage_rejected, l.lines - l.blank))"

static const char *const find_file_query =
	"SELECT f.load_id, " IS_QUARANTINED " FROM ops.files AS f JOIN ops.loads AS l ON l.load_id = f.load_id "
	"WHERE f.path = $1 AND f.settled AND f.device = $2 AND f.inode = $3 AND f.size = $4 AND f.mtime = $5 AND f.ctime = $6 "
	"AND (l.status <> 'quarantined' OR " IS_QUARANTINED ")";

static const char *const knows_path_query =
	"SELECT FROM ops.files AS f JOIN ops.loads AS l ON l.load_id = f.load_id WHERE f.path = $1 AND l.status <> 'quarantined'";

static const char *const find_heads_query =
	"SELECT l.load_id, l.content_bytes, pg_catalog.decode(l.sha256, 'hex'), l.first_line + l.lines - 1, l.held_back_bytes, l.ends_open, " IS_QUARANTINED
	" FROM ops.loads AS l WHERE l.head_sha256 = ANY ($1) AND l.sha256 IS NOT NULL "
	"AND (l.status <> 'quarantined' OR " IS_QUARANTINED ") ORDER BY l.content_bytes, l.status <> 'quarantined', l.load_id DESC";

static const char *const insert_query =
	"INSERT INTO ops.loads (load_id, path, sha256, head_sha256, content_bytes, bytes, first_line, lines, loaded, rejected, "
	"blank, held_back_bytes, ends_open, truncated, forced, status, continues_load_id, loaded_at, altered, duplicate_keys) "
	"VALUES ($1, $2, pg_catalog.encode($3, 'hex'), $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20) ON CONFLICT DO NOTHING";

static const char *const remember_query =
	"INSERT INTO ops.files AS f (path, device, inode, size, mtime, ctime, settled, load_id) "
	"VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (path) DO UPDATE SET device = excluded.device, "
	"inode = excluded.inode, size = excluded.size, mtime = excluded.mtime, ctime = excluded.ctime, "
	"settled = excluded.settled, load_id = excluded.load_id";

/* A statement of this file, planned once a session. */
typedef struct Statement
{
	const char *text;
	int			count;
	Oid			types[20];
	SPIPlanPtr	plan;
} Statement;

static Statement find_file = {.count = 6,.types = {TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID}};
static Statement find_heads = {.count = 1,.types = {BYTEAARRAYOID}};
static Statement insert_load = {.count = 20,.types = {
	INT8OID, TEXTOID, BYTEAOID, BYTEAOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID,
	INT8OID, INT8OID, BOOLOID, BOOLOID, BOOLOID, TEXTOID, INT8OID, TIMESTAMPTZOID, INT8OID, INT8OID
}};
static Statement knows_path = {.count = 1,.types = {TEXTOID}};
static Statement next_id = {.count = 0};
static Statement remember = {.count = 8,.types = {TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, BOOLOID, INT8OID}};

/* Runs the statement between SPI_connect and SPI_finish of the caller; returns the number of rows. */
static uint64
run_as_of(Statement *statement, const char *text, Datum *values, const char *nulls, bool by_snapshot)
{
	if (statement->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(text, statement->count, statement->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare \"%s\"", text);
		statement->plan = plan;
	}
	if (SPI_execute_plan(statement->plan, values, nulls, by_snapshot, 0) < 0)
		elog(ERROR, "could not execute \"%s\"", text);
	return SPI_processed;
}

static uint64
run(Statement *statement, const char *text, Datum *values, const char *nulls)
{
	return run_as_of(statement, text, values, nulls, false);
}

static Datum
field(uint64 row, int column)
{
	bool		isnull;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);
}

int64
dwh_ledger_next_id(void)
{
	int64		id;

	SPI_connect();
	run(&next_id, "SELECT pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('ops.loads', 'load_id'))", NULL, NULL);
	id = DatumGetInt64(field(0, 1));
	SPI_finish();
	return id;
}

int64
dwh_ledger_find_file(const char *path, const FileStat *status, bool by_snapshot, bool *quarantined)
{
	Datum		values[] = {
		CStringGetTextDatum(path), Int64GetDatum(status->device), Int64GetDatum(status->inode),
		Int64GetDatum(status->size), Int64GetDatum(status->mtime), Int64GetDatum(status->ctime)
	};
	int64		load_id = 0;

	SPI_connect();
	if (run_as_of(&find_file, find_file_query, values, NULL, by_snapshot) > 0)
	{
		load_id = DatumGetInt64(field(0, 1));
		*quarantined = DatumGetBool(field(0, 2));
	}
	SPI_finish();
	return load_id;
}

bool
dwh_ledger_knows_path(const char *path, bool by_snapshot)
{
	Datum		values[] = {CStringGetTextDatum(path)};
	bool		known;

	SPI_connect();
	known = run_as_of(&knows_path, knows_path_query, values, NULL, by_snapshot) > 0;
	SPI_finish();
	return known;
}

static void
read_known_load(uint64 row, KnownLoad *known)
{
	bytea	   *sha256 = DatumGetByteaPP(field(row, 3));

	known->load_id = DatumGetInt64(field(row, 1));
	known->content_bytes = DatumGetInt64(field(row, 2));
	memcpy(known->sha256, VARDATA_ANY(sha256), DIGEST_BYTES);
	known->last_line = DatumGetInt64(field(row, 4));
	known->held_back_bytes = DatumGetInt64(field(row, 5));
	known->ends_open = DatumGetBool(field(row, 6));
	known->quarantined = DatumGetBool(field(row, 7));
}

KnownLoad *
dwh_ledger_find_heads(uint8 heads[][DIGEST_BYTES], int head_count, bool by_snapshot, int *count)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum	   *elements = palloc(head_count * sizeof(Datum));
	Datum		values[1];
	KnownLoad  *known;

	for (int i = 0; i < head_count; i++)
		elements[i] = dwh_memory_bytea(heads[i], DIGEST_BYTES);
	values[0] = PointerGetDatum(construct_array(elements, head_count, BYTEAOID, -1, false, TYPALIGN_INT));
	SPI_connect();
	*count = (int) run_as_of(&find_heads, find_heads_query, values, NULL, by_snapshot);
	known = MemoryContextAlloc(caller, (*count + 1) * sizeof(KnownLoad));
	for (int i = 0; i < *count; i++)
		read_known_load(i, &known[i]);
	SPI_finish();
	return known;
}

/*
 * Locks of loading are object locks "of" ops.loads, which only C can take: an advisory lock could be held by anybody who
 * may connect. Sub-id 1 is loading as such, sub-id 0 a content by its head.
 */
void
dwh_ledger_enter(bool exclusive)
{
	PreventCommandIfReadOnly("dwh.load_jsonl()");
	LockDatabaseObject(dwh_warehouse_table("ops", "loads"), InvalidOid, 1, exclusive ? ExclusiveLock : ShareLock);
}

void
dwh_ledger_lock_head(const uint8 head[DIGEST_BYTES])
{
	uint32		low;

	memcpy(&low, head, sizeof(low));
	LockDatabaseObject(dwh_warehouse_table("ops", "loads"), low, 0, ExclusiveLock);
}

/* The foreign key of ops.files is not meant: its triggers are internal. */
static bool
has_triggers(const char *table)
{
	Relation	relation = table_open(dwh_warehouse_table("ops", table), AccessShareLock);
	TriggerDesc *triggers = relation->trigdesc;
	bool		found = false;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		found |= !triggers->triggers[i].tgisinternal;
	table_close(relation, NoLock);
	return found;
}

bool
dwh_ledger_has_triggers(void)
{
	return has_triggers("loads") || has_triggers("files");
}

void
dwh_ledger_insert(const LoadRow *row)
{
	Datum		values[] = {
		Int64GetDatum(row->load_id), CStringGetTextDatum(row->path),
		dwh_memory_bytea(row->sha256, DIGEST_BYTES), dwh_memory_bytea(row->head, DIGEST_BYTES),
		Int64GetDatum(row->content_bytes), Int64GetDatum(row->bytes), Int64GetDatum(row->first_line),
		Int64GetDatum(row->lines), Int64GetDatum(row->loaded), Int64GetDatum(row->rejected), Int64GetDatum(row->blank),
		Int64GetDatum(row->held_back_bytes), BoolGetDatum(row->ends_open), BoolGetDatum(row->truncated),
		BoolGetDatum(row->forced), CStringGetTextDatum(row->status), Int64GetDatum(row->continues_load_id),
		TimestampTzGetDatum(row->loaded_at), Int64GetDatum(row->altered), Int64GetDatum(row->duplicate_keys)
	};
	char		nulls[] = "                    ";

	if (row->continues_load_id == 0)
		nulls[16] = 'n';
	SPI_connect();
	if (run(&insert_load, insert_query, values, nulls) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the content of \"%s\" was loaded by a concurrent transaction", row->path),
				 errdetail("That load is not visible to this transaction."),
				 errhint("Run the statement again in a new transaction.")));
	SPI_finish();
}

void
dwh_ledger_remember_file(const char *path, const FileStat *status, bool settled, int64 load_id)
{
	Datum		values[] = {
		CStringGetTextDatum(path), Int64GetDatum(status->device), Int64GetDatum(status->inode),
		Int64GetDatum(status->size), Int64GetDatum(status->mtime), Int64GetDatum(status->ctime),
		BoolGetDatum(settled), Int64GetDatum(load_id)
	};

	SPI_connect();
	run(&remember, remember_query, values, NULL);
	SPI_finish();
}
