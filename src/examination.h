/*
 * examination.h: loads that would be made, and their events -> what would become of them. Nothing is written, nobody waits.
 *
 * All answers are of the snapshot of the statement at work.
 */
#ifndef DWH_EXAMINATION_H
#define DWH_EXAMINATION_H

#include "utils/jsonb.h"

#include "judgement.h"

typedef struct Examination Examination;

/* An empty one in the current context, which holds all of its memory. */
extern Examination *dwh_examination_create(void);

/* Reads what the warehouse holds, and the loads that wait to be staged: they come first. WH004 without a warehouse. */
extern void dwh_examination_begin(Examination *examination);

/* A file that may become a load: an id for it, below zero. What was put for one that was not completed counts for nothing. */
extern int64 dwh_examination_begin_load(Examination *examination);

/* An accepted line: an event of TYPED columns, or, with values NULL, a line that is no event. All is copied. */
extern void dwh_examination_put(Examination *examination, int64 line_no, Jsonb *payload, const Datum *values, const bool *nulls);

/* The file would become a load, with that row. */
extern void dwh_examination_complete(Examination *examination, const LoadRow *row);

/* The loads that were completed so far: a List of PendingLoad. */
extern List *dwh_examination_pending(const Examination *examination);

/* Judges all events; nothing may be put from then on. */
extern void dwh_examination_judge(Examination *examination);

/* The load of such an id. */
extern const ExaminedLoad *dwh_examination_load(const Examination *examination, int64 id);

/* How many loads wait to be staged; then the load at that place in the order of staging, waiting ones first. */
extern int	dwh_examination_waiting(const Examination *examination);
extern const ExaminedLoad *dwh_examination_load_at(const Examination *examination, int place);

#endif
