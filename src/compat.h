/*
 * compat.h: what differs between PostgreSQL 15 and 18. The only file that asks for the version.
 */
#ifndef DWH_COMPAT_H
#define DWH_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "dwh_ext needs PostgreSQL 15 or later"
#endif

/* 16 moved the varlena macros out of postgres.h */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 16 added onlySummarizing */
#if PG_VERSION_NUM >= 160000
#define dwh_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL, false)
#else
#define dwh_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL)
#endif

/* 18 asks whether the order is reversed, earlier versions for the btree's strategy */
#if PG_VERSION_NUM >= 180000
#define dwh_prepare_index_sort(index, is_reverse, sort) PrepareSortSupportFromIndexRel(index, is_reverse, sort)
#else
#define dwh_prepare_index_sort(index, is_reverse, sort) \
	PrepareSortSupportFromIndexRel(index, (is_reverse) ? BTGreaterStrategyNumber : BTLessStrategyNumber, sort)
#endif

/* 16 lets numeric input take one exponent more, which only a zero can have */
#if PG_VERSION_NUM >= 160000
#define DWH_MAX_EXPONENT (INT32_MAX / 2)
#else
#define DWH_MAX_EXPONENT (INT32_MAX / 2 - 1)
#endif

/* 16 renamed the object permission checks */
#if PG_VERSION_NUM >= 160000
#define dwh_schema_aclcheck(schema, role, mode) object_aclcheck(NamespaceRelationId, schema, role, mode)
#else
#define dwh_schema_aclcheck(schema, role, mode) pg_namespace_aclcheck(schema, role, mode)
#endif

/* 16 lets the callbacks of the JSON parser return an error */
#if PG_VERSION_NUM >= 160000
#define DwhJsonAction JsonParseErrorType
#define DWH_JSON_SUCCESS JSON_SUCCESS
#else
#define DwhJsonAction void
#define DWH_JSON_SUCCESS
#endif

/* 17 lets the caller give the lexer's memory */
#if PG_VERSION_NUM >= 170000
#define dwh_make_json_lexer(text, length) makeJsonLexContextCstringLen(NULL, text, length, PG_UTF8, true)
#else
#define dwh_make_json_lexer(text, length) makeJsonLexContextCstringLen((char *) (text), (int) (length), PG_UTF8, true)
#endif

#endif
