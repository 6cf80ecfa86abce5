/*
 * claims.h: what events claim, sorted: their ids, and the users and products that they touch.
 *
 * Both hold up to 16 MB and keep the rest in temporary files, which belong to the resource owner that was current when they
 * began: one that outlives the subtransactions in which they are filled.
 */
#ifndef DWH_CLAIMS_H
#define DWH_CLAIMS_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

/* What an event is by what was staged before: nothing of its id, the same event, or another one with its id. */
typedef enum ClaimKind
{
	CLAIM_NEW,
	CLAIM_REPLAY,
	CLAIM_CONFLICT
} ClaimKind;

typedef struct Claim
{
	pg_uuid_t	event_id;
	int32		load;			/* place of its load in the order in which loads are staged */
	int64		line_no;
	TimestampTz event_time;
	ClaimKind	kind;
	uint64		payload;		/* hash, equal for payloads that are equal as jsonb */
	uint64		user;			/* hash of the user_id */
	uint64		product;		/* hash of the product_id; 0 = none */
} Claim;

typedef struct ClaimSort ClaimSort;

extern ClaimSort *dwh_claims_begin(void);
extern void dwh_claims_put(ClaimSort *sort, const Claim *claim);

/* After the last one was put; then again to begin anew. Those with one id follow one another, by load and line. */
extern void dwh_claims_rewind(ClaimSort *sort);

/* The next claim; false at the end. */
extern bool dwh_claims_next(ClaimSort *sort, Claim *claim);
extern void dwh_claims_end(ClaimSort *sort);

/* Which loads are the first to touch a user, or a product. */
typedef struct TouchSort TouchSort;

extern TouchSort *dwh_touches_begin(void);
extern void dwh_touches_put(TouchSort *sort, uint64 hash, int32 load);

/* The next load that is the first of all to touch something; -1 at the end, and the memory is freed. */
extern int32 dwh_touches_next(TouchSort *sort);

#endif
