/*
 * decimal.h: JSON number text -> the decimal that numeric would hold, exactly.
 *
 * Bytes floor: no server header, no floating point. The rules are those of PostgreSQL's numeric input
 * (src/backend/utils/adt/numeric.c: set_var_from_str, make_result): what it accepts, the scale it keeps, how it prints.
 */
#ifndef DWH_DECIMAL_H
#define DWH_DECIMAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

typedef struct Decimal
{
	const char *digits;			/* the text's digits with perhaps a dot, in the caller's memory */
	size_t		whole_digits;	/* before the dot */
	size_t		fraction_digits;	/* after it */
	int64_t		exponent;
	int64_t		first;			/* weight of the first non-zero digit: 0 = units, -1 = tenths; 0 for zero */
	int64_t		last;			/* weight of the last non-zero digit; 0 for zero */
	int64_t		scale;			/* digits after the point that numeric keeps (display scale) */
	bool		negative;		/* never for zero */
	bool		zero;
} Decimal;

typedef enum DecimalStatus
{
	DECIMAL_OK,
	DECIMAL_NOT_A_NUMBER,		/* not in JSON's number grammar */
	DECIMAL_OVERFLOW			/* a number, but outside numeric's range */
} DecimalStatus;

/* numeric input refuses exponents beyond this, whatever the digits: the server's limit, set once before any use. */
extern int64_t dwh_decimal_max_exponent;

/* Reads the whole text as one JSON number (RFC 8259 section 6); the Decimal points into the text. */
extern DecimalStatus dwh_decimal_read(const char *text, size_t length, Decimal *decimal);

/* Appends the decimal as numeric prints it; trimmed: without trailing zeros after the point, as trim_scale() gives. */
extern void dwh_decimal_print(const Decimal *decimal, bool trimmed, ByteBuffer *out);

/* Its value where it is an integer of at most max_digits (18 at most) digits; false otherwise. */
extern bool dwh_decimal_integer(const Decimal *decimal, int max_digits, int64_t *value);

/* Bytes of the longest number that is packed: base-10000 digits behind a header of two bytes. */
#define DECIMAL_PACKED_DIGITS 16
#define DECIMAL_PACKED_BYTES (2 + 2 * DECIMAL_PACKED_DIGITS)

/*
 * Writes the bytes of the numeric that a number's text gives, without a length header; returns how many, 0 where it is no
 * JSON number, or takes more than DECIMAL_PACKED_BYTES or numeric's long form. Layout: numeric.c, struct NumericShort. The
 * target need not be aligned.
 */
extern size_t dwh_decimal_pack(const char *text, size_t length, char *target);

#endif
