/*
 * rejects.h: a refused line or event -> a row of ops.rejects.
 */
#ifndef DWH_REJECTS_H
#define DWH_REJECTS_H

#include "lines.h"
#include "reject.h"
#include "writer.h"

/* Bytes of a refused line that are kept: as many as the line reader holds of an oversized one. */
#define REJECT_RAW_BYTES LINE_EVIDENCE_BYTES

/* Where a line was refused. */
typedef struct RejectPlace
{
	int64		load_id;
	int64		line_no;
	int64		byte_offset;
	const char *stage;			/* "load" or "stage" */
} RejectPlace;

/* A writer of ops.rejects; closed by dwh_writer_close. */
extern TableWriter *dwh_rejects_open(void);

/* Keeps a reject: the first REJECT_RAW_BYTES of raw, which had full_length bytes, and the verdict. */
extern void dwh_rejects_put(TableWriter *writer, const RejectPlace *place, const Verdict *verdict, const char *raw,
							size_t length, uint64 full_length);

#endif
