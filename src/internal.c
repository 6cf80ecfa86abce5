/*
 * internal.c: SQL functions that only hand out what the rows floor knows: _require_warehouse, _model_version, _setting,
 * _record_evidence, _wal_bytes, landing_directory. Each hands its arguments to the rows floor.
 */
#include "postgres.h"

#include "executor/instrument.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "evidence.h"
#include "paths.h"
#include "warehouse.h"

PG_FUNCTION_INFO_V1(dwh_require_warehouse);
PG_FUNCTION_INFO_V1(dwh_model_version);
PG_FUNCTION_INFO_V1(dwh_setting);
PG_FUNCTION_INFO_V1(dwh_record_evidence);
PG_FUNCTION_INFO_V1(dwh_wal_bytes);
PG_FUNCTION_INFO_V1(dwh_show_landing_directory);

/* dwh._require_warehouse() -> void: raises WH004 unless the warehouse is there. */
Datum
dwh_require_warehouse(PG_FUNCTION_ARGS)
{
	dwh_warehouse_require();
	PG_RETURN_VOID();
}

/* dwh._model_version() -> integer: the data model that the library works with. */
Datum
dwh_model_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(DWH_MODEL_VERSION);
}

/*
 * dwh._setting(name text) -> text: current_setting('dwh.' || name), which needs the library loaded, and calling
 * this loads it.
 */
Datum
dwh_setting(PG_FUNCTION_ARGS)
{
	char	   *name = psprintf("dwh.%s", text_to_cstring(PG_GETARG_TEXT_PP(0)));

	PG_RETURN_TEXT_P(cstring_to_text(GetConfigOption(name, false, false)));
}

/*
 * dwh._record_evidence(evidence jsonb) -> boolean: has dwh._write_evidence(evidence) run in a transaction of its own;
 * true once that is committed, false (and a WARNING) where it could not be.
 */
Datum
dwh_record_evidence(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(dwh_evidence_record(PG_GETARG_JSONB_P(0)));
}

/* dwh._wal_bytes() -> bigint: write-ahead log that this backend has written so far, in bytes. */
Datum
dwh_wal_bytes(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) pgWalUsage.wal_bytes);
}

/* dwh.landing_directory() -> text: its path on the server. */
Datum
dwh_show_landing_directory(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(dwh_landing_path(true)));
}
