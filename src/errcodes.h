/*
 * errcodes.h: SQLSTATE class WH, for what a scheduler must tell apart. Everything else uses core's codes.
 *
 * W is implementor's ground in the SQL standard (classes 0-4 and A-H are the standard's own).
 */
#ifndef DWH_ERRCODES_H
#define DWH_ERRCODES_H

/* WH001 a check of severity error failed: stop, alert, do not retry */
#define ERRCODE_DWH_QUALITY_CHECK_FAILED MAKE_SQLSTATE('W', 'H', '0', '0', '1')
/* WH002 more rejects than allowed in this call: stop, alert */
#define ERRCODE_DWH_REJECT_LIMIT_EXCEEDED MAKE_SQLSTATE('W', 'H', '0', '0', '2')
/* WH003 another run holds the lock: skip, or try again later */
#define ERRCODE_DWH_PIPELINE_ALREADY_RUNNING MAKE_SQLSTATE('W', 'H', '0', '0', '3')
/* WH004 tables missing or of an older model: call dwh.create_warehouse() */
#define ERRCODE_DWH_WAREHOUSE_MISSING MAKE_SQLSTATE('W', 'H', '0', '0', '4')
/* WH005 file replaced or truncated under the reader: retry */
#define ERRCODE_DWH_SOURCE_CHANGED MAKE_SQLSTATE('W', 'H', '0', '0', '5')

#endif
