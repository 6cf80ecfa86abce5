/*
 * index_entries.h: rows that a table has got -> entries of its indexes, index by index, each in its own order.
 */
#ifndef DWH_INDEX_ENTRIES_H
#define DWH_INDEX_ENTRIES_H

#include "nodes/execnodes.h"

typedef struct IndexEntries IndexEntries;

/* For the open indexes of a table (ExecOpenIndices); palloc'd in a context of its own below the current one. */
extern IndexEntries *dwh_index_entries_open(ResultRelInfo *target, EState *estate);

/* Takes a row that is in the table, its slot with the row's place; may insert what is waiting. */
extern void dwh_index_entries_put(IndexEntries *entries, TupleTableSlot *slot);

/* Inserts what is waiting; raises 23505 for a key that a unique index has. */
extern void dwh_index_entries_flush(IndexEntries *entries);

/* Frees the memory; nothing may be waiting. */
extern void dwh_index_entries_close(IndexEntries *entries);

#endif
