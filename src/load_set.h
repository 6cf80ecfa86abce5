/*
 * load_set.h: a source -> its files, loaded one after another, each with its verdict.
 */
#ifndef DWH_LOAD_SET_H
#define DWH_LOAD_SET_H

#include "load.h"

typedef void (*TakeLoadResult) (void *argument, const LoadResult *result);

/* A call that makes loads needs a warehouse and the lock of loading, an examination the warehouse alone. */
extern void dwh_set_enter(const LoadOptions *options);

/*
 * The files that a source stands for (dwh_expand_source), and all that a call with these options needs before it opens one.
 * Says in the options whether they are loaded under one lock.
 */
extern List *dwh_set_list(const char *source, LoadOptions *options, bool *many);

/* Loads each of the files. Where there are many, an error that is one file's own is its verdict and keeps no other out. */
extern void dwh_set_load(List *files, bool many, const LoadOptions *options, TakeLoadResult take, void *argument);

#endif
