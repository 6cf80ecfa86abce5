/*
 * evidence.h: what must survive the transaction that fails.
 *
 * A background worker, started on demand, writes it in a transaction of its own as the same user. The worker runs one
 * fixed function, dwh._write_evidence(jsonb); nothing else can be asked of it.
 */
#ifndef DWH_EVIDENCE_H
#define DWH_EVIDENCE_H

#include "utils/jsonb.h"

/*
 * Has the evidence written and waits for its commit. Never raises for a failure of the writing, which must not hide
 * what is being reported: that is a WARNING, and false.
 */
extern bool dwh_evidence_record(Jsonb *evidence);

/*
 * Evidence of a load that goes over its reject limit: its counts and the first 1,000 of its rejects in ops.rejects, under
 * an id of their own, as the load's rows are locked until its transaction ends.
 */
extern void dwh_evidence_of_stopped_load(int64 load_id, int64 evidence_id, const char *path, int64 lines, int64 rejected,
										 int64 blank);

#endif
