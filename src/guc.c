/*
 * guc.c: the settings dwh.*, alphabetical.
 */
#include "postgres.h"

#include <limits.h>

#include "pgtime.h"
#include "utils/guc.h"

#include "guc.h"

int			dwh_alert_interval;
char	   *dwh_allowed_directories;
int			dwh_duplicate_keys;
int			dwh_fact_partition;
char	   *dwh_landing_directory;
int			dwh_kept_offenders;
int			dwh_load_workers;
int			dwh_max_archive_ratio;
int			dwh_max_archive_size;
int			dwh_max_line_bytes;
double		dwh_max_reject_share;
int			dwh_nul_escapes;
bool		dwh_progress_notices;
char	   *dwh_report_timezone;

static const struct config_enum_entry duplicate_keys[] = {
	{"keep_last", DUPLICATE_KEYS_KEEP_LAST, false},
	{"reject", DUPLICATE_KEYS_REJECT, false},
	{NULL, 0, false}
};

static const struct config_enum_entry fact_partitions[] = {
	{"day", FACT_PARTITION_DAY, false},
	{"month", FACT_PARTITION_MONTH, false},
	{NULL, 0, false}
};

static const struct config_enum_entry nul_escapes[] = {
	{"reject", NUL_ESCAPES_REJECT, false},
	{"replace", NUL_ESCAPES_REPLACE, false},
	{NULL, 0, false}
};

static bool
check_absolute_or_empty(char **value, void **extra, GucSource source)
{
	if (**value == '\0' || is_absolute_path(*value))
		return true;
	GUC_check_errdetail("\"%s\" is not an absolute path.", *value);
	return false;
}

static bool
check_timezone(char **value, void **extra, GucSource source)
{
	if (pg_tzset(*value) != NULL)
		return true;
	GUC_check_errdetail("\"%s\" is not a time zone of this server.", *value);
	GUC_check_errhint("Names are listed in pg_catalog.pg_timezone_names.");
	return false;
}

void
dwh_guc_init(void)
{
	DefineCustomIntVariable("dwh.alert_interval",
							"Time after which an alert reminds of what still fails.",
							NULL, &dwh_alert_interval, 86400, 1, INT_MAX / 1000, PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable("dwh.allowed_directories",
							   "Directories whose files may be loaded without pg_read_server_files.",
							   "Absolute paths, separated by commas. The landing directory needs no entry.",
							   &dwh_allowed_directories, "", PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("dwh.duplicate_keys",
							 "What becomes of a line with an object that has a key more than once: keep_last or reject.",
							 "keep_last does as jsonb does, and counts the line in ops.loads.duplicate_keys.",
							 &dwh_duplicate_keys, DUPLICATE_KEYS_KEEP_LAST, duplicate_keys, PGC_USERSET, 0,
							 NULL, NULL, NULL);
	DefineCustomEnumVariable("dwh.fact_partition",
							 "Span of the partitions that staging and facts get from now on: month or day, in UTC.",
							 NULL, &dwh_fact_partition, FACT_PARTITION_MONTH, fact_partitions, PGC_USERSET, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("dwh.kept_offenders",
							"How many offenders a result of a quality check keeps.",
							NULL, &dwh_kept_offenders, 10, 1, 1000, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("dwh.landing_directory",
							   "Directory that generate_events() writes to and run_pipeline() reads when no path is given.",
							   "Absolute path. Empty means dwh_landing/<database oid> inside the data directory, made on first use.",
							   &dwh_landing_directory, "", PGC_SUSET, 0, check_absolute_or_empty, NULL, NULL);
	DefineCustomIntVariable("dwh.load_workers",
							"Workers that load a file: with 2, a thread parses while the backend writes.",
							"The argument workers of dwh.load_jsonl() overrides it.",
							&dwh_load_workers, 1, 1, WORKERS_MAX, PGC_USERSET, 0, NULL, NULL, NULL);

	/*
	 * What an archive may unfold to. Logs shrink 10 to 30 times, very repetitive ones a few hundred times. gzip's format
	 * ends at 1,032 and zstd's beyond 30,000, so 1,000 refuses what is no log, and nothing that is one. The size is the
	 * last resort against archives that were padded to look modest: beyond any honest file, as only an administrator
	 * knows what the disk can take. Both guard against who made the file, so who loads it may change them.
	 */
	DefineCustomIntVariable("dwh.max_archive_ratio",
							"Largest ratio of decompressed to stored size of a compressed file; beyond it the file fails.",
							"It counts from 64 MB decompressed on. 0 means no limit.",
							&dwh_max_archive_ratio, 1000, 0, PG_INT32_MAX, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dwh.max_archive_size",
							"Largest decompressed size of a compressed file; beyond it the file fails.",
							"All its members together. 0 means no limit.",
							&dwh_max_archive_size, 1024 * 1024, 0, PG_INT32_MAX, PGC_USERSET, GUC_UNIT_MB, NULL, NULL, NULL);
	/* at most 32 MB: jsonb of such a line stays below jsonb's own limit of 256 MB whatever it holds */
	DefineCustomIntVariable("dwh.max_line_bytes",
							"Longest line that is loaded; a longer one is kept as a reject of class too_long.",
							NULL, &dwh_max_line_bytes, 16 * 1024 * 1024, 1024, 32 * 1024 * 1024,
							PGC_USERSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomRealVariable("dwh.max_reject_share",
							 "Share of a load's non-blank lines that may be refused before the load is quarantined.",
							 "0.1: at least 90 % must get through. It needs at least 10 refused lines, or all of them.",
							 &dwh_max_reject_share, 0.1, 0, 1, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("dwh.nul_escapes",
							 "What becomes of a line with \\u0000, which jsonb cannot store: reject or replace.",
							 "replace puts U+FFFD in its place and marks the row of raw.user_events as altered.",
							 &dwh_nul_escapes, NUL_ESCAPES_REJECT, nul_escapes, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("dwh.progress_notices",
							 "Says with a NOTICE what became of each file that was loaded and of each step of a run.",
							 NULL, &dwh_progress_notices, true, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("dwh.report_timezone",
							   "Time zone of the reporting days in the KPI views.",
							   NULL, &dwh_report_timezone, "UTC", PGC_USERSET, 0, check_timezone, NULL, NULL);
	MarkGUCPrefixReserved("dwh");
}
