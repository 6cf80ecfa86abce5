/*
 * typed_store.h: typed events that a run's loading leaves for the staging of the same transaction.
 *
 * One store a transaction: loads one after another, each in the order of its lines. It holds up to 16 MB and keeps
 * the rest in a temporary file; it ends with the transaction. What is in it is in raw.user_events as well: a load that is
 * not in the store, or was left out of it, is staged from there.
 */
#ifndef DWH_TYPED_STORE_H
#define DWH_TYPED_STORE_H

#include "typed.h"

/*
 * An empty store; what an earlier one held is forgotten. False where there is none: temporary files are limited, which a run
 * must not depend on.
 */
extern bool dwh_typed_store_begin(void);

/* Adds an event, its STAGED columns complete, or, with values NULL, a line that is no event. */
extern void dwh_typed_store_put(int64 load_id, int64 line_no, const Datum *values, const bool *nulls);

/* Says that all lines of the load are in the store: only then will it be found. */
extern void dwh_typed_store_complete(int64 load_id);

/* True if the store holds that load and none of its lines was read; loads are to be asked for in rising order. */
extern bool dwh_typed_store_find(int64 load_id);

/*
 * The next line of the load that was found; false at its end. values and nulls have the STAGED columns, valid until the
 * next call; no event where the event_id is NULL.
 */
extern bool dwh_typed_store_next(int64 load_id, const Datum **values, const bool **nulls);

#endif
