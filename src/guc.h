/*
 * guc.h: the settings dwh.*, defined when the library is loaded.
 */
#ifndef DWH_GUC_H
#define DWH_GUC_H

/* One worker parses and writes by turns; with two, a thread parses while the backend writes. */
#define WORKERS_MAX 2

typedef enum DuplicateKeys
{
	DUPLICATE_KEYS_KEEP_LAST,
	DUPLICATE_KEYS_REJECT
} DuplicateKeys;

typedef enum FactPartition
{
	FACT_PARTITION_DAY,
	FACT_PARTITION_MONTH
} FactPartition;

typedef enum NulEscapes
{
	NUL_ESCAPES_REJECT,
	NUL_ESCAPES_REPLACE
} NulEscapes;

extern int	dwh_alert_interval; /* seconds */
extern char *dwh_allowed_directories;	/* comma-separated absolute paths; "" = none */
extern int	dwh_duplicate_keys; /* a DuplicateKeys */
extern int	dwh_fact_partition; /* a FactPartition */
extern char *dwh_landing_directory; /* absolute path; "" = dwh_landing/<database oid> in the data directory */
extern int	dwh_kept_offenders;
extern int	dwh_load_workers;	/* 1 to WORKERS_MAX */
extern int	dwh_max_archive_ratio;	/* 0 = no limit */
extern int	dwh_max_archive_size;	/* MB; 0 = no limit */
extern int	dwh_max_line_bytes;
extern double dwh_max_reject_share; /* 0 to 1 */
extern int	dwh_nul_escapes;	/* a NulEscapes */
extern bool dwh_progress_notices;
extern char *dwh_report_timezone;

/* Defines all of them and reserves the prefix. */
extern void dwh_guc_init(void);

#endif
