/*
 * evidence.c: an autonomous write by a background worker.
 *
 * Invariants:
 *  (1) The worker writes as the caller: it connects as the user who logged in and takes the caller's role.
 *  (2) It never waits long for the caller's locks (LOCK_WAIT), which the deadlock detector could not see.
 *  (3) Evidence travels in a dynamic shared memory segment, so its size is bounded by memory alone.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "evidence.h"

/* Longest wait of the worker for a lock. */
#define LOCK_WAIT "2s"

#define FAILURE_BYTES 512

typedef struct EvidenceSegment
{
	Oid			database;
	Oid			login_user;		/* who may log in, whatever role is set since */
	Oid			role;
	bool		written;
	char		failure[FAILURE_BYTES]; /* why it was not written */
	char		text[FLEXIBLE_ARRAY_MEMBER];	/* the evidence as JSON, NUL-terminated */
} EvidenceSegment;

extern PGDLLEXPORT void dwh_evidence_worker(Datum segment_handle);

static void
write_as_caller(EvidenceSegment *segment)
{
	Oid			types[] = {TEXTOID};
	Datum		values[1];

	/* whatever the role or the database has by default */
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, "dwh._write_evidence");
	SetConfigOption("lock_timeout", LOCK_WAIT, PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION);
	/* the caller's role, which a SECURITY DEFINER wrapper may have given and SET ROLE would refuse */
	SetUserIdAndSecContext(segment->role, SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	values[0] = CStringGetTextDatum(segment->text);
	SPI_execute_with_args("SELECT dwh._write_evidence($1::pg_catalog.jsonb)", 1, types, values, NULL, false, 0);
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
}

static void
keep_failure(EvidenceSegment *segment)
{
	ErrorData  *error;

	MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	strlcpy(segment->failure, error->message, FAILURE_BYTES);
	EmitErrorReport();
	FlushErrorState();
	AbortCurrentTransaction();
}

/* The worker's main function; its argument is the handle of an EvidenceSegment. */
void
dwh_evidence_worker(Datum segment_handle)
{
	dsm_segment *mapping;
	EvidenceSegment *segment;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	mapping = dsm_attach(DatumGetUInt32(segment_handle));
	if (mapping == NULL)
		return;					/* the caller is gone, nobody waits for this */
	dsm_pin_mapping(mapping);
	segment = dsm_segment_address(mapping);
	BackgroundWorkerInitializeConnectionByOid(segment->database, segment->login_user, 0);
	PG_TRY();
	{
		write_as_caller(segment);
		segment->written = true;
	}
	PG_CATCH();
	{
		keep_failure(segment);
	}
	PG_END_TRY();
	dsm_detach(mapping);
}

static EvidenceSegment *
make_segment(Jsonb *evidence, dsm_segment **mapping)
{
	char	   *text = JsonbToCString(NULL, &evidence->root, VARSIZE(evidence));
	size_t		length = strlen(text) + 1;
	EvidenceSegment *segment;

	*mapping = dsm_create(offsetof(EvidenceSegment, text) + length, DSM_CREATE_NULL_IF_MAXSEGMENTS);
	if (*mapping == NULL)
		return NULL;
	segment = dsm_segment_address(*mapping);
	segment->database = MyDatabaseId;
	segment->login_user = GetAuthenticatedUserId();
	segment->role = GetUserId();
	segment->written = false;
	strlcpy(segment->failure, "The background worker ended early; see the server log", FAILURE_BYTES);
	memcpy(segment->text, text, length);
	return segment;
}

/*
 * Starts the worker and waits for its end; false if none could be started. A cancel that comes meanwhile waits, too, not
 * longer than the worker may (2): what it would interrupt is the evidence of the one before.
 */
static bool
run_worker(dsm_segment *mapping)
{
	BackgroundWorker worker = {
		.bgw_name = "dwh_ext evidence",
		.bgw_type = "dwh_ext evidence",
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_library_name = "dwh_ext",
		.bgw_function_name = "dwh_evidence_worker"
	};
	BackgroundWorkerHandle *handle;

	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(mapping));
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		return false;
	HOLD_CANCEL_INTERRUPTS();
	WaitForBackgroundWorkerShutdown(handle);
	RESUME_CANCEL_INTERRUPTS();
	return true;
}

static void
warn_unwritten(const char *reason)
{
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("evidence could not be written into the ledgers in ops"),
			 errdetail("%s.", reason),
			 errhint("Nothing else changes: what happens is reported to the caller as usual.")));
}

bool
dwh_evidence_record(Jsonb *evidence)
{
	dsm_segment *mapping = NULL;
	EvidenceSegment *segment = RecoveryInProgress() ? NULL : make_segment(evidence, &mapping);
	bool		written;

	if (segment == NULL)
	{
		warn_unwritten(RecoveryInProgress() ? "The server is in recovery" : "No dynamic shared memory segment was free");
		return false;
	}
	if (!run_worker(mapping))
		strlcpy(segment->failure, "No background worker was free; raise max_worker_processes", FAILURE_BYTES);
	written = segment->written;
	if (!written)
		warn_unwritten(segment->failure);
	dsm_detach(mapping);
	return written;
}

void
dwh_evidence_of_stopped_load(int64 load_id, int64 evidence_id, const char *path, int64 lines, int64 rejected, int64 blank)
{
	Oid			types[] = {INT8OID, INT8OID, TEXTOID, INT8OID, INT8OID, INT8OID};
	Datum		values[] = {
		Int64GetDatum(load_id), Int64GetDatum(evidence_id), CStringGetTextDatum(path), Int64GetDatum(lines),
		Int64GetDatum(rejected), Int64GetDatum(blank)
	};
	bool		isnull;

	SPI_connect();
	SPI_execute_with_args("SELECT dwh._stopped_load($1, $2, $3, $4, $5, $6)", 6, types, values, NULL, false, 1);
	dwh_evidence_record(DatumGetJsonbP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)));
	SPI_finish();
}
