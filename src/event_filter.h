/*
 * event_filter.h: is this event_id new for certain?
 *
 * A Bloom filter of every event_id that was ever staged, kept in ops.event_filter: a transaction's, as the events are. It
 * says "new" or "perhaps known", never "new" of what it took; so only few ids need to be looked up in the partitions.
 * One maker at a time: adding needs the pipeline's lock, probing does not. SPI is connected where it is opened, written and closed.
 */
#ifndef DWH_EVENT_FILTER_H
#define DWH_EVENT_FILTER_H

#include "utils/uuid.h"

typedef struct EventFilter EventFilter;

/*
 * Makes one that many loads of a call share, until dwh_event_filter_end writes it or the transaction ends: written for each of
 * them, its rows would have as many dead versions. Forgets an earlier one that was not ended, and what was put into it.
 */
extern void dwh_event_filter_begin(void);
extern void dwh_event_filter_end(void);

/*
 * The shared one, or else reads the part that takes new ids, at most 2 MB, palloc'd in a context of its own below the current
 * one.
 */
extern EventFilter *dwh_event_filter_open(void);

/* Says of each id whether it is perhaps known. Reads all of the table where it has more than one tier. */
extern void dwh_event_filter_probe(EventFilter *filter, const pg_uuid_t *const *ids, int count, bool *perhaps);

/* Takes an id; written by dwh_event_filter_close, or before, where the tier is full. */
extern void dwh_event_filter_add(EventFilter *filter, const pg_uuid_t *id);

/* Writes what has changed and frees the memory; leaves the shared one as it is. */
extern void dwh_event_filter_close(EventFilter *filter);

#endif
